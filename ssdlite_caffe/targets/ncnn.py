"""ncnn: `caffe2ncnn`.

Its DetectionOutput decodes every box as CENTER_SIZE, and leaves boxes undefined whose background score is at least 1 -
confidence_threshold, which sigmoid scores may have beside a class: hence the low threshold of the deploy net.
"""

from __future__ import annotations

from ssdlite_caffe.gen_model.dialect import Dialect
from ssdlite_caffe.targets.target import Checked, Target, TargetNet

_THRESHOLD = 0.001

NCNN = Target(
    name="ncnn",
    title="ncnn (caffe2ncnn)",
    nets=(
        TargetNet("headless.prototxt", "model.caffemodel", "headless", Dialect(priors="none")),
        TargetNet(
            "deploy.prototxt", "model.caffemodel", "deploy", Dialect(clip="late"), score_threshold=_THRESHOLD
        ),
    ),
    checked=Checked("run", "caffe2ncnn of 2026-07, ncnn 1.0.20261020"),
    limits="ncnn",
    files=("README.md", "convert.sh", "detect.py", "ssd.py"),
    priors=("npy", "raw"),
    calibration="rgb-png",
    decoder=True,
    words=lambda _: {"threshold": _THRESHOLD},
)  # fmt: skip
