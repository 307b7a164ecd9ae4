"""BVLC Caffe, which has no detection layers: the name is known so that the reason is said."""

from __future__ import annotations

from ssdlite_caffe.gen_model.dialect import Dialect
from ssdlite_caffe.gen_model.netdesc import NetDesc
from ssdlite_caffe.targets.target import Checked, Target, TargetNet


def _reason(net: NetDesc) -> str:
    return (
        "BVLC Caffe has no Permute, PriorBox and DetectionOutput layers, so it runs no detector; "
        "take --target caffe-ssd and a fork with the SSD layers"
    )


BVLC = Target(
    name="bvlc",
    title="BVLC Caffe",
    nets=(TargetNet("headless.prototxt", "headless.caffemodel", "headless", Dialect(activation="clip")),),
    checked=Checked("read", "the layer registry and caffe.proto of its master"),
    limits="bvlc",
    refuses=_reason,
)
