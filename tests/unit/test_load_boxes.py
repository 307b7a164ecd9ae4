"""Predictors moved to Caffe's boxes; of nets that were edited, or made for other classes and sizes."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.dump.model import DumpedModel
from ssdlite_caffe.gen_model.build import build
from ssdlite_caffe.gen_model.netdesc import PriorBoxDesc
from ssdlite_caffe.gen_model.prior_boxes import cell_sizes, small_boxes
from ssdlite_caffe.gen_model.render import render
from ssdlite_caffe.load.boxes import (
    CellMatch,
    box_predictor_rows,
    class_predictor_rows,
    match_cell,
    refold_box_predictor,
    rematch_cell,
)
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.text import parse_net
from tests.filling import FOLD, KEEP, arch_of, filled, layer_of, model, net_of, problems
from tests.models import with_settings, with_tensors

box_sizes = st.lists(st.tuples(st.floats(0.02, 1.5), st.floats(0.02, 1.5)), min_size=1, max_size=7)


@settings(max_examples=60)
@given(box_sizes, st.data())
def test_any_shapes_and_order_decode_to_the_same_boxes(tf_sizes, data) -> None:
    caffe_sizes = data.draw(st.lists(st.tuples(st.floats(0.02, 1.5), st.floats(0.02, 1.5)),
                                     min_size=len(tf_sizes), max_size=len(tf_sizes)))  # fmt: skip
    seed = data.draw(st.integers(0, 10**6))
    coder = data.draw(st.sampled_from([(10.0, 10.0, 5.0, 5.0), (4.0, 8.0, 2.0, 3.0), (1.0, 1.0, 1.0, 1.0)]))
    variances = data.draw(st.sampled_from([(0.1, 0.1, 0.2, 0.2), (0.125, 0.25, 1 / 3, 0.5)]))
    k = len(tf_sizes)
    random = np.random.default_rng(seed)
    kernel = random.normal(size=(k * 4, 2, 1, 1)).astype(np.float32)
    bias = random.normal(size=k * 4).astype(np.float32)
    x = random.normal(size=2)
    match = match_cell(tuple(tf_sizes), tuple(caffe_sizes))
    assert sorted(match.source) == list(range(k))
    moved, offset = box_predictor_rows(kernel, bias, match, coder, variances)

    tf_codes = (kernel[:, :, 0, 0].astype(np.float64) @ x + bias).reshape(k, 4)
    caffe_codes = (moved[:, :, 0, 0].astype(np.float64) @ x + offset).reshape(k, 4)
    for c, t in enumerate(match.source):
        (th, tw), (ch, cw) = tf_sizes[t], caffe_sizes[c]
        ty, tx, tlh, tlw = tf_codes[t] / coder
        cx, cy, clw, clh = caffe_codes[c] * variances
        assert cx * cw == pytest.approx(tx * tw, rel=1e-5, abs=3e-6)
        assert cy * ch == pytest.approx(ty * th, rel=1e-5, abs=3e-6)
        assert np.exp(clw) * cw == pytest.approx(np.exp(tlw) * tw, rel=1e-5)
        assert np.exp(clh) * ch == pytest.approx(np.exp(tlh) * th, rel=1e-5)


def test_equal_boxes_are_moved_bit_for_bit() -> None:
    tf_sizes = ((0.1, 0.1), (0.2, 0.4), (0.4, 0.2))
    caffe_sizes = ((0.1, 0.1), (0.4 * (1 + 1e-7), 0.2), (0.2, 0.4))
    match = match_cell(tf_sizes, caffe_sizes)
    assert match == CellMatch((0, 2, 1), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0))
    kernel, bias = np.arange(24, dtype=np.float32).reshape(12, 2, 1, 1) / 7, np.arange(12, dtype=np.float32) / 3
    moved, offset = box_predictor_rows(kernel, bias, match, (10, 10, 5, 5), (0.1, 0.1, 0.2, 0.2))
    rows = [1, 0, 3, 2, 9, 8, 11, 10, 5, 4, 7, 6]
    assert np.array_equal(moved, kernel[rows])
    assert np.array_equal(offset, bias[rows])
    # As a prototxt has them: 1 / 7 in float32 is the reciprocal of 7 up to its rounding, of 4e-8.
    variance = float(np.float32(1 / 7))
    moved, offset = box_predictor_rows(kernel, bias, match, (7, 7, 7, 7), (variance,) * 4)
    assert np.array_equal(moved, kernel[rows])
    assert np.array_equal(offset, bias[rows])


def test_class_rows_follow_their_box() -> None:
    match = CellMatch((2, 0, 1), (1.0,) * 3, (1.0,) * 3)
    kernel, bias = np.arange(15, dtype=np.float32).reshape(15, 1, 1, 1), np.arange(15, dtype=np.float32)
    moved, offset = class_predictor_rows(kernel, bias, match, 5, 1.0)
    assert offset.tolist() == [*range(10, 15), *range(5), *range(5, 10)]
    assert np.array_equal(moved[:, 0, 0, 0], offset)
    scaled, halves = class_predictor_rows(kernel, bias, match, 5, 0.5)
    assert np.array_equal(scaled, moved / 2)
    assert np.array_equal(halves, offset / 2)


def reverse_ratios(param: caffe_pb2.PriorBoxParameter) -> None:
    param.aspect_ratio[:] = list(param.aspect_ratio)[::-1]


def spell_out_flip(param: caffe_pb2.PriorBoxParameter) -> None:
    param.aspect_ratio[:] = [r for ratio in param.aspect_ratio for r in (1 / ratio, ratio)]
    param.flip = False


def resize(param: caffe_pb2.PriorBoxParameter) -> None:
    param.min_size[:] = [size * 1.37 for size in param.min_size]
    param.max_size[:] = [size * 1.61 for size in param.max_size]


def vary(param: caffe_pb2.PriorBoxParameter) -> None:
    param.variance[:] = [0.05, 0.3, 0.15, 0.25]


def vary_all(param: caffe_pb2.PriorBoxParameter) -> None:
    param.variance[:] = [0.125]


def leave_out_variance(param: caffe_pb2.PriorBoxParameter) -> None:
    """Caffe then takes 0.1 for all four."""
    del param.variance[:]


def leave(param: caffe_pb2.PriorBoxParameter) -> None:
    """Nothing changed."""


@pytest.mark.parametrize("change", [leave, reverse_ratios, spell_out_flip, resize, vary, vary_all, leave_out_variance])
@pytest.mark.parametrize("scales", [(10.0, 10.0, 5.0, 5.0), (4.0, 8.0, 3.0, 2.0)])
def test_edited_prior_boxes_give_the_same_detections(
    change: Callable[[caffe_pb2.PriorBoxParameter], None], scales: tuple[float, float, float, float]
) -> None:
    """Decoded on both sides from the same features: each of Caffe's boxes is one of TensorFlow's, with its logits."""
    arch, random = arch_of(), np.random.default_rng(3)
    net = net_of(arch)
    maps = build(arch).feature_maps
    for feature_map in maps:
        change(layer_of(net, f"{feature_map.blob}_mbox_priorbox").prior_box_param)
    given = with_settings(model(), box_coder_scales=scales, logit_scale=0.5)
    blobs = filled(net, given).blobs
    moved = 0
    for feature_map in maps:
        features = random.normal(size=feature_map.loc[-1].in_channels)
        tf_boxes = decode(tf_codes(given, feature_map.index, features), feature_map.tf_boxes, 1 / np.asarray(scales))
        tf_logits = tf_outputs(given, feature_map.index, "ClassPredictor", features).reshape(-1, 4) * 0.5
        prior = prior_of(layer_of(net, f"{feature_map.blob}_mbox_priorbox").prior_box_param)
        codes = outputs(blobs[f"{feature_map.blob}_mbox_loc"], features).reshape(-1, 4)[:, [1, 0, 3, 2]]
        variances = np.asarray(prior.variances)[[1, 0, 3, 2]]
        boxes = decode(codes, cell_sizes(prior, arch.input_size), variances)
        logits = outputs(blobs[f"{feature_map.blob}_mbox_conf"], features).reshape(-1, 4)
        order = [int(np.abs(tf_logits - row).max(axis=1).argmin()) for row in logits]
        assert sorted(order) == list(range(len(tf_boxes)))
        moved += order != sorted(order)
        np.testing.assert_allclose(logits, tf_logits[order], atol=2e-6)
        np.testing.assert_allclose(boxes, tf_boxes[order], rtol=2e-6, atol=2e-6)
    assert moved >= 5, "the orders differ, and a net that took TensorFlow's would be wrong"


def test_another_prior_box_gives_the_same_detections() -> None:
    """A predictor made for the usual boxes, made over for small ones."""
    arch, random = arch_of(), np.random.default_rng(5)
    first = build(arch).feature_maps[0]
    small = dataclasses.replace(arch, boxes=(small_boxes(arch.boxes[0], arch.input_size), *arch.boxes[1:]))
    priors = first.prior, build(small).feature_maps[0].prior
    old, new = (cell_sizes(prior, arch.input_size) for prior in priors)
    assert old != new
    tf_boxes = first.tf_boxes[1:] + first.tf_boxes[:1]  # in an order that is not its own inverse
    match = rematch_cell(tf_boxes, old, new)
    direct = match_cell(tf_boxes, new)
    assert [match_cell(tf_boxes, old).source[o] for o in match.source] == list(direct.source)
    channels, variances = 16, np.asarray((0.05, 0.3, 0.15, 0.25))
    kernel = random.normal(size=(4 * len(old), channels, 1, 1)).astype(np.float32)
    bias = random.normal(size=4 * len(old)).astype(np.float32)
    features = random.normal(size=channels)
    x, y, w, h = variances.tolist()
    made = refold_box_predictor(kernel, bias, match, (x, y, w, h))
    swapped = variances[[1, 0, 3, 2]]
    before = decode(outputs((kernel, bias), features).reshape(-1, 4)[:, [1, 0, 3, 2]], old, swapped)
    after = decode(outputs(made, features).reshape(-1, 4)[:, [1, 0, 3, 2]], new, swapped)
    np.testing.assert_allclose(after, before[list(match.source)], rtol=2e-6, atol=2e-6)
    same = [i for i, o in enumerate(match.source) if old[o] == new[i]]
    assert all(np.array_equal(made[0][4 * i : 4 * i + 4], kernel[4 * match.source[i] :][:4]) for i in same)


def outputs(blobs: tuple[FloatArray, ...], features: np.ndarray) -> np.ndarray:
    return blobs[0][:, :, 0, 0].astype(np.float64) @ features + blobs[1]


def tf_outputs(given: DumpedModel, index: int, kind: str, features: np.ndarray) -> np.ndarray:
    kernel, bias = (given.tensors[f"BoxPredictor_{index}/{kind}/{part}"] for part in ("weights", "biases"))
    return features @ kernel[0, 0].astype(np.float64) + bias


def tf_codes(given: DumpedModel, index: int, features: np.ndarray) -> np.ndarray:
    return tf_outputs(given, index, "BoxEncodingPredictor", features).reshape(-1, 4)


def decode(codes: np.ndarray, sizes: Any, variances: np.ndarray) -> np.ndarray:
    """(y, x) of the centre from the cell's, and (h, w), of codes (y, x, h, w)."""
    sizes = np.asarray(sizes)
    return np.concatenate([codes[:, :2] * variances[:2] * sizes, np.exp(codes[:, 2:] * variances[2:]) * sizes], axis=1)


def prior_of(param: caffe_pb2.PriorBoxParameter) -> PriorBoxDesc:
    """What Caffe's PriorBox reads from its parameters."""
    variances = list(param.variance) or [0.1]
    x, y, w, h = variances * 4 if len(variances) == 1 else variances
    return PriorBoxDesc(
        tuple(param.min_size), tuple(param.max_size), tuple(param.aspect_ratio), param.flip, (x, y, w, h)
    )


class TestFinetune:
    def test_class_predictors_of_another_count_are_left(self) -> None:
        other = dataclasses.replace(arch_of(), num_classes=9)
        for dialect, stage in itertools.product((KEEP, FOLD), ("train", "deploy")):
            net = net_of(other, dialect, stage)  # type: ignore[arg-type]
            found = filled(net, finetune=True)
            predictors = [m.conf[-1].name for m in build(other).feature_maps]
            assert list(found.left) == predictors
            assert found.left["Conv_1_mbox_conf"] == "54 outputs in the net, 24 in the model"
            usual = filled(net_of(arch_of(), dialect, stage)).blobs  # type: ignore[arg-type]
            assert found.blobs.keys() == usual.keys() - set(predictors)
            for name, blobs in found.blobs.items():
                for blob, expected in zip(blobs, usual[name], strict=True):
                    np.testing.assert_array_equal(blob, expected)

    def test_without_finetune_each_is_a_problem(self) -> None:
        found = problems(net_of(dataclasses.replace(arch_of(), num_classes=9)))
        assert len(found) == 6
        assert "layer 'Conv_1_mbox_conf' has 54 outputs in 1 groups, the model 24 in 1" in found

    def test_the_same_count_leaves_nothing(self) -> None:
        assert filled(net_of(arch_of()), finetune=True).left == {}

    def test_other_problems_are_still_problems(self) -> None:
        net = net_of(dataclasses.replace(arch_of(), num_classes=9))
        changed = with_tensors(model(), {"FeatureExtractor/MobilenetV2/Conv_1/weights": None})
        assert len(problems(net, changed, finetune=True)) == 1

    def test_another_input_size(self) -> None:
        """Boxes keep their share of the image, so the weights are those of a net that was made for the size."""
        larger = dataclasses.replace(arch_of(), input_size=(225, 285))
        net = parse_net(render(build(larger), FOLD, "headless"))
        assert problems(net) == [
            "the net's input is 225x285, the model's 150x190; give --finetune to use the weights at another size"
        ]
        found, usual = filled(net, finetune=True), filled(net_of(arch_of()))
        for number, name in ((1, "Conv_1_mbox_loc"), (5, "layer_19_2_5_mbox_loc")):
            # A code of x means its share of the default box's width, whose whole pixels are not quite the same share.
            sizes = [
                np.asarray(cell_sizes(build(a).feature_maps[number].prior, a.input_size)) for a in (larger, arch_of())
            ]
            (weights, bias), (usual_weights, usual_bias) = found.blobs[name], usual.blobs[name]
            shares = [np.concatenate([s[:, ::-1], np.ones_like(s)], axis=1).reshape(-1, 1, 1, 1) for s in sizes]
            np.testing.assert_allclose(weights * shares[0], usual_weights * shares[1], rtol=1e-5)
            growth = [np.concatenate([np.zeros_like(s), np.log(s[:, ::-1]) / 0.2], axis=1).reshape(-1) for s in sizes]
            factors = [share.reshape(-1) for share in shares]
            np.testing.assert_allclose(bias * factors[0] + growth[0], usual_bias * factors[1] + growth[1], atol=1e-4)


def test_boxes_that_go_round_are_followed() -> None:
    sizes = ((0.1, 0.1), (0.2, 0.4), (0.4, 0.2))
    match = rematch_cell(sizes, (sizes[1], sizes[2], sizes[0]), sizes)
    assert match.source == (2, 0, 1), "the first new box is the third of the old ones"
