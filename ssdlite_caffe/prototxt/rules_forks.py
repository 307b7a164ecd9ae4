"""Shapes of layers that forks of Caffe have and OpenCV too: ShuffleNet's, SENet's, DeepLab's, YOLO's, R-CNN's."""

from __future__ import annotations

from collections.abc import Sequence

from ssdlite_caffe.prototxt.rule import MANY, Layer, Outcome, Rule, need_axes, need_equal, same, unknown
from ssdlite_caffe.prototxt.sizes import Shape, ShapeError, show


def shuffle_channel(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    """Channels of (N, C, H, W) in another order; `group` divides C."""
    need_axes(bottoms[0], 4, 4)
    group = layer.shuffle_channel_param.group
    if group < 1 or bottoms[0][1] % group:
        raise ShapeError(f"group must divide the {bottoms[0][1]} channels of the bottom, got {group}")
    return same(layer, bottoms)


def _interp(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    """Bilinear resizing of (N, C, H, W); the size may be that of a second bottom.

    Source: InterpLayer of DeepLab's and PSPNet's forks.
    """
    param = layer.interp_param
    need_axes(bottoms[0], 4, 4)
    if param.pad_beg > 0 or param.pad_end > 0:
        raise ShapeError(f"pad_beg and pad_end crop: at most 0, got {param.pad_beg} and {param.pad_end}")
    if len(bottoms) == 2:
        need_axes(bottoms[1], 4, 4)
        return Outcome(((*bottoms[0][:2], *bottoms[1][2:]),))
    shrink, zoom = param.HasField("shrink_factor"), param.HasField("zoom_factor")
    sizes: list[int] = []
    if param.height > 0 and param.width > 0 and shrink == zoom:
        sizes = [param.height, param.width]
    elif shrink or zoom:
        if param.shrink_factor < 1 or param.zoom_factor < 1:
            raise ShapeError(
                f"shrink_factor and zoom_factor must be at least 1, got {param.shrink_factor} and {param.zoom_factor}"
            )
        for size in bottoms[0][2:]:
            small = (size + param.pad_beg + param.pad_end - 1) // param.shrink_factor + 1
            sizes.append(small + (small - 1) * (param.zoom_factor - 1))
    else:
        raise ShapeError("interp_param has no size: height and width, zoom_factor or shrink_factor")
    return Outcome(((*bottoms[0][:2], *sizes),))


def _reorg(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    """Blocks of stride x stride pixels become channels, or channels become blocks with `reverse`."""
    param = layer.reorg_param
    need_axes(bottoms[0], 4, 4)
    stride = next((getattr(param, name) for name in ("stride", "reorg_stride") if param.HasField(name)), 2)
    if stride < 1:
        raise ShapeError(f"stride must be at least 1, got {stride}")
    batch, channels, height, width = bottoms[0]
    if param.reverse:
        if channels % stride**2:
            raise ShapeError(f"{channels} channels are no multiple of stride x stride, {stride**2}")
        return Outcome(((batch, channels // stride**2, height * stride, width * stride),))
    if height % stride or width % stride:
        raise ShapeError(f"stride must divide the {height} x {width} pixels of the bottom, got {stride}")
    return Outcome(((batch, channels * stride**2, height // stride, width // stride),))


def _axpy(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    """Factor x blob + blob: a factor for each channel, then two blobs of one shape."""
    factor, *rest = bottoms
    need_equal(rest)
    need_axes(rest[0], 2, 4)
    if factor[:2] != rest[0][:2] or any(size != 1 for size in factor[2:]):
        raise ShapeError(f"the first bottom must be a number for each channel of {show(rest[0])}, got {show(factor)}")
    return Outcome((rest[0],))


def _upsample(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    """`scale` times the height and width, or the last axis with dims_num 3; with other fields of forks not computed."""
    param = layer.upsample_param
    if param.scale < 1:
        raise ShapeError(f"scale must be at least 1, got {param.scale}")
    if param.dims_num not in (3, 4):
        raise ShapeError(f"dims_num must be 3 or 4, got {param.dims_num}")
    if len(bottoms) != 1 or len(bottoms[0]) != 4 or not param.HasField("scale"):
        return unknown(layer, bottoms)
    batch, channels, height, width = bottoms[0]
    return Outcome(((batch, channels, height * (param.scale if param.dims_num == 4 else 1), width * param.scale),))


def _roi_pooling(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    """A window of pooled_h x pooled_w for each region of the second bottom, which has rows of 5."""
    param = layer.roi_pooling_param
    need_axes(bottoms[0], 4, 4)
    if param.pooled_h < 1 or param.pooled_w < 1:
        raise ShapeError(f"pooled_h and pooled_w must be at least 1, got {param.pooled_h} and {param.pooled_w}")
    return Outcome(((bottoms[1][0], bottoms[0][1], param.pooled_h, param.pooled_w),))


def _psroi_pooling(layer: Layer, bottoms: Sequence[Shape]) -> Outcome:
    param = layer.psroi_pooling_param
    need_axes(bottoms[0], 4, 4)
    wanted = param.output_dim * param.group_size**2
    if param.output_dim < 1 or param.group_size < 1 or bottoms[0][1] != wanted:
        raise ShapeError(
            f"output_dim {param.output_dim} and group_size {param.group_size} need {wanted} channels, got "
            f"{show(bottoms[0])}"
        )
    return Outcome(((bottoms[1][0], param.output_dim, param.group_size, param.group_size),))


FORK_RULES: dict[str, Rule] = {
    "ShuffleChannel": Rule(shuffle_channel),
    "Interp": Rule(_interp, (1, 2)),
    "Reorg": Rule(_reorg),
    "Axpy": Rule(_axpy, (3, 3)),
    "Mish": Rule(same, in_place=True),
    "Upsample": Rule(_upsample, (1, MANY)),
    "ROIPooling": Rule(_roi_pooling, (2, 2)),
    "PSROIPooling": Rule(_psroi_pooling, (2, 2)),
}

WITHOUT_RULE = (
    "Python", "HDF5Output", "Im2col", "BatchReindex", "SPP", "Filter", "LSTM", "LSTMUnit", "RNN",
    "BilinearInterpolate", "Inception", "MaxUnPool", "PixelShuffle", "Proposal", "Resize", "Unsqueeze", "BN",
    "BatchNormKyle",
)  # fmt: skip
"""Layer types of Caffe and its forks whose shapes are not computed here."""

UNSHAPED_RULES: dict[str, Rule] = {name: Rule(unknown, (0, MANY), (0, MANY), in_place=True) for name in WITHOUT_RULE}
