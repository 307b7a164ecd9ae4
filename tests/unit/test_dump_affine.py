"""What an op between a convolution and its activation does to each channel, and what it does not do."""

from __future__ import annotations

import numpy as np
import pytest

from ssdlite_caffe.dump.detector.affine import (
    BatchNormParts,
    Constants,
    Factor,
    Step,
    Term,
    lone_bias,
    per_channel,
    scale_and_offset,
    step_at,
)
from ssdlite_caffe.dump.graph.view import Use
from ssdlite_caffe.errors import ModelError
from tests.dump_graphs import GraphBuilder, ref, shape_proto

CHANNELS = 4
VALUES = np.array([0.5, -3, 7, 0.3], np.float32)


def builder() -> GraphBuilder:
    b = GraphBuilder()
    b.node("x", "Placeholder", dtype=np.dtype("float32"), shape=shape_proto(1, 9, 7, CHANNELS))
    b.const("c", VALUES)
    return b


def step_of(b: GraphBuilder, position: int = 0) -> Step | None:
    """The step that the node `op` takes from its input at `position`."""
    graph = b.graph()
    return step_at(Constants.of(graph), Use(graph[ref("op")], position), CHANNELS)


@pytest.mark.parametrize(
    ("op", "first", "second"),
    [
        ("Mul", Factor(ref("c")), Factor(ref("c"))),
        ("RealDiv", Factor(ref("c"), divides=True), None),
        ("Div", Factor(ref("c"), divides=True), None),
        ("Add", Term(ref("c")), Term(ref("c"))),
        ("AddV2", Term(ref("c")), Term(ref("c"))),
        ("Sub", Term(ref("c"), minus=True), Term(ref("c"), reversed=True)),
        ("Maximum", None, None),
    ],
)
def test_a_constant_joined_with_the_output(op: str, first: Step | None, second: Step | None) -> None:
    """A constant divided by the output is not affine."""
    for inputs, position, expected in ((("x", "c"), 0, first), (("c", "x"), 1, second)):
        b = builder()
        b.node("op", op, *inputs)
        assert step_of(b, position) == expected


@pytest.mark.parametrize(
    ("shape", "fits"), [((), True), ((1,), True), ((4,), True), ((1, 1, 1, 4), True), ((4, 1), False), ((2, 2), False),
                        ((3,), False), ((4, 4), False)],
)  # fmt: skip
def test_one_number_a_channel_in_the_last_axis(shape: tuple[int, ...], fits: bool) -> None:
    found = per_channel(np.arange(np.prod(shape), dtype=np.float32).reshape(shape), CHANNELS)
    assert (found is not None) is fits
    if found is not None:
        assert found.shape == (CHANNELS,)
        assert len(set(found.tolist())) == (CHANNELS if np.prod(shape) == CHANNELS else 1)


def test_counts_are_no_numbers_of_channels() -> None:
    assert per_channel(np.arange(4), CHANNELS) is None


STATISTICS = {"gamma": np.ones(CHANNELS), "beta": np.zeros(CHANNELS), "mean": VALUES, "variance": VALUES**2}


def fused(names: dict[str, str]) -> GraphBuilder:
    """A fused BatchNorm whose inputs have these names."""
    b = builder()
    inputs = [b.const(names.get(part, part), value) for part, value in STATISTICS.items()]
    b.node("op", "FusedBatchNormV3", "x", *inputs, epsilon=0.25, is_training=False)
    return b


@pytest.mark.parametrize("named", [True, False])
def test_ones_of_a_variable_are_kept_and_fillers_are_not(named: bool) -> None:
    """A gamma that was trained and stayed at 1 is a gamma; the ones that the op wants in its place are none."""
    scope = "FeatureExtractor/Conv/BatchNorm"
    names = {"gamma": f"{scope}/gamma", "beta": f"{scope}/beta"} if named else {"gamma": "Const", "beta": "Const_1"}
    found = step_of(fused(names))
    assert isinstance(found, BatchNormParts)
    assert (found.gamma is not None, found.beta is not None) == (named, named)
    assert found.epsilon == 0.25
    np.testing.assert_array_equal(found.moving_mean, VALUES)
    np.testing.assert_array_equal(found.moving_variance, VALUES**2)


def test_a_batch_norm_of_training_is_refused() -> None:
    b = fused({})
    next(node for node in b.definition.node if node.name == "op").attr["is_training"].b = True
    with pytest.raises(ModelError, match="statistics of each batch"):
        step_of(b)


def test_a_chain_is_one_scale_and_one_offset() -> None:
    """((2 - (x / c - c)) * c, normalised: each step against the formula, in float64."""
    b = builder()
    b.const("two", 2.0)
    constants = Constants.of(b.graph())
    norm = BatchNormParts(VALUES + 1, VALUES**2, VALUES - 2, VALUES + 3, 0.25)
    steps: list[Step] = [
        Factor(ref("c"), divides=True), Term(ref("c"), minus=True), Term(ref("two"), reversed=True), Factor(ref("c")),
        Term(ref("c")), norm,
    ]  # fmt: skip
    scale, offset = scale_and_offset(constants, steps, CHANNELS)
    assert scale.dtype == offset.dtype == np.float64
    c = VALUES.astype(np.float64)
    for x in (-1.5, 0.0, 2.25):
        before = (2 - (x / c - c)) * c + c
        expected = (before - (c + 1)) / np.sqrt(c**2 + 0.25) * (c - 2) + (c + 3)
        # VALUES + 1 is float32. Measured: 3.8e-7.
        np.testing.assert_allclose(scale * x + offset, expected, rtol=0, atol=5e-7)


def test_a_lone_bias() -> None:
    constants = Constants.of(builder().graph())
    np.testing.assert_array_equal(lone_bias(constants, [Term(ref("c"))], CHANNELS), VALUES)
    np.testing.assert_array_equal(lone_bias(constants, [Term(ref("c"), minus=True)], CHANNELS), -VALUES)
    for steps in ([], [Factor(ref("c"))], [Term(ref("c"), reversed=True)], [Term(ref("c"))] * 2):
        assert lone_bias(constants, steps, CHANNELS) is None
