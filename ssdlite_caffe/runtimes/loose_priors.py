"""A converted folder whose default boxes are in a file beside its headless net (`--priors none`)."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.errors import PrototxtError
from ssdlite_caffe.files import write_text
from ssdlite_caffe.gen_model.arch import ArchSpec
from ssdlite_caffe.gen_model.build import build
from ssdlite_caffe.gen_model.dialect import Dialect
from ssdlite_caffe.gen_model.layers import BOXES_LAYER
from ssdlite_caffe.gen_model.render import render
from ssdlite_caffe.load.own_boxes import boxes_layer_blobs
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.binary import blob_from_array, read_caffemodel, write_caffemodel
from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.runtimes.net import RunningNet

_BLOB = "mbox_priorbox"


def read_priors(path: Path, boxes: int) -> FloatArray:
    """Default boxes and variances, float32 (boxes, 8): xmin, ymin, xmax, ymax as fractions, then the variances.

    Raises:
        PrototxtError: the file cannot be read, or is not such an array.
    """
    try:
        priors = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise PrototxtError(f"cannot read {path}: {error}") from error
    if not isinstance(priors, np.ndarray) or priors.shape != (boxes, 8) or priors.dtype.kind != "f":
        found = f"{priors.dtype} {priors.shape}" if isinstance(priors, np.ndarray) else "several arrays"
        raise PrototxtError(f"{path} must hold float32 ({boxes}, 8), got {found}; convert the model again")
    return priors.astype(np.float32)


def deploy_net_of(arch: ArchSpec, dialect: Dialect, priors: Path, weights: Path) -> tuple[Path, Path]:
    """A deploy net made of a headless net's weights and the file of its default boxes, for commands that run one.

    Returns:
        Its prototxt and its caffemodel, in a folder that is removed when the program ends.

    Raises:
        PrototxtError: a file cannot be read or does not fit.
    """
    stamps = tuple((path, path.stat().st_mtime_ns, path.stat().st_size) for path in (priors, weights))
    return _made(arch, replace(dialect, priors="constant"), *stamps)


@functools.lru_cache(maxsize=8)
def _made(
    arch: ArchSpec, dialect: Dialect, priors: tuple[Path, int, int], weights: tuple[Path, int, int]
) -> tuple[Path, Path]:
    net = build(arch)
    values = read_priors(priors[0], net.num_default_boxes)
    blobs = [blob_from_array(array) for array in boxes_layer_blobs(values)]
    filled = read_caffemodel(weights[0])
    filled.layer.append(caffe_pb2.LayerParameter(name=BOXES_LAYER, type="InnerProduct", blobs=blobs))
    folder = Path(tempfile.mkdtemp(prefix="ssdlite-caffe."))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    prototxt, caffemodel = folder / "deploy.prototxt", folder / "deploy.caffemodel"
    write_text(prototxt, render(net, dialect, "deploy"))
    write_caffemodel(caffemodel, filled)
    return prototxt, caffemodel


class WithPriors:
    """A loaded headless net that gives mbox_priorbox too, from the file beside it.

    Attributes:
        prototxt: of the net.
    """

    def __init__(self, net: RunningNet, priors: FloatArray) -> None:
        """Wrap a net; `priors` as from `read_priors`."""
        self._net, self.prototxt = net, net.prototxt
        self._priors = boxes_layer_blobs(priors)[1].reshape(1, 2, -1)

    def forward(self, blob: FloatArray, outputs: Sequence[str]) -> dict[str, FloatArray]:
        """As the net's own, with mbox_priorbox (1, 2, N * 4)."""
        found = self._net.forward(blob, [name for name in outputs if name != _BLOB])
        return {name: self._priors if name == _BLOB else found[name] for name in outputs}

    def detect(self, blob: FloatArray) -> Detections:
        """As the net's own, which has no DetectionOutput layer."""
        return self._net.detect(blob)
