"""The description of a resizer: what it allows, how it is written, and the sizes of a letterbox."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from ssdlite_caffe.errors import ArchError
from ssdlite_caffe.gen_model.arch import ArchSpec
from ssdlite_caffe.gen_model.build import default_arch
from ssdlite_caffe.resizer import Resizer, shape_kept

LETTERBOX = Resizer("keep_aspect_ratio", "area", False, False, 200, 320, (124.0, 117.0, 104.0), True)


@pytest.mark.parametrize("resizer", [Resizer(), Resizer(method="nearest", align_corners=True), LETTERBOX])
def test_survives_json(resizer: Resizer) -> None:
    assert Resizer.from_dict(json.loads(json.dumps(dataclasses.asdict(resizer)))) == resizer
    arch = dataclasses.replace(default_arch("v2", 3), input_size=(320, 320), resizer=resizer)
    assert ArchSpec.from_dict(json.loads(json.dumps(arch.to_dict()))) == arch


def test_plain_resizer_is_not_written_so_files_are_those_of_earlier_versions() -> None:
    arch = default_arch("v2", 3)
    assert "resizer" not in arch.to_dict()
    assert ArchSpec.from_dict(arch.to_dict()).resizer == Resizer()


BOX = {"kind": "keep_aspect_ratio", "min_dimension": 2, "max_dimension": 9}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"kind": "round"}, "kind of resizer must be one of fixed_shape, keep_aspect_ratio, got 'round'"),
        ({"method": "lanczos"}, "method must be one of bilinear, nearest, bicubic, area, got 'lanczos'"),
        ({"align_corners": True, "half_pixel_centers": True}, "not both"),
        ({"method": "area", "half_pixel_centers": True}, "no half_pixel_centers"),
        ({"kind": "keep_aspect_ratio"}, "got None and None"),
        ({**BOX, "min_dimension": 10}, "smaller first, got 10 and 9"),
        ({**BOX, "min_dimension": 0}, "got 0 and 9"),
        ({**BOX, "pad_value": [0, 0, float("nan")]}, "finite"),
        ({**BOX, "pad_value": [0, 0]}, "values to unpack"),
        ({"min_dimension": 2.5}, "whole number"),
        ({"align_corners": "yes"}, "true or false"),
        ({"colour": 1}, "colour"),
    ],
)
def test_refuses(values: dict[str, Any], said: str) -> None:
    with pytest.raises((ValueError, TypeError), match=said):
        Resizer.from_dict(values)
    arch = {**default_arch("v2", 3).to_dict(), "resizer": values}
    with pytest.raises(ArchError, match=said):
        ArchSpec.from_dict(arch)


def test_input_of_a_letterbox_is_its_square() -> None:
    with pytest.raises(ArchError, match="320x320, got 300x300"):
        dataclasses.replace(default_arch("v2", 3, input_size=(300, 300)), resizer=LETTERBOX)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ((200, 320), (200, 320)),
        ((100, 100), (200, 200)),
        ((1000, 1000), (200, 200)),
        ((640, 480), (267, 200)),
        ((480, 640), (200, 267)),
        ((2000, 500), (320, 80)),
        ((5, 800), (2, 320)),
        ((3, 960), (1, 320)),
        ((1, 960), (0, 320)),
        ((128, 200), (200, 312)),  # 312.5, rounded to even
    ],
)
def test_sizes_with_the_shape_kept(image: tuple[int, int], expected: tuple[int, int]) -> None:
    assert shape_kept(image, 200, 320) == expected


def test_in_words() -> None:
    assert Resizer(method="nearest", half_pixel_centers=True).text() == "fixed_shape, nearest, half_pixel_centers"
    said = "keep_aspect_ratio 200..320, area, padded below and on the right with 124, 117, 104"
    assert LETTERBOX.text(order=False) == said
    assert LETTERBOX.text() == f"{said} (network inputs, after normalising)"
    assert dataclasses.replace(LETTERBOX, normalise_first=False).text() == f"{said} (pixels, before normalising)"
