"""Which paths stand for a Keras model of `keras import` or `keras train`."""

from __future__ import annotations

from pathlib import Path

from ssdlite_caffe.dump.locate import all_of

_SUFFIXES = (".keras", ".h5")
_TRAINED = "model.keras"
"""What `keras train` writes into its folder."""


def keras_file(path: Path) -> Path | None:
    """The Keras file that `path` is, or that a folder of `keras train` holds; None if it is neither."""
    if path.name.endswith(_SUFFIXES):
        return path
    trained = path / _TRAINED
    return trained if trained.is_file() and not all_of(path) else None
