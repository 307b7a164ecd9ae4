"""Huawei's ATC for Ascend: a deploy net whose last layer is SSDDetectionOutput, and AIPP preprocessing.

Its documents (CANN 9): SSDDetectionOutput has two tops, the count of boxes (batch, 8) and the boxes (batch, n, 8),
where n is keep_top_k rounded up to a multiple of 128; top_k is 1024 at most; PriorBox wants a greater max_size for each
min_size, which these nets do not have, so the default boxes are constants. AIPP computes
(value - mean_chn - min_chn) * var_reci_chn, with a whole mean_chn of 0 to 255 and the others in float16.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ssdlite_caffe.gen_model.dialect import Dialect
from ssdlite_caffe.gen_model.netdesc import NetDesc
from ssdlite_caffe.gen_model.render import number, quoted
from ssdlite_caffe.prototxt.text import parse_net
from ssdlite_caffe.targets.target import Checked, Edit, Target, TargetNet

MOST_CANDIDATES = 1024
COUNT, BOXES = "detection_count", "detection_out"
_ALIGNED = 128
_SIZES = (1, 4096)


def with_own_detection_output(text: str) -> str:
    """The prototxt with SSDDetectionOutput in place of DetectionOutput, its last layer."""
    net = parse_net(text)
    layer = net.layer[-1]
    assert layer.type == "DetectionOutput"
    param = layer.detection_output_param
    start = text.rindex(f"layer {{\n  name: {quoted(layer.name)}\n")
    bottoms = "".join(f"  bottom: {quoted(bottom)}\n" for bottom in layer.bottom)
    values = {
        "num_classes": str(param.num_classes),
        "share_location": "true",
        "background_label_id": str(param.background_label_id),
        "iou_threshold": number(_shortest(param.nms_param.nms_threshold)),
        "top_k": str(min(param.nms_param.top_k, MOST_CANDIDATES)),
        "eta": "1.0",
        "variance_encoded_in_target": "false",
        "code_type": "2",
        "keep_top_k": str(param.keep_top_k),
        "confidence_threshold": number(_shortest(param.confidence_threshold)),
    }
    fields = "".join(f"    {name}: {value}\n" for name, value in values.items())
    return (
        f"{text[:start]}layer {{\n  name: {quoted(layer.name)}\n"
        f'  type: "SSDDetectionOutput"\n{bottoms}  top: {quoted(COUNT)}\n  top: {quoted(BOXES)}\n'
        f"  ssddetectionoutput_param {{\n{fields}  }}\n}}\n"
    )


def _shortest(value: float) -> float:
    """The shortest decimal that is read as the same float32."""
    return float(str(np.float32(value)))


def _outputs(net: NetDesc) -> tuple[tuple[str, tuple[int, ...]], ...]:
    rows = math.ceil(net.arch.nms.max_total / _ALIGNED) * _ALIGNED
    return ((COUNT, (1, 8)), (BOXES, (1, rows, 8)))


def _words(net: NetDesc) -> dict[str, Any]:
    mean = math.floor(net.arch.pixel_mean)
    return {"mean": mean, "rest": net.arch.pixel_mean - mean}


def _inexact(net: NetDesc) -> tuple[str, ...]:
    found = []
    if net.num_default_boxes > MOST_CANDIDATES:
        found.append(
            f"SSDDetectionOutput looks at the best {MOST_CANDIDATES} boxes of a class before suppression, the model at "
            f"all {net.num_default_boxes}: the same as long as no more of a class pass the score threshold"
        )
    scale = net.arch.pixel_scale
    if float(np.float16(scale)) != scale:
        found.append(f"AIPP holds its factor as float16: {float(np.float16(scale)):.10g} in place of {scale:.10g}")
    return tuple(found)


def _refuses(net: NetDesc) -> str:
    height, width = net.arch.input_size
    if not 0 <= net.arch.pixel_mean <= 255:
        return f"AIPP subtracts a mean of 0 to 255, the model's is {net.arch.pixel_mean:g}"
    if max(height, width) > _SIZES[1]:
        return f"AIPP takes images of at most {_SIZES[1]} pixels, the model's are {height}x{width}"
    return ""


ASCEND = Target(
    name="ascend",
    title="Huawei Ascend (ATC)",
    nets=(
        TargetNet(
            "deploy.prototxt",
            "deploy.caffemodel",
            "deploy",
            Dialect(names="tops", priors="constant", clip="late"),
            edit=Edit(with_own_detection_output, _outputs),
        ),
    ),
    checked=Checked("read", "Huawei's documents of ATC, CANN 9, not run"),
    limits="ascend",
    files=("README.md", "insert_op.cfg", "convert.sh", "ssd.py"),
    calibration="rgb-png",
    calibration_list="image_list.txt",
    inexact_for=_inexact,
    refuses=_refuses,
    words=_words,
)
