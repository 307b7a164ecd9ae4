"""MNN: `mnnconvert -f CAFFE`.

Its converter takes a Scale layer only with weights, computes a broadcasting Eltwise wrongly, ignores the factors of a
sum, and gives no output for boxes that are decoded before DetectionOutput.
"""

from __future__ import annotations

from ssdlite_caffe.gen_model.dialect import Dialect
from ssdlite_caffe.targets.target import Checked, Target, TargetNet

MNN = Target(
    name="mnn",
    title="MNN",
    nets=(
        TargetNet("headless.prototxt", "model.caffemodel", "headless", Dialect(gate="interp", priors="none")),
        TargetNet("deploy.prototxt", "model.caffemodel", "deploy", Dialect(gate="interp", clip="late")),
    ),
    checked=Checked("run", "MNN 3.6"),
    limits="mnn",
    files=("README.md", "convert.sh", "detect.py", "ssd.py"),
    priors=("npy", "raw"),
    calibration="rgb-png",
    calibrated_files=("quantize.json",),
    decoder=True,
)
