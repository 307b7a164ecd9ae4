"""tpu-mlir: `model_transform`, and its result run; for fp16 and int8, `model_deploy` and the simulator of a BM1684X."""

import sys

import numpy as np
from runner import call

_TOOL = (  # the package sets paths for the programs that its tools start
    "import os, subprocess, sys, tpu_mlir; root = os.environ['TPUC_ROOT'];"
    "sys.exit(subprocess.call([sys.executable, f'{root}/python/tools/{sys.argv[1]}.py', *sys.argv[2:]]))"
)
_CHIP = "bm1684x"


def run(job):
    job.versions("tpu_mlir", "torch", "onnx", "numpy")
    with job.step("load"):
        transform(job)
        model = "net.mlir" if job.precision == "fp32" else deploy(job)
    with job.step("run"):
        for number, blob in enumerate(job.inputs):
            np.savez("input.npz", data=blob)
            tool("model_runner", "--input", "input.npz", "--model", model, "--output", "output.npz")
            with np.load("output.npz") as found:
                for name in found.files:
                    job.save(number, name[: -len("_f32")] if name.endswith("_f32") else name, found[name])


def transform(job):
    shape = "[[{}]]".format(",".join(map(str, job.inputs[0].shape)))
    mean, scale = (",".join([repr(value)] * 3) for value in (job.mean, job.scale))
    files = ["--model_name", "net", "--model_def", job.prototxt, "--model_data", job.caffemodel, "--mlir", "net.mlir"]
    pixels = ["--mean", mean, "--scale", scale, "--pixel_format", "bgr"]
    tool("model_transform", *files, "--input_shapes", shape, *pixels)


def deploy(job):
    options = ["--quantize", "F16"]
    if job.precision == "int8":
        import cv2

        images = job.calibration()
        (job.folder / "images").mkdir()
        for number, image in enumerate(images):
            cv2.imwrite(f"images/{number}.png", image)
        tool("run_calibration", "net.mlir", "--dataset", "images", "--input_num", len(images), "-o", "table")
        options = ["--quantize", "INT8", "--calibration_table", "table"]
    tool("model_deploy", "--mlir", "net.mlir", *options, "--chip", _CHIP, "--model", "net.bmodel")
    return "net.bmodel"


def tool(name, *arguments):
    call(sys.executable, "-c", _TOOL, name, *arguments)
