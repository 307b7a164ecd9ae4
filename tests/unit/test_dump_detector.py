"""Detectors of the Object Detection API that have other nets are refused by name."""

from __future__ import annotations

import numpy as np
import pytest

from ssdlite_caffe.dump.detector.take_apart import take_apart
from ssdlite_caffe.errors import ModelError
from tests.dump_graphs import GraphBuilder, shape_proto


@pytest.mark.parametrize(
    ("scope", "says"),
    [
        ("FeatureExtractor/MobileDetCPU/Conv", r"another backbone \(FeatureExtractor/MobileDetCPU\)"),
        ("FeatureExtractor/MobilenetV1/fpn/top_down/projection_1", "a feature pyramid"),
        ("FeatureExtractor/MnasFPN/cell_0/block_0", "a feature pyramid"),
        ("WeightSharedConvolutionalBoxPredictor_2/BoxPredictor", "shared by the feature maps"),
    ],
)
def test_other_nets_of_the_api_are_named(scope: str, says: str) -> None:
    b = GraphBuilder()
    b.node("x", "Placeholder", dtype=np.dtype("float32"), shape=shape_proto(1, 8, 8, 3))
    b.conv(scope, "x", np.ones((1, 1, 3, 4)), padding="SAME")
    with pytest.raises(ModelError, match=says):
        take_apart(b.graph())
