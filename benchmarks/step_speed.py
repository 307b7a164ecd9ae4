"""How long does a training step take on the CPU: in the built Caffe, in our Keras, in PyTorch?

A step of MobileNetV2-SSDLite 300 with 21 classes, the same number of images and objects on all sides: forward, matching
of default boxes, smooth L1 and softmax with hard negatives, backward, SGD with momentum. Images come from memory.
PyTorch's net is torchvision's MobileNetV2 with SSDLite heads and torchvision's matching and loss. Our training in Keras
matches in tf.data; here that is added to the step.

Each side runs in a process of its own, in turn, with as many threads; its peak memory is that of the process, with its
libraries.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import caffe_speed
import common
import cost_growth
import keras_speed

from ssdlite_caffe.caffe.check import torch_side
from ssdlite_caffe.caffe.prefix import cache_folder, caffe_prefix

CAFFE, KERAS, TORCH = "ours, Caffe", "ours, Keras", "PyTorch"
POINT = cost_growth.Point()
OBJECTS = cost_growth.OBJECTS


def caffe(program: Path, folder: Path, options: Any) -> tuple[list[float], float]:
    """Milliseconds of the steps, peak MiB."""
    net = cost_growth.prototxt(POINT, "train", options.batch_size, folder)
    side = caffe_speed.NetTime(program, net, None, "TRAIN", options.threads)
    times = [side.milliseconds("step") for _ in range(options.steps + 2)][2:]
    return times, side.close()


def torch(options: Any) -> tuple[list[float], float]:
    request = {
        "threads": options.threads,
        "step": {"side": POINT.input, "classes": POINT.classes, "batch": options.batch_size, "objects": OBJECTS,
                 "iterations": options.steps},
    }  # fmt: skip
    answer, peak = ended([options.torch_python, torch_side.__file__, json.dumps(request)], {"CUDA_VISIBLE_DEVICES": ""})
    found = answer["step"]["float32"]
    return [found["least"], found["median"], found["most"]], peak


def keras(options: Any) -> tuple[list[float], float]:
    command = [sys.executable, __file__, "--keras-side", "--batch-size", str(options.batch_size), "--steps"]
    threads = dict.fromkeys(
        ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), str(options.threads)
    )
    # TensorFlow's default, the faster oneDNN kernels; our commands switch them off to have the same numbers everywhere.
    answer, peak = ended([*command, str(options.steps)], {**threads, "TF_ENABLE_ONEDNN_OPTS": "1"})
    return answer, peak


def ended(command: list[str], environment: dict[str, str]) -> tuple[Any, float]:
    """The JSON on the last line that a process prints, and its peak memory in MiB."""
    search = {**os.environ, **environment, "PYTHONPATH": str(common.ROOT)}
    with tempfile.TemporaryFile() as printed:
        process = subprocess.Popen(command, env=search, stdout=printed)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"{command[0]} ended: {process.returncode}")
        printed.seek(0)
        return json.loads(printed.read().splitlines()[-1]), usage.ru_maxrss / 1024


def timed(step: Callable[[], Any], steps: int) -> list[float]:
    """Milliseconds of steps, after two untimed ones."""
    times = []
    for _ in range(steps + 2):
        began = time.perf_counter()
        step()
        times.append((time.perf_counter() - began) * 1e3)
    return times[2:]


def text(result: dict[str, Any]) -> Iterator[str]:
    yield "{batch} images, {threads} threads; least / median / most; ratios of the least times of each turn".format(
        **result
    )
    rows = []
    for side, of_side in result["sides"].items():
        times = [ms for turn in of_side["ms"] for ms in turn]
        ratio = common.ratios(*([min(turn) for turn in result["sides"][name]["ms"]] for name in (side, CAFFE)))
        rows.append(
            [side, common.Spread.of(times).text("{:.0f}"), ratio.text("{:.2f}"), f"{max(of_side['peak_mib']):.0f}"]
        )
    yield common.table(["side", "ms", "divided by ours in Caffe", "peak MiB"], rows)


def main() -> None:
    parser = common.parser(__doc__, repetitions=3)
    parser.add_argument("--steps", type=int, default=6, help="timed steps of a side in each turn")
    parser.add_argument("--batch-size", type=int, default=8, help="images in a step")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--torch-python", help="Python with torch and torchvision; without it PyTorch is left out")
    parser.add_argument("--keras-side", action="store_true", help="time Keras in this process; the benchmark calls it")
    parser.add_argument("--prefix", type=Path, help="prefix of the built Caffe")
    parser.add_argument("--source", type=Path, help="sources of the fork, in place of the download")
    parser.add_argument("--build", type=Path, default=cache_folder() / "caffe-speed", help="folder of net_time")
    options = parser.parse_args()
    if options.keras_side:
        step = keras_speed.training_step("v2", POINT.classes, options.batch_size, OBJECTS)
        print(json.dumps(timed(step, options.steps)))
        return
    built = caffe_speed.programs(options.build.absolute(), caffe_prefix(options.prefix), options.source, fork=False)
    with tempfile.TemporaryDirectory() as scratch:
        sides: dict[str, Callable[[], tuple[list[float], float]]] = {
            CAFFE: lambda: caffe(built["ours"], Path(scratch), options),
            KERAS: lambda: keras(options),
        }
        if options.torch_python:
            sides[TORCH] = lambda: torch(options)
        turns: dict[str, list[Any]] = {side: [] for side in sides}
        for _ in range(options.repetitions):
            for side, run in sides.items():
                turns[side].append(run())
    result: dict[str, Any] = {
        "machine": common.machine("tensorflow", "keras", "numpy"),
        "batch": options.batch_size,
        "threads": options.threads,
        "sides": {
            side: {"ms": [of[0] for of in runs], "peak_mib": [of[1] for of in runs]} for side, runs in turns.items()
        },
    }
    result["machine"]["load_after"] = [round(load, 2) for load in os.getloadavg()]
    common.report(result, text(result), as_json=options.json)


if __name__ == "__main__":
    main()
