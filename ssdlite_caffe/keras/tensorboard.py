"""Scalars for TensorBoard, written without having it installed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssdlite_caffe.imports import import_keras


class Board:
    """Writes event files; a context manager. Without a folder nothing is written."""

    def __init__(self, folder: Path | None) -> None:
        """Write below `folder`."""
        self._tf: Any = None
        self._writer: Any = None
        if folder is not None:
            _, self._tf = import_keras()
            self._writer = self._tf.summary.create_file_writer(str(folder))

    def __enter__(self) -> Board:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, iteration: int, values: Mapping[str, float]) -> None:
        """Add a point to each curve."""
        if self._writer is None:
            return
        from tensorflow.core.framework import summary_pb2

        plugin = summary_pb2.SummaryMetadata.PluginData(plugin_name="scalars")
        metadata = summary_pb2.SummaryMetadata(plugin_data=plugin, data_class=summary_pb2.DATA_CLASS_SCALAR)
        with self._writer.as_default():
            for name, value in values.items():
                tensor = self._tf.constant(value, self._tf.float32)
                self._tf.summary.write(name, tensor, step=iteration, metadata=metadata)
        self._writer.flush()
