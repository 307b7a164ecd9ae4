"""TensorFlow, imported when it is needed and not before."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from ssdlite_caffe.errors import MissingRuntimeError


def tensorflow(purpose: str) -> Any:
    """The module `tensorflow`, imported without its greeting on stderr.

    Args:
        purpose: what it is needed for, as a subject ("a checkpoint").

    Raises:
        MissingRuntimeError: it is not installed, or does not load.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with _quiet():
            import tensorflow as module
    except ImportError as error:
        raise MissingRuntimeError(
            f"{purpose} needs TensorFlow ({error}); install it with: pip install 'ssdlite-caffe[tensorflow]'. "
            "A frozen graph (frozen_inference_graph.pb) is read without it"
        ) from error
    return module


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Send the process's stderr nowhere: TensorFlow's C++ part greets there before any log level is heeded."""
    saved = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)
