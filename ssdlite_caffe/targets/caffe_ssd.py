"""Caffe forks with the SSD layers. Most of them have ReLU6; for the others there is a net on stock layers."""

from __future__ import annotations

from ssdlite_caffe.gen_model.dialect import Dialect
from ssdlite_caffe.targets.target import Checked, Target, TargetNet

CAFFE_SSD = Target(
    name="caffe-ssd",
    title="Caffe SSD fork",
    nets=(
        TargetNet("deploy.prototxt", "deploy.caffemodel", "deploy", irregular="constant"),
        TargetNet(
            "deploy_stock.prototxt", "deploy.caffemodel", "deploy", Dialect(activation="stock"), irregular="constant"
        ),
    ),
    checked=Checked("run", "the fork that `ssdlite-caffe caffe build` builds"),
    limits="caffe-ssd",
    files=("README.md", "detect.py", "ssd.py"),
)
