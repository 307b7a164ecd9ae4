"""FPNLite nets: maps, towers, default boxes, and what is shared in training."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssdlite_caffe.errors import ArchError
from ssdlite_caffe.gen_model.arch import ArchSpec, Pyramid
from ssdlite_caffe.gen_model.build import build, default_arch
from ssdlite_caffe.gen_model.default_boxes import pyramid_boxes, tf_default_boxes
from ssdlite_caffe.gen_model.prior_boxes import caffe_prior_boxes, cell_sizes, prior_box_for, prior_grid
from ssdlite_caffe.load.boxes import box_predictor_rows, match_cell
from ssdlite_caffe.runtimes.decode import decode_boxes


def fpnlite(size: tuple[int, int] = (320, 320), classes: int = 91, **numbers: object) -> ArchSpec:
    pyramid = dataclasses.replace(Pyramid(), **numbers)  # type: ignore[arg-type]
    boxes = pyramid_boxes(size, pyramid.min_level, pyramid.max_level)
    arch = default_arch("v2", classes, input_size=size, head="fpnlite", boxes=boxes)
    return dataclasses.replace(arch, pyramid=pyramid)


@pytest.mark.parametrize(
    ("size", "maps", "boxes"),
    [
        ((320, 320), [(40, 40), (20, 20), (10, 10), (5, 5), (3, 3)], 12804),
        ((640, 640), [(80, 80), (40, 40), (20, 20), (10, 10), (5, 5)], 51150),
        ((256, 352), [(32, 44), (16, 22), (8, 11), (4, 6), (2, 3)], 11268),
    ],
)
def test_maps_and_boxes_of_the_zoo(size: tuple[int, int], maps: list[tuple[int, int]], boxes: int) -> None:
    net = build(fpnlite(size))
    assert [m.size for m in net.feature_maps] == maps
    assert net.num_default_boxes == boxes
    assert net.name == "MobileNetv2-FPNLite"
    assert {conv.num_output for conv in net.convolutions if conv.role == "tower"} == {128}


def test_an_architecture_is_read_back() -> None:
    arch = fpnlite((256, 352), min_level=4, max_level=6, tower_layers=1, shared_tower=False)
    assert ArchSpec.from_dict(arch.to_dict()) == arch
    assert "pyramid" not in default_arch("v2", 4).to_dict()


@pytest.mark.parametrize("size", [(300, 300), (320, 336), (48, 64)])
def test_an_input_that_does_not_halve_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ArchError, match=r"does not fit a feature pyramid: .* use multiples of 32"):
        build(fpnlite(size))


@pytest.mark.parametrize(
    "numbers", [{"min_level": 1}, {"min_level": 6}, {"max_level": 2}, {"tower_layers": -1}, {"channels": 0}]
)
def test_numbers_out_of_range(numbers: dict[str, int]) -> None:
    with pytest.raises(ArchError, match=r"feature pyramid"):
        Pyramid(**numbers)


def test_only_version_2_has_a_pyramid() -> None:
    with pytest.raises(ArchError, match="for the family v2, got v1"):
        default_arch("v1", 4, head="fpnlite")
    with pytest.raises(ArchError, match="no other net has one"):
        dataclasses.replace(default_arch("v2", 4), pyramid=Pyramid())


def test_a_map_that_its_stride_does_not_divide_begins_at_the_edge() -> None:
    """At 320 pixels, level 7 has its boxes at 0, 128 and 256. Source: multiscale_grid_anchor_generator.py."""
    net = build(fpnlite())
    last = tf_default_boxes(net)[-9 * 6 :].reshape(3, 3, 6, 4)
    centres = (last[..., :2] + last[..., 2:]) / 2 * 320
    assert np.allclose(centres[:, 0, :, 0].T, [0, 128, 256])
    assert (net.feature_maps[-1].prior.step, net.feature_maps[-1].prior.offset) == ((128.0, 128.0), 0.0)
    assert [m.prior.step for m in net.feature_maps[:-1]] == [None] * 4


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**31 - 1))
def test_what_is_folded_into_the_predictor_gives_the_same_boxes(high: int, wide: int, seed: int) -> None:
    """Decoding with TensorFlow's boxes, and with PriorBox's after the fold: centres, steps and sizes."""
    size = (32 * high, 32 * wide)
    random = np.random.default_rng(seed)
    for cell, level in zip(pyramid_boxes(size), range(3, 8), strict=True):
        maps = (-(-size[0] // 2**level), -(-size[1] // 2**level))
        prior = prior_box_for(cell, size, (0.1, 0.1, 0.2, 0.2))
        grid = cell.grid or (tuple(1 / n for n in maps), tuple(0.5 / n for n in maps))
        ours = prior_grid(prior, maps, size)
        shift = (grid[1][0] - ours[1][0], grid[1][1] - ours[1][1])
        sizes = cell_sizes(prior, size)
        match = match_cell(cell.sizes, sizes).shifted(shift, sizes)
        kernel, bias = np.zeros((24, 1, 1, 1), np.float32), random.normal(size=24).astype(np.float32)
        scales, variances = (10.0, 10.0, 5.0, 5.0), prior.variances
        _, moved = box_predictor_rows(kernel, bias, match, scales, variances)
        theirs = bias.reshape(6, 4)[list(match.source)][:, [1, 0, 3, 2]]
        wanted = np.asarray([[g - h / 2 for g, h in zip(grid[1], s, strict=True)][::-1]
                             + [g + h / 2 for g, h in zip(grid[1], s, strict=True)][::-1]
                             for s in (cell.sizes[i] for i in match.source)])  # fmt: skip
        first = caffe_prior_boxes(prior, maps, size)[:6]
        spread = np.broadcast_to(np.asarray(variances), (6, 4))
        a = decode_boxes(moved.reshape(6, 4).astype(np.float64), first, spread, np.float64)
        b = decode_boxes(theirs.astype(np.float64), wanted, spread, np.float64)
        assert np.abs(a - b).max() < 1e-4 * max(1, np.abs(b).max())


def test_kernels_of_the_tower_are_learned_together() -> None:
    from ssdlite_caffe.gen_model.dialect import DataPaths, Dialect
    from ssdlite_caffe.gen_model.lower import lower

    net = build(fpnlite(classes=3))
    for stage, shared in (("train", 5), ("deploy", 0)):
        lowered = lower(net, Dialect(batch_norm="keep"), stage, DataPaths())  # type: ignore[arg-type]
        layers = [layer for section in lowered.sections for layer in section.layers]
        assert sum(layer.shared == "tower_2" for layer in layers) == shared
        assert sum(layer.shared == "mbox_loc/depthwise" for layer in layers) == shared
