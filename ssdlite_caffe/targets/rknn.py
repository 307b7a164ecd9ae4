"""Rockchip's RKNN-Toolkit2: `rknn.load_caffe`. It drops PriorBox and DetectionOutput, so the nets end before them."""

from __future__ import annotations

from ssdlite_caffe.gen_model.dialect import Dialect
from ssdlite_caffe.targets.target import Checked, Target, TargetNet

_DIALECT = Dialect(priors="none", fields="all")  # a stride that is not written is 0 in its Deconvolution
_MAPS = Dialect(priors="none", fields="all", outputs="per-map")

RKNN = Target(
    name="rknn",
    title="RKNN-Toolkit2",
    nets=(
        TargetNet("headless.prototxt", "headless.caffemodel", "headless", _DIALECT),
        TargetNet("headless_maps.prototxt", "headless.caffemodel", "headless", _MAPS),
    ),
    checked=Checked("run", "rknn-toolkit2 2.5.0, its simulator"),
    limits="rknn",
    files=("README.md", "convert.py", "model_config.yml", "ssd.py"),
    priors=("npy", "raw", "numbers"),
    calibration="rgb-png",
    calibration_list="dataset.txt",
    decoder=True,
)
