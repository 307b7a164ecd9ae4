"""Real models of the TensorFlow Object Detection API, made when a test asks for one: the reference for the converter.

The API's last version that exports TF1 graphs needs an old TensorFlow, so it gets a virtual environment of its own. The
scripts that fill its models with lively random weights lie in `shared/tools/odapi`, beside the repository or above it.
Environment and models are kept in `.cache/oracles`, or in the folder that SSDLITE_ORACLES names; some 2 GB.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ssdlite_caffe.gen_model.arch import Activation, CellBoxes, FamilyName, HeadKind, ScoreConverter
from ssdlite_caffe.gen_model.default_boxes import ssd_boxes
from ssdlite_caffe.imports import import_opencv
from ssdlite_caffe.resizer import Resizer
from ssdlite_caffe.tools.verify_report import drawn_images

ROOT = Path(__file__).resolve().parent.parent
RUNNER = Path(__file__).with_name("oracle_runner.py")
PYTHONS = ("3.11", "3.10", "3.9")
"""That TensorFlow 2.15 runs on, best first."""

# What the API asks for at import and these models never use; their own requirements would pull in a second TensorFlow.
WITHOUT_REQUIREMENTS = (
    "tensorflow-io==0.35.0",
    "tensorflow-io-gcs-filesystem==0.35.0",
    "tf-models-official==2.15.0",
    "tf-keras==2.15.1",
)
API = "tf-models-research-object-detection==2.8.0.post1"
API_HASH = "c701ea455646553a64c5f161641e8d5a94054b162b81961dcfff3dd619870004"


@dataclass(frozen=True)
class Oracle:
    """A model to make, and what the converter must recognise in it.

    Attributes:
        kind: the API's name of the feature extractor.
        classes: without background.
        anchors: text of the anchor generator's further fields, and `boxes` what they mean to ssd_boxes.
        merge: pipeline.config text merged over what the options make: what follows it below.
        other_epsilons: BatchNorm of extra layers or heads has another epsilon than the base.
        head_kernel: of the predictors; None: 3 of SSDLite's, 1 of others.
        extra_depthwise: see ArchSpec; None: as the predictors are.
    """

    name: str
    kind: str
    family: FamilyName
    classes: int
    size: tuple[int, int]
    width: float = 1.0
    head: HeadKind = "ssdlite"
    scores: ScoreConverter = "sigmoid"
    scales: tuple[float, float] = (0.2, 0.95)
    anchors: str = ""
    boxes: dict[str, Any] = field(default_factory=dict)
    merge: str = ""
    explicit_padding: bool = False
    extra_activation: Activation = "relu6"
    other_epsilons: bool = False
    head_kernel: int | None = None
    extra_depthwise: bool | None = None
    rare: bool = False
    """Left out in continuous integration: others have most of what it has."""

    @property
    def options(self) -> list[str]:
        """For make_model.py."""
        height, width = self.size
        least, most = self.scales
        options = [
            *("--classes", str(self.classes), "--height", str(height), "--width", str(width)),
            *("--depth-multiplier", str(self.width), "--min-scale", str(least), "--max-scale", str(most)),
            *("--score-converter", self.scores.upper(), "--anchors", self.anchors),
        ]
        return options if self.head == "ssdlite" else [*options, "--plain-ssd"]

    @property
    def cell_boxes(self) -> tuple[CellBoxes, ...]:
        """The default boxes asked for."""
        return ssd_boxes(self.size, min_scale=self.scales[0], max_scale=self.scales[1], **self.boxes)


ORACLES = (
    Oracle("v1_ssd_softmax", "ssd_mobilenet_v1", "v1", 4, (300, 300), head="ssd", scores="softmax"),
    Oracle("v1_lite_050", "ssd_mobilenet_v1", "v1", 90, (300, 300), 0.5, rare=True),
    Oracle(
        "v2_140_ssd_softmax", "ssd_mobilenet_v2", "v2", 20, (224, 224), 1.4, head="ssd", scores="softmax", rare=True
    ),
    Oracle(
        "v2_035_anchors", "ssd_mobilenet_v2", "v2", 90, (192, 256), 0.35, scales=(0.15, 0.9),
        anchors="reduce_boxes_in_lowest_layer: false interpolated_scale_aspect_ratio: 0.0 aspect_ratios: 1.5",
        boxes={"reduce_lowest": False, "interpolated_ratio": 0.0, "aspect_ratios": (1.0, 2.0, 0.5, 3.0, 0.3333, 1.5)},
        rare=True,
    ),
    Oracle(
        "v2_padding_eps_scales", "ssd_mobilenet_v2", "v2", 2, (256, 320), 0.5, explicit_padding=True,
        extra_activation="relu", other_epsilons=True,
        anchors="scales: 0.1 scales: 0.25 scales: 0.4 scales: 0.55 scales: 0.7 scales: 0.9 "
        "interpolated_scale_aspect_ratio: 2.0",
        boxes={"scales": (0.1, 0.25, 0.4, 0.55, 0.7, 0.9), "interpolated_ratio": 2.0},
        merge="""model { ssd {
          feature_extractor { use_explicit_padding: true
            conv_hyperparams { activation: RELU batch_norm { epsilon: 0.005 scale: false } } }
          box_predictor { convolutional_box_predictor {
            conv_hyperparams { activation: RELU batch_norm { epsilon: 0.01 scale: false } } } }
        } }""",
    ),
    Oracle(  # as the zoo's ssd_mobilenet_v2_coco_2018_03_29
        "v2_ssd_separable_extras", "ssd_mobilenet_v2", "v2", 6, (300, 300), 0.5, head="ssd", head_kernel=3,
        extra_depthwise=True, rare=True,
        merge="""model { ssd {
          feature_extractor { use_depthwise: true }
          box_predictor { convolutional_box_predictor { kernel_size: 3 } }
        } }""",
    ),
    Oracle("v3_small_c1_075", "ssd_mobilenet_v3_small", "v3-small", 1, (320, 320), 0.75, rare=True),
    Oracle("v3_large_c7_h320w256", "ssd_mobilenet_v3_large", "v3-large", 7, (320, 256)),
)  # fmt: skip


def _resizing(name: str, resizer: str) -> Oracle:
    merge = f"model {{ ssd {{ image_resizer {{ {resizer} }} }} }}"
    return Oracle(f"resize_{name}", "ssd_mobilenet_v2", "v2", 4, (224, 224), 0.35, merge=merge)


RESIZERS = (
    (
        _resizing("letterbox", "keep_aspect_ratio_resizer { min_dimension: 224 max_dimension: 224 "
                  "pad_to_max_dimension: true }"),
        Resizer("keep_aspect_ratio", min_dimension=224, max_dimension=224, normalise_first=True),
    ),
    (
        _resizing("letterbox_bicubic", "keep_aspect_ratio_resizer { min_dimension: 160 max_dimension: 224 "
                  "pad_to_max_dimension: true resize_method: BICUBIC per_channel_pad_value: 123 "
                  "per_channel_pad_value: 117 per_channel_pad_value: 104 }"),
        Resizer("keep_aspect_ratio", "bicubic", False, False, 160, 224, (123.0, 117.0, 104.0), True),
    ),
    (
        _resizing("nearest", "fixed_shape_resizer { height: 224 width: 224 resize_method: NEAREST_NEIGHBOR }"),
        Resizer(method="nearest", normalise_first=True),
    ),
    (
        _resizing("area", "fixed_shape_resizer { height: 224 width: 224 resize_method: AREA }"),
        Resizer(method="area", normalise_first=True),
    ),
)  # fmt: skip
"""Models whose images are resized in another way than most detectors', and what the converter must recognise."""
GREY = _resizing("grey", "fixed_shape_resizer { height: 224 width: 224 convert_to_grayscale: true }")


def tflite_export(oracle: Oracle) -> tuple[Path, Path]:
    """The graph and the file that the API's own exporter for TensorFlow Lite writes of a model; made if need be."""
    model, cache = oracle_folder(oracle), cache_folder()
    folder = cache / f"{oracle.name}.tflite"
    tools = shared_folder("tools/odapi")
    if tools is None or not (tools / "export_tflite.py").is_file():
        pytest.skip("no shared/tools/odapi/export_tflite.py beside the repository")
    with _lock(folder):
        if not (folder / "model.tflite").is_file():
            python, sources = _environment(cache / "environment", tools)
            path = os.pathsep.join(map(str, (tools, sources, sources / "slim")))
            command: list[str | Path] = [python, tools / "export_tflite.py", model / "pipeline.config"]
            command += [model / "model.ckpt", folder, *map(str, oracle.size)]
            _run(command, cache / f"{oracle.name}.tflite.log", PYTHONPATH=path)
    return folder / "tflite_graph.pb", folder / "model.tflite"


def api_losses(batch: Path, out: Path) -> None:
    """Write the losses that the API computes of a batch; see oracle_losses.py."""
    tools = shared_folder("tools/odapi")
    if tools is None:
        pytest.skip("no shared/tools/odapi beside the repository to compute the API's losses with")
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    python, sources = _environment(cache / "environment", tools)
    path = os.pathsep.join(map(str, (tools, sources, sources / "slim")))
    _run([python, Path(__file__).with_name("oracle_losses.py"), batch, out], cache / "losses.log", PYTHONPATH=path)


def shared_folder(name: str) -> Path | None:
    """A folder of `shared`, which lies beside the repository or above it; None where there is none."""
    return next((found for parent in ROOT.parents if (found := parent / "shared" / name).is_dir()), None)


def cache_folder() -> Path:
    """Where environment and models are kept."""
    return Path(os.environ.get("SSDLITE_ORACLES") or ROOT / ".cache" / "oracles")


def image_folder() -> Path:
    """The .jpg that BatchNorm statistics are gathered over: photographs, or drawn ones where there are none.

    Tests take them too: on images of another kind a random net amplifies rounding a hundred times more.
    """
    folder = cache_folder() / "images"
    photographs = shared_folder("data/bccd/JPEGImages")
    if photographs is not None:
        return photographs
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _lock(folder):
        if not folder.is_dir():
            folder.mkdir()
            for name, image in drawn_images((300, 300), 24):
                assert import_opencv().imwrite(str(folder / f"{name}.jpg"), image)
    return folder


def oracle_folder(oracle: Oracle) -> Path:
    """The folder of a model: frozen_inference_graph.pb, checkpoint, saved_model, pipeline.config; made if need be."""
    cache = cache_folder()
    folder = cache / oracle.name
    if (folder / "frozen_inference_graph.pb").is_file():
        return folder
    tools = shared_folder("tools/odapi")
    if tools is None:
        pytest.skip(f"no shared/tools/odapi beside the repository to make {oracle.name} with")
    cache.mkdir(parents=True, exist_ok=True)
    python, sources = _environment(cache / "environment", tools)
    with _lock(folder):
        if not (folder / "frozen_inference_graph.pb").is_file():
            partial = folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            path = os.pathsep.join(map(str, (tools, sources, sources / "slim")))
            command: list[str | Path] = [python, RUNNER, oracle.merge, oracle.kind, partial, *oracle.options]
            _run([*command, "--pictures", image_folder()], cache / f"{oracle.name}.log", PYTHONPATH=path)
            partial.rename(folder)
    return folder


def _environment(folder: Path, tools: Path) -> tuple[Path, Path]:
    """The Python that has what the API needs, and the API's sources; made once, in two to three minutes."""
    python, sources, ready = folder / "bin" / "python", folder / "sources", folder / "ready"
    with _lock(folder):
        if not ready.is_file():
            log = folder.with_suffix(".log")
            log.unlink(missing_ok=True)
            _run([_old_python(), "-m", "venv", "--clear", folder], log)
            pip: list[str | Path] = [python, "-m", "pip", "--disable-pip-version-check", "--no-input"]
            _run([*pip, "install", "-r", tools / "requirements.txt"], log)
            _run([*pip, "install", "--no-deps", *WITHOUT_REQUIREMENTS], log)
            pinned = folder / "api.txt"
            pinned.write_text(f"{API} --hash=sha256:{API_HASH}\n")
            # Even for a download pip runs its setup.py, which imports numpy: not in an isolated environment, then.
            how = ("--no-deps", "--no-binary", ":all:", "--no-build-isolation")
            _run([*pip, "download", *how, "--dest", sources, "-r", pinned], log)
            (archive,) = sources.glob("*.tar.gz")
            with tarfile.open(archive) as unpacked:
                unpacked.extractall(sources, filter="data")
            ready.touch()
    (setup,) = sources.glob("*/setup.py")
    return python, setup.parent


def _old_python() -> str:
    """A Python that the old TensorFlow installs on."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        pytest.skip("the OD API's TensorFlow 2.15 for the CPU comes for Linux on x86-64 only")
    for version in PYTHONS:
        found = [sys.executable, shutil.which(f"python{version}")]
        for candidate in filter(None, found):
            asked = subprocess.run([candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
                                   capture_output=True, text=True, check=False)  # fmt: skip
            if asked.stdout.strip() == version:
                return candidate
    pytest.skip(f"the OD API's TensorFlow 2.15 needs Python {', '.join(PYTHONS[:-1])} or {PYTHONS[-1]}; there is none")


def _run(command: Sequence[str | Path], log: Path, **variables: str) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "TF_", "PYTEST"))}
    with log.open("a") as output:
        done = subprocess.run([os.fspath(part) for part in command], env=kept | variables, stdout=output, stderr=output,
                              stdin=subprocess.DEVNULL, timeout=1800, check=False)  # fmt: skip
    if done.returncode:
        tail = "\n".join(log.read_text().splitlines()[-15:])
        raise RuntimeError(f"{' '.join(map(str, command))} failed; the end of {log}:\n{tail}")


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold the lock file beside a folder: the test processes make each thing once."""
    with path.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
