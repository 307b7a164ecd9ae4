"""OpenVINO up to 2023, whose model optimizer `mo` is the last that reads Caffe files."""

from __future__ import annotations

from ssdlite_caffe.gen_model.dialect import Dialect
from ssdlite_caffe.targets.target import Checked, Target, TargetNet

OPENVINO = Target(
    name="openvino",
    title="OpenVINO up to 2023 (mo)",
    nets=(
        TargetNet("headless.prototxt", "model.caffemodel", "headless", Dialect(priors="none")),
        TargetNet("deploy.prototxt", "model.caffemodel", "deploy", Dialect(clip="late")),
    ),
    checked=Checked("run", "openvino-dev 2023.3"),
    limits="openvino",
    files=("README.md", "convert.sh", "detect.py", "ssd.py"),
    priors=("npy", "raw"),
    decoder=True,
)
