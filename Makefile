# Everything runs in a virtual environment made here; `make` alone lists the targets.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2
TARGETS ?=
MARKS ?= target
WITHOUT ?= target
space := $(subst ,, )
PYTEST = $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup
LAYER_TESTS = "$$($(BIN)/ssdlite-caffe caffe which)/bin/caffe_layer_tests" --gtest_brief=1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo example caffe caffe-cuda cuda-objects gpu-bundle gpu-check test test-all test-caffe test-oracle test-cuda test-fast target-envs test-targets check format protos kits pages exactness images clean emulator test-emulator

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST)

$(BIN)/python:
	@echo "==> making a virtual environment in $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Python 3.10 or newer is needed; name one: make PYTHON=python3.11 ..."; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "this Python has no venv; on Debian: apt-get install python3-venv"; exit 1; }

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	@echo "==> installing ssdlite-caffe with OpenCV"
	@$(BIN)/python -m pip install --quiet --editable '.[opencv]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo "==> installing ssdlite-caffe with TensorFlow, OpenCV and the test tools (some 700 MB)"
	@$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/.demo

demo: $(VENV)/.demo  ## convert the example model and draw its detections into demo/
	@echo "==> converting examples/frozen_inference_graph.pb into demo/model"
	@$(BIN)/ssdlite-caffe convert examples/frozen_inference_graph.pb --label-map examples/labelmap.pbtxt -o demo/model --force
	@echo "==> detecting in examples/shapes.png"
	@$(BIN)/ssdlite-caffe detect demo/model examples/shapes.png -o demo/images --force
	@echo "==> look at demo/images/shapes.png; to train the model yourself, too: make example"

example: $(VENV)/.dev  ## train the example model anew, from drawn scenes to Caffe (examples/README.md; some 16 minutes)
	@test ! -e scenes || { echo "scenes/ is there already; move it away, or run what is left of examples/README.md"; exit 1; }
	@sed -n 's/^    //p' examples/README.md | PATH="$(abspath $(BIN)):$$PATH" sh -ex
	@echo "==> look at scenes/images/shapes.png"

caffe: $(VENV)/.demo  ## build Caffe with our layers (some 6 minutes on 2 cores)
	@echo "==> building Caffe"
	@$(BIN)/ssdlite-caffe caffe build --jobs $(JOBS)

caffe-cuda: $(VENV)/.demo  ## compile, link and test the GPU build in build/caffe-cuda (needs no GPU; some 20 minutes)
	@echo "==> installing CUDA's compiler, cuBLAS, cuRAND and cuDNN (some 1 GB)"
	@$(BIN)/python -m pip install --quiet --editable '.[opencv,cuda]'
	@echo "==> building Caffe for GPUs"
	@$(BIN)/ssdlite-caffe caffe build --cuda --prefix build/caffe-cuda --jobs $(JOBS)
	@echo "==> running the layer tests, on the GPU where there is one"
	@build/caffe-cuda/bin/caffe_layer_tests --gtest_brief=1

cuda-objects: $(VENV)/.demo  ## compile our GPU code, without the fork's and without linking it (needs no GPU; some 5 minutes)
	@echo "==> installing CUDA's compiler, cuBLAS, cuRAND and cuDNN (some 1 GB)"
	@$(BIN)/python -m pip install --quiet --editable '.[opencv,cuda]'
	@echo "==> compiling our GPU code"
	@mkdir -p build/cuda-objects
	@set -e; found() { $(BIN)/python -c "from ssdlite_caffe.caffe.doctor import $$1; print($$1() or '')"; }; \
	  cmake -G Ninja -S src_cuda -B build/cuda-objects -DCUDA=ON -DPYCAFFE=OFF -DLAYER_TESTS=OFF -DCMAKE_CUDA_COMPILER="$$(found cuda_compiler)" \
	  -DCUDA_PACKAGES="$$(found cuda_packages)" -DCAFFE_SOURCE="$$($(BIN)/ssdlite-caffe caffe sources)" \
	  > build/cuda-objects.log || { cat build/cuda-objects.log; exit 1; }
	@ninja --quiet -C build/cuda-objects -j $(JOBS) own_cuda_objects

gpu-bundle: $(VENV)/.demo  ## pack a Caffe for GPUs and its check into build/gpu-bundle.tar.xz (needs no GPU; some 25 minutes)
	@echo "==> installing CUDA's compiler, cuBLAS, cuRAND and cuDNN (some 1 GB)"
	@$(BIN)/python -m pip install --quiet --editable '.[caffe,cuda]'
	@echo "==> building Caffe for other machines' GPUs"
	@$(BIN)/ssdlite-caffe caffe build --cuda --portable --no-pycaffe --prefix build/caffe-gpu --jobs $(JOBS)
	@$(BIN)/ssdlite-caffe convert examples/frozen_inference_graph.pb -o build/gpu-model --force --quiet
	@$(BIN)/ssdlite-caffe caffe bundle --prefix build/caffe-gpu --check --model build/gpu-model -o build/gpu-bundle.tar.xz --force

gpu-check:  ## check build/gpu-bundle.tar.xz on this machine's GPU (needs Python with numpy, CUDA's libraries; 8 minutes)
	@test -f build/gpu-bundle.tar.xz || { echo "build/gpu-bundle.tar.xz is not there: run make gpu-bundle, or copy it here"; exit 1; }
	@rm -rf build/gpu-check && mkdir -p build/gpu-check && tar -xf build/gpu-bundle.tar.xz -C build/gpu-check
	@cd build/gpu-check/ssdlite-caffe && $(PYTHON) -m check -o "$(abspath build)"

emulator: $(VENV)/.demo  ## build the layers' GPU code for an emulated GPU in build/emulator (some 4 minutes)
	@echo "==> building the layers for an emulated GPU"
	@mkdir -p build/emulator
	@cmake -G Ninja -S src_cuda -B build/emulator -DEMULATOR=ON -DNATIVE=OFF -DPYTHON="$(abspath $(BIN))/python" \
	  $$(command -v ccache > /dev/null && echo -DCMAKE_CXX_COMPILER_LAUNCHER=ccache) \
	  -DCAFFE_SOURCE="$$($(BIN)/ssdlite-caffe caffe sources)" > build/emulator.log || { cat build/emulator.log; exit 1; }
	@ninja --quiet -C build/emulator -j $(JOBS)

test: $(VENV)/.dev  ## check, then the tests (some 10 minutes on 2 cores)
	@$(MAKE) --no-print-directory check
	@echo "==> running the tests on $(JOBS) processes"
	@$(PYTEST) -m "not (story or caffe or oracle or browser or target)"

test-all: $(VENV)/.dev caffe  ## all tests: those of test, whole stories, Caffe, the OD API, a browser (some 45 minutes)
	@$(MAKE) --no-print-directory check
	@echo "==> running Caffe's layer tests"
	@$(LAYER_TESTS)
	@echo "==> running all tests on $(JOBS) processes"
	@$(PYTEST) -m "not ($(WITHOUT))"

test-caffe: $(VENV)/.dev caffe  ## build Caffe, run its layer tests, and compare what it computes
	@echo "==> running Caffe's layer tests"
	@$(LAYER_TESTS)
	@echo "==> running the tests that need Caffe"
	@$(PYTEST) -m "caffe and not oracle"

test-oracle: $(VENV)/.dev  ## compare with models that the Object Detection API builds on the spot (10 minutes)
	@echo "==> building models with the Object Detection API and comparing with them"
	@$(PYTEST) -m oracle

test-cuda: $(VENV)/.dev caffe-cuda  ## build Caffe for GPUs and run the tests of that build (needs no GPU)
	@echo "==> running the tests of the GPU build"
	@$(BIN)/python -m pytest tests/parity/test_caffe_gpu_build.py

test-emulator: $(VENV)/.dev emulator  ## run the layers' GPU code on an emulated GPU, and find mistakes put into it
	@echo "==> running the GPU code on the CPU"
	@$(PYTEST) tests/parity/test_cuda_emulator.py

target-envs: $(VENV)/.dev  ## install the programs that take Caffe files (some 8 GB; TARGETS="mnn openvino" names some)
	@echo "==> installing the programs that take Caffe files"
	@$(BIN)/python -m tests.targets.environments $(TARGETS)

test-targets: target-envs  ## run these programs on real models and compare them (some 40 minutes; TARGETS="mnn openvino")
	@echo "==> running the programs that take Caffe files"
	@$(PYTEST) tests/targets -m "$(MARKS)" $(if $(TARGETS),-k "$(subst $(space), or ,$(strip $(TARGETS)))")

test-fast: $(VENV)/.dev  ## the tests that take no more than a few seconds each
	@$(PYTEST) -m "not (slow or story or caffe or oracle or browser or target)"

check: $(VENV)/.dev  ## ruff, mypy, who may import whom, clang-format
	@echo "==> ruff, mypy, import contracts and clang-format"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@find src_cuda -regex '.*\.\(cpp\|hpp\|cu\|cuh\)' | xargs $(BIN)/clang-format --dry-run -Werror

format: $(VENV)/.dev  ## let ruff and clang-format rewrite the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@find src_cuda -regex '.*\.\(cpp\|hpp\|cu\|cuh\)' | xargs $(BIN)/clang-format -i

protos: $(VENV)/.dev  ## write the *_pb2 modules anew from their .proto files
	@$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. ssdlite_caffe/*/*.proto ssdlite_caffe/*/*/*.proto

kits: $(VENV)/.dev  ## write the kits in coco/ and voc/ anew
	@for name in coco voc; do $(BIN)/ssdlite-caffe kit $$name -o $$name --force; done

exactness: $(VENV)/.dev  ## measure every model at hand; tables of README.md and docs/exactness.md (some 40 minutes; ARGS=...)
	@echo "==> measuring how exact the models at hand are"
	@$(BIN)/python benchmarks/exactness.py $(ARGS)

pages: $(VENV)/.dev  ## write the tables of targets in docs/runtimes.md, docs/targets.md and README.md anew
	@$(BIN)/python -m ssdlite_caffe.targets.page docs/runtimes.md
	@$(BIN)/python -m tests.targets.results --page
	@$(BIN)/python -m tests.targets.int8 --page

images: $(VENV)/.dev caffe  ## make the image files in docs/images anew (needs Chromium; some 5 minutes once Caffe is built)
	@echo "==> making docs/images anew"
	@$(BIN)/python docs/images/make.py

clean:  ## remove the environment, caches and the demo
	rm -rf $(VENV) demo build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
