"""The runtimes for converted nets, with one interface."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol, get_args

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.prototxt.text import read_net
from ssdlite_caffe.runtimes.detections import Detections

NetRuntime = Literal["opencv", "caffe", "reference"]
NET_RUNTIMES: tuple[NetRuntime, ...] = get_args(NetRuntime)


class RunningNet(Protocol):
    """A loaded net.

    Attributes:
        prototxt: the file that messages name.
    """

    prototxt: Path

    def forward(self, blob: FloatArray, outputs: Sequence[str], /) -> dict[str, FloatArray]:
        """Values of the named blobs; `blob` is float32 (N, 3, H, W), BGR."""

    def detect(self, blob: FloatArray, /) -> Detections:
        """Detections of DetectionOutput in one image; boxes are not clipped."""


def open_net(runtime: NetRuntime, prototxt: Path, caffemodel: Path) -> RunningNet:
    """Load a deploy or headless net; one whose outputs are those of each feature map gives mbox_loc and mbox_conf too.

    Args:
        runtime: `opencv` for OpenCV DNN, `caffe` for the Caffe that `caffe build` built, `reference` for numpy.
        prototxt: the net.
        caffemodel: its weights.

    Raises:
        SsdliteError: the runtime is not installed, or cannot load the net.
    """
    from ssdlite_caffe.runtimes.joined_heads import with_joined_heads

    return with_joined_heads(_open(runtime, prototxt, caffemodel), read_net(prototxt))


def _open(runtime: NetRuntime, prototxt: Path, caffemodel: Path) -> RunningNet:
    if runtime == "caffe":
        from ssdlite_caffe.runtimes.caffe_net import CaffeNet

        return CaffeNet(prototxt, caffemodel)
    if runtime == "reference":
        from ssdlite_caffe.runtimes.reference_net import ReferenceNet

        return ReferenceNet(prototxt, caffemodel)
    from ssdlite_caffe.runtimes.opencv_net import OpenCvNet

    return OpenCvNet(prototxt, caffemodel)
