"""Keras training on the GPU, in float32 and float16."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path

from .machine import Machine, StepError, python_with
from .result import Result

_ITERATIONS, _BATCH = 30, 8
_ASK_GPUS = "import tensorflow as tf, sys; sys.exit(not tf.config.list_physical_devices('GPU'))"


def keras_training(machine: Machine, scenes: Path, seconds: float) -> Result:
    """Train V2-SSDLite for some iterations with each precision: the losses fall, and are numbers.

    Needs a Python with a TensorFlow that sees the GPU, and ssdlite-caffe[keras].
    """
    python = python_with("tensorflow", needs=("ssdlite_caffe",))
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": str(machine.gpu)}
    if subprocess.run([python, "-c", _ASK_GPUS], env=environment, capture_output=True, check=False).returncode:  # noqa: S603
        raise StepError(f"the TensorFlow of {python} sees no GPU")
    rows = []
    for precision in ("float32", "float16"):
        with tempfile.TemporaryDirectory() as folder:
            command = [
                python,
                "-m",
                "ssdlite_caffe",
                "keras",
                "train",
                "--data",
                os.fspath(scenes),
                "-o",
                f"{folder}/run",
            ]
            command += [
                "-v",
                "2",
                "--iterations",
                str(_ITERATIONS),
                "--batch-size",
                str(_BATCH),
                "--precision",
                precision,
            ]
            try:
                done = subprocess.run(  # noqa: S603
                    command, env=environment, capture_output=True, text=True, timeout=max(1.0, seconds / 2), check=False
                )
            except subprocess.TimeoutExpired as error:
                raise StepError(f"keras train --precision {precision} was stopped after {seconds / 2:.0f} s") from error
            if done.returncode:
                raise StepError(
                    f"keras train --precision {precision}: {(done.stderr.strip().splitlines() or [''])[-1]}"
                )
            lines = (Path(folder) / "run" / "metrics.jsonl").read_text("utf-8").splitlines()
            losses = [entry["loss"] for entry in map(json.loads, lines) if "loss" in entry]
        rows.append({"precision": precision, "first loss": losses[0], "last loss": losses[-1]})
    rising = [row["precision"] for row in rows if not row["last loss"] < row["first loss"]]
    return Result("", "failed" if rising else "ok", f"{_ITERATIONS} iterations of {_BATCH} images", rows)
