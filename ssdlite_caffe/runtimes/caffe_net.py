"""Running a net in the built Caffe, in a process of its own (`caffe_worker`)."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import ssdlite_caffe
from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.caffe.log import reason
from ssdlite_caffe.caffe.prefix import caffe_prefix, extension_module
from ssdlite_caffe.errors import CaffeError, PrototxtError
from ssdlite_caffe.runtimes import caffe_worker
from ssdlite_caffe.runtimes.decode import parse_detection_out
from ssdlite_caffe.runtimes.detections import Detections

Phase = Literal["TRAIN", "TEST"]


class CaffeNet:
    """A net loaded from a prototxt and a caffemodel; a context manager that ends the net's process.

    Attributes:
        layers: names in the order of execution, including layers that Caffe inserts.
        shapes: of every blob, as in the prototxt.
        inputs: names of the input blobs.
    """

    def __init__(
        self,
        prototxt: Path,
        caffemodel: Path | None,
        *,
        phase: Phase = "TEST",
        prefix: Path | None = None,
        gpu: int | None = None,
    ) -> None:
        """Load the net.

        Args:
            prototxt: any net.
            caffemodel: its weights; None: the values of the fillers.
            phase: phase whose layers are used.
            prefix: where Caffe is installed; see `caffe_prefix`.
            gpu: number of the GPU to run on; None: the CPU.

        Raises:
            PrototxtError: a file does not exist.
            CaffeError: Caffe cannot load the net or its weights.
            MissingRuntimeError: Caffe has not been built.
        """
        for path, kind in ((prototxt, "prototxt"), (caffemodel, "caffemodel")):
            if path is not None and not path.is_file():
                raise PrototxtError(f"{kind} {path} does not exist")
        self.prototxt = prototxt
        extension = extension_module(caffe_prefix(prefix))
        folder = tempfile.TemporaryDirectory(prefix="ssdlite-caffe.")
        self._layer_file, self._log = Path(folder.name) / "layer", Path(folder.name) / "log"
        request = {
            "extension": os.fspath(extension),
            "prototxt": os.fspath(prototxt),
            "weights": None if caffemodel is None else os.fspath(caffemodel),
            "phase": phase,
            "gpu": gpu,
            "layer_file": os.fspath(self._layer_file),
        }
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", caffe_worker.__name__, json.dumps(request)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=_environment(),
            )  # fmt: skip
        self._end = weakref.finalize(self, _stop, self._process, folder)
        message, _ = self._receive()
        self.layers: tuple[str, ...] = tuple(message["layers"])
        self.shapes: dict[str, tuple[int, ...]] = {name: tuple(shape) for name, shape in message["blobs"].items()}
        self.inputs: tuple[str, ...] = tuple(message["inputs"])

    def __enter__(self) -> CaffeNet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._end()

    def forward(self, fed: FloatArray | Mapping[str, FloatArray], outputs: Sequence[str]) -> dict[str, FloatArray]:
        """Run the net.

        Args:
            fed: values of the first input, or of several inputs by name; the net is reshaped to the batch size. Empty
                for a net that reads its own data.
            outputs: names of blobs.

        Returns:
            The final values of each blob, by name.

        Raises:
            PrototxtError: the net has no such blob or input, or a shape does not fit.
            CaffeError: Caffe stops.
        """
        if not isinstance(fed, Mapping):
            if not self.inputs:
                raise PrototxtError(f"{self.prototxt} has no input blob")
            fed = {self.inputs[0]: fed}
        for name, array in fed.items():
            if name not in self.inputs:
                raise PrototxtError(f"{self.prototxt} has no input {name}; it has {', '.join(self.inputs) or 'none'}")
            shape = self.shapes[name]
            if array.shape[1:] != shape[1:]:
                raise PrototxtError(f"{self.prototxt}: input {name} must have the shape {shape}, got {array.shape}")
        unknown = [name for name in outputs if name not in self.shapes]
        if unknown:
            raise PrototxtError(f"{self.prototxt} has no blob named {', '.join(unknown)}")
        stdin = self._process.stdin
        assert stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the process has ended; its log says why
            caffe_worker.send(stdin, {"outputs": list(outputs)}, fed)
        return self._receive()[1]

    def detect(self, blob: FloatArray) -> Detections:
        """Run a deploy net on one image; boxes are not clipped.

        Raises:
            PrototxtError: the net has no blob detection_out.
            CaffeError: Caffe stops.
        """
        return parse_detection_out(self.forward(blob, ["detection_out"])["detection_out"])

    def _receive(self) -> tuple[dict[str, Any], dict[str, FloatArray]]:
        stdout = self._process.stdout
        assert stdout is not None
        frame = caffe_worker.receive(stdout)
        if frame is None:
            status = self._process.wait()
            layer = caffe_worker.noted_layer(self._layer_file) if self._layer_file.exists() else ""
            why = reason(self._log_lines(), layer=layer, status=status)
            self.close()
            raise CaffeError(f"Caffe stops at {self.prototxt}: {why}")
        if "error" in frame[0]:
            self.close()
            raise CaffeError(f"Caffe cannot run {self.prototxt}: {frame[0]['error']}")
        return frame

    def _log_lines(self) -> list[str]:
        return self._log.read_text("utf-8", "replace").splitlines()


def _environment() -> dict[str, str]:
    """Environment of the worker, which must find our package where this process found it."""
    root = os.fspath(Path(ssdlite_caffe.__file__).parent.parent)
    before = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": root if before is None else os.pathsep.join([root, before])}


def _stop(process: subprocess.Popen[bytes], folder: tempfile.TemporaryDirectory[str]) -> None:
    for stream in (process.stdin, process.stdout):
        assert stream is not None
        with contextlib.suppress(BrokenPipeError):  # unsent data no longer matters
            stream.close()
    try:
        process.wait(timeout=2)
    except subprocess.TimeoutExpired:  # it is still computing a layer
        process.kill()
        process.wait()
    folder.cleanup()
