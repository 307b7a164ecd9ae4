"""PaddlePaddle, by X2Paddle, which has no PriorBox and no Scale layer with two bottoms."""

from __future__ import annotations

from ssdlite_caffe.gen_model.dialect import Dialect
from ssdlite_caffe.targets.target import Checked, Target, TargetNet

PADDLE = Target(
    name="paddle",
    title="PaddlePaddle (X2Paddle)",
    nets=(
        TargetNet("headless.prototxt", "headless.caffemodel", "headless", Dialect(gate="eltwise", priors="none")),
    ),
    checked=Checked("run", "X2Paddle 1.6, Paddle 2.6.2"),
    limits="paddle",
    files=("README.md", "convert.sh", "detect.py", "ssd.py"),
    priors=("npy", "raw"),
    decoder=True,
)  # fmt: skip
