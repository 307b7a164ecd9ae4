"""ncnn: `caffe2ncnn`.

Its DetectionOutput decodes every box as CENTER_SIZE, and leaves boxes undefined whose background score is at least 1 -
confidence_threshold, which sigmoid scores may have beside a class: hence the low threshold of the deploy net.
"""

from __future__ import annotations

from ssdlite_caffe.gen_model.dialect import Dialect
from ssdlite_caffe.gen_model.netdesc import NetDesc
from ssdlite_caffe.targets.target import Checked, Target, TargetNet

_THRESHOLD = 0.001


def _inexact(net: NetDesc) -> tuple[str, ...]:
    """What is not exact about the deploy net, where it is written."""
    deploy = next((one for one in NCNN.nets_of(net) if one.stage == "deploy"), None)
    found = []
    if deploy and net.arch.score_converter == "sigmoid":
        found.append(
            f"{deploy.file}: ncnn leaves boxes undefined whose background score is at least {1 - _THRESHOLD:g}, "
            "which sigmoid scores may have beside a class"
        )
    if deploy and net.arch.nms.score_threshold < _THRESHOLD:
        found.append(
            f"{deploy.file}: detections with scores up to its threshold {_THRESHOLD:g} are missing; "
            f"the model's is {net.arch.nms.score_threshold:g}"
        )
    return tuple(found)


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
    inexact_for=_inexact,
    words=lambda _: {"threshold": _THRESHOLD},
)  # fmt: skip
