"""The image_resizer of a pipeline.config: what the detectors here can do as it says, and what they cannot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ssdlite_caffe.errors import ModelError
from ssdlite_caffe.resizer import Method, Resizer

if TYPE_CHECKING:
    from ssdlite_caffe.dump.pipeline import pipeline_subset_pb2 as pb

_METHODS: dict[int, Method] = {0: "bilinear", 1: "nearest", 2: "bicubic", 3: "area"}
_ALLOWED = "fixed_shape_resizer, and keep_aspect_ratio_resizer with pad_to_max_dimension: true"


@dataclass(frozen=True)
class ConfigResizer:
    """An image_resizer as read.

    Attributes:
        input_size: (height, width); None if it has none.
        resizer: None if it is refused.
        refused: a phrase that names what cannot be done; empty if it can.
    """

    input_size: tuple[int, int] | None = None
    resizer: Resizer | None = None
    refused: str = ""


def read_resizer(config: pb.ImageResizer) -> ConfigResizer:
    """Read an image_resizer.

    It does not say whether pixels are normalised before or after; before, as the Object Detection API's last versions
    do.
    """
    kind = config.WhichOneof("image_resizer_oneof")
    if kind == "fixed_shape_resizer":
        fixed = config.fixed_shape_resizer
        size = fixed.height, fixed.width
        if min(size) < 1:
            return ConfigResizer(refused=f"{kind} with height {fixed.height} and width {fixed.width}, must be positive")
        if fixed.convert_to_grayscale:
            return ConfigResizer(size, refused=_grey(kind))
        method = _METHODS[fixed.resize_method]
        return ConfigResizer(size, Resizer(method=method, normalise_first=method != "bilinear"))
    if kind == "keep_aspect_ratio_resizer":
        return _letterbox(config.keep_aspect_ratio_resizer, kind)
    sizes = {
        "identity_resizer": "",
        "conditional_shape_resizer": f" with size_threshold {config.conditional_shape_resizer.size_threshold}",
        "pad_to_multiple_resizer": f" with multiple {config.pad_to_multiple_resizer.multiple}",
    }
    if kind not in sizes:
        return ConfigResizer(refused="missing, or of a kind that is not known")
    return ConfigResizer(refused=f"{kind}{sizes[kind]}, which gives images of different sizes")


def _letterbox(config: pb.KeepAspectRatioResizer, kind: str) -> ConfigResizer:
    least, most = config.min_dimension, config.max_dimension
    pad = tuple(config.per_channel_pad_value) or (0.0, 0.0, 0.0)
    if not config.pad_to_max_dimension:
        sizes = f"min_dimension {least}, max_dimension {most}"
        return ConfigResizer(
            refused=f"{kind} without pad_to_max_dimension ({sizes}), which gives images of different sizes"
        )
    size = most, most
    if config.convert_to_grayscale:
        return ConfigResizer(size, refused=_grey(kind))
    if len(pad) != 3:
        return ConfigResizer(size, refused=f"{kind} with {len(pad)} values of per_channel_pad_value, must be 3 or none")
    try:
        resizer = Resizer(
            "keep_aspect_ratio",
            _METHODS[config.resize_method],
            min_dimension=least,
            max_dimension=most,
            pad_value=(pad[0], pad[1], pad[2]),
            normalise_first=True,
        )
    except ValueError as error:
        return ConfigResizer(size, refused=f"{kind}: {error}")
    return ConfigResizer(size, resizer)


def _grey(kind: str) -> str:
    return f"{kind} with convert_to_grayscale: true, which gives images of one channel; the nets here read three"


def refuse_resizer(refused: str, config: Path | str) -> None:
    """Refuse a pipeline.config with a resizer that cannot be carried.

    Args:
        refused: see ConfigResizer; empty: nothing is refused.
        config: the file, for the message.

    Raises:
        ModelError: it cannot.
    """
    if refused:
        raise ModelError(f"the image_resizer of {config} is {refused}; allowed are {_ALLOWED}")


def resizer_text(resizer: Resizer | None) -> str | None:
    """In words, without when pixels are normalised, which a pipeline.config does not say."""
    return None if resizer is None else resizer.text(order=False)
