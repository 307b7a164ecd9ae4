"""The targets by name. One file a target; this one only gathers them."""

from __future__ import annotations

from collections.abc import Sequence

from ssdlite_caffe.errors import ArchError
from ssdlite_caffe.targets.acuity import ACUITY
from ssdlite_caffe.targets.ascend import ASCEND
from ssdlite_caffe.targets.bvlc import BVLC
from ssdlite_caffe.targets.caffe_ssd import CAFFE_SSD
from ssdlite_caffe.targets.hisilicon_nnie import HISILICON_NNIE
from ssdlite_caffe.targets.hisilicon_svp import HISILICON_SVP
from ssdlite_caffe.targets.mnn import MNN
from ssdlite_caffe.targets.ncnn import NCNN
from ssdlite_caffe.targets.onnx import ONNX
from ssdlite_caffe.targets.opencv import OPENCV
from ssdlite_caffe.targets.openvino import OPENVINO
from ssdlite_caffe.targets.paddle import PADDLE
from ssdlite_caffe.targets.rknn import RKNN
from ssdlite_caffe.targets.sophgo import SOPHGO
from ssdlite_caffe.targets.target import Target

_ALL = (
    OPENCV,
    MNN,
    OPENVINO,
    NCNN,
    RKNN,
    SOPHGO,
    PADDLE,
    ONNX,
    CAFFE_SSD,
    BVLC,
    HISILICON_SVP,
    HISILICON_NNIE,
    ASCEND,
    ACUITY,
)
TARGETS: dict[str, Target] = {target.name: target for target in _ALL}


def targets_named(names: Sequence[str]) -> list[Target]:
    """The targets of a command line, in its order.

    Raises:
        ArchError: one is unknown, or given twice.
    """
    unknown = [name for name in names if name not in TARGETS]
    if unknown:
        raise ArchError(f"unknown target {unknown[0]!r}; known are {', '.join(TARGETS)}")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ArchError(f"target {twice[0]} is given twice")
    return [TARGETS[name] for name in names]
