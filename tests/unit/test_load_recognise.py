"""Which detector a model is, and what is said of one that is none."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from ssdlite_caffe.dump.model import AnchorGenerator, DumpedModel
from ssdlite_caffe.errors import ModelError, SsdliteError, TensorError
from ssdlite_caffe.gen_model.arch import FAMILIES, ArchSpec, Nms
from ssdlite_caffe.gen_model.build import build, default_arch
from ssdlite_caffe.gen_model.netdesc import GlobalPoolDesc
from ssdlite_caffe.load.recognise import recognise
from tests.models import model_of, with_settings, with_tensors, with_unit

STEM = "FeatureExtractor/MobilenetV2/Conv"
EXPAND = "FeatureExtractor/MobilenetV2/expanded_conv_3/expand"
HEAD = "BoxPredictor_2/ClassPredictor"
RATIOS = (1.0, 2.0, 0.5, 3.0, 0.3333)


def assert_same(found: ArchSpec, expected: ArchSpec) -> None:
    """Equal, but for default boxes, which are read from float32 corners."""
    assert dataclasses.replace(found, boxes=()) == dataclasses.replace(expected, boxes=())
    for a, b in zip(found.boxes, expected.boxes, strict=True):
        np.testing.assert_allclose(a.sizes, b.sizes, rtol=1e-6)


@pytest.fixture(scope="module")
def model() -> DumpedModel:
    """A V2-SSDLite in small; the tests change copies."""
    return model_of(default_arch("v2", 4, input_size=(160, 224), width_multiplier=0.25), seed=None)


def irregular(model: DumpedModel) -> str:
    """In which way its default boxes are not PriorBox's; such models are converted with constant boxes only."""
    return recognise(model).irregular_boxes


def refused(model: DumpedModel, kind: type[SsdliteError] = ModelError) -> str:
    """What is said of a model; always one line."""
    with pytest.raises(kind) as caught:
        recognise(model)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@hypothesis.settings(max_examples=12)
@hypothesis.given(
    family=st.sampled_from(FAMILIES),
    head=st.sampled_from(["ssdlite", "ssd"]),
    width=st.sampled_from([0.25, 0.35, 0.5, 0.75, 1.0, 1.4]),
    classes=st.integers(2, 12),
    size=st.tuples(st.integers(96, 330), st.integers(96, 330)),
    epsilon=st.sampled_from([1e-3, 1e-5, 0.01]),
    explicit=st.booleans(),
    scores=st.sampled_from(["sigmoid", "softmax"]),
    nms=st.builds(Nms, iou_threshold=st.floats(0.3, 0.7), max_total=st.integers(1, 200), clip_first=st.booleans()),
)
def test_every_detector_is_found_again(
    family: Any, head: Any, width: float, classes: int, size: tuple[int, int], epsilon: float, explicit: bool,
    scores: Any, nms: Nms,
) -> None:  # fmt: skip
    arch = default_arch(family, classes, input_size=size, head=head, width_multiplier=width)
    arch = dataclasses.replace(
        arch, batch_norm_epsilon=epsilon, explicit_padding=explicit and family == "v2", score_converter=scores, nms=nms
    )
    found = recognise(model_of(arch, seed=None))
    # Two widths may give the very same layers; then either is right.
    assert_same(dataclasses.replace(found, width_multiplier=width), arch)


def test_a_checkpoint_takes_the_rest_from_its_pipeline_config() -> None:
    arch = default_arch("v2", 3, input_size=(128, 160), width_multiplier=0.61)
    arch = dataclasses.replace(arch, explicit_padding=True, extra_activation="relu")
    model = with_settings(
        model_of(arch, checkpoint=True, seed=None),
        default_boxes=None,
        anchors=AnchorGenerator(aspect_ratios=(1.0, 2.0, 0.5, 3.0, 0.3333)),
        extra_activation="relu",
        explicit_padding=True,
        depth_multiplier=float(np.float32(0.61)),
        min_depth=16,
    )
    assert_same(recognise(model), arch)
    assert "give the pipeline.config" in refused(with_settings(model, anchors=None))


def test_a_graph_knows_better_than_the_pipeline_config(model: DumpedModel) -> None:
    changed = with_settings(model, explicit_padding=True, extra_activation="relu", depth_multiplier=0.5)
    assert recognise(changed) == recognise(model)


def test_a_weights_folder_says_what_it_is(model: DumpedModel) -> None:
    arch = recognise(model)
    assert recognise(dataclasses.replace(model, arch=arch.to_dict(), units=())) == arch


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_size": None}, "does not say its input size; give the pipeline.config"),
        ({"score_converter": "identity"}, "no score converter (IDENTITY): its scores are raw logits"),
        (
            {"unsupported": ("soft NMS (sigma 0.5)", "masks")},
            "has what a Caffe net cannot do: soft NMS (sigma 0.5), masks",
        ),
        ({"default_boxes": np.zeros((7, 4), np.float32)}, "the model has 7 default boxes, its predictors need 738"),
        ({"default_boxes": None}, "does not say its default boxes"),
        ({"pixel_scale": 0.0}, "the factor for pixels must be a number other than 0, the model has 0.0"),
        ({"pixel_scale": math.inf}, "the factor for pixels must be a number other than 0, the model has inf"),
        ({"pixel_scale": 1e-40}, "pixel mean must be within -1e+06..1e+06, got 1e+40"),
        ({"pixel_offset": math.nan}, "pixel mean must be within -1e+06..1e+06, got nan"),
        ({"iou_threshold": math.nan}, "IoU threshold must be in 0..1, got nan"),
        ({"iou_threshold": 1.5}, "IoU threshold must be in 0..1, got 1.5"),
        ({"iou_threshold": -math.inf}, "IoU threshold must be in 0..1, got -inf"),
        ({"score_threshold": math.inf}, "score threshold must be a finite number, got inf"),
        ({"max_per_class": 0}, "max_per_class must be a whole number in 1..2147483647, got 0"),
        ({"max_total": 1 << 31}, "max_total must be a whole number in 1..2147483647, got 2147483648"),
        (
            {"default_boxes": None, "anchors": AnchorGenerator(aspect_ratios=RATIOS, height_stride=(8,) * 6)},
            "strides and offsets must be given for both height and width",
        ),
        ({"default_boxes": None, "anchors": AnchorGenerator(num_layers=5)}, "makes [3, 1, 1, 1, 1] default boxes"),
        (
            {"default_boxes": None, "anchors": AnchorGenerator(aspect_ratios=(1.0, 2.0))},
            "makes [3, 3, 3, 3, 3, 3] default boxes per cell, the model's predictors need [3, 6, 6, 6, 6, 6]",
        ),
    ],
)
def test_settings_that_no_net_has(model: DumpedModel, changes: dict[str, Any], message: str) -> None:
    assert message in refused(with_settings(model, **changes), SsdliteError)


class TestDefaultBoxes:
    def boxes(self, model: DumpedModel) -> np.ndarray:
        boxes = model.settings.default_boxes
        assert boxes is not None
        return boxes.copy()

    @pytest.mark.parametrize("axis", [0, 1])
    def test_beside_the_centre(self, model: DumpedModel, axis: int) -> None:
        boxes = self.boxes(model)
        boxes[:, [axis, axis + 2]] += 3e-5
        assert irregular(with_settings(model, default_boxes=boxes)) == (
            "default boxes of conv_13/expand are up to 3e-05 of the input off the centres of their cells"
        )

    def test_a_single_one_of_another_size(self, model: DumpedModel) -> None:
        """The last box of the last cell of the first map, made a little wider on both sides."""
        boxes = self.boxes(model)
        last = 10 * 14 * 3 - 1
        boxes[last, 1] -= 1e-4
        boxes[last, 3] += 1e-4
        found = irregular(with_settings(model, default_boxes=boxes))
        assert found == "default boxes of conv_13/expand differ from cell to cell"

    def test_maps_in_another_order(self, model: DumpedModel) -> None:
        moved = with_settings(model, default_boxes=self.boxes(model)[::-1])
        assert "off the centres of their cells" in irregular(moved)

    @pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
    def test_not_finite(self, model: DumpedModel, value: float) -> None:
        boxes = self.boxes(model)
        boxes[-1, 2] = value
        assert re.search(r"default boxes of \S+ are not boxes", refused(with_settings(model, default_boxes=boxes)))

    @pytest.mark.parametrize("columns", [[2, 3, 0, 1], [0, 1, 0, 3]])
    def test_without_a_size(self, model: DumpedModel, columns: list[int]) -> None:
        boxes = self.boxes(model)[:, columns]
        assert re.search(r"default boxes of \S+ are not boxes", refused(with_settings(model, default_boxes=boxes)))


@pytest.mark.parametrize(
    ("scope", "changes", "message"),
    [
        (STEM, {"stride": (1, 2)}, f"{STEM} has stride (1, 2), the family (2, 2)"),
        (EXPAND, {"dilation": (2, 2)}, f"{EXPAND} has dilation (2, 2), the family (1, 1)"),
        (EXPAND, {"activation": "relu"}, f"{EXPAND} has the activation relu, the family relu6"),
        (HEAD, {"activation": "relu6"}, f"{HEAD} has the activation relu6, the family none"),
        (
            STEM,
            {"padding": "VALID"},
            f"{STEM} has padding (0, 0, 0, 0) (top, bottom, left, right), the family (0, 1, 0, 1)",
        ),
        (STEM, {"padding": (1, 1, 1, 1)}, "has padding"),
    ],
)
def test_a_convolution_that_acts_differently(
    model: DumpedModel, scope: str, changes: dict[str, Any], message: str
) -> None:
    said = refused(with_unit(model, scope, **changes))
    assert message in said
    assert "has the kernels of a v2, but" in said


def test_many_differences_are_counted(model: DumpedModel) -> None:
    units = tuple(dataclasses.replace(unit, activation="none") for unit in model.units)
    changed = len(
        [u for u in model.units if u.activation != "none" and "Predictor" not in u.scope and "_Conv2d_" not in u.scope]
    )
    assert f"; and {changed - 4} more" in refused(dataclasses.replace(model, units=units))


def test_valid_and_same_are_one_where_nothing_is_padded(model: DumpedModel) -> None:
    assert recognise(with_unit(model, EXPAND, padding="VALID")) == recognise(model)


def test_activations_that_differ_from_map_to_map(model: DumpedModel) -> None:
    changed = with_unit(model, "BoxPredictor_1/BoxEncodingPredictor_depthwise", activation="relu")
    assert "has different activations in its extra layers and heads: relu, relu6" in refused(changed)


def test_gates_of_two_kinds() -> None:
    arch = default_arch("v3-small", 2, input_size=(96, 96), width_multiplier=0.35)
    assert recognise(model_of(dataclasses.replace(arch, gate_scale=1 / 6), seed=None)).gate_scale == 1 / 6
    model = model_of(arch, seed=None)
    gate = next(unit.scope for unit in model.units if unit.gate_scale is not None)
    assert "squeeze-excite gates with different constants: [0.16" in refused(with_unit(model, gate, gate_scale=0.2))


def test_another_kernel_names_the_nearest_family(model: DumpedModel) -> None:
    name = f"{EXPAND}/weights"
    kernel = model.tensors[name]
    other = with_tensors(model, {name: np.zeros((*kernel.shape[:3], kernel.shape[3] + 1), np.float32)})
    for part in ("gamma", "beta", "moving_mean", "moving_variance"):
        other = with_tensors(other, {f"{EXPAND}/BatchNorm/{part}": np.ones(kernel.shape[3] + 1, np.float32)})
    message = refused(other)
    assert "is most like a v2 ssdlite of width multiplier 0.25, but differs in 1 convolutions" in message
    assert f"{EXPAND} is {other.tensors[name].shape}, the family has {kernel.shape}" in message


def test_missing_and_additional_convolutions(model: DumpedModel) -> None:
    without = dataclasses.replace(model, units=tuple(u for u in model.units if u.scope != EXPAND))
    assert f"{EXPAND} is missing" in refused(without)
    extra = dataclasses.replace(model.units[0], scope="FeatureExtractor/MobilenetV2/more")
    assert "more (3, 3, 3, 16) is not in the family" in refused(dataclasses.replace(model, units=(*model.units, extra)))


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        ("FeatureExtractor/", "is not an SSD MobileNet: no FeatureExtractor/MobilenetV1, V2 or V3 in it"),
        ("BoxPredictor_", "has a MobileNet, but no SSD head: BoxPredictor_0/BoxEncodingPredictor is not in it"),
        ("BoxPredictor_3/Box", "has no BoxPredictor_3/BoxEncodingPredictor; a detector has 6"),
    ],
)
def test_a_part_that_is_not_there(model: DumpedModel, prefix: str, message: str) -> None:
    units = tuple(unit for unit in model.units if not unit.scope.startswith(prefix))
    assert message in refused(dataclasses.replace(model, units=units))


def test_tensors_that_do_not_fit_together_are_all_named(model: DumpedModel) -> None:
    changed = with_tensors(
        model,
        {
            f"{STEM}/weights": np.zeros((3, 3, 3), np.float32),
            f"{EXPAND}/BatchNorm/gamma": np.zeros((5,), np.float32),
            f"{EXPAND}/BatchNorm/moving_variance": -model.tensors[f"{EXPAND}/BatchNorm/moving_variance"],
            f"{HEAD}/biases": None,
        },
    )
    unit = next(unit for unit in model.units if unit.scope.endswith("expanded_conv_4/expand"))
    parts = {part: name for part, name in unit.tensors.items() if part not in ("weights", "moving_mean")}
    changed = with_unit(changed, unit.scope, tensors=parts)
    changed = with_unit(changed, "FeatureExtractor/MobilenetV2/expanded_conv_5/expand", epsilon=None)
    message = refused(changed, TensorError)
    width = model.tensors[f"{EXPAND}/weights"].shape[3]
    for part in (
        "made.pb do not fit together: ",
        "Conv/weights' must have 4 axes, as a kernel has, got the shape (3, 3, 3)",
        f"expanded_conv_3/expand/BatchNorm/gamma' has the shape (5,), its kernel needs ({width},)",
        "expanded_conv_3/expand/BatchNorm/moving_variance' holds negative variances",
        f"tensor '{HEAD}/biases' (biases of '{HEAD}') is missing",
        "expanded_conv_4/expand' has no kernel",
        "expanded_conv_4/expand' has only one of moving_mean and moving_variance",
        "expanded_conv_5/expand' has a BatchNorm but no epsilon",
    ):
        assert part in message
    assert message.count(";") == 6


def test_pixels_are_snapped_to_the_usual_scale(model: DumpedModel) -> None:
    usual = recognise(with_settings(model, pixel_scale=float(np.float32(2 / 255)), pixel_offset=-1.0))
    assert (usual.pixel_mean, usual.pixel_scale) == (127.5, 1 / 127.5)
    other = recognise(with_settings(model, pixel_scale=0.5, pixel_offset=3.0))
    assert (other.pixel_mean, other.pixel_scale) == (-6.0, 0.5)
    unsaid = recognise(with_settings(model, pixel_scale=None))
    assert (unsaid.pixel_mean, unsaid.pixel_scale) == (127.5, 1 / 127.5)


def test_box_coder_scales_become_variances(model: DumpedModel) -> None:
    assert recognise(with_settings(model, box_coder_scales=(8.0, 16.0, 4.0, 2.0))).variances == (
        1 / 16,
        1 / 8,
        1 / 2,
        1 / 4,
    )


def test_the_most_frequent_epsilon_is_written(model: DumpedModel) -> None:
    assert recognise(with_unit(model, EXPAND, epsilon=0.5)).batch_norm_epsilon == 1e-3


def test_a_gate_s_mean_may_be_one_window_of_the_map_s_size() -> None:
    arch = default_arch("v3-small", 4)
    net = build(arch)
    pool = next(node for s in net.sections for node in s.nodes if isinstance(node, GlobalPoolDesc))
    conv = next(conv for conv in net.convolutions if conv.bottom == pool.top)
    read = next(c.tf_scope for c in net.convolutions if c.top == pool.bottom)
    model = model_of(arch, seed=None)
    height, width = pool.in_size
    for good in (f"mean({read})", f"mean{height}x{width}({read})"):
        assert recognise(with_unit(model, conv.tf_scope, input=good)).family == "v3-small"
    for bad in (f"mean3x3({read})", f"mean{height}x1({read})", read):
        with pytest.raises(ModelError, match=rf"{conv.tf_scope} reads {re.escape(bad)}, in the family it reads mean\("):
            recognise(with_unit(model, conv.tf_scope, input=bad))
