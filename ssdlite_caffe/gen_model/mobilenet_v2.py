"""MobileNetV2. Source: V2_DEF in slim's nets/mobilenet/mobilenet_v2.py; paper arXiv:1801.04381, table 2.

Caffe names are those of the public MobileNetv2-SSDLite prototxts: Conv, conv/depthwise, conv_1/expand, ..., Conv_1.
"""

from __future__ import annotations

from ssdlite_caffe.gen_model.families import Body, ConvRow, Family, InvertedResidual
from ssdlite_caffe.gen_model.rounding import make_divisible


def _depth(channels: float, min_depth: int) -> int:
    return make_divisible(channels, 8, min_depth)


# fmt: off
_BODY = Body(                                                   # feature map at 300x300
    stem=ConvRow("Conv", "Conv", out=32, kernel=3, stride=2),   # 150
    blocks=(
        InvertedResidual(expansion=1, out=16, divisible_by=1),  # 150
        InvertedResidual(expansion=6, out=24, stride=2),        # 75
        InvertedResidual(expansion=6, out=24),
        InvertedResidual(expansion=6, out=32, stride=2),        # 38
        InvertedResidual(expansion=6, out=32),
        InvertedResidual(expansion=6, out=32),
        InvertedResidual(expansion=6, out=64, stride=2),        # 19
        InvertedResidual(expansion=6, out=64),
        InvertedResidual(expansion=6, out=64),
        InvertedResidual(expansion=6, out=64),
        InvertedResidual(expansion=6, out=96),
        InvertedResidual(expansion=6, out=96),
        InvertedResidual(expansion=6, out=96),
        InvertedResidual(expansion=6, out=160, stride=2),       # its expand, 19: first feature map; then 10
        InvertedResidual(expansion=6, out=160),
        InvertedResidual(expansion=6, out=160),
        InvertedResidual(expansion=6, out=320),
    ),
    last=ConvRow("Conv_1", "Conv_1", out=1280),                 # 10: second feature map
)
# fmt: on

V2 = Family(
    title="MobileNetv2",
    tf_scope="MobilenetV2",
    detector=_BODY,
    classifier=_BODY,
    depth=_depth,
    first_map=13,
    extra_tf="layer_19",
    extra_caffe="layer_19_{part}_{index}",
)
