"""Importers of optional libraries: quiet, and with the command that installs the library in the error message."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import warnings
from typing import Any

from ssdlite_caffe.errors import MissingRuntimeError
from ssdlite_caffe.terminal import silenced

_ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
_TENSORFLOW = "pip install 'ssdlite-caffe[tensorflow]'"
_KERAS = "pip install 'ssdlite-caffe[keras]'"
_OPENCV = "pip install 'ssdlite-caffe[opencv]'"
_TORCH = "pip install 'ssdlite-caffe[torch]'"
_OPENCV_ENVIRONMENT = {
    "OPENCV_FFMPEG_LOGLEVEL": "-8",
    "OPENCV_FFMPEG_CAPTURE_OPTIONS": "protocol_whitelist;file",  # a video must not send us to the network
    "OPENCV_IO_MAX_IMAGE_PIXELS": str(1 << 27),  # a small file may unpack to a huge image
}


def import_tensorflow(purpose: str = "this", hint: str = "") -> Any:
    """TensorFlow, without its messages on stderr and without oneDNN.

    oneDNN sums convolutions in another order, which moves logits by some 2e-5. It is switched off unless
    TF_ENABLE_ONEDNN_OPTS is set. TensorFlow reads that once, when it is imported: if the program has imported it
    already, with oneDNN on and not by that variable, a RuntimeWarning says so, once.

    Args:
        purpose: subject of the error message, such as "a checkpoint".
        hint: what else the user can do, appended to the error message.

    Raises:
        MissingRuntimeError: it is not installed, or cannot be loaded.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault(_ONEDNN, "0")
    imported = "tensorflow" in sys.modules
    try:
        # TensorFlow prints its kernels to stderr, whatever the log level.
        with contextlib.nullcontext() if imported else silenced():
            import tensorflow
    except ImportError as error:
        also = f". {hint}" if hint else ""
        raise MissingRuntimeError(
            f"{purpose} needs TensorFlow ({error}); install it with: {_TENSORFLOW}{also}"
        ) from error
    tensorflow.get_logger().setLevel("ERROR")
    if imported:
        _warn_of_onednn()
    return tensorflow


@functools.cache
def _warn_of_onednn() -> None:
    """Warn, once, if oneDNN is on and TF_ENABLE_ONEDNN_OPTS does not ask for it."""
    asked = os.environ.get(_ONEDNN, "0").lower() in ("1", "true")
    try:
        from tensorflow.python.util import _pywrap_util_port

        on = bool(_pywrap_util_port.IsMklEnabled())
    except (ImportError, AttributeError):  # another TensorFlow has it elsewhere, or has no oneDNN
        on = False
    if on and not asked:
        warnings.warn(
            "TensorFlow was imported before ssdlite_caffe needed it, so oneDNN is on, and its results differ by some "
            f"2e-5 from those without oneDNN; set {_ONEDNN}=0 before the program imports tensorflow",
            RuntimeWarning,
            stacklevel=3,
        )


def import_keras() -> tuple[Any, Any]:
    """Keras 3 on TensorFlow.

    Returns:
        The modules keras and tensorflow.

    Raises:
        MissingRuntimeError: one is not installed, or Keras is older than 3 or has another backend.
    """
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    tensorflow = import_tensorflow("a Keras model")
    try:
        with contextlib.nullcontext() if "keras" in sys.modules else silenced():
            import keras
    except ImportError as error:
        raise MissingRuntimeError(f"this needs Keras 3 ({error}); install it with: {_KERAS}") from error
    if int(keras.__version__.split(".")[0]) < 3:
        raise MissingRuntimeError(f"this needs Keras 3, got {keras.__version__}; install it with: {_KERAS}")
    if keras.backend.backend() != "tensorflow":
        raise MissingRuntimeError(
            f"the backend of Keras must be tensorflow, got {keras.backend.backend()}: set KERAS_BACKEND=tensorflow"
        )
    return keras, tensorflow


def import_opencv() -> Any:
    """OpenCV, without its messages on stderr.

    Raises:
        MissingRuntimeError: it is not installed, or cannot read Caffe nets.
    """
    for name, value in _OPENCV_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import cv2
    except ImportError as error:
        raise MissingRuntimeError(f"this needs OpenCV ({error}); install it with: {_OPENCV}") from error
    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        raise MissingRuntimeError(
            f"OpenCV {cv2.__version__} cannot read Caffe nets; 4.8 to 4.x can, install it with: {_OPENCV}"
        )
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2


def import_lmdb() -> Any:
    """The module lmdb.

    Raises:
        MissingRuntimeError: it is not installed.
    """
    try:
        import lmdb
    except ImportError as error:
        raise MissingRuntimeError(
            f"this needs lmdb ({error}); install it with: pip install 'ssdlite-caffe[caffe]'"
        ) from error
    return lmdb


def import_pyplot() -> Any:
    """Matplotlib's pyplot, with the backend that draws to files.

    Raises:
        MissingRuntimeError: it is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise MissingRuntimeError(
            f"this needs matplotlib ({error}); install it with: pip install 'ssdlite-caffe[evaluation]'"
        ) from error
    matplotlib.use("agg")
    from matplotlib import pyplot

    return pyplot


def import_safetensors() -> Any:
    """The module safetensors.

    Raises:
        MissingRuntimeError: it is not installed.
    """
    try:
        import safetensors
    except ImportError as error:
        raise MissingRuntimeError(
            f"a .safetensors file needs the library safetensors ({error}); install it with: pip install safetensors"
        ) from error
    return safetensors


def import_torch() -> tuple[Any, Any]:
    """PyTorch and torchvision, on as many threads as PyTorch takes.

    Returns:
        The modules torch and torchvision.

    Raises:
        MissingRuntimeError: one is not installed, or cannot be loaded.
    """
    try:
        with contextlib.nullcontext() if "torchvision" in sys.modules else silenced():
            import torch
            import torchvision
    except (ImportError, OSError, RuntimeError) as error:  # a torchvision for another torch fails late
        raise MissingRuntimeError(
            f"a model of torchvision is run by PyTorch ({error}); install it with: {_TORCH}"
        ) from error
    return torch, torchvision
