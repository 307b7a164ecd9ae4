"""RKNN: the toolkit's `load_caffe`, then its simulator, which computes as the NPU does.

Images go in as pixels, and the toolkit normalises them, as users do. PriorBox and DetectionOutput are dropped with a
printed line; two outputs are left, without their names.
"""

import numpy as np
from rknn.api import RKNN
from runner import without_pip


def run(job):
    job.versions("rknn-toolkit2", "torch", "onnx", "numpy")
    without_pip(job.folder)
    rknn = RKNN(verbose=False)
    with job.step("load"):
        good(rknn.config(mean_values=[[job.mean] * 3], std_values=[[1 / job.scale] * 3], target_platform="rk3588"))
        good(rknn.load_caffe(model=str(job.prototxt), blobs=str(job.caffemodel)))
        if job.precision == "int8":
            good(rknn.build(do_quantization=True, dataset=dataset(job)))
        else:
            good(rknn.build(do_quantization=False))
    with job.step("run"):
        good(rknn.init_runtime())
        for number in range(len(job.inputs)):
            outputs = rknn.inference(inputs=[job.pixels(number)[None].astype(np.float32)], data_format=["nhwc"])
            for place, array in enumerate(outputs):
                job.save(number, f"#{place}", array)


def dataset(job):
    """The list of calibration images, as .npy of (1, 3, height, width): the toolkit reads image files as RGB."""
    names = []
    for number, image in enumerate(job.calibration()):
        names.append(f"calibration{number}.npy")
        np.save(names[-1], image.transpose(2, 0, 1)[None])
    (job.folder / "dataset.txt").write_text("".join(name + "\n" for name in names))
    return "dataset.txt"


def good(status):
    if status:
        raise RuntimeError(f"the toolkit returned {status}")
