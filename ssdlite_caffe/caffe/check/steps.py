"""The steps of the check that need Caffe alone."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from .machine import Machine, MissingError, PeakMemory, StepError
from .result import Result

Arrays = dict[str, np.ndarray]

MOST_ERROR = 4.0
"""How many times the error of the CPU's float32 the GPU's may be, against the same net in float64."""
LEAST_ERROR = 1e-6
"""Errors below this share of the largest value are rounding, whatever their ratio."""
FIRST_LOSS, LATER_LOSSES = 1e-4, 0.05
"""How far the GPU's losses may lie from the CPU's, as shares: in the first step, where the weights are the same, and in
the mean of the last ten, by when rounding has spread."""


def gpu_answers(machine: Machine, seconds: float) -> Result:
    """Caffe starts and finds the GPU."""
    text = machine.caffe("device_query", seconds=seconds)
    name = re.search(r"Name:\s*(.*)", text)
    major, minor = (re.search(rf"{which} revision number:\s*(\d+)", text) for which in ("Major", "Minor"))
    if not (name and major and minor):
        raise StepError(f"device_query describes no GPU: {text.strip()[-200:]}")
    return Result("the GPU answers", "ok", f"{name[1]}, compute capability {major[1]}.{minor[1]}")


_TEST = re.compile(r"^\[ *(OK|FAILED) *\] (\S+?),?(?: where .*)? \((\d+) ms\)$", re.MULTILINE)
_FAILURE = re.compile(r"^\S+:\d+: Failure\n(.*?)^\[  FAILED  \] (\S+?),", re.MULTILINE | re.DOTALL)


def layer_tests(machine: Machine, seconds: float) -> Result:
    """Every layer test, on CPU and GPU, in float and double, shared out to a process for each processor."""
    processes = max(1, min(16, len(os.sched_getaffinity(0))))
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(processes) as pool:
        end = time.monotonic() + seconds
        jobs = [pool.submit(_share_of_tests, machine, Path(folder), i, processes, end) for i in range(processes)]
        shares = [job.result() for job in jobs]
    ran = [test for text, _ in shares for test in _TEST.findall(text)]
    failed = [name for verdict, name, _ in ran if verdict == "FAILED"]
    problems = [problem for _, problem in shares if problem]
    on_gpu = sum(re.search(r"/[23]\.", name) is not None for _, name, _ in ran)
    said = f"{len(ran)} tests ran, {on_gpu} of them on the GPU"
    if failed:
        why = {name: text for output, _ in shares for text, name in _FAILURE.findall(output)}
        rows = [{"test": name, "why": " ".join(why.get(name, "").split())[:400]} for name in failed]
        return Result("", "failed", f"{len(failed)} fail; {said}", rows)
    slowest = sorted(ran, key=lambda test: -int(test[2]))[:10]
    rows = [{"slowest tests": name, "seconds": int(time_of) / 1e3} for _, name, time_of in slowest]
    if problems or not ran or (machine.gpu is not None and not on_gpu):
        return Result("", "failed", "; ".join([*problems[:1], f"{said}; those hold"]), rows)
    return Result("", "ok", f"{said}; all hold", rows)


def _share_of_tests(machine: Machine, folder: Path, share: int, of: int, end: float) -> tuple[str, str]:
    """What a share of the tests says, and why it did not end; the latter is empty where a test says why."""
    more = {"GTEST_TOTAL_SHARDS": str(of), "GTEST_SHARD_INDEX": str(share), "GTEST_COLOR": "no"}
    try:
        return machine.run(
            "caffe_layer_tests", "--gtest_print_time=1", seconds=end - time.monotonic(), folder=folder, more=more
        ), ""
    except StepError as error:
        return error.output, "" if "[  FAILED  ]" in error.output else str(error)


def forward(machine: Machine, case: Path, *, seconds: float, cpu: bool, more: dict[str, str] | None = None) -> Arrays:
    """What a net of the bundle gives for its input: net.prototxt, net.caffemodel, input.npy, case.json."""
    told = json.loads((case / "case.json").read_text("utf-8"))
    inputs, outputs = f"--inputs={told['input']}={case / 'input.npy'}", f"--outputs={','.join(told['outputs'])}"
    with tempfile.TemporaryDirectory() as folder:
        machine.caffe(
            "forward", f"--model={case / 'net.prototxt'}", f"--weights={case / 'net.caffemodel'}",
            inputs, outputs,
            f"--out={folder}", seconds=seconds, cpu=cpu, more=more,
        )  # fmt: skip
        files = {blob: Path(folder) / f"{blob.replace('/', '_')}.npy" for blob in told["outputs"]}
        return {blob: np.load(file, allow_pickle=False) for blob, file in files.items()}


def outputs(machine: Machine, cases: Path, seconds: float) -> Result:
    """Raw outputs of real nets against the same nets in float64, the GPU's beside the CPU's."""
    rows, far = [], []
    for case in sorted(path for path in cases.iterdir() if path.is_dir()):
        names = json.loads((case / "case.json").read_text("utf-8"))["outputs"]
        wanted = {blob: np.load(case / "wanted" / f"{i}.npy", allow_pickle=False) for i, blob in enumerate(names)}
        sides = {"CPU": forward(machine, case, seconds=seconds, cpu=True)}
        if machine.gpu is not None:
            sides["GPU"] = forward(machine, case, seconds=seconds, cpu=False)
            sides["GPU, TF32"] = forward(machine, case, seconds=seconds, cpu=False, more={"CAFFE_CUDNN_TF32": "1"})
        for blob, exact in wanted.items():
            largest = float(np.abs(exact).max())
            errors = {side: float(np.abs(found[blob] - exact).max()) / largest for side, found in sides.items()}
            rows.append({"net": case.name, "blob": blob, "largest value": largest, **errors})
            bound = max(LEAST_ERROR, MOST_ERROR * errors["CPU"])
            if not errors["CPU"] < 1e-4 or not errors.get("GPU", 0.0) <= bound:
                far.append(f"{case.name} {blob} {errors}")
    if not rows:
        raise MissingError("the bundle has no nets: it was packed without --model")
    if far:
        return Result("outputs", "failed", f"too far from float64: {'; '.join(far)}", rows)
    return Result("outputs", "ok", "largest error against float64, as a share of the largest value", rows)


def losses(text: str) -> list[float]:
    """The losses that a training's log shows."""
    return [float(value) for value in re.findall(r"Iteration \d+(?: \([^)]*\))?, loss = (\S+)", text)]


def training(machine: Machine, folder: Path, seconds: float) -> Result:
    """The same training on the GPU and on the CPU: the same losses at first, and as low ones later."""
    more = {"CAFFE_CUDNN_DETERMINISTIC": "1"}
    solver = "--solver=solver_train.prototxt"
    gpu = losses(machine.caffe("train", solver, seconds=seconds, folder=folder, more=more))
    if machine.gpu is None:
        raise MissingError(f"no GPU to compare with; the CPU's losses go from {gpu[0]:.4f} to {gpu[-1]:.4f}")
    cpu = losses(machine.caffe("train", solver, seconds=seconds, folder=folder, cpu=True))
    again = losses(machine.caffe("train", solver, seconds=seconds, folder=folder, more=more))
    if not gpu or len(gpu) != len(cpu):
        raise StepError(f"the GPU showed {len(gpu)} losses, the CPU {len(cpu)}")
    rows = [{"iteration": i, "CPU": cpu[i], "GPU": gpu[i], "share": abs(gpu[i] / cpu[i] - 1)} for i in _shown(len(gpu))]
    ends = [sum(values[-10:]) / 10 for values in (cpu, gpu)]
    said = f"{len(gpu)} iterations; the mean of the last ten losses is {ends[0]:.4f} (CPU) and {ends[1]:.4f} (GPU)"
    said += "; a second run on the GPU gave " + ("the same losses" if again == gpu else "other losses")
    wrong = []
    if not all(math.isfinite(value) for value in gpu):
        wrong.append("a loss of the GPU is not a number")
    if not abs(gpu[0] / cpu[0] - 1) <= FIRST_LOSS:
        wrong.append(f"the first losses differ by a share of {abs(gpu[0] / cpu[0] - 1):.2g}")
    if not abs(ends[1] / ends[0] - 1) <= LATER_LOSSES:
        wrong.append(f"the last losses differ by a share of {abs(ends[1] / ends[0] - 1):.2g}")
    if wrong:
        return Result("training", "failed", f"{'; '.join(wrong)}; {said}", rows)
    return Result("training", "ok", said, rows)


def _shown(count: int) -> Iterator[int]:
    yield from (i for i in range(count) if i < 3 or i % 10 == 9)


def iteration_times(text: str) -> list[float]:
    """Seconds between one shown iteration and the next, from the times that glog writes before each line."""
    times = []
    for hour, minute, second in re.findall(
        r"^I\d+ (\d+):(\d+):([\d.]+) .*Iteration \d+(?: \([^)]*\))?, loss", text, re.MULTILINE
    ):
        times.append(3600 * int(hour) + 60 * int(minute) + float(second))
    return [(later - sooner) % 86400 for sooner, later in itertools.pairwise(times)]


def step_speed(machine: Machine, folder: Path, seconds: float) -> dict[str, dict[str, Any]]:
    """Whole training steps, data layer and update included: milliseconds and memory, by arithmetic.

    The solver shows every tenth iteration; the first twenty are not counted.
    """
    sides = {}
    for name, more in (("float32", {}), ("TF32", {"CAFFE_CUDNN_TF32": "1"})):
        with PeakMemory(machine) as memory:
            text = machine.caffe("train", "--solver=solver_train.prototxt", seconds=seconds, folder=folder, more=more)
        times = sorted(time / 10 * 1e3 for time in iteration_times(text)[2:])
        if not times:
            raise StepError("the training showed no iterations")
        sides[name] = {"least": times[0], "median": times[len(times) // 2], "most": times[-1], "MiB": memory.mebibytes}
    return sides


def layer_times(text: str) -> dict[str, tuple[float, float]]:
    """Of `caffe time`'s log: milliseconds of each layer forward and backward, mean and least."""
    found = re.findall(r"\] (\S+)\t(forward|backward): (\S+) ms, least (\S+) ms\.", text)
    return {f"{name} {way}": (float(mean), float(least)) for name, way, mean, least in found}
