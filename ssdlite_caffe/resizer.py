"""How a detector makes its network input of an image of any size: the image_resizer of a pipeline.config."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

Kind = Literal["fixed_shape", "keep_aspect_ratio"]
Method = Literal["bilinear", "nearest", "bicubic", "area"]

_LARGEST = 8192


@dataclass(frozen=True)
class Resizer:
    """How images are resized; the default is the Object Detection API's: bilinear, to the input size, TensorFlow 1's.

    Attributes:
        kind: fixed_shape squashes images to the input size. keep_aspect_ratio keeps their shape and pads them at the
            bottom and on the right (a letterbox).
        method: TensorFlow's op.
        align_corners, half_pixel_centers: attributes of that op; not both.
        min_dimension, max_dimension: of keep_aspect_ratio, in pixels: the shorter side becomes `min_dimension`, unless
            the longer one would exceed `max_dimension`, which it then becomes. The input is a square of
            `max_dimension`. None for fixed_shape.
        pad_value: of keep_aspect_ratio: red, green, blue.
        normalise_first: whether pixels are normalised before they are resized and padded, so that `pad_value` is a
            network input (0 is grey). False: it is a pixel, 0..255 (0 is black). Without padding the order changes
            the last bits; with area up to 3e-5, since the shares that TensorFlow adds up make not quite 1.

    Raises:
        ValueError: a value is unknown or out of range.
    """

    kind: Kind = "fixed_shape"
    method: Method = "bilinear"
    align_corners: bool = False
    half_pixel_centers: bool = False
    min_dimension: int | None = None
    max_dimension: int | None = None
    pad_value: tuple[float, float, float] = (0.0, 0.0, 0.0)
    normalise_first: bool = False

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"the kind of resizer must be one of {', '.join(get_args(Kind))}, got {self.kind!r}")
        if self.method not in get_args(Method):
            raise ValueError(f"the resize method must be one of {', '.join(get_args(Method))}, got {self.method!r}")
        if self.align_corners and self.half_pixel_centers:
            raise ValueError("align_corners and half_pixel_centers must not both be true")
        if self.method == "area" and self.half_pixel_centers:
            raise ValueError("the resize method area has no half_pixel_centers")
        if self.kind == "fixed_shape":
            return
        least, most = self.min_dimension, self.max_dimension
        if least is None or most is None or not 1 <= least <= most <= _LARGEST:
            raise ValueError(
                f"min_dimension and max_dimension must be in 1..{_LARGEST}, the smaller first, got {least} and {most}"
            )
        if len(self.pad_value) != 3 or not all(math.isfinite(value) for value in self.pad_value):
            raise ValueError(f"pad_value must have three finite numbers, got {self.pad_value}")

    @property
    def plain(self) -> bool:
        """Whether it squashes images with TensorFlow 1's bilinear resize, as most detectors do."""
        return self == Resizer()

    @property
    def letterboxes(self) -> bool:
        """Whether images keep their shape and are padded."""
        return self.kind == "keep_aspect_ratio"

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Resizer:
        """Inverse of dataclasses.asdict, after JSON.

        Raises:
            TypeError: a key is unknown, or a value has the wrong type.
            ValueError: a value is out of range.
        """
        values = dict(data)
        for name in ("align_corners", "half_pixel_centers", "normalise_first"):
            if not isinstance(values.get(name, False), bool):
                raise TypeError(f"{name} must be true or false, got {values[name]!r}")
        for name in ("min_dimension", "max_dimension"):
            if values.get(name) is not None and type(values[name]) is not int:
                raise TypeError(f"{name} must be a whole number, got {values[name]!r}")
        if "pad_value" in values:
            red, green, blue = (float(value) for value in values["pad_value"])
            values["pad_value"] = (red, green, blue)
        return cls(**values)

    def text(self, *, order: bool = True) -> str:
        """In words, for a line of a summary: "keep_aspect_ratio 300..600, bicubic, padded below and on the right ...".

        Args:
            order: say whether `pad_value` is a network input or a pixel, which a pipeline.config does not say.
        """
        words: list[str] = [self.kind, self.method]
        if self.letterboxes:
            words[0] += f" {self.min_dimension}..{self.max_dimension}"
        if self.align_corners:
            words.append("align_corners")
        if self.half_pixel_centers:
            words.append("half_pixel_centers")
        if self.letterboxes:
            pad = ", ".join(f"{value:g}" for value in self.pad_value)
            when = "network inputs, after normalising" if self.normalise_first else "pixels, before normalising"
            words.append(f"padded below and on the right with {pad}" + (f" ({when})" if order else ""))
        return ", ".join(words)


def shape_kept(image: tuple[int, int], min_dimension: int, max_dimension: int) -> tuple[int, int]:
    """The size of an image after a keep_aspect_ratio resize; in float32, halves rounded to even.

    Args:
        image: (height, width).
        min_dimension: see Resizer.
        max_dimension: see Resizer.

    Returns:
        (height, width); 0 for the shorter side of a very narrow image.

    Source: object_detection/core/preprocessor.py, resize_to_range, with TensorFlow's resize_images.
    """
    import numpy as np  # --help does without

    height, width = image
    wanted = (min_dimension, max_dimension) if height < width else (max_dimension, min_dimension)
    scale = min(np.float32(side) / np.float32(length) for side, length in zip(wanted, image, strict=True))
    rows, columns = (int(np.rint(scale * np.float32(length))) for length in image)
    return rows, columns
