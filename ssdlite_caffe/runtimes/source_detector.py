"""Running the source model of a converted net, in TensorFlow, TensorFlow Lite's interpreter or PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.dump.locate import locate
from ssdlite_caffe.dump.model import DumpedModel
from ssdlite_caffe.errors import ModelError
from ssdlite_caffe.gen_model.arch import ArchSpec
from ssdlite_caffe.gen_model.build import build
from ssdlite_caffe.load.own_boxes import own_default_boxes
from ssdlite_caffe.runtimes.decode import decode_boxes
from ssdlite_caffe.runtimes.tensorflow_detector import DetectorOutputs, RawNames, TensorFlowDetector
from ssdlite_caffe.runtimes.tflite_detector import TfliteDetector
from ssdlite_caffe.runtimes.torch_detector import TorchDetector

SourceDetector = TensorFlowDetector | TfliteDetector | TorchDetector
RUNS_IN = {"TensorFlow Lite": "TensorFlow Lite", "state_dict": "PyTorch"}
"""Form of a model -> what runs it; TensorFlow runs all others."""


def open_source(
    path: Path, model: DumpedModel, arch: ArchSpec, *, ema: bool = False
) -> AbstractContextManager[SourceDetector]:
    """Load the model at `path` in what runs it: TensorFlow, TensorFlow Lite's interpreter or PyTorch.

    Args:
        path: the model, as given to `read_model`.
        model: the result of `read_model`.
        arch: the architecture that `identify` found.
        ema: see `ReadOptions`.

    Raises:
        SsdliteError: it cannot be loaded, or the runtime is not installed.
    """
    found = locate(path)
    if found.kind == "TensorFlow Lite":
        return TfliteDetector(found.path, arch, normalises=model.settings.pixel_scale is not None)
    if found.kind == "state_dict":
        return TorchDetector(found.path, model, ema=ema)
    return TensorFlowDetector(path)


class DoubleSource:
    """A running source model in float64; a context manager that closes it. The interface is that of the detector."""

    def __init__(self, source: SourceDetector, names: Sequence[str]) -> None:
        """Rewrite the model's graph.

        Args:
            source: the running model.
            names: tensors or operations that can be computed, besides those of `raw`.

        Raises:
            ModelError: it has an operation that cannot be computed in float64.
        """
        self._source = source
        try:
            self._raw: RawNames | None = source.raw_names()
        except ModelError:  # the graph has no decoder
            self._raw = None
        self._names = list(dict.fromkeys([*names, *(self._raw.all if self._raw else ())]))
        self._graph = source.in_double(self._names)
        self._last: tuple[FloatArray, dict[str, npt.NDArray[np.float64]]] | None = None

    def __enter__(self) -> DoubleSource:
        return self

    def __exit__(self, *_: object) -> None:
        self._graph.close()

    def run(self, fed: FloatArray, names: Sequence[str]) -> dict[str, npt.NDArray[np.float64]]:
        """Compute tensors from a network input (1, H, W, 3).

        All are computed in one run, since TensorFlow's threads sum in another order in the next one.
        """
        if self._last is None or self._last[0] is not fed:
            self._last = None  # the memory of the image before
            self._last = fed, self._graph.run(self._source.double_input(fed), self._names)
        return {name: self._last[1][name] for name in names}

    def stem_input(self, fed: FloatArray) -> npt.NDArray[np.float64]:
        """What the model's first convolution reads in float64 for a network input (1, H, W, 3)."""
        return self._source.stem_input(fed)

    def raw(self, fed: FloatArray) -> DetectorOutputs:
        """Box encodings, logits, boxes and scores of every default box, in float64, as the detector's `raw`.

        Raises:
            ModelError: the graph does not have them under the names of the OD API.
        """
        if self._raw is None:
            self._raw = self._source.raw_names()  # raises
        return self._raw.outputs(self.run(fed, self._raw.all))


def decode_encodings(encodings: npt.NDArray[Any], model: DumpedModel, arch: ArchSpec) -> npt.NDArray[Any]:
    """Decode box encodings (N, 4) ty, tx, th, tw into boxes (N, 4) xmin, ymin, xmax, ymax, in the same dtype.

    The model's own default boxes are used, or, where it has none or has them in a rounded form, the architecture's.
    """
    settings = model.settings
    default_boxes = own_default_boxes(model, build(arch))
    assert settings.box_coder_scales is not None, "identified without a box coder"
    sy, sx, sh, sw = settings.box_coder_scales
    variances = np.asarray([1 / sx, 1 / sy, 1 / sw, 1 / sh], encodings.dtype)
    limit = arch.code_limit
    limits = None if limit is None else np.full((len(encodings), 2), limit)
    boxes = default_boxes[:, [1, 0, 3, 2]]
    return decode_boxes(encodings[:, [1, 0, 3, 2]], boxes, variances, encodings.dtype, limits)
