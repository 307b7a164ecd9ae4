"""MobileNetV1. Source: MOBILENETV1_CONV_DEFS in slim's nets/mobilenet_v1.py; paper arXiv:1704.04861, table 1.

Caffe names are those of the public MobileNet-SSD prototxts: conv0, conv1/dw, conv1, ..., conv14_1.
"""

from __future__ import annotations

from ssdlite_caffe.gen_model.families import Body, ConvRow, Family, Separable
from ssdlite_caffe.gen_model.rounding import truncate

# fmt: off
_BODY = Body(                                                       # feature map at 300x300
    stem=ConvRow("conv0", "Conv2d_0", out=32, kernel=3, stride=2),  # 150
    blocks=(
        Separable(out=64),                                          # 150
        Separable(out=128, stride=2),                               # 75
        Separable(out=128),
        Separable(out=256, stride=2),                               # 38
        Separable(out=256),
        Separable(out=512, stride=2),                               # 19
        Separable(out=512),
        Separable(out=512),
        Separable(out=512),
        Separable(out=512),
        Separable(out=512),                                         # 19: first feature map, conv11
        Separable(out=1024, stride=2),                              # 10
        Separable(out=1024),                                        # 10: second, conv13
    ),
)
# fmt: on

V1 = Family(
    title="MobileNet",
    tf_scope="MobilenetV1",
    detector=_BODY,
    classifier=_BODY,
    depth=truncate,
    first_map=10,
    extra_tf="Conv2d_13_pointwise",
    extra_caffe="conv{number}_{part}",
    dropout=0.001,
)
