"""Keras training on the GPU, in float32 and float16."""

from __future__ import annotations

from pathlib import Path

from .machine import Machine, Missing, python_with
from .result import Result


def keras_training(machine: Machine, folder: Path, seconds: float) -> Result:
    """Needs a Python with TensorFlow for GPUs and ssdlite-caffe[keras]."""
    python_with("tensorflow")
    python_with("ssdlite_caffe")
    raise Missing("not written yet")
