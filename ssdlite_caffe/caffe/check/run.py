"""All steps in turn: each within its share of the time, and going on past one that fails."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from .depthwise import depthwise
from .keras_side import keras_training
from .machine import Machine, MissingError, StepError
from .result import Result, verdict_of, write
from .step_speed import step_speed
from .steps import gpu_answers, layer_tests, outputs, training

Step = Callable[[float], Result]
_SHARES = {"the GPU answers": 0.1, "layer tests": 0.45, "outputs": 0.1, "training": 0.2}
"""Of the whole time, for one program of a step; others get half of it."""


def check(bundle: Path, out: Path, *, gpu: int, minutes: float, say: Callable[[str], None]) -> str:
    """Check the Caffe of a bundle, and write `gpu-check.json` and `gpu-check.md`.

    Args:
        bundle: the unpacked bundle.
        out: folder for the two files.
        gpu: number of the GPU; where it does not answer, the CPU's part is checked.
        minutes: in which to end.
        say: called with each step's result.

    Returns:
        The verdict, in one line that starts with OK, FAILED or NOTHING.
    """
    out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * minutes
    results: list[Result] = []
    machine = Machine(bundle / "caffe", gpu)

    def take(name: str, step: Step) -> Result:
        share = 60 * minutes * _SHARES.get(name, 0.5)
        result = _taken(name, step, min(share, end - time.monotonic()))
        results.append(result)
        say(f"{result.verdict:8} {name}: {result.said} ({result.seconds:.0f} s)")
        write(out, facts, results)
        return result

    facts = machine.describe()
    answers = take("the GPU answers", lambda seconds: gpu_answers(machine, seconds))
    if answers.verdict != "ok":
        machine = Machine(bundle / "caffe", None)
    take("layer tests", lambda seconds: layer_tests(machine, seconds))
    take("outputs", lambda seconds: outputs(machine, bundle / "cases", seconds))
    take("training", lambda seconds: training(machine, bundle / "train" / "check", seconds))
    take("depthwise against PyTorch", lambda seconds: depthwise(_with_gpu(machine), bundle / "depthwise.json", seconds))
    take("training step against PyTorch", lambda seconds: step_speed(_with_gpu(machine), bundle / "train", seconds))
    take("Keras training", lambda seconds: keras_training(_with_gpu(machine), bundle / "scenes", seconds))
    return verdict_of(results)


def _taken(name: str, step: Step, seconds: float) -> Result:
    began = time.monotonic()
    if seconds < 1:
        return Result(name, "skipped", "no time is left")
    try:
        result = step(seconds)
    except MissingError as error:
        result = Result(name, "skipped", str(error))
    except (StepError, OSError, ValueError, KeyError, ArithmeticError, subprocess.SubprocessError) as error:
        result = Result(
            name, "failed", f"{type(error).__name__}: {error}" if not isinstance(error, StepError) else str(error)
        )
    result.name, result.seconds = name, time.monotonic() - began
    return result


def _with_gpu(machine: Machine) -> Machine:
    if machine.gpu is None:
        raise MissingError("no GPU answers")
    return machine
