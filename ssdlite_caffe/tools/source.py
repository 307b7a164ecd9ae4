"""Opening the model that a command is given: TensorFlow, TensorFlow Lite, PyTorch or Keras."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ssdlite_caffe.coco.label_map import LabelMap
from ssdlite_caffe.dump.model import DumpedModel
from ssdlite_caffe.dump.read import ReadOptions, read_model
from ssdlite_caffe.errors import ModelError
from ssdlite_caffe.files import file_sha256
from ssdlite_caffe.gen_model.arch import ArchSpec
from ssdlite_caffe.load.identify import identify
from ssdlite_caffe.runtimes.keras_file import keras_file

if TYPE_CHECKING:
    from ssdlite_caffe.runtimes.source_detector import SourceDetector


@dataclass(frozen=True)
class OpenedModel:
    """A model that has been read and identified.

    Attributes:
        model: content of the file.
        arch: the detector's architecture.
        labels: the classes of a Keras file; None for other models.
    """

    model: DumpedModel
    arch: ArchSpec
    labels: LabelMap | None
    _runs: Path
    _ema: bool = False

    def run(self) -> AbstractContextManager[SourceDetector]:
        """Load the model in TensorFlow, TensorFlow Lite's interpreter or PyTorch.

        Raises:
            SsdliteError: it cannot be loaded, or the runtime is not installed.
        """
        from ssdlite_caffe.runtimes.source_detector import open_source  # most commands run no model

        return open_source(self._runs, self.model, self.arch, ema=self._ema)


@contextlib.contextmanager
def open_model(path: Path, reading: ReadOptions | None = None) -> Iterator[OpenedModel]:
    """Read a model of TensorFlow, TensorFlow Lite, PyTorch or Keras.

    A Keras model is traced into a frozen graph with bit-exact weights, which is then read.

    Args:
        path: the model, as given to a command.
        reading: how to read it; not for Keras models, which need no options.

    Raises:
        SsdliteError: it cannot be read, or is not an SSD MobileNet.
    """
    keras = keras_file(path)
    if keras is None:
        model, arch = identify(read_model(path, reading))
        yield OpenedModel(model, arch, None, path, reading is not None and reading.ema)
        return
    if reading is not None and reading != ReadOptions():
        raise ModelError(f"--pipeline-config, --nms, --dequantize and --ema do not apply to a Keras model: {keras}")
    from ssdlite_caffe.keras.export_pb import frozen_graph
    from ssdlite_caffe.keras.store import load

    detector = load(keras)
    with tempfile.TemporaryDirectory(prefix="ssdlite-caffe.") as folder:
        graph = Path(folder) / "frozen_inference_graph.pb"
        graph.write_bytes(frozen_graph(detector).SerializeToString(deterministic=True))
        model, arch = identify(read_model(graph))
        model = dataclasses.replace(
            model, source=str(keras), form="Keras model", sha256=file_sha256(keras), origins={"weights": str(keras)}
        )
        yield OpenedModel(model, arch, detector.labels, graph)
