"""Scopes of TensorFlow 2's detectors as those of TensorFlow 1's, by which convolutions are known here.

TensorFlow 2's Object Detection API builds its detectors of Keras layers, under other names; the nets are the same.
Predictors that all feature maps share are one layer there, used once a map. They become one convolution a map here:
`BoxPredictor_2/PredictionTower/conv2d_0` is the first layer of the tower on the third map.

Source: object_detection/models/{ssd_mobilenet_v2,ssd_mobilenet_v2_fpn}_keras_feature_extractor.py;
models/feature_map_generators.py; predictors/convolutional_keras_box_predictor.py; keras.applications.mobilenet_v2.
"""

from __future__ import annotations

import re
from collections.abc import Callable

EXTRACTORS = {
    "ssd_mobile_net_v2_keras_feature_extractor": "ssd_mobilenet_v2_keras",
    "ssd_mobile_net_v2_fpn_keras_feature_extractor": "ssd_mobilenet_v2_fpn_keras",
}
"""Scopes of feature extractors that are read -> their type in a pipeline.config."""
EXTRACTOR_END = "_keras_feature_extractor"
EXTRACTOR = re.compile(rf"(?:^|/)(\w+?{EXTRACTOR_END})(?:_\d+)?/")
"""The scope of a Keras feature extractor in a name; a process's second model has a number behind it."""

_USE = re.compile(
    r"^(?P<scope>.+?)/(?:Conv2D|separable_conv2d|depthwise)(?:_(?P<use>\d+))?(?:/(?P<inner>depthwise|Conv2D))?$"
)
"""A convolution's node: the layer, which use of the layer it is, and which part of a separable one."""
_BACKBONE = "FeatureExtractor/MobilenetV2/"
_BLOCK = re.compile(r"^(?:block_(\d+)|(expanded_conv))_(expand|depthwise|project)$")
_PYRAMID = re.compile(r"^(?:FeatureMaps/)?(?:top_down/)?(smoothing_\d+|bottom_up_Conv2d_\d+)_(?:depthwise_)?conv$")
_PROJECTION = re.compile(r"^(?:FeatureMaps/)?top_down/(projection_\d+)$")
_EXTRA = re.compile(r"^FeatureMaps/(layer_\d+_[12]_Conv2d_\d+_\w+?)(_depthwise)?_conv$")
_HEAD = re.compile(
    r"^BoxPredictor/Convolutional(?:Box|Class)Head_(\d+)/(BoxEncodingPredictor|ClassPredictor)(_depthwise)?$"
)
_SHARED = "WeightSharedConvolutionalBoxPredictor/"
_SHARED_HEAD = re.compile(r"^WeightSharedConvolutional(?:Box|Class)Head/(Box|Class)Predictor$")
_TOWER = re.compile(r"^((?:Box|Class)?PredictionTower/conv2d_\d+)$")


def keras_scope(node: str) -> str | None:
    """TensorFlow 1's scope of the convolution at a node of a TensorFlow 2 detector; None for other nodes.

    A separable convolution is two: `<scope>_depthwise` and `<scope>`.
    """
    found = _USE.match(node)
    if found is None:
        return None
    use = int(found.group("use") or 0)
    depthwise = found.group("inner") == "depthwise"
    return scope_of_layer(found.group("scope"), use, depthwise=depthwise)


def scope_of_layer(layer: str, use: int = 0, *, depthwise: bool = False) -> str | None:
    """TensorFlow 1's scope of a Keras layer with a kernel; None for other layers.

    Args:
        layer: its name, with or without a prefix before the feature extractor or the predictor.
        use: number of the feature map, of a layer that all maps share.
        depthwise: whether the depthwise part of a separable convolution is meant.
    """
    parts = EXTRACTOR.split(layer)
    if len(parts) > 1:
        return _extractor_scope(parts[-1], depthwise)
    for start, scope in (("BoxPredictor/Conv", _head_scope), (_SHARED, _shared_scope)):
        place = layer.find(start)
        if place == 0 or layer[place - 1 : place] == "/":
            return scope(layer[place:], use, depthwise)
    return None


def _extractor_scope(tail: str, depthwise: bool) -> str | None:
    backbone = backbone_scope(tail.rpartition("/")[2]) if tail.count("/") <= 1 else None
    if backbone is not None:  # below the name of a Keras model: model, or functional_1 in TensorFlow 2.3
        return backbone
    patterns: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
        (_PYRAMID, lambda m: f"fpn/{m.group(1)}" + ("_depthwise" if depthwise else "")),
        (_PROJECTION, lambda m: f"fpn/{m.group(1)}"),
        (_EXTRA, lambda m: m.group(1) + (m.group(2) or "")),
    )
    for pattern, scope in patterns:
        found = pattern.match(tail)
        if found:
            return _BACKBONE + scope(found)
    return None


def backbone_scope(layer: str) -> str | None:
    """TensorFlow 1's scope of a layer of Keras applications' MobileNetV2; None for other layers."""
    if layer in ("Conv1", "Conv_1"):
        return _BACKBONE + {"Conv1": "Conv", "Conv_1": "Conv_1"}[layer]
    block = _BLOCK.match(layer)
    if block is None:
        return None
    number, _, part = block.groups()
    return f"{_BACKBONE}expanded_conv{'' if number is None else f'_{number}'}/{part}"


def _head_scope(layer: str, use: int, depthwise: bool) -> str | None:
    found = _HEAD.match(layer)
    return None if found is None else f"BoxPredictor_{found.group(1)}/{found.group(2)}{found.group(3) or ''}"


def _shared_scope(layer: str, use: int, depthwise: bool) -> str | None:
    tail, end = layer.removeprefix(_SHARED), "_depthwise" if depthwise else ""
    head, tower = _SHARED_HEAD.match(tail), _TOWER.match(tail)
    if head is not None:
        kind = {"Box": "BoxEncodingPredictor", "Class": "ClassPredictor"}[head.group(1)]
        return f"BoxPredictor_{use}/{kind}{end}"
    return None if tower is None else f"BoxPredictor_{use}/{tower.group(1)}{end}"
