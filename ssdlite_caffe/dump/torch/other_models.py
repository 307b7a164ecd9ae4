"""PyTorch models that are not read here, told by the names of their tensors."""

from __future__ import annotations

import re
from collections.abc import Collection

_KNOWN = (
    (("base_net.0.0.weight", "classification_headers.0.0.weight"), ""),
    (("backbone.scale_weight", "head.regression_head.module_list.0.weight"), "torchvision's ssd300_vgg16"),
    (("rpn.head.bbox_pred.weight",), "torchvision's Faster R-CNN or Mask R-CNN"),
    (("head.regression_head.bbox_ctrness.weight",), "torchvision's FCOS"),
    (("head.regression_head.bbox_reg.weight",), "torchvision's RetinaNet"),
    (("bbox_head.cls_convs.0.0.depthwise_conv.conv.weight",), "mmdetection's SSDLite (it pads as TensorFlow does, and "
     "has its own backbone names and default boxes)"),
    (("bbox_head.cls_convs.0.0.weight",), "mmdetection's SSD"),
    (("class_embed.weight",), "DETR"),
    (("layer1.0.conv1.weight", "fc.weight"), "a ResNet, a classifier without detection heads"),
    (("features.0.0.weight", "classifier.3.weight"), "a MobileNetV3 classifier without detection heads"),
    (("features.0.0.weight", "classifier.1.weight"), "a MobileNetV2 classifier without detection heads"),
)  # fmt: skip
_YOLO = re.compile(r"^(?:model\.)?model\.\d+\.(?:conv|cv1\.conv|m\.0)\.weight$")
_FPN = re.compile(r"(?:^|\.)fpn\.(?:inner_blocks|layer_blocks)\.")
_PLAIN_HEAD = "head.classification_head.module_list.0.weight"


def known_model(names: Collection[str]) -> str:
    """Whose state_dict has these names, as a phrase; empty if it is not known."""
    if "base_net.0.0.weight" in names and "regression_headers.0.0.weight" in names:
        return _of_pytorch_ssd(names)
    if "base_net.0.0.weight" in names and "regression_headers.0.weight" in names:
        return _of_pytorch_ssd(names)
    for marks, what in _KNOWN:
        if what and all(mark in names for mark in marks):
            return what
    if _PLAIN_HEAD in names and any(name.startswith("backbone.") for name in names):
        return "torchvision's SSD with plain heads on another backbone, whose settings are its own"
    if any(_YOLO.match(name) for name in names):
        return "a YOLO of ultralytics"
    if any(_FPN.search(name) for name in names):
        return "a detector with a feature pyramid of torchvision"
    return ""


def _of_pytorch_ssd(names: Collection[str]) -> str:
    """The nets of github.com/qfgaohao/pytorch-ssd, by the blocks of their backbone."""
    residual = any(name.startswith("base_net.1.conv.") for name in names)
    lite = "regression_headers.0.3.weight" in names or "regression_headers.0.2.weight" in names
    kind = f"{'mb2' if residual else 'mb1'}-ssd{'-lite' if lite else ''}"
    return (
        f"{kind} of pytorch-ssd, whose default boxes lie off the cells' centres and whose last head is a plain 1x1 "
        "convolution; neither is written yet"
    )
