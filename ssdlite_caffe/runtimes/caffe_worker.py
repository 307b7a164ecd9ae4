"""The process in which the built Caffe runs a net: `python -m ssdlite_caffe.runtimes.caffe_worker REQUEST`.

Caffe aborts its process when a check fails, and pycaffe registers a caffe_pb2 that cannot be loaded together with
ours. So Caffe runs in this separate process, which loads only pycaffe's extension module and none of its Python code.
`caffe_net` is the other side.

REQUEST is JSON: `extension` (path of pycaffe's _caffe module), `prototxt`, `weights` (or null), `phase` (TRAIN or
TEST), `gpu` (number or null), `layer_file` (file to which the name of the running layer is written).

A frame on stdin or stdout consists of the length of a JSON text (4 bytes, little-endian), the text, and the float32
values of the arrays that the text lists in `arrays` as [name, shape], in that order. The worker first sends {layers,
blobs, inputs}, then answers each request {arrays, outputs} with {arrays} or {error}.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import struct
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from ssdlite_caffe.arrays import FloatArray

_LENGTH = struct.Struct("<I")
_PHASES = {"TRAIN": 0, "TEST": 1}


def send(stream: IO[bytes], message: Mapping[str, Any], arrays: Mapping[str, FloatArray]) -> None:
    """Write one frame."""
    listed = [[name, list(array.shape)] for name, array in arrays.items()]
    text = json.dumps({**message, "arrays": listed}).encode()
    stream.write(_LENGTH.pack(len(text)) + text)
    for array in arrays.values():
        # Not as a memoryview: an array with a dimension of 0 cannot be cast to bytes.
        stream.write(np.ascontiguousarray(array, np.float32).tobytes())
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], dict[str, FloatArray]] | None:
    """Read one frame; None at the end of the stream."""
    prefix = stream.read(_LENGTH.size)
    if len(prefix) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(prefix)
    text = stream.read(length)
    if len(text) < length:
        return None
    message = json.loads(text)
    arrays = {}
    for name, shape in message.pop("arrays"):
        size = 4 * int(np.prod(shape, dtype=np.int64))
        data = stream.read(size)
        if len(data) < size:
            return None
        arrays[name] = np.frombuffer(data, np.float32).reshape(shape)
    return message, arrays


class _Net:
    """pycaffe's net, run layer by layer so that an error can name the layer."""

    def __init__(self, caffe: Any, request: Mapping[str, Any], layer_file: int) -> None:
        self._layer_file = layer_file
        if request["gpu"] is None:
            caffe.set_mode_cpu()
        else:
            caffe.set_device(request["gpu"])
            caffe.set_mode_gpu()
        self._net = caffe.Net(request["prototxt"], _PHASES[request["phase"]])
        if request["weights"] is not None:
            self._net.copy_from(request["weights"])
        self.layers = list(self._net._layer_names)
        self._blobs = dict(zip(self._net._blob_names, self._net._blobs, strict=True))
        names = list(self._net._blob_names)
        self.inputs = [names[i] for i in self._net._inputs]

    def shapes(self) -> dict[str, list[int]]:
        return {name: list(blob.shape) for name, blob in self._blobs.items()}

    def forward(self, arrays: Mapping[str, FloatArray], outputs: Sequence[str]) -> dict[str, FloatArray]:
        reshaped = False
        for name, array in arrays.items():
            blob = self._blobs[name]
            if tuple(blob.shape) != array.shape:
                blob.reshape(*array.shape)
                reshaped = True
        if reshaped:
            self._net.reshape()
        for name, array in arrays.items():
            self._blobs[name].data[...] = array
        for number, name in enumerate(self.layers):
            self._note(name)
            self._net._forward(number, number)
        self._note("")
        return {name: self._blobs[name].data for name in outputs}

    def _note(self, layer: str) -> None:
        text = layer.encode()
        os.pwrite(self._layer_file, _LENGTH.pack(len(text)) + text, 0)


def noted_layer(path: Path) -> str:
    """Name of the layer that a worker was running; empty if none."""
    data = path.read_bytes()
    if len(data) < _LENGTH.size:
        return ""
    (length,) = _LENGTH.unpack_from(data)
    return data[_LENGTH.size : _LENGTH.size + length].decode("utf-8", "replace")


def _load(path: str) -> Any:
    spec = importlib.util.spec_from_file_location("_caffe", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not an extension module for this Python")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _serve(request: Mapping[str, Any], source: IO[bytes], sink: IO[bytes]) -> None:
    layer_file = os.open(request["layer_file"], os.O_WRONLY | os.O_CREAT, 0o600)
    net = _Net(_load(request["extension"]), request, layer_file)
    send(sink, {"layers": net.layers, "blobs": net.shapes(), "inputs": net.inputs}, {})
    while (frame := receive(source)) is not None:
        message, arrays = frame
        try:
            found = net.forward(arrays, message["outputs"])
        except (RuntimeError, ValueError, KeyError, MemoryError) as error:
            send(sink, {"error": f"{type(error).__name__}: {error}"}, {})
        else:
            send(sink, {}, found)


def main() -> None:
    """Serve one net until stdin ends. What Caffe prints to stdout goes to stderr, to keep it out of the frames."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other side handles Ctrl-C
    with os.fdopen(os.dup(1), "wb") as sink:
        os.dup2(2, 1)
        try:
            _serve(json.loads(sys.argv[1]), sys.stdin.buffer, sink)
        except (ImportError, RuntimeError, MemoryError) as error:
            send(sink, {"error": f"{type(error).__name__}: {error}"}, {})


if __name__ == "__main__":
    main()
