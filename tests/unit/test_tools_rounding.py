"""The bound of rounding errors: no rounding of the weights exceeds it, and it is not far above what they do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssdlite_caffe.runtimes.reference_net import ReferenceNet
from ssdlite_caffe.tools.local_check import box_errors, local_difference, walk
from ssdlite_caffe.tools.rounding import UNIT
from tests.unit.test_runtimes_reference_net import given_input, layer, write_net

CHAINS = {
    "convolution": layer("Convolution", "convolution_param { num_output: 4 kernel_size: 3 pad: 1 stride: 2 }"),
    "depthwise": layer("Convolution", "convolution_param { num_output: 3 kernel_size: 3 group: 3 pad: 1 }"),
    "batch norm": layer("BatchNorm", "batch_norm_param { eps: 0.01 }"),
    "scale": layer("Scale", "scale_param { bias_term: true }"),
    "kept": layer("Convolution", "convolution_param { num_output: 4 kernel_size: 1 bias_term: false }", tops=("c",))
    + layer("BatchNorm", "batch_norm_param { eps: 0.01 }", ("c",), ("b",)).replace('"t"', '"n"', 1)
    + layer("Scale", "scale_param { bias_term: true }", ("b",)).replace('"t"', '"s"', 1)
    + layer("ReLU6", "", ("t",)).replace('"t"', '"r"', 1),
    "hard swish": layer("Convolution", "convolution_param { num_output: 3 kernel_size: 1 }", tops=("c",))
    + layer("Power", "power_param { shift: 3 }", ("c",), ("p",)).replace('"t"', '"p"', 1)
    + layer("ReLU6", "", ("p",), ("p",)).replace('"t"', '"r"', 1)
    + layer("Eltwise", "eltwise_param { operation: PROD }", ("c", "p"), ("e",)).replace('"t"', '"e"', 1)
    + layer("Power", "power_param { scale: 0.16667 }", ("e",)).replace('"t"', '"q"', 1),
    "gate": layer("Pooling", "pooling_param { pool: AVE global_pooling: true }", tops=("a",))
    + layer("Convolution", "convolution_param { kernel_size: 1 num_output: 3}", ("a",), ("g",)).replace('"t"', '"c"', 1)
    + layer("Sigmoid", "", ("g",), ("g",)).replace('"t"', '"i"', 1)
    + layer("Flatten", "", ("g",), ("f",)).replace('"t"', '"f"', 1)
    + layer("Scale", "scale_param { axis: 0 }", ("d", "f")).replace('"t"', '"m"', 1),
    "softmax": layer("Convolution", "convolution_param { num_output: 4 kernel_size: 1 }", tops=("c",))
    + layer("Softmax", "softmax_param { axis: 1 }", ("c",)).replace('"t"', '"o"', 1),
    "exp": layer("Convolution", "convolution_param { num_output: 4 kernel_size: 1 }", tops=("c",))
    + layer("Exp", "", ("c",)).replace('"t"', '"o"', 1),
}  # fmt: skip


@pytest.mark.parametrize("name", CHAINS)
@settings(max_examples=15)
@given(seed=st.integers(0, 2**31))
def test_rounded_weights_stay_within_the_bound(name: str, seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    random = np.random.default_rng(seed)
    net = ReferenceNet(
        *write_net(tmp_path_factory.mktemp("net"), given_input(1, 3, 6, 5) + CHAINS[name], seed), double=True
    )
    x = random.normal(0, 3, (1, 3, 6, 5))
    exact = net.forward(x, ["t"])["t"]
    allowed = walk(net, x, {}).errors["t"]
    assert allowed.shape == exact.shape
    weights, most = net.weights, np.zeros_like(exact)
    for number in range(20):
        # The last blob of a BatchNorm, 1, is not rounded.
        net.weights = {
            key: tuple(w if w.size == 1 else w * (1 + UNIT * random.choice([-1.0, 1.0], w.shape)) for w in blobs)
            for key, blobs in weights.items()
        }
        if number == 0:
            net.weights = {
                key: tuple(w if w.size == 1 else w * (1 + UNIT) for w in blobs) for key, blobs in weights.items()
            }
        moved = np.abs(net.forward(x, ["t"])["t"] - exact)
        assert (moved <= allowed * (1 + 1e-6) + 1e-13).all()
        most = np.maximum(most, moved)
    assert most.max() > 0
    assert allowed.max() < 60 * most.max(), "the bound is of the size of what rounding does"


def test_box_errors_hold() -> None:
    random = np.random.default_rng(4)
    corners = np.sort(random.uniform(0, 1, (50, 2, 2)), axis=1).reshape(50, 4)
    variances = np.tile([0.1, 0.1, 0.2, 0.2], 50)
    priors = np.stack([corners.reshape(-1), variances])[None]
    loc, errors = random.normal(0, 2, 200), np.abs(random.normal(0, 1e-3, 200))

    def boxes(codes: np.ndarray, around: np.ndarray) -> np.ndarray:
        from ssdlite_caffe.runtimes.decode import decode_boxes

        return decode_boxes(codes, around, variances.reshape(-1, 4), np.float64)

    allowed, exact = box_errors(loc, errors, priors), boxes(loc, corners)
    for _ in range(50):
        signs = random.choice([-1.0, 1.0], 200)
        moved = boxes(loc + signs * errors, corners * (1 + UNIT * random.choice([-1.0, 1.0], corners.shape)))
        assert (np.abs(moved - exact) <= allowed).all()
    assert allowed.max() < 3 * np.abs(boxes(loc + errors, corners) - exact).max()


class TestLocalDifference:
    def test_names_the_value_that_is_furthest_off(self) -> None:
        theirs = np.arange(6.0).reshape(1, 2, 3, 1)
        ours = theirs.copy()
        ours[0, 1, 2, 0] += 0.5
        ours[0, 0, 0, 0] += 0.25
        error = np.full_like(theirs, 0.5)
        error[0, 0, 0, 0] = 0.1
        found = local_difference(ours, theirs, error)
        assert not found.ok
        assert (found.at, found.ours, found.theirs, found.absolute) == ((0, 0, 0, 0), 0.25, 0.0, 0.5)
        assert found.share == pytest.approx(2.5)

    @pytest.mark.parametrize("odd", [np.nan, np.inf])
    def test_what_is_no_number_is_not_allowed(self, odd: float) -> None:
        theirs = np.ones((1, 2))
        assert not local_difference(np.asarray([[1.0, odd]]), theirs, np.ones_like(theirs)).ok

    def test_another_shape_is_not_allowed(self) -> None:
        assert not local_difference(np.ones((1, 2)), np.ones((2, 1)), np.ones((1, 2))).ok

    def test_nothing_but_noise_of_float64(self) -> None:
        theirs = np.full((1, 3), 4.0)
        assert local_difference(theirs * (1 + 1e-15), theirs, np.zeros((1, 3))).ok
        assert not local_difference(theirs * (1 + 1e-11), theirs, np.zeros((1, 3))).ok


def test_a_walk_goes_on_from_the_models_values(tmp_path: Path) -> None:
    text = (
        given_input(1, 3, 4, 4)
        + CHAINS["kept"]
        + layer("Power", "power_param { scale: 2 }", ("t",), ("u",)).replace('"t"', '"x"', 1)
    )
    net = ReferenceNet(*write_net(tmp_path, text), double=True)
    x = np.random.default_rng(0).normal(0, 1, (1, 3, 4, 4))
    target = np.full((1, 4, 4, 4), 1.5)
    walked = walk(net, x, {"t": target})
    assert walked.differences["t"].absolute > 1e-3
    assert np.array_equal(walked.blobs["u"], 2 * target)
    assert (walked.errors["u"] == 0).all()
    free = walk(net, x, {})
    assert not free.differences
    assert np.array_equal(free.blobs["u"], net.forward(x, ["u"])["u"])
    assert (free.errors["u"] == 2 * free.errors["t"]).all()


def test_a_constant_that_float32_rounds_is_a_rounded_weight(tmp_path: Path) -> None:
    """1/6 as float32 is off by 3e-8 of itself, which is allowed, and 0.16667 is not."""
    text = layer("Power", "power_param { scale: 0.16666667 }")
    net = ReferenceNet(*write_net(tmp_path, given_input(1, 3, 6, 5) + text, 0), double=True)
    x = np.random.default_rng(0).normal(0, 3, (1, 3, 6, 5))
    known = net.with_constants([1 / 6])
    np.testing.assert_array_equal(net.forward(x, ["t"])["t"], known.forward(x, ["t"])["t"])
    exact = net.with_constants([1 / 6], exact=True).forward(x, ["t"])["t"]
    np.testing.assert_array_equal(exact, x * (1 / 6))
    allowed, found = walk(known, x, {}).errors["t"], np.abs(known.forward(x, ["t"])["t"] - exact)
    assert (found <= allowed).all()
    assert (found > allowed / 4).all()
    assert not walk(net, x, {}).errors["t"].any()
    assert (np.abs(x * 0.16667 - exact) > 100 * allowed).all()
