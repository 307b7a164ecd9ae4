"""Nets of the format before 2014, with `layers { type: RELU }`, in today's format, as Caffe and OpenCV read them."""

from __future__ import annotations

from ssdlite_caffe.prototxt import caffe_pb2

_V1 = caffe_pb2.V1LayerParameter
_TYPES = (
    "AbsVal", "Accuracy", "ArgMax", "BNLL", "Concat", "ContrastiveLoss", "Convolution", "Data", "Deconvolution",
    "Dropout", "DummyData", "EuclideanLoss", "Eltwise", "Exp", "Flatten", "HDF5Data", "HDF5Output", "HingeLoss",
    "Im2col", "ImageData", "InfogainLoss", "InnerProduct", "LRN", "MemoryData", "MultinomialLogisticLoss", "MVN",
    "Pooling", "Power", "ReLU", "Sigmoid", "SigmoidCrossEntropyLoss", "Silence", "Softmax", "Split", "Slice", "TanH",
    "WindowData", "Threshold",
)  # fmt: skip
_BY_NAME = {name.upper(): name for name in _TYPES} | {"SOFTMAXLOSS": "SoftmaxWithLoss"}
_OWN = {"layer", "type", "blobs_lr", "weight_decay", "param", "blob_share_mode"}
"""Fields of a V1 layer that today's layer does not have under the same name and meaning."""
_MOVED = ("scale", "mean_file", "crop_size", "mirror")
"""Fields that were in the parameters of data layers and are in transform_param now."""


def is_old(net: caffe_pb2.NetParameter) -> bool:
    """Whether a net has `layers`, of the format before 2014."""
    return bool(net.layers)


def is_older(net: caffe_pb2.NetParameter) -> bool:
    """Whether a net has the format of 2013, `layers { layer { } }`."""
    return any(layer.HasField("layer") for layer in net.layers)


def upgrade(net: caffe_pb2.NetParameter) -> caffe_pb2.NetParameter:
    """A net with `layers` in today's format, with one `layer` for each; what it has as `layer` is left out.

    Source: UpgradeNetDataTransformation, UpgradeV1Net and UpgradeV1LayerParameter in upgrade_proto.cpp.
    """
    made = caffe_pb2.NetParameter()
    made.CopyFrom(net)
    made.ClearField("layers")
    made.ClearField("layer")
    for old in net.layers:
        _upgrade_layer(old, made.layer.add())
    return made


def type_name(old: int) -> str:
    """Today's name of a V1 layer type, "" for NONE."""
    return _BY_NAME.get(_V1.LayerType.Name(_V1.LayerType.ValueType(old)).replace("_", ""), "")


def _upgrade_layer(old: caffe_pb2.V1LayerParameter, new: caffe_pb2.LayerParameter) -> None:
    for field, value in old.ListFields():
        if field.name in _OWN or field.name not in caffe_pb2.LayerParameter.DESCRIPTOR.fields_by_name:
            continue
        if field.is_repeated:
            getattr(new, field.name).extend(value)
        elif field.message_type is not None:
            getattr(new, field.name).CopyFrom(value)
        else:
            setattr(new, field.name, value)
    new.type = type_name(old.type)
    for name, values in (
        ("name", old.param), ("lr_mult", old.blobs_lr), ("decay_mult", old.weight_decay),
        ("share_mode", old.blob_share_mode),
    ):  # fmt: skip
        for place, one in enumerate(values):
            while len(new.param) <= place:
                new.param.add()
            setattr(new.param[place], name, one)
    for data in ("data_param", "image_data_param", "window_data_param"):
        if new.HasField(data):
            param = getattr(new, data)
            for name in _MOVED:
                if param.HasField(name):
                    setattr(new.transform_param, name, getattr(param, name))
                    param.ClearField(name)
