"""TensorFlow Lite files operator by operator: what is read, what is refused, and that nothing else happens."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssdlite_caffe.dump.detector.affine import Constants
from ssdlite_caffe.dump.detector.preprocessing import first_convolution, network_input
from ssdlite_caffe.dump.detector.wiring import renamed_expression, scopes_in
from ssdlite_caffe.dump.graph.view import Graph
from ssdlite_caffe.dump.read import ReadOptions, read_model
from ssdlite_caffe.dump.tflite.file import Tensor, read_tflite
from ssdlite_caffe.dump.tflite.lower import lower, quantised_operators, real_values, tensor_index, tensor_node
from ssdlite_caffe.errors import ModelError, SsdliteError
from tests.tflite_files import OperatorSpec, TensorSpec, postprocess_file, tflite_file

CONV = {"Padding": 0, "StrideH": 2, "StrideW": 2, "DilationHFactor": 1, "DilationWFactor": 1,
        "FusedActivationFunction": 3}  # fmt: skip


def conv_file(**changes: Any) -> bytes:
    """One convolution, 8x6x3 -> 4x3x5, with a bias and a ReLU6."""
    random = np.random.default_rng(0)
    kernel = random.normal(size=(5, 3, 3, 3)).astype(np.float32)
    bias = random.normal(size=5).astype(np.float32)
    tensors = [
        TensorSpec((1, 8, 6, 3)), TensorSpec(kernel.shape, kernel), TensorSpec((5,), bias), TensorSpec((1, 4, 3, 5)),
    ]  # fmt: skip
    operator = OperatorSpec("CONV_2D", (0, 1, 2), (3,), CONV | changes.pop("options", {}), "Conv2DOptions")
    return tflite_file(tensors, [operator], [0], [3], **changes)


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


class TestFile:
    def test_tensors_operators_and_options(self, tmp_path: Path) -> None:
        file, data = read_tflite(written(tmp_path / "a.tflite", conv_file()))
        assert data == conv_file()
        (operator,) = file.operators
        assert (operator.op, operator.inputs, operator.outputs, operator.options) == ("CONV_2D", (0, 1, 2), (3,), CONV)
        assert [tensor.shape for tensor in file.tensors] == [(1, 8, 6, 3), (5, 3, 3, 3), (5,), (1, 4, 3, 5)]
        assert (file.inputs, file.outputs) == ((0,), (3,))
        assert file.tensors[0].values is None
        assert file.tensors[1].values is not None

    def test_custom_options(self, tmp_path: Path) -> None:
        options = {"max_detections": 7, "nms_iou_threshold": 0.5, "use_regular_nms": True, "names": ["a", "b"]}
        data = postprocess_file((6, 4), 3, np.zeros((6, 4), np.float32), options)
        file, _ = read_tflite(written(tmp_path / "a.tflite", data))
        assert file.operators[0].custom == "TFLite_Detection_PostProcess"
        del options["names"]
        assert file.operators[0].options == options

    @pytest.mark.parametrize(
        ("data", "says"),
        [
            (b"\x1c\x00\x00\x00TFL2" + bytes(40), "must have the identifier b'TFL3', got b'TFL2'"),
            (b"model {\n ssd {} }", "is a pipeline.config"),
            (b"PK\x03\x04" + bytes(40), "is a zip archive"),
            (conv_file(version=2), "must have version 3 of TensorFlow Lite's format, got 2"),
            (struct.pack("<I4s", 1 << 30, b"TFL3") + bytes(64), "cut short or damaged"),
            (conv_file()[:200], "cut short or damaged"),
        ],
    )
    def test_what_is_none(self, tmp_path: Path, data: bytes, says: str) -> None:
        with pytest.raises(
            ModelError, match=r"not a TensorFlow Lite model|is not a complete|must have version"
        ) as error:
            read_tflite(written(tmp_path / "a.tflite", data))
        assert says in str(error.value)
        assert "\n" not in str(error.value)

    def test_an_operator_with_the_options_of_another(self, tmp_path: Path) -> None:
        tensors = [TensorSpec((1, 2)), TensorSpec((1, 2))]
        operator = OperatorSpec("CONV_2D", (0,), (1,), {"FusedActivationFunction": 0}, "AddOptions")
        with pytest.raises(ModelError, match="CONV_2D with the options of another operator"):
            read_tflite(written(tmp_path / "a.tflite", tflite_file(tensors, [operator], [0], [1])))

    def test_a_tensor_that_does_not_exist(self, tmp_path: Path) -> None:
        operator = OperatorSpec("RELU", (0,), (9,))
        path = written(tmp_path / "a.tflite", tflite_file([TensorSpec((1,)), TensorSpec((1,))], [operator], [0], [1]))
        with pytest.raises(ModelError, match="tensor 9 of 2"):
            read_tflite(path)

    def test_a_constant_of_other_size(self, tmp_path: Path) -> None:
        tensors = [TensorSpec((1,)), TensorSpec((4, 5), np.zeros(19, np.float32)), TensorSpec((1,))]
        data = tflite_file(tensors, [OperatorSpec("ADD", (0, 1), (2,), {"FusedActivationFunction": 0}, "AddOptions")],
                           [0], [2])  # fmt: skip
        with pytest.raises(ModelError, match=r"has 76 bytes, which does not match shape \(4, 5\)"):
            read_tflite(written(tmp_path / "a.tflite", data))

    @settings(max_examples=300)
    @given(st.data())
    def test_damage_is_one_line_or_another_model(self, tmp_path_factory: Any, data: st.DataObject) -> None:
        whole = bytearray(conv_file())
        for _ in range(data.draw(st.integers(1, 4))):
            place = data.draw(st.integers(0, len(whole) - 1))
            whole[place] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF, data.draw(st.integers(0, 255))]))
        cut = data.draw(st.integers(0, len(whole)))
        path = tmp_path_factory.mktemp("damaged") / "a.tflite"
        path.write_bytes(bytes(whole[: len(whole) if data.draw(st.booleans()) else cut]))
        with pytest.raises(SsdliteError) as error:  # one convolution is no detector
            read_model(path)
        assert "\n" not in str(error.value)


class TestValues:
    @given(st.integers(0, 2**32 - 1), st.sampled_from(["i1", "u1"]), st.booleans())
    def test_whole_numbers_are_a_scale_times_their_distance_from_zero(self, seed: int, kind: str, each: bool) -> None:
        random = np.random.default_rng(seed)
        limits = np.iinfo(kind)
        values = random.integers(limits.min, limits.max + 1, (3, 2, 4)).astype(kind)
        count = 4 if each else 1
        scale = random.uniform(1e-4, 1, count).astype(np.float32)
        zero = random.integers(limits.min, limits.max + 1, count)
        tensor = Tensor(0, "", values.shape, kind, values, scale, zero, 2)
        expected = np.empty(values.shape)
        for i, j, k in np.ndindex(values.shape):
            c = k if each else 0
            expected[i, j, k] = float(scale[c]) * (int(values[i, j, k]) - int(zero[c]))
        found = real_values(tensor)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=6e-8, atol=0)

    def test_float16_is_taken_as_it_is(self) -> None:
        values = np.array([0.1, 65504, 6e-8], np.float16)
        tensor = Tensor(0, "", (3,), "f2", values, np.zeros(0, np.float32), np.zeros(0, np.int64), 0)
        found = real_values(tensor)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, [float(value) for value in values])


class TestLowering:
    def nodes(self, tmp_path: Path, data: bytes) -> Graph:
        file, _ = read_tflite(written(tmp_path / "a.tflite", data))
        return Graph(lower(file), source="a.tflite")

    def test_a_convolution(self, tmp_path: Path) -> None:
        graph = self.nodes(tmp_path, conv_file())
        assert [node.op for node in graph] == ["Placeholder", "Const", "Conv2D", "Const", "BiasAdd", "Relu6"]
        conv = graph.nodes["op_0/convolution"]
        assert (conv.attr_text("padding"), conv.attr_ints("strides")) == ("SAME", (1, 2, 2, 1))
        kernel = graph.nodes["op_0/weights"].attr_tensor()
        assert kernel is not None
        assert [dim.size for dim in kernel.tensor_shape.dim] == [3, 3, 3, 5]
        ohwi = np.random.default_rng(0).normal(size=(5, 3, 3, 3)).astype(np.float32)
        np.testing.assert_array_equal(
            np.frombuffer(kernel.tensor_content, "<f4").reshape(3, 3, 3, 5), ohwi.transpose(1, 2, 3, 0)
        )
        assert graph.nodes[tensor_node(3)].op == "Relu6"
        assert tensor_index(tensor_node(3) + ":0") == 3

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"FusedActivationFunction": 4}, "has the activation 4, which no MobileNet has"),
            ({"Padding": 2}, "padding of .* must be one of 0..1, got 2"),
        ],
    )
    def test_what_no_detector_has(self, tmp_path: Path, options: dict[str, int], says: str) -> None:
        with pytest.raises(ModelError, match=says):
            self.nodes(tmp_path, conv_file(options=options))

    def test_a_kernel_that_does_not_fit_its_map(self, tmp_path: Path) -> None:
        tensors = [TensorSpec((1, 8, 6, 4)), TensorSpec((5, 3, 3, 3), np.zeros((5, 3, 3, 3), np.float32)),
                   TensorSpec((1, 4, 3, 5))]  # fmt: skip
        data = tflite_file(tensors, [OperatorSpec("CONV_2D", (0, 1), (2,), CONV, "Conv2DOptions")], [0], [2])
        with pytest.raises(ModelError, match=r"kernel \(5, 3, 3, 3\) of .* does not fit its input \(1, 8, 6, 4\)"):
            self.nodes(tmp_path, data)

    def test_an_input_that_nothing_gives(self, tmp_path: Path) -> None:
        tensors = [TensorSpec((1,)), TensorSpec((1,)), TensorSpec((1,))]
        data = tflite_file(tensors, [OperatorSpec("RELU", (1,), (2,))], [0], [2])
        with pytest.raises(ModelError, match="reads tensor 1, which is not written before"):
            self.nodes(tmp_path, data)

    @pytest.mark.parametrize(
        ("scale", "zero", "op"), [(6 / 255, 0, "Relu6"), (4 / 255, 0, "Relu6"), (0.05, 0, "Relu"), (0.05, 3, "BiasAdd")]
    )
    def test_the_activation_that_a_range_stands_for(self, tmp_path: Path, scale: float, zero: int, op: str) -> None:
        kernel, bias = np.ones((5, 1, 1, 3), np.uint8), np.zeros(5, np.int32)
        tensors = [
            TensorSpec((1, 4, 3, 3), dtype="u1", scale=(0.01,)), TensorSpec(kernel.shape, kernel, "u1", scale=(0.5,)),
            TensorSpec((5,), bias, "i4", scale=(0.005,)),
            TensorSpec((1, 4, 3, 5), dtype="u1", scale=(scale,), zero_point=(zero,)),
        ]  # fmt: skip
        options = CONV | {"FusedActivationFunction": 0, "StrideH": 1, "StrideW": 1}
        data = tflite_file(tensors, [OperatorSpec("CONV_2D", (0, 1, 2), (3,), options, "Conv2DOptions")], [0], [3])
        assert self.nodes(tmp_path, data).nodes[tensor_node(3)].op == op


class TestWhatIsNoDetector:
    def test_one_convolution(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="ends neither in TFLite_Detection_PostProcess nor in box encodings"):
            read_model(written(tmp_path / "a.tflite", conv_file()))

    def test_no_convolution(self, tmp_path: Path) -> None:
        data = tflite_file([TensorSpec((1,)), TensorSpec((1,))], [OperatorSpec("RELU", (0,), (1,))], [0], [1])
        with pytest.raises(ModelError, match="it holds no convolution"):
            read_model(written(tmp_path / "a.tflite", data))

    def test_fully_quantised(self, tmp_path: Path) -> None:
        tensors = [
            TensorSpec((1, 4, 3, 3), dtype="i1", scale=(0.01,)),
            TensorSpec((5, 1, 1, 3), np.ones((5, 1, 1, 3), np.int8), "i1", scale=(0.5,)),
            TensorSpec((1, 4, 3, 5), dtype="i1", scale=(1.0,)),
        ]  # fmt: skip
        options = CONV | {"StrideH": 1, "StrideW": 1}
        data = tflite_file(tensors, [OperatorSpec("CONV_2D", (0, 1), (2,), options, "Conv2DOptions")], [0], [2])
        path = written(tmp_path / "a.tflite", data)
        with pytest.raises(ModelError, match=r"is fully quantised: 1 operators .* 1 convolutions .* --dequant"):
            read_model(path)
        with pytest.raises(ModelError, match="is not an SSD detector"):
            read_model(path, ReadOptions(dequantize=True))


class TestBounds:
    def test_an_option_that_is_no_number(self, tmp_path: Path) -> None:
        data = postprocess_file((6, 4), 3, np.zeros((6, 4), np.float32), {"num_classes": "5"})
        with pytest.raises(ModelError, match="the option num_classes is not a number"):
            read_tflite(written(tmp_path / "a.tflite", data))


class TestInputs:
    """A float net that reads pixels says itself what a pixel means."""

    @pytest.mark.parametrize(("scale", "zero"), [(1 / 128, 128), (1 / 255, 0), (2 / 255, 127)])
    def test_pixels_with_a_scale(self, tmp_path: Path, scale: float, zero: int) -> None:
        kernel = np.ones((5, 3, 3, 3), np.float32)
        tensors = [
            TensorSpec((1, 8, 6, 3), dtype="u1", scale=(scale,), zero_point=(zero,)), TensorSpec((1, 8, 6, 3)),
            TensorSpec(kernel.shape, kernel), TensorSpec((1, 4, 3, 5)),
        ]  # fmt: skip
        operators = [
            OperatorSpec("DEQUANTIZE", (0,), (1,)), OperatorSpec("CONV_2D", (1, 2), (3,), CONV, "Conv2DOptions"),
        ]  # fmt: skip
        file, _ = read_tflite(written(tmp_path / "a.tflite", tflite_file(tensors, operators, [0], [3])))
        assert quantised_operators(file) == []
        constants = Constants.of(Graph(lower(file), source="a"))
        stem = first_convolution(constants.graph)
        assert stem is not None
        found = network_input(constants, stem)
        assert found.size == (8, 6)
        assert found.scale == float(np.float32(scale))
        assert found.offset == pytest.approx(-zero * found.scale, rel=1e-12)

    @pytest.mark.parametrize("op", ["RELU", "NEG", "TANH", "REVERSE_V2"])
    def test_what_changes_the_image_is_named(self, tmp_path: Path, op: str) -> None:
        kernel = np.ones((5, 3, 3, 3), np.float32)
        tensors = [TensorSpec((1, 8, 6, 3)), TensorSpec((1, 8, 6, 3)), TensorSpec(kernel.shape, kernel),
                   TensorSpec((1, 4, 3, 5))]  # fmt: skip
        operators = [OperatorSpec(op, (0,), (1,)), OperatorSpec("CONV_2D", (1, 2), (3,), CONV, "Conv2DOptions")]
        file, _ = read_tflite(written(tmp_path / "a.tflite", tflite_file(tensors, operators, [0], [3])))
        constants = Constants.of(Graph(lower(file), source="a"))
        stem = first_convolution(constants.graph)
        assert stem is not None
        with pytest.raises(ModelError, match=r"tensor_1 \(\w+\) changes the image before the first convolution"):
            network_input(constants, stem)

    def test_whole_numbers_in_between_are_quantisation(self, tmp_path: Path) -> None:
        tensors = [
            TensorSpec((1, 4)), TensorSpec((1, 4), dtype="i1", scale=(0.1,)), TensorSpec((1, 4)), TensorSpec((1, 4)),
        ]  # fmt: skip
        operators = [
            OperatorSpec("RELU", (0,), (3,)), OperatorSpec("QUANTIZE", (3,), (1,)),
            OperatorSpec("DEQUANTIZE", (1,), (2,)),
        ]  # fmt: skip
        file, _ = read_tflite(written(tmp_path / "a.tflite", tflite_file(tensors, operators, [0], [2])))
        assert [operator.op for operator in quantised_operators(file)] == ["QUANTIZE", "DEQUANTIZE"]


EXPRESSIONS = st.recursive(
    st.sampled_from(["a", "b", "op_1", "op_12", "Sub x/y"]),
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(["sum", "product"]), inner, inner).map(
            lambda parts: f"{parts[0]}({', '.join(sorted(parts[1:]))})"
        ),
        inner.map(lambda one: f"mean({one})"),
    ),
    max_leaves=6,
)


class TestExpressions:
    @given(EXPRESSIONS)
    def test_no_new_names_change_nothing(self, text: str) -> None:
        assert renamed_expression(text, {}) == text

    @given(EXPRESSIONS)
    def test_and_back(self, text: str) -> None:
        there = {"a": "z/a", "op_1": "c/d", "op_12": "aa"}
        back = {new: old for old, new in there.items()}
        assert renamed_expression(renamed_expression(text, there), back) == text
        assert scopes_in(renamed_expression(text, there)) == {there.get(scope, scope) for scope in scopes_in(text)}
