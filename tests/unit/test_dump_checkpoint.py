"""Variables of a checkpoint as convolutions; the files themselves are read in tests/parity."""

from __future__ import annotations

import numpy as np
import pytest

from ssdlite_caffe.dump.model import Settings
from ssdlite_caffe.dump.pipeline.config import Pipeline
from ssdlite_caffe.dump.tf1.checkpoint import units_of_variables
from ssdlite_caffe.errors import ModelError

PIPELINE = Pipeline(Settings(), backbone_epsilon=0.1, extra_epsilon=0.2, head_epsilon=0.3, moving_averages=False)
BACKBONE = "FeatureExtractor/MobilenetV1/Conv2d_1_depthwise"
EXTRA = "FeatureExtractor/MobilenetV1/Conv2d_13_pointwise_2_Conv2d_2_3x3_s2_512"
HEAD = "BoxPredictor_0/ClassPredictor_depthwise"


def variables(*names: str) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    return {name: np.ones((1, 1, 2, 2) if name.endswith("weights") else (2,), np.float32) for name in names}


def normalised(scope: str, kernel: str = "weights") -> list[str]:
    return [f"{scope}/{kernel}", f"{scope}/BatchNorm/moving_mean", f"{scope}/BatchNorm/moving_variance"]


def test_each_part_of_the_detector_has_its_epsilon() -> None:
    names = [*normalised(EXTRA), *normalised(BACKBONE, "depthwise_weights"), *normalised(HEAD), "a/weights", "a/biases"]
    units = units_of_variables(variables(*names), PIPELINE, "ckpt")
    assert [(unit.scope, unit.epsilon, unit.kind) for unit in units] == [
        (HEAD, 0.3, "conv"),
        (EXTRA, 0.2, "conv"),
        (BACKBONE, 0.1, "depthwise"),
        ("a", None, "conv"),
    ]
    assert units[3].tensors == {"weights": "a/weights", "biases": "a/biases"}
    assert {(unit.activation, unit.stride, unit.padding, unit.output) for unit in units} == {(None, None, None, None)}


def test_half_a_batch_norm_is_refused() -> None:
    with pytest.raises(ModelError, match="only one of moving_mean and moving_variance"):
        units_of_variables(variables("a/weights", "a/BatchNorm/moving_mean"), PIPELINE, "ckpt")


def test_a_kernel_of_another_rank_is_refused() -> None:
    flat = {"a/weights": np.ones((2, 2), np.float32)}
    with pytest.raises(ModelError, match=r"a/weights must have 4 axes, as a kernel has, got the shape \(2, 2\)"):
        units_of_variables(flat, PIPELINE, "ckpt")
