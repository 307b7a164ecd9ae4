"""Default boxes as files, for programs without a PriorBox layer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.files import write_text
from ssdlite_caffe.gen_model.default_boxes import caffe_prior_boxes
from ssdlite_caffe.gen_model.netdesc import NetDesc
from ssdlite_caffe.targets.target import PriorsForm

FILES: dict[PriorsForm, str] = {"npy": "priors.npy", "numbers": "mbox_priorbox.txt", "anchors": "anchors.txt"}


def priors_blob(net: NetDesc) -> FloatArray:
    """What a net's PriorBox layers give: float32 (2, N * 4), corners as fractions of the input, then variances."""
    boxes = np.concatenate([caffe_prior_boxes(m.prior, m.size, net.arch.input_size) for m in net.feature_maps])
    variances = np.broadcast_to(np.asarray(net.arch.variances, np.float32), boxes.shape)
    return np.stack([boxes.astype(np.float32).ravel(), variances.ravel()])


def write_priors(folder: Path, net: NetDesc, form: PriorsForm) -> None:
    """Write the default boxes in one form; see `PriorsForm`."""
    blob = priors_blob(net)
    if form == "npy":
        np.save(folder / FILES[form], blob, allow_pickle=False)
        return
    lines = _numbers(blob) if form == "numbers" else _anchors(blob, net.arch.input_size)
    write_text(folder / FILES[form], "".join(f"{line}\n" for line in lines))


def _numbers(blob: FloatArray) -> Iterator[str]:
    return (_exact(value) for value in blob.ravel())


def _anchors(blob: FloatArray, size: tuple[int, int]) -> Iterator[str]:
    """Corners in pixels, computed in float64 from the float32 fractions, and variances."""
    height, width = size
    corners = blob[0].astype(np.float64).reshape(-1, 4) * (width, height, width, height)
    for box, variances in zip(corners, blob[1].reshape(-1, 4), strict=True):
        yield " ".join(_exact(value) for value in (*box.astype(np.float32), *variances))


def _exact(value: np.float32) -> str:
    """The shortest text that is read as the same float32."""
    return np.format_float_positional(np.float32(value), unique=True, trim="0")
