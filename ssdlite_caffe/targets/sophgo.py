"""Sophgo's tpu-mlir. It has no Power layer, and lowers no constant outputs, so the nets have no PriorBox."""

from __future__ import annotations

from ssdlite_caffe.gen_model.dialect import Dialect
from ssdlite_caffe.targets.target import Checked, Target, TargetNet

SOPHGO = Target(
    name="sophgo",
    title="tpu-mlir (Sophgo)",
    nets=(
        TargetNet("headless.prototxt", "headless.caffemodel", "headless", Dialect(linear="scale", priors="none")),
        TargetNet(
            "headless_maps.prototxt", "headless.caffemodel", "headless",
            Dialect(linear="scale", priors="none", outputs="per-map"),
        ),
    ),
    checked=Checked("run", "tpu-mlir 1.30.2"),
    limits="sophgo",
    files=("README.md", "convert.sh", "detect.py", "ssd.py"),
    priors=("npy", "raw"),
    calibration="rgb-png",
    decoder=True,
)  # fmt: skip
