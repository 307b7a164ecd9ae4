"""Importing Keras on TensorFlow, quiet and with TensorFlow's plain kernels."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

from ssdlite_caffe.errors import MissingRuntimeError
from ssdlite_caffe.terminal import silenced

_HOW = 'pip install "ssdlite-caffe[keras]"'


def import_keras() -> tuple[Any, Any]:
    """Import Keras 3 and TensorFlow.

    oneDNN is left out unless the environment says otherwise: it sums convolutions in other orders.

    Returns:
        The modules keras and tensorflow.

    Raises:
        MissingRuntimeError: one is not installed, Keras is older than 3, or runs on another library than TensorFlow.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    try:
        # TensorFlow says on stderr which kernels it has, whatever the level.
        with contextlib.nullcontext() if "tensorflow" in sys.modules else silenced():
            import keras
            import tensorflow
    except ImportError as error:
        raise MissingRuntimeError(f"this needs Keras and TensorFlow ({error}): {_HOW}") from error
    if int(keras.__version__.split(".")[0]) < 3:
        raise MissingRuntimeError(f"this needs Keras 3, not {keras.__version__}: {_HOW}")
    if keras.backend.backend() != "tensorflow":
        raise MissingRuntimeError(
            f"Keras runs on {keras.backend.backend()} here, and this needs TensorFlow: set KERAS_BACKEND=tensorflow"
        )
    tensorflow.get_logger().setLevel("ERROR")
    return keras, tensorflow
