from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ssdlite_caffe.dump.model import AnchorGenerator
from ssdlite_caffe.errors import ArchError
from ssdlite_caffe.gen_model.arch import CellBoxes
from ssdlite_caffe.gen_model.build import build, default_arch
from ssdlite_caffe.gen_model.default_boxes import cell_boxes_of_anchors, ssd_boxes, tf_default_boxes
from ssdlite_caffe.gen_model.netdesc import PriorBoxDesc
from ssdlite_caffe.gen_model.prior_boxes import caffe_prior_boxes, cell_sizes, prior_box_for, small_boxes

VARIANCES = (0.1, 0.1, 0.2, 0.2)


def test_zoo_boxes_are_the_closed_form() -> None:
    first, second = ssd_boxes((300, 300))[:2]
    root = math.sqrt(2)
    np.testing.assert_allclose(first.sizes, [(0.1, 0.1), (0.2 / root, 0.2 * root), (0.2 * root, 0.2 / root)])
    assert second.sizes[0] == pytest.approx((0.35, 0.35))
    assert second.sizes[4] == pytest.approx((0.35 / math.sqrt(0.3333), 0.35 * math.sqrt(0.3333)))
    assert second.sizes[5] == pytest.approx((math.sqrt(0.35 * 0.5),) * 2)


def test_ratio_one_is_square_in_pixels() -> None:
    for cell in ssd_boxes((240, 320)):
        height, width = cell.sizes[0]
        assert height * 240 == pytest.approx(width * 320)


def test_first_anchor_of_the_zoo() -> None:
    """The first row TensorFlow prints for ssdlite_mobilenet_v2 at 300x300."""
    boxes = tf_default_boxes(build(default_arch("v2", 91)))
    assert boxes.shape == (1917, 4)
    np.testing.assert_allclose(boxes[0], [-0.02368421, -0.02368421, 0.07631579, 0.07631579], atol=1e-8)
    # boxes vary fastest, then x, then y
    assert boxes[3, 1] > boxes[0, 1]
    assert boxes[3, 0] == boxes[0, 0]


@pytest.mark.parametrize(
    ("options", "first", "other", "last"),
    [
        (
            {"aspect_ratios": (1.0, 2.0, 3.0, 1 / 2, 1 / 3)},
            [-0.00833333283662796, -0.006250001490116119, 0.09166666865348816, 0.06875000149011612],
            [-0.1641540229320526, -0.030307762324810028, 0.3308207094669342, 0.15530776977539062],
            [0.5482895374298096, 0.6612170934677124, 1.1183772087097168, 1.0887829065322876],
        ),
        (
            {
                "scales": (0.1, 0.2, 0.35, 0.5, 0.7, 0.9),
                "aspect_ratios": (1.0, 2.0, 0.5, 1.7),
                "interpolated_ratio": 0.0,
                "reduce_lowest": False,
                "base_anchor": (1.5, 1.0),
            },
            [-0.03333333507180214, -0.006250001490116119, 0.11666667461395264, 0.06875000149011612],
            [-0.03171141445636749, -0.035288043320178986, 0.1983780860900879, 0.1602880358695984],
            [0.6320050954818726, 0.7038708925247192, 1.0346616506576538, 1.0461291074752808],
        ),
        (
            {"min_scale": 0.15, "max_scale": 0.8, "aspect_ratios": (1.0, 3.0), "interpolated_ratio": 2.0},
            [-0.00833333283662796, -0.006250001490116119, 0.09166666865348816, 0.06875000149011612],
            [-0.05666666477918625, 0.08249999582767487, 0.22333332896232605, 0.29250001907348633],
            [0.6669753193855286, 0.6254629492759705, 0.9996914267539978, 1.1245369911193848],
        ),
    ],
)
def test_boxes_that_tensorflow_printed(
    options: dict[str, object], first: list[float], other: list[float], last: list[float]
) -> None:
    """Rows of create_ssd_anchors(...).generate for 192x256: row 0 of map 0, row 3 of map 1, the last of map 2."""
    sizes = ((12, 16), (6, 8), (3, 4))
    found = [tf_cells(cell, size) for cell, size in zip(ssd_boxes((192, 256), **options), sizes, strict=False)]  # type: ignore[arg-type]
    np.testing.assert_allclose([found[0][0], found[1][3], found[2][-1]], [first, other, last], atol=2e-7)


def tf_cells(cell: CellBoxes, size: tuple[int, int]) -> np.ndarray:
    """Default boxes of one map, through the function for whole nets."""
    net = build(default_arch("v2", 2))
    feature_map = dataclasses.replace(net.feature_maps[0], tf_boxes=cell.sizes, size=size)
    return tf_default_boxes(dataclasses.replace(net, feature_maps=(feature_map,)))


def test_public_dialect_of_the_standard_boxes() -> None:
    priors = [prior_box_for(cell, (300, 300), VARIANCES) for cell in ssd_boxes((300, 300))]
    assert priors[0] == PriorBoxDesc((60.0,), (), (2.0,), True, VARIANCES)
    assert priors[1] == PriorBoxDesc((105.0,), (150.0,), (2.0, 3.0), True, VARIANCES)
    assert priors[5] == PriorBoxDesc((285.0,), (300.0,), (2.0, 3.0), True, VARIANCES)


@given(
    st.tuples(st.integers(33, 600), st.integers(33, 600)),
    st.lists(st.tuples(st.floats(0.01, 1.5), st.floats(0.01, 1.5)), min_size=1, max_size=9),
    st.integers(0, 3),
)
def test_as_many_priors_as_boxes(size: tuple[int, int], boxes: list[tuple[float, float]], repeats: int) -> None:
    cell = CellBoxes(tuple(boxes + boxes[:1] * repeats))
    prior = prior_box_for(cell, size, VARIANCES)
    assert len(cell_sizes(prior, size)) == len(cell.sizes)
    ratios = [1.0, *prior.aspect_ratios]
    assert all(abs(a - b) > 1e-5 for i, a in enumerate(ratios) for b in ratios[:i])
    assert all(most > prior.min_sizes[0] for most in prior.max_sizes)
    assert all(pixels >= 1 and pixels == int(pixels) for pixels in prior.min_sizes + prior.max_sizes)


@pytest.mark.parametrize("ratio", [1e-3, 1.0, 9.99999, 1083.96, 1e6])
def test_equal_boxes_get_different_ratios(ratio: float) -> None:
    cell = CellBoxes(((0.1, 0.1 * ratio),) * 12)
    ratios = (1.0, *prior_box_for(cell, (300, 300), VARIANCES).aspect_ratios)
    assert len({np.float32(r) for r in ratios}) == 12
    assert len(cell_sizes(prior_box_for(cell, (300, 300), VARIANCES), (300, 300))) == 12


def test_a_smaller_second_square_is_no_max_size() -> None:
    """Caffe and OpenCV want max_size above min_size."""
    cell = CellBoxes(((0.2, 0.2), (0.1, 0.1), (0.1, 0.4), (0.4, 0.1)))
    prior = prior_box_for(cell, (300, 300), VARIANCES)
    assert prior.max_sizes == ()
    assert len(cell_sizes(prior, (300, 300))) == 4


@given(
    st.lists(st.sampled_from([1.0, 2.0, 0.5, 3.0, 0.3333, 1.5, 1 / 1.5]), min_size=1, unique=True),
    st.sampled_from([0.0, 1.0, 1.7]),
    st.booleans(),
)
def test_as_many_priors_as_generated_boxes(ratios: list[float], interpolated: float, reduce_lowest: bool) -> None:
    cells = ssd_boxes((256, 320), aspect_ratios=ratios, interpolated_ratio=interpolated, reduce_lowest=reduce_lowest)
    for cell in cells:
        prior = prior_box_for(cell, (256, 320), VARIANCES)
        assert len(cell_sizes(prior, (256, 320))) == len(cell.sizes)


def test_standard_priors_lie_near_tensorflow_s() -> None:
    for cell in ssd_boxes((300, 300))[1:]:
        found = sorted(cell_sizes(prior_box_for(cell, (300, 300), VARIANCES), (300, 300)))
        np.testing.assert_allclose(found, sorted(cell.sizes), rtol=1e-4)


def test_cell_sizes_are_those_of_the_prototxt() -> None:
    """Whose fields are float32: a description and what is parsed of its text break ties alike."""
    written = PriorBoxDesc((33.3,), (66.6,), (0.3333, 2.1), True, VARIANCES)
    fields = (written.min_sizes, written.max_sizes, written.aspect_ratios)
    parsed = PriorBoxDesc(*(tuple(float(np.float32(v)) for v in values) for values in fields), True, VARIANCES)
    assert written != parsed
    assert cell_sizes(written, (300, 300)) == cell_sizes(parsed, (300, 300))


def test_cell_sizes_drop_repeated_ratios() -> None:
    prior = PriorBoxDesc((10.0,), (), (1.0, 2.0, 0.5, 2.0000001), True, VARIANCES)
    assert len(cell_sizes(prior, (100, 100))) == 3


@pytest.mark.parametrize(
    "options",
    [{"min_scale": 0.0}, {"scales": (0.1, 0.2)}, {"aspect_ratios": (-1.0,)}, {"interpolated_ratio": math.nan}],
)
def test_bad_scales(options: dict[str, object]) -> None:
    with pytest.raises(ArchError):
        ssd_boxes((300, 300), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("sizes", [(), ((0.0, 0.1),), ((math.inf, 0.1),)])
def test_bad_cells(sizes: tuple[tuple[float, float], ...]) -> None:
    with pytest.raises(ArchError):
        prior_box_for(CellBoxes(sizes), (300, 300), VARIANCES)


def test_anchors_of_a_pipeline_config() -> None:
    anchors = AnchorGenerator(aspect_ratios=(1.0, 2.0, 0.5, 3.0, 0.3333), base_anchor_height=2.0)
    doubled = cell_boxes_of_anchors(anchors, (300, 300))
    for cell, plain in zip(doubled, ssd_boxes((300, 300)), strict=True):
        np.testing.assert_allclose(cell.sizes, np.multiply(plain.sizes, (2, 1)))


@pytest.mark.opencv
@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("most", [(), (75.5,)])
def test_caffe_boxes_are_opencv_s(flip: bool, most: tuple[float, ...]) -> None:
    cv2 = pytest.importorskip("cv2")
    prior = PriorBoxDesc((33.25,), most, (2.0, 1.0, 3.5, 2.0), flip, (0.1, 0.15, 0.2, 0.25))
    sizes = "".join(f"min_size: {s} " for s in prior.min_sizes) + "".join(f"max_size: {s} " for s in most)
    ratios = "".join(f"aspect_ratio: {r} " for r in prior.aspect_ratios)
    variances = "".join(f"variance: {v} " for v in prior.variances)
    text = f"""
    input: "data" input_shape {{ dim: 1 dim: 3 dim: 90 dim: 130 }}
    layer {{ name: "pool" type: "Pooling" bottom: "data" top: "pool"
      pooling_param {{ pool: MAX kernel_size: 13 stride: 13 }} }}
    layer {{ name: "prior" type: "PriorBox" bottom: "pool" bottom: "data" top: "prior" prior_box_param {{
      {sizes} {ratios} flip: {str(flip).lower()} clip: false {variances} offset: 0.5 }} }}"""
    net = cv2.dnn.readNetFromCaffe(np.frombuffer(text.encode(), np.uint8))
    net.setInput(np.zeros((1, 3, 90, 130), np.float32))
    pool = net.forward("pool").shape[2:]
    found = net.forward("prior").reshape(2, -1, 4)
    expected = caffe_prior_boxes(prior, pool, (90, 130))
    assert found.shape[1] == len(expected)
    np.testing.assert_allclose(found[0], expected, atol=2e-7)
    np.testing.assert_allclose(found[1], np.broadcast_to(prior.variances, found[1].shape), rtol=1e-6)


def test_small_boxes_of_the_standard_first_map() -> None:
    first = ssd_boxes((300, 300))[0]
    small = small_boxes(first, (300, 300))
    assert prior_box_for(small, (300, 300), VARIANCES) == PriorBoxDesc((30.0,), (120.0,), (2.0,), False, VARIANCES)
    np.testing.assert_allclose(small.sizes[0], first.sizes[0], rtol=1e-12)
    assert small.sizes[1] == (0.2, 0.2)


@given(st.tuples(st.integers(33, 600), st.integers(33, 600)), st.floats(0.15, 0.5), st.booleans())
@example((130, 130), 0.35, False)  # sizes of 45.5 and of one rounding less
@example((506, 325), 0.5, True)  # a size of 32.5
def test_small_boxes_are_a_prior_box_s(size: tuple[int, int], scale: float, reduce_lowest: bool) -> None:
    """As many, the smallest as small as TensorFlow's to a pixel, and PriorBox has them exactly."""
    first = ssd_boxes(size, min_scale=scale, reduce_lowest=reduce_lowest)[0]
    small = small_boxes(first, size)
    assert len(small.sizes) == len(first.sizes)
    least = min(height * size[0] for height, width in first.sizes if abs(width * size[1] / height / size[0] - 1) < 1e-6)
    assert any(abs(height * size[0] - least) <= 0.5 + 1e-9 for height, _ in small.sizes)
    if reduce_lowest:
        assert cell_sizes(prior_box_for(small, size, VARIANCES), size) == small.sizes
    else:
        assert small == first
    assert small_boxes(small, size) == small


def test_boxes_without_their_reciprocals() -> None:
    """Ratios at the smallest square's scale are written as they are."""
    cell = CellBoxes(tuple((60 / math.sqrt(r) / 300, 60 * math.sqrt(r) / 300) for r in (1.0, 2.0, 0.25)))
    prior = prior_box_for(cell, (300, 300), VARIANCES)
    assert prior == PriorBoxDesc((60.0,), (), (2.0, 0.25), False, VARIANCES)
    np.testing.assert_allclose(cell_sizes(prior, (300, 300)), cell.sizes, rtol=1e-6)


def test_a_square_smaller_than_an_unpaired_shape_counts() -> None:
    def size(scale: float, ratio: float) -> tuple[float, float]:
        return scale / 300 / math.sqrt(ratio), scale / 300 * math.sqrt(ratio)

    prior = prior_box_for(CellBoxes((size(30, 1), size(60, 2))), (300, 300), (0.1, 0.1, 0.2, 0.2))
    assert (prior.min_sizes, prior.max_sizes, prior.aspect_ratios) == ((42.0,), (), (2.0,))  # sqrt(30 * 60)
