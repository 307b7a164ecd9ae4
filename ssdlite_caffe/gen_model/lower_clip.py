"""Decoding and clipping boxes with stock layers, for models that clip boxes to the image before suppression.

DetectionOutput decodes boxes itself and does not clip them before its NMS; but clipping changes which boxes overlap. So
boxes are decoded and clipped in front of it, and given to it with code_type CORNER: as the difference from the default
boxes' corners, divided by the variances. (variance_encoded_in_target would make the division unnecessary, but with it
OpenCV needs default boxes without variances, while Caffe still reads the variances.)

For a default box with corners (min, max), size s = max - min and centre c = (min + max) / 2, and a box encoding
(txy, twh) times its variances: box = c + txy * s -+ exp(twh) * s / 2, clipped to 0..1 as 1 - relu(1 - relu(box)).
With a limit L of box encodings, twh is min(twh, L), written as twh - relu(twh - L), which keeps smaller ones bit for
bit.

Source: DecodeBBox in bbox_util.cpp of the SSD branch, for both code types.
"""

from __future__ import annotations

from ssdlite_caffe.gen_model.layers import Concat, Eltwise, Exp, Flatten, LayerDesc, Power, ReLU, Reshape, Slice

CLIPPED = "mbox_loc_clipped"
"""The blob that DetectionOutput reads in place of mbox_loc."""


def clipped_boxes(limit: float | None = None) -> list[LayerDesc]:
    """Layers from mbox_loc and mbox_priorbox to CLIPPED, for a batch of one image.

    Args:
        limit: the most that width and height times their variances may be; it must be the same for all default boxes,
            which it is where they are the model's own.
    """
    growing = "box_wh" if limit is None else "box_wh_limited"
    return [
        Slice(name="prior_parts", bottoms=("mbox_priorbox",), tops=("prior_row", "variance_row"), axis=1, points=(1,)),
        _boxes("prior_corners", "prior_row"),
        _boxes("prior_variances", "variance_row"),
        Slice(name="prior_ends", bottoms=("prior_corners",), tops=("prior_min", "prior_max"), axis=2, points=(2,)),
        _sum("prior_size", "prior_max", "prior_min", (1.0, -1.0)),
        _sum("prior_centre", "prior_min", "prior_max", (0.5, 0.5)),
        _boxes("box_codes", "mbox_loc"),
        _product("box_scaled_codes", "box_codes", "prior_variances"),
        Slice(name="box_code_parts", bottoms=("box_scaled_codes",), tops=("box_xy", "box_wh"), axis=2, points=(2,)),
        _product("box_shift", "box_xy", "prior_size"),
        _sum("box_centre", "prior_centre", "box_shift", ()),
        *([] if limit is None else _limited("box_wh", growing, limit)),
        Exp(name="box_growth", bottoms=(growing,), tops=("box_growth",)),
        _product("box_size", "box_growth", "prior_size"),
        _sum("box_min", "box_centre", "box_size", (1.0, -0.5)),
        _sum("box_max", "box_centre", "box_size", (1.0, 0.5)),
        Concat(name="boxes", bottoms=("box_min", "box_max"), tops=("boxes",), axis=2),
        ReLU(name="boxes/above_0", bottoms=("boxes",), tops=("boxes",)),
        Power(name="boxes/rest", bottoms=("boxes",), tops=("boxes/rest",), scale=-1.0, shift=1.0),
        ReLU(name="boxes/below_1", bottoms=("boxes/rest",), tops=("boxes/rest",)),
        Power(name="boxes/clipped", bottoms=("boxes/rest",), tops=("boxes/clipped",), scale=-1.0, shift=1.0),
        _sum("boxes/difference", "boxes/clipped", "prior_corners", (1.0, -1.0)),
        Power(name="prior_precisions", bottoms=("prior_variances",), tops=("prior_precisions",), power=-1.0),
        _product("boxes/codes", "boxes/difference", "prior_precisions"),
        Flatten(name=CLIPPED, bottoms=("boxes/codes",), tops=(CLIPPED,)),
    ]


def _limited(blob: str, top: str, limit: float) -> list[LayerDesc]:
    """min(blob, limit) for each value."""
    beyond = f"{blob}/beyond"
    return [
        Power(name=f"{blob}/excess", bottoms=(blob,), tops=(beyond,), shift=-limit),
        ReLU(name=beyond, bottoms=(beyond,), tops=(beyond,)),
        _sum(top, blob, beyond, (1.0, -1.0)),
    ]


def _boxes(name: str, bottom: str) -> Reshape:
    """A row of numbers reshaped to 1 x boxes x 4."""
    return Reshape(name=name, bottoms=(bottom,), tops=(name,), dims=(1, -1, 4))


def _sum(name: str, first: str, second: str, coefficients: tuple[float, ...]) -> Eltwise:
    return Eltwise(name=name, bottoms=(first, second), tops=(name,), operation="SUM", coefficients=coefficients)


def _product(name: str, first: str, second: str) -> Eltwise:
    return Eltwise(name=name, bottoms=(first, second), tops=(name,), operation="PROD")
