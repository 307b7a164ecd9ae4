"""Default boxes as files, for programs without a PriorBox layer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.files import write_bytes, write_text
from ssdlite_caffe.runtimes.model_folder import PRIORS
from ssdlite_caffe.targets.target import PriorsForm

FILES: dict[PriorsForm, str] = {
    "npy": PRIORS, "raw": "priors.bin", "numbers": "mbox_priorbox.txt", "anchors": "anchors.txt",
}  # fmt: skip


def priors_blob(priors: FloatArray) -> FloatArray:
    """What PriorBox gives for priors (N, 8): float32 (2, N * 4), all corners, then all variances."""
    return np.stack([priors[:, :4].reshape(-1), priors[:, 4:].reshape(-1)])


def write_priors(folder: Path, priors: FloatArray, form: PriorsForm, size: tuple[int, int]) -> None:
    """Write default boxes in one form; see `PriorsForm`.

    Args:
        folder: to write to.
        priors: float32 (N, 8), from `headless_priors`.
        form: how.
        size: (height, width) of the network input.
    """
    path = folder / FILES[form]
    if form == "npy":
        np.save(path, priors, allow_pickle=False)
    elif form == "raw":
        write_bytes(path, priors_blob(priors).astype("<f4").tobytes())
    else:
        lines = _numbers(priors_blob(priors)) if form == "numbers" else _anchors(priors, size)
        write_text(path, "".join(f"{line}\n" for line in lines))


def _numbers(blob: FloatArray) -> Iterator[str]:
    return (_exact(value) for value in blob.ravel())


def _anchors(priors: FloatArray, size: tuple[int, int]) -> Iterator[str]:
    """Corners in pixels, computed in float64 from the float32 fractions, and variances."""
    height, width = size
    corners = priors[:, :4].astype(np.float64) * (width, height, width, height)
    for box, variances in zip(corners, priors[:, 4:], strict=True):
        yield " ".join(_exact(value) for value in (*box.astype(np.float32), *variances))


def _exact(value: np.float32) -> str:
    """The shortest text that is read as the same float32."""
    return np.format_float_positional(np.float32(value), unique=True, trim="0")
