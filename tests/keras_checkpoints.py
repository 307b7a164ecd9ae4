"""Object-based checkpoints of TensorFlow 2's detectors, written without TensorFlow: index, values and object graph."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ssdlite_caffe.dump.graph import tensorflow_subset_pb2 as pb
from ssdlite_caffe.dump.model import DumpedModel
from ssdlite_caffe.dump.tf2.crc32c import crc32c, masked
from ssdlite_caffe.gen_model.arch import ArchSpec, Pyramid

OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
_TYPES = {"float32": pb.DT_FLOAT, "int64": pb.DT_INT64}


def varint(value: int) -> bytes:
    """Seven bits a byte, lowest first."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def table(entries: Mapping[bytes, bytes], *, compression: int = 0) -> bytes:
    """A table file with one block, whose keys share what the one before begins with."""
    data = block(sorted(entries.items()), compression)
    handle = varint(0) + varint(len(data) - 5)
    meta = block([], 0)
    index = block([(b"\xff", handle)], 0)
    places = [varint(len(data)) + varint(len(meta) - 5), varint(len(data) + len(meta)) + varint(len(index) - 5)]
    return data + meta + index + b"".join(places).ljust(40, b"\0") + MAGIC


def block(entries: Iterable[tuple[bytes, bytes]], compression: int) -> bytes:
    """A block of a table, with the kind of its compression and its checksum."""
    out, before = b"", b""
    for key, value in entries:
        shared = next((i for i, (a, b) in enumerate(zip(before, key, strict=False)) if a != b), len(before))
        shared = min(shared, len(key))
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        before = key
    out += bytes(4) + (1).to_bytes(4, "little") + bytes([compression])
    return out + masked(crc32c(out)).to_bytes(4, "little")


def write_checkpoint(
    prefix: Path, variables: Mapping[str, Any], *, slots: Iterable[str] = (), path: str = "model/_layer"
) -> None:
    """Write a checkpoint with these variables, by their Keras names, and optimiser slots for some of them."""
    graph = pb.TrackableObjectGraph()
    values: dict[str, bytes] = {}
    entries: dict[str, pb.BundleEntryProto] = {}
    stored = {f"{path}-{number}/.ATTRIBUTES/VARIABLE_VALUE": (name, np.asarray(v)) for number, (name, v) in
              enumerate(variables.items())}  # fmt: skip
    for key, (name, value) in list(stored.items()):
        graph.nodes.add().attributes.add(name="VARIABLE_VALUE", full_name=name, checkpoint_key=key)
        if name in slots:
            slot = key.replace("/.ATTRIBUTES", "/.OPTIMIZER_SLOT/optimizer/momentum/.ATTRIBUTES")
            graph.nodes.add().attributes.add(name="VARIABLE_VALUE", full_name=name, checkpoint_key=slot)
            stored[slot] = (name, value + 1)
    text = graph.SerializeToString()
    lengths = varint(len(text)) + masked(crc32c(len(text).to_bytes(4, "little"))).to_bytes(4, "little")
    values[OBJECT_GRAPH] = lengths + text
    entries[OBJECT_GRAPH] = pb.BundleEntryProto(
        dtype=pb.DT_STRING, crc32c=masked(crc32c(len(text).to_bytes(4, "little") + lengths[-4:] + text))
    )
    for key, (_, value) in stored.items():
        values[key] = value.tobytes()
        entries[key] = pb.BundleEntryProto(dtype=_TYPES[value.dtype.name], crc32c=masked(crc32c(value.tobytes())))
        for size in value.shape:
            entries[key].shape.dim.add(size=size)
    data = b""
    for key in sorted(values):
        entries[key].offset, entries[key].size = len(data), len(values[key])
        data += values[key]
    header = pb.BundleHeaderProto(num_shards=1).SerializeToString()
    rows = {key.encode(): entry.SerializeToString() for key, entry in entries.items()}
    prefix.parent.mkdir(parents=True, exist_ok=True)
    prefix.with_name(prefix.name + ".index").write_bytes(table({b"": header, **rows}))
    prefix.with_name(prefix.name + ".data-00000-of-00001").write_bytes(data)


def keras_variables(model: DumpedModel, *, suffix: str = "") -> dict[str, Any]:
    """The variables of a detector under TensorFlow 2's names; what all maps share is taken from the first."""
    found: dict[str, Any] = {}
    fpn = any("/fpn/" in unit.scope for unit in model.units)
    extractor = f"ssd_mobile_net_v2_{'fpn_' if fpn else ''}keras_feature_extractor{suffix}"
    scopes = {unit.scope for unit in model.units}
    for unit in model.units:
        for part, tensor in unit.tensors.items():
            found.setdefault(_keras_name(unit.scope, part, extractor, scopes, unit.kind), model.tensors[tensor])
    return found


def _keras_name(scope: str, part: str, extractor: str, scopes: set[str], kind: str) -> str:
    part = {"weights": "depthwise_kernel" if kind == "depthwise" else "kernel", "biases": "bias"}.get(part, part)
    is_norm = part in ("gamma", "beta", "moving_mean", "moving_variance")
    tail = scope.rpartition("MobilenetV2/")[2]
    if scope.startswith("BoxPredictor_"):
        return _predictor_name(scope, part, scopes, is_norm)
    if tail.startswith("fpn/"):
        base, separable = tail.removeprefix("fpn/").removesuffix("_depthwise"), f"{scope}_depthwise" in scopes
        place = extractor if base.startswith("bottom") else f"{extractor}/FeatureMaps/top_down"
        if base.startswith("projection"):
            return f"{place}/{base}/{part}"
        if is_norm:
            return f"{place}/{base}_batchnorm/{part}"
        separable = separable or kind == "depthwise"
        name = {"kernel": "pointwise_kernel"}.get(part, part) if separable else part
        return f"{place}/{base}_{'depthwise_' if separable else ''}conv/{name}"
    if tail.startswith("layer_"):
        return f"{extractor}/FeatureMaps/{tail}_{'batchnorm' if is_norm else 'conv'}/{part}"
    layer = re.sub(r"^expanded_conv_(\d+)/", r"block_\1_", tail).replace("expanded_conv/", "expanded_conv_")
    layer = {"Conv": "Conv1"}.get(layer, layer)
    norm = {"Conv1": "bn_Conv1", "Conv_1": "Conv_1_bn"}.get(layer, f"{layer}_BN")
    return f"{norm if is_norm else layer}/{part}"


def _predictor_name(scope: str, part: str, scopes: set[str], is_norm: bool) -> str:
    index, tail = re.match(r"BoxPredictor_(\d+)/(.*)", scope).groups()  # type: ignore[union-attr]
    shared = any("/fpn/" in other for other in scopes)
    base, kind = tail.removesuffix("_depthwise"), "Class" if "Class" in tail else "Box"
    if not shared:
        end = f"{tail}_batchnorm" if is_norm else tail
        return f"BoxPredictor/Convolutional{kind}Head_{index}/{end}/{part}"
    separable = f"BoxPredictor_{index}/{base}_depthwise" in scopes
    name = {"kernel": "pointwise_kernel"}.get(part, part) if separable else part
    if base.endswith("Predictor"):
        return f"WeightSharedConvolutionalBoxPredictor/WeightSharedConvolutional{kind}Head/{kind}Predictor/{name}"
    norm = f"/BatchNorm/feature_{index}" if is_norm else ""
    return f"WeightSharedConvolutionalBoxPredictor/{base}{norm}/{name}"


def pipeline_config(arch: ArchSpec, *, depth: int = 128, changes: str = "") -> str:
    """The pipeline.config of a detector of TensorFlow 2.

    Args:
        arch: its architecture, with the usual default boxes.
        depth: additional_layer_depth.
        changes: more text, whose values count before those above it.
    """
    height, width = arch.input_size
    if arch.pyramid is None:
        kind, extra = "ssd_mobilenet_v2_keras", ""
        anchors = "ssd_anchor_generator { aspect_ratios: [1.0, 2.0, 0.5, 3.0, 0.3333] }"
        predictor = f"convolutional_box_predictor {{ kernel_size: {arch.head_kernel}"
    else:
        kind, extra = "ssd_mobilenet_v2_fpn_keras", _extractor(arch.pyramid, depth)
        levels = f"min_level: {arch.pyramid.min_level} max_level: {arch.pyramid.max_level}"
        anchors = f"multiscale_anchor_generator {{ {levels} aspect_ratios: [1.0, 2.0, 0.5] }}"
        predictor = _predictor(arch.pyramid, arch.head_kernel)
    hyper = "conv_hyperparams { activation: RELU_6 batch_norm { scale: true epsilon: 0.001 } }"
    return f"""model {{ ssd {{
      num_classes: {arch.num_classes - 1}
      image_resizer {{ fixed_shape_resizer {{ height: {height} width: {width} }} }}
      feature_extractor {{ type: "{kind}" depth_multiplier: {arch.width_multiplier} min_depth: {arch.min_depth} {hyper}
        override_base_feature_extractor_hyperparams: true {extra} }}
      box_coder {{ faster_rcnn_box_coder {{ }} }}
      box_predictor {{ {predictor} {hyper} }} }}
      anchor_generator {{ {anchors} }}
      post_processing {{ batch_non_max_suppression {{ score_threshold: 1e-8 iou_threshold: 0.6 }}
        score_converter: SIGMOID }}
    }} }}
    {changes}"""


def _extractor(pyramid: Pyramid, depth: int) -> str:
    return (
        f"use_depthwise: {str(pyramid.depthwise).lower()} fpn {{ min_level: {pyramid.min_level} "
        f"max_level: {pyramid.max_level} additional_layer_depth: {depth} }}"
    )


def _predictor(pyramid: Pyramid, kernel: int) -> str:
    return (
        f"weight_shared_convolutional_box_predictor {{ depth: {pyramid.tower_channels} kernel_size: {kernel} "
        f"num_layers_before_predictor: {pyramid.tower_layers} "
        f"share_prediction_tower: {str(pyramid.shared_tower).lower()} "
        f"use_depthwise: {str(pyramid.predictor_depthwise).lower()}"
    )
