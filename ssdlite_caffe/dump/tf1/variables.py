"""Reading the values of variables, of checkpoints and of SavedModels with a variables folder."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np

from ssdlite_caffe.dump.graph.tensors import Array
from ssdlite_caffe.errors import ModelError
from ssdlite_caffe.imports import import_tensorflow

WITHOUT_TENSORFLOW = "A frozen graph (frozen_inference_graph.pb) is read without it"
_SHARD = re.compile(r"\.data-(\d{5})-of-(\d{5})$")


def shards(prefix: Path) -> list[Path]:
    """The data files of a checkpoint, in order.

    Raises:
        ModelError: the index or a shard is missing; the text names it.
    """
    index = prefix.with_name(prefix.name + ".index")
    if not index.is_file():
        raise ModelError(f"the checkpoint {prefix} is not complete: {index} is missing")
    present = {}
    total = 1
    for path in sorted(prefix.parent.iterdir()):
        found = _SHARD.search(path.name) if path.name.startswith(prefix.name + ".data-") else None
        if found and path.name == prefix.name + found.group(0):
            present[int(found.group(1))] = path
            total = max(total, int(found.group(2)))
    missing = [f"{prefix.name}.data-{i:05d}-of-{total:05d}" for i in range(total) if i not in present]
    if missing:
        raise ModelError(f"the checkpoint {prefix} is not complete: {', '.join(missing[:4])} missing")
    return [present[i] for i in range(total)]


def hash_files(paths: list[Path]) -> str:
    """SHA-256 of the bytes of all files, one after the other, hex."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


class Variables:
    """A checkpoint that is open for reading; a value is read when `value` is called."""

    def __init__(self, prefix: Path, purpose: str) -> None:
        """Open the checkpoint at `prefix`; `purpose` is what the error says TensorFlow is needed for.

        Raises:
            ModelError: it cannot be read.
            MissingRuntimeError: TensorFlow is not installed.
        """
        self._prefix = prefix
        tf = import_tensorflow(purpose, WITHOUT_TENSORFLOW)
        self._errors: tuple[type[Exception], ...] = (tf.errors.OpError, ValueError, RuntimeError, IndexError)
        try:
            self._reader: Any = tf.train.load_checkpoint(str(prefix))
            self.shapes: dict[str, list[int]] = self._reader.get_variable_to_shape_map()
            self._dtypes: dict[str, Any] = self._reader.get_variable_to_dtype_map()
        except self._errors as error:
            raise ModelError(f"cannot read the checkpoint {prefix}: {_first_line(error)}") from error

    def is_float(self, name: str) -> bool:
        """Whether a variable holds float32."""
        return bool(self._dtypes[name] == "float32" or getattr(self._dtypes[name], "name", "") == "float32")

    def value(self, name: str) -> Array:
        """The value of a variable.

        Raises:
            ModelError: its bytes are damaged or cut short.
        """
        try:
            return np.ascontiguousarray(self._reader.get_tensor(name))
        except self._errors as error:
            raise ModelError(f"cannot read {name} from the checkpoint {self._prefix}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
