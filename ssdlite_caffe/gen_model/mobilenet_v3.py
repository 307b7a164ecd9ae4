"""MobileNetV3. Source: V3_LARGE, V3_SMALL, their _MINIMALISTIC and _DETECTION forms in slim's mobilenet_v3.py.

Paper arXiv:1905.02244, tables 1 and 2, and section 6.3 for the detectors, whose last blocks have half the channels.
Slim has no minimalistic detectors; ours halve the channels of the same rows.
"""

from __future__ import annotations

from collections.abc import Callable

from ssdlite_caffe.gen_model.arch import Activation
from ssdlite_caffe.gen_model.families import Body, ConvRow, Family, InvertedResidual
from ssdlite_caffe.gen_model.rounding import make_divisible


def _depth(channels: float, min_depth: int) -> int:
    return make_divisible(channels, 8, min_depth)


def _large(*, minimalistic: bool, divider: int) -> Body:
    """Rows of the large net; `divider` 2 makes those of the detector (its last blocks, C4 in the paper)."""
    five = 3 if minimalistic else 5
    swish: Activation = "relu" if minimalistic else "hard_swish"
    se = not minimalistic
    row = InvertedResidual
    # fmt: off
    return Body(                                                                          # feature map at 320x320
        stem=ConvRow("Conv", "Conv", out=16, kernel=3, stride=2, activation=swish),       # 160
        blocks=(
            row(1, 16, kernel=3, stride=1, activation="relu"),                            # 160
            row(4, 24, kernel=3, stride=2, activation="relu"),                            # 80
            row(3, 24, kernel=3, stride=1, activation="relu"),
            row(3, 40, kernel=five, stride=2, activation="relu", squeeze_excite=se),      # 40
            row(3, 40, kernel=five, stride=1, activation="relu", squeeze_excite=se),
            row(3, 40, kernel=five, stride=1, activation="relu", squeeze_excite=se),
            row(6, 80, kernel=3, stride=2, activation=swish),                             # 20
            row(2.5, 80, kernel=3, stride=1, activation=swish),
            row(184 / 80, 80, kernel=3, stride=1, activation=swish),
            row(184 / 80, 80, kernel=3, stride=1, activation=swish),
            row(6, 112, kernel=3, stride=1, activation=swish, squeeze_excite=se),
            row(6, 112, kernel=3, stride=1, activation=swish, squeeze_excite=se),
            row(6, 160 // divider, kernel=five, stride=2, activation=swish, squeeze_excite=se),  # expand 20: first map
            row(6, 160 // divider, kernel=five, stride=1, activation=swish, squeeze_excite=se),  # 10
            row(6, 160 // divider, kernel=five, stride=1, activation=swish, squeeze_excite=se),
        ),
        last=ConvRow("Conv_1", "Conv_1", out=960 // divider, activation=swish),           # 10: second map
    )
    # fmt: on


def _small(*, minimalistic: bool, divider: int) -> Body:
    """Rows of the small net; `divider` 2 makes those of the detector (its last blocks, C4 in the paper)."""
    five = 3 if minimalistic else 5
    swish: Activation = "relu" if minimalistic else "hard_swish"
    se = not minimalistic
    row = InvertedResidual
    # fmt: off
    return Body(                                                                          # feature map at 320x320
        stem=ConvRow("Conv", "Conv", out=16, kernel=3, stride=2, activation=swish),       # 160
        blocks=(
            row(1, 16, kernel=3, stride=2, activation="relu", squeeze_excite=se),         # 80
            row(72 / 16, 24, kernel=3, stride=2, activation="relu"),                      # 40
            row(88 / 24, 24, kernel=3, stride=1, activation="relu"),
            row(4, 40, kernel=five, stride=2, activation=swish, squeeze_excite=se),       # 20
            row(6, 40, kernel=five, stride=1, activation=swish, squeeze_excite=se),
            row(6, 40, kernel=five, stride=1, activation=swish, squeeze_excite=se),
            row(3, 48, kernel=five, stride=1, activation=swish, squeeze_excite=se),
            row(3, 48, kernel=five, stride=1, activation=swish, squeeze_excite=se),
            row(6, 96 // divider, kernel=five, stride=2, activation=swish, squeeze_excite=se),  # expand 20: first map
            row(6, 96 // divider, kernel=five, stride=1, activation=swish, squeeze_excite=se),  # 10
            row(6, 96 // divider, kernel=five, stride=1, activation=swish, squeeze_excite=se),
        ),
        last=ConvRow("Conv_1", "Conv_1", out=576 // divider, activation=swish),           # 10: second map
    )
    # fmt: on


def _large_family(title: str, *, minimalistic: bool) -> Family:
    return _family(title, _large, minimalistic=minimalistic, pooled=1280, first_map=12, extras="layer_17")


def _small_family(title: str, *, minimalistic: bool) -> Family:
    return _family(title, _small, minimalistic=minimalistic, pooled=1024, first_map=8, extras="layer_13")


def _family(
    title: str, body: Callable[..., Body], *, minimalistic: bool, pooled: int, first_map: int, extras: str
) -> Family:
    activation: Activation = "relu" if minimalistic else "hard_swish"
    return Family(
        title=title,
        tf_scope="MobilenetV3",
        detector=body(minimalistic=minimalistic, divider=2),
        classifier=body(minimalistic=minimalistic, divider=1),
        depth=_depth,
        first_map=first_map,
        extra_tf=extras,
        extra_caffe=extras + "_{part}_{index}",
        pooled=ConvRow("Conv_2", "Conv_2", out=pooled, activation=activation, batch_norm=False),
        input_size=320,
    )


LARGE = _large_family("MobileNetv3-Large", minimalistic=False)
SMALL = _small_family("MobileNetv3-Small", minimalistic=False)
LARGE_MINIMALISTIC = _large_family("MobileNetv3-Large-Minimalistic", minimalistic=True)
SMALL_MINIMALISTIC = _small_family("MobileNetv3-Small-Minimalistic", minimalistic=True)
