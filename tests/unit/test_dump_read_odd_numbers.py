"""A good graph of which one constant is odd: our error or a net, and no warning on the way."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ssdlite_caffe.dump.graph import tensorflow_subset_pb2 as pb
from ssdlite_caffe.dump.graph.tensors import to_array
from ssdlite_caffe.dump.read import read_model
from ssdlite_caffe.errors import SsdliteError
from ssdlite_caffe.gen_model.build import build
from ssdlite_caffe.load.recognise import recognise
from tests.conftest import ROOT

GRAPH = pb.GraphDef.FromString((ROOT / "examples" / "frozen_inference_graph.pb").read_bytes())
CONSTANTS = {
    node.name: node.attr["value"].tensor
    for node in GRAPH.node
    if node.op == "Const" and node.attr["value"].tensor.dtype in (pb.DT_FLOAT, pb.DT_INT32)
}
SMALL = sorted(name for name, tensor in CONSTANTS.items() if tensor.ByteSize() < 50_000)
"""All but kernels."""
FLOATS = [math.nan, math.inf, -math.inf, 0.0, -1.0, 1e38, 1e-40]
INTEGERS = [-(2**31), -1, 0, 7, 2**31 - 1]


def with_odd(path: Path, name: str, odd: int, place: float | None) -> Path:
    """The graph with one value of a constant, or with `place` None all, exchanged for the `odd`-th odd number."""
    tensor = CONSTANTS[name]
    good = pb.TensorProto.FromString(tensor.SerializeToString())
    array = to_array(tensor, name).copy()
    numbers = FLOATS if array.dtype.kind == "f" else INTEGERS
    where = slice(None) if place is None else int(place * (array.size - 1))
    array.reshape(-1)[where] = numbers[odd % len(numbers)]
    for field in ("float_val", "int_val"):
        tensor.ClearField(field)
    tensor.tensor_content = array.tobytes()
    try:
        path.write_bytes(GRAPH.SerializeToString())
    finally:
        tensor.CopyFrom(good)
    return path


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(SMALL), odd=st.integers(0, 6), place=st.sampled_from([None, 0.0, 0.5, 1.0]))
@example("Postprocessor/Const_2", 6, None)
@example("Postprocessor/Decode/truediv_4/y", 6, None)
def test_our_error_or_a_net(tmp_path: Path, name: str, odd: int, place: float | None) -> None:
    with contextlib.suppress(SsdliteError):
        build(recognise(read_model(with_odd(tmp_path / "odd.pb", name, odd, place))))


NMS = "Postprocessor/NMS/combined_non_max_suppression/"


@pytest.mark.parametrize(
    ("name", "odd", "message"),
    [
        ("Preprocessor/ResizeBilinear/size", 0, "must resize to a positive size, got -2147483648x320"),
        ("Preprocessor/ResizeBilinear/size", 2, "must resize to a positive size, got 0x320"),
        ("Preprocessor/mul/y", 3, "factor for pixels must be a number other than 0, the model has 0.0"),
        ("Postprocessor/Const_2", 3, "default boxes of .* are not boxes"),
        ("FeatureExtractor/MobilenetV3/Conv/hard_swish/mul_1/y", 0, "hard swish with the factor nan"),
        (f"{NMS}iou_threshold", 0, "IoU threshold must be in 0..1, got nan"),
        (f"{NMS}score_threshold", 1, "score threshold must be a finite number, got inf"),
        (
            f"{NMS}CombinedNonMaxSuppression/max_output_size_per_class",
            2,
            "max_per_class must be a whole number in 1",
        ),
    ],
)
def test_what_is_said(tmp_path: Path, name: str, odd: int, message: str) -> None:
    with pytest.raises(SsdliteError, match=message):
        recognise(read_model(with_odd(tmp_path / "odd.pb", name, odd, 0.0)))


def test_no_least_score_is_tensorflows(tmp_path: Path) -> None:
    """Suppression is often called with -inf."""
    model = read_model(with_odd(tmp_path / "odd.pb", f"{NMS}score_threshold", 2, None))
    assert recognise(model).nms.score_threshold == 1e-8


def test_a_count_that_counts_nothing_is_none(tmp_path: Path) -> None:
    path = with_odd(tmp_path / "odd.pb", f"{NMS}score_threshold", 1, None)
    graph = pb.GraphDef.FromString(path.read_bytes())
    (suppression,) = (node for node in graph.node if node.op == "CombinedNonMaxSuppression")
    suppression.input[2] = suppression.input[5]
    path.write_bytes(graph.SerializeToString())
    assert read_model(path).settings.max_per_class is None


def test_the_graph_itself(tmp_path: Path) -> None:
    (tmp_path / "good.pb").write_bytes(GRAPH.SerializeToString())
    assert recognise(read_model(tmp_path / "good.pb")).family == "v3-small"
