"""caffe.proto and the Python made from it."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from ssdlite_caffe.prototxt import caffe_pb2

ROOT = Path(__file__).parents[2]
PROTOS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "ssdlite_caffe").rglob("*.proto"))


@pytest.mark.parametrize("source", PROTOS)
def test_generated_code_is_what_protoc_makes_of_the_proto(tmp_path, source):
    if importlib.util.find_spec("grpc_tools") is None:
        pytest.skip("grpcio-tools is not installed")
    # In a process of its own: protoc brings a protobuf of its own, which does not get on with TensorFlow's.
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT}", f"--python_out={tmp_path}",
               f"--pyi_out={tmp_path}", source]  # fmt: skip
    subprocess.run(command, check=True)
    for suffix in ("_pb2.py", "_pb2.pyi"):
        name = source.replace(".proto", suffix)
        assert (ROOT / name).read_text() == (tmp_path / name).read_text()


def test_every_proto_is_compared():
    assert len(PROTOS) == 3


@pytest.mark.parametrize(
    ("message", "field", "number"),
    [
        ("NetParameter", "layer", 100),
        ("LayerParameter", "blobs", 7),
        ("LayerParameter", "convolution_param", 106),
        ("LayerParameter", "batch_norm_param", 139),
        ("LayerParameter", "scale_param", 142),
        ("LayerParameter", "input_param", 143),
        ("LayerParameter", "clip_param", 148),
        ("LayerParameter", "annotated_data_param", 200),
        ("LayerParameter", "multibox_loss_param", 201),
        ("LayerParameter", "permute_param", 202),
        ("LayerParameter", "prior_box_param", 203),
        ("LayerParameter", "detection_output_param", 204),
        ("LayerParameter", "detection_evaluate_param", 205),
        ("LayerParameter", "norm_param", 206),
        ("LayerParameter", "video_data_param", 207),
        ("LayerParameter", "relu6_param", 208),
        ("TransformationParameter", "resize_param", 8),
        ("TransformationParameter", "noise_param", 9),
        ("TransformationParameter", "emit_constraint", 10),
        ("TransformationParameter", "distort_param", 13),
        ("TransformationParameter", "expand_param", 14),
        ("ConvolutionParameter", "tf_pad", 19),
        ("ConvolutionParameter", "dilation", 18),
        ("PriorBoxParameter", "reduce_boxes", 14),
        ("DetectionOutputParameter", "save_file", 12),
        ("BlobProto", "data", 5),
        ("BlobProto", "shape", 7),
    ],
)
def test_numbers_are_those_of_the_ssd_branch(message, field, number):
    assert getattr(caffe_pb2, message).DESCRIPTOR.fields_by_name[field].number == number


def test_defaults_that_forks_disagree_about():
    assert caffe_pb2.PriorBoxParameter().clip is False
    assert caffe_pb2.PriorBoxParameter().flip is True
    assert caffe_pb2.BatchNormParameter().eps == pytest.approx(1e-5)
    assert caffe_pb2.NonMaximumSuppressionParameter().nms_threshold == pytest.approx(0.3)
    assert caffe_pb2.MultiBoxLossParameter().mining_type == caffe_pb2.MultiBoxLossParameter.MAX_NEGATIVE
