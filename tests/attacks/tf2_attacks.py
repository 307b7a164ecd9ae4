"""Hostile files of TensorFlow 2: one function makes one model, which test_tf2_files.py shows to do no harm."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ssdlite_caffe.dump.graph import tensorflow_subset_pb2 as pb
from ssdlite_caffe.dump.tf2.crc32c import crc32c, masked
from tests.keras_checkpoints import MAGIC, OBJECT_GRAPH, block, table, varint, write_checkpoint

SHARD = "ckpt-1.data-00000-of-00001"
HUGE = 1 << 62
CONFIG = """model { ssd { num_classes: 2 image_resizer { fixed_shape_resizer { height: 64 width: 64 } }
  feature_extractor { type: "ssd_mobilenet_v2_fpn_keras" } } }"""
_FOOTER = 48
_MANY = 60_000


def checkpoint(folder: Path, index: bytes, data: bytes = bytes(64)) -> Path:
    """A checkpoint with this index; gives its prefix. The object graph's name makes it one of TensorFlow 2."""
    (folder / "ckpt-1.index").write_bytes(index[:-_FOOTER] + OBJECT_GRAPH.encode() + index[-_FOOTER:])
    (folder / SHARD).write_bytes(data)
    (folder / "pipeline.config").write_text(CONFIG)
    return folder / "ckpt-1"


def header(**fields: Any) -> bytes:
    return pb.BundleHeaderProto(**{"num_shards": 1, **fields}).SerializeToString()


def value_at(folder: Path, **place: Any) -> Path:
    """The object graph's text, said to lie elsewhere, or to be larger than all files."""
    entry = pb.BundleEntryProto(**{"dtype": pb.DT_STRING, "size": 4, **place})
    return checkpoint(folder, table({b"": header(), OBJECT_GRAPH.encode(): entry.SerializeToString()}))


def header_of(folder: Path, **fields: Any) -> Path:
    return checkpoint(folder, table({b"": header(**fields)}))


def footer_that_points_elsewhere(folder: Path, offset: int, size: int) -> Path:
    places = varint(0) + varint(0) + varint(offset) + varint(size)
    return checkpoint(folder, bytes(64) + places.ljust(40, b"\0") + MAGIC)


def number_without_end(folder: Path) -> Path:
    return checkpoint(folder, b"\xff" * 40 + MAGIC)


def compressed_block(folder: Path) -> Path:
    """A block marked as snappy's: a few bytes of it can stand for gigabytes."""
    return checkpoint(folder, table({b"": header()}, compression=1))


def _file(blocks: list[bytes], handles: list[bytes]) -> bytes:
    """A table with these blocks, and an index that names them by these handles."""
    data = b"".join(blocks)
    meta, index = block([], 0), block([(b"%08d" % i, handle) for i, handle in enumerate(handles)], 0)
    places = [varint(len(data)) + varint(len(meta) - 5), varint(len(data) + len(meta)) + varint(len(index) - 5)]
    return data + meta + index + b"".join(places).ljust(40, b"\0") + MAGIC


def one_block_named_many_times(folder: Path) -> Path:
    """A megabyte that the index names 60000 times: 60 GB to be read."""
    large = block([(b"a", bytes(1 << 20))], 0)
    handle = varint(0) + varint(len(large) - 5)
    return checkpoint(folder, _file([large], [handle] * _MANY))


def _raw_block(rows: bytes) -> bytes:
    out = rows + bytes(4) + (1).to_bytes(4, "little") + b"\0"
    return out + masked(crc32c(out)).to_bytes(4, "little")


def keys_that_grow(folder: Path) -> Path:
    """Each key is the one before and a byte more: 60000 of five bytes each, and 1.8 GB of keys."""
    rows = b"".join(varint(length) + varint(1) + varint(0) + b"a" for length in range(_MANY))
    made = _raw_block(rows)
    return checkpoint(folder, _file([made], [varint(0) + varint(len(made) - 5)]))


def long_keys(folder: Path) -> Path:
    """Keys of 4000 bytes that differ in the last ones: 200 MB of them in half a megabyte."""
    start = b"a" * 3996
    rows = varint(0) + varint(len(start)) + varint(0) + start
    rows += b"".join(varint(3996) + varint(4) + varint(0) + i.to_bytes(4, "big") for i in range(_MANY))
    made = _raw_block(rows)
    return checkpoint(folder, _file([made], [varint(0) + varint(len(made) - 5)]))


def block_of_endless_restarts(folder: Path) -> Path:
    out = b"\xff" * 8 + b"\0"
    made = out + masked(crc32c(out)).to_bytes(4, "little")
    return checkpoint(folder, _file([made], [varint(0) + varint(len(made) - 5)]))


def values_that_lie_over_each_other(folder: Path) -> Path:
    """A megabyte that is the value of 5000 variables: 5 GB of weights."""
    value = np.zeros((1, 1, 512, 512), np.float32)
    entry = pb.BundleEntryProto(dtype=pb.DT_FLOAT, size=value.nbytes, crc32c=masked(crc32c(value.tobytes())))
    for size in value.shape:
        entry.shape.dim.add(size=size)
    rows = {f"model/{i}/.ATTRIBUTES/VARIABLE_VALUE".encode(): entry.SerializeToString() for i in range(5000)}
    return checkpoint(folder, table({b"": header(), **rows}), value.tobytes())


def _named(folder: Path, variables: Mapping[str, Any]) -> Path:
    write_checkpoint(folder / "ckpt-1", variables)
    (folder / "pipeline.config").write_text(CONFIG)
    return folder / "ckpt-1"


def pyramid_of_thousands_of_maps(folder: Path) -> Path:
    """2000 maps and 2000 layers that all of them share: 4 million convolutions."""
    extractor = "ssd_mobile_net_v2_fpn_keras_feature_extractor"
    variables = {f"{extractor}/bottom_up_Conv2d_{i}_conv/bias": np.zeros(1, np.float32) for i in range(2000)}
    tower = "WeightSharedConvolutionalBoxPredictor/PredictionTower/conv2d_"
    return _named(folder, {**variables, **{f"{tower}{i}/bias": np.zeros(1, np.float32) for i in range(2000)}})


def two_variables_of_one_name(folder: Path) -> Path:
    write_checkpoint(folder / "ckpt-1", {"Conv1/kernel": np.zeros(1, np.float32)}, slots=["Conv1/kernel"])
    data = (folder / SHARD).read_bytes()
    graph = pb.TrackableObjectGraph()
    for key in ("a", "b"):
        graph.nodes.add().attributes.add(name="VARIABLE_VALUE", full_name="Conv1/kernel", checkpoint_key=key)
    text = graph.SerializeToString()
    length = len(text).to_bytes(4, "little")
    data = varint(len(text)) + masked(crc32c(length)).to_bytes(4, "little") + text
    summed = masked(crc32c(length + data[len(varint(len(text))) :]))
    rows = {OBJECT_GRAPH: pb.BundleEntryProto(dtype=pb.DT_STRING, size=len(data), crc32c=summed)}
    rows |= {key: pb.BundleEntryProto(dtype=pb.DT_FLOAT) for key in ("a", "b")}
    return checkpoint(
        folder, table({b"": header(), **{k.encode(): v.SerializeToString() for k, v in rows.items()}}), data
    )


def object_graph_longer_than_its_text(folder: Path) -> Path:
    data = varint(HUGE) + bytes(32)
    entry = pb.BundleEntryProto(dtype=pb.DT_STRING, size=len(data))
    return checkpoint(folder, table({b"": header(), OBJECT_GRAPH.encode(): entry.SerializeToString()}), data)


def list_that_names_another_folder(folder: Path, name: str) -> Path:
    """The file `checkpoint` names one elsewhere, as it may after a training on another machine."""
    value_at(folder)
    (folder / "checkpoint").write_text(f'model_checkpoint_path: "{name}"\n')
    return folder / "checkpoint"


def shards_without_number(folder: Path) -> Path:
    """A data file that says that there are 99999 of them."""
    prefix = value_at(folder)
    (folder / SHARD).rename(folder / "ckpt-1.data-00000-of-99999")
    return prefix


def saved_model(folder: Path, graph: pb.GraphDef, outputs: Mapping[str, str] | None = None) -> Path:
    """A SavedModel of a graph; gives its folder."""
    saved = pb.SavedModel(saved_model_schema_version=1)
    meta = saved.meta_graphs.add()
    meta.meta_info_def.tags.append("serve")
    meta.graph_def.CopyFrom(graph)
    for name, tensor in (outputs or {"detection_boxes": "start:0"}).items():
        meta.signature_def["serving_default"].outputs[name].name = tensor
    return _written(folder, saved.SerializeToString())


def _written(folder: Path, data: bytes) -> Path:
    path = folder / "saved_model"
    path.mkdir()
    (path / "saved_model.pb").write_bytes(data)
    return path


def messages_in_each_other(folder: Path) -> Path:
    """An attribute that is a function, which has an attribute that is a function ...: thousands deep."""
    data = b""
    while len(data) < 1 << 16:
        for tag in (b"\x52", b"\x12", b"\x12"):  # func of AttrValue, value of the map entry, attr of NameAttrList
            data = tag + varint(len(data)) + data
    # func of AttrValue, value of the map entry, attr of NodeDef, node of GraphDef, graph_def, meta_graphs
    for tag in (b"\x52", b"\x12", b"\x2a", b"\x0a", b"\x12", b"\x12"):
        data = tag + varint(len(data)) + data
    return _written(folder, b"\x08\x01" + data)


def groups_in_each_other(folder: Path) -> Path:
    """Fields of protobuf's old kind, which open and never close."""
    return _written(folder, b"\x08\x01\x12\x00" + b"\x0b" * 1_000_000)


def field_beyond_the_end(folder: Path) -> Path:
    return _written(folder, b"\x08\x01\x12" + varint(1 << 31))


def _function(graph: pb.GraphDef, name: str, called: list[str]) -> None:
    made = graph.library.function.add()
    made.signature.name = name
    made.signature.output_arg.add(name="r")
    for number, callee in enumerate(called):
        node = made.node_def.add(name=f"n{number}", op="PartitionedCall")
        node.attr["f"].func.name = callee
    made.ret["r"] = "n0:output:0"


def function_that_calls_itself(folder: Path) -> Path:
    graph = pb.GraphDef()
    _function(graph, "f", ["f"])
    graph.node.add(name="start", op="PartitionedCall").attr["f"].func.name = "f"
    return saved_model(folder, graph)


def variable_of_another_path(folder: Path) -> Path:
    """A variable whose name leads out of the folder; the index knows no such name."""
    graph = pb.GraphDef()
    made = graph.library.function.add()
    made.signature.name = "f"
    made.signature.input_arg.add(name="x")
    made.signature.output_arg.add(name="r")
    made.node_def.add(name="read", op="ReadVariableOp", input=["x"])
    made.ret["r"] = "read:value:0"
    graph.node.add(name="v", op="VarHandleOp").attr["shared_name"].s = b"../../../../etc/passwd"
    graph.node.add(name="start", op="PartitionedCall", input=["v"]).attr["f"].func.name = "f"
    path = saved_model(folder, graph)
    write_checkpoint(path / "variables" / "variables", {"Conv1/kernel": np.zeros(1, np.float32)})
    return path


def _convolution(graph: pb.GraphDef, number: int, sizes: tuple[int, ...]) -> None:
    name = f"ssd_mobile_net_v2_keras_feature_extractor/model/block_{number}_expand"
    kernel = graph.node.add(name=f"{name}/kernel", op="Const")
    tensor = kernel.attr["value"].tensor
    tensor.dtype = pb.DT_FLOAT
    for size in sizes:
        tensor.tensor_shape.dim.add(size=size)
    tensor.float_val.append(1.0)
    node = graph.node.add(name=f"{name}/Conv2D", op="Conv2D", input=["input_tensor", kernel.name])
    for attribute in ("strides", "dilations"):
        node.attr[attribute].list.i.extend([1, 1, 1, 1])
    node.attr["padding"].s = b"SAME"


def constants_that_repeat_one_value(folder: Path, sizes: tuple[int, ...], count: int) -> Path:
    """Kernels that hold one number and a shape."""
    graph = pb.GraphDef()
    graph.node.add(name="input_tensor", op="Placeholder")
    for number in range(1, count + 1):
        _convolution(graph, number, sizes)
    return saved_model(folder, graph, {"detection_boxes": "input_tensor:0"})
