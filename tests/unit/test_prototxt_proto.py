"""caffe.proto and the Python made from it."""

import ast
import re
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from ssdlite_caffe.prototxt import caffe_pb2

ROOT = Path(__file__).parents[2]
SOURCE = "ssdlite_caffe/prototxt/caffe.proto"


def descriptor_in(generated):
    literal = re.search(r"AddSerializedFile\((b'.*')\)", generated.read_text())[1]
    return descriptor_pb2.FileDescriptorProto.FromString(ast.literal_eval(literal))


def test_generated_code_is_what_protoc_makes_of_the_proto(tmp_path):
    protoc = pytest.importorskip("grpc_tools.protoc", reason="grpcio-tools is not installed")
    assert protoc.main(["protoc", f"-I{ROOT}", f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", SOURCE]) == 0
    name = SOURCE.replace(".proto", "_pb2.py")
    assert descriptor_in(ROOT / name) == descriptor_in(tmp_path / name)
    assert (ROOT / f"{name}i").read_text() == (tmp_path / f"{name}i").read_text()


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
