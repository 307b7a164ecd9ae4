"""How a training run is started: its options, kept in the training folder's run.json, and where it runs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ssdlite_caffe.caffe.device import gpu_problem
from ssdlite_caffe.errors import CaffeError, TrainingError
from ssdlite_caffe.files import write_text
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.training.kit_check import SOLVER_TRAIN

RUN = "run.json"


@dataclass(frozen=True)
class RunOptions:
    """What differs from the training folder's solver.

    Attributes:
        resume: continue from the newest whole snapshot, with the options that the training was started with.
        weights: caffemodel to start from, in place of the folder's initial.caffemodel.
        finetune: start its class predictors from fillers where they are for other classes.
        iterations: in all; None: the solver's max_iter.
        seed: of fillers, order and augmentation; None: the solver's random_seed.
        gpu: number of the GPU to run on.
        cpu: run on the CPU. With neither, the solver's solver_mode counts; without one, a GPU that Caffe can use.
        force: start over, and remove what an earlier training left.
        strict: stop at a record that cannot be read; else it is skipped.
        prefix: where Caffe is installed; None: the default place.
    """

    resume: bool = False
    weights: Path | None = None
    finetune: bool = False
    iterations: int | None = None
    seed: int | None = None
    gpu: int | None = None
    cpu: bool = False
    force: bool = False
    strict: bool = False
    prefix: Path | None = None


def remember(folder: Path, options: RunOptions) -> None:
    """Write the options that a resumed training needs into run.json; paths are written as seen from the folder.

    The weights stay those of its start.
    """
    path, weights = folder / RUN, None
    if options.resume and path.is_file():
        weights = _read(path)["weights"]
    elif options.weights is not None:
        weights = os.path.relpath(options.weights.resolve(), folder.resolve())
    kept = {
        "weights": weights,
        "iterations": options.iterations,
        "seed": options.seed,
        "gpu": options.gpu,
        "cpu": options.cpu,
        "strict": options.strict,
    }
    write_text(path, json.dumps(kept, indent=2) + "\n", force=True)


def recall(folder: Path, options: RunOptions) -> RunOptions:
    """The options of a resumed training: those of its run.json, with what was given anew.

    The number of iterations may change, and where the training runs; `strict` may be added.

    Raises:
        TrainingError: run.json cannot be read, or another seed or other weights are given.
    """
    path = folder / RUN
    if not path.is_file():  # started by train.sh, or by an earlier version
        return options
    kept = _read(path)
    weights = None if kept["weights"] is None else Path(os.path.normpath(folder / kept["weights"]))
    if options.seed is not None and options.seed != kept["seed"]:
        was = "the solver's" if kept["seed"] is None else kept["seed"]
        raise _contradiction("--seed", was, options.seed)
    if options.weights is not None and (weights is None or options.weights.resolve() != weights.resolve()):
        raise _contradiction("--weights", weights or "the training folder's own", options.weights)
    elsewhere = options.cpu or options.gpu is not None
    return replace(
        options,
        weights=None,  # a snapshot holds all weights
        iterations=options.iterations if options.iterations is not None else kept["iterations"],
        seed=kept["seed"],
        gpu=options.gpu if elsewhere else kept["gpu"],
        cpu=options.cpu if elsewhere else kept["cpu"],
        strict=options.strict or kept["strict"],
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        kept = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise TrainingError(f"cannot read {path}: {error}") from error
    kinds = {"weights": str, "iterations": int, "seed": int, "gpu": int, "cpu": bool, "strict": bool}
    optional = ("weights", "iterations", "seed", "gpu")
    for name, kind in kinds.items():
        value = kept.get(name) if isinstance(kept, dict) else None
        if type(value) is not kind and not (value is None and name in optional):
            raise TrainingError(f"{path} has {name} = {value!r}, which `ssdlite-caffe train` does not write")
    return dict(kept)


def _contradiction(option: str, was: object, now: object) -> TrainingError:
    return TrainingError(
        f"{option} was {was} when the training was started, got {now}: leave {option} out to resume it, or start over "
        "with --force"
    )


def choose_gpu(
    solver: caffe_pb2.SolverParameter, prefix: Path, options: RunOptions, say: Callable[[str], None]
) -> int | None:
    """Number of the GPU to run on, None for the CPU; `say` is called with the choice.

    Raises:
        CaffeError: --gpu names a GPU that this Caffe cannot use.
    """
    if options.gpu is not None:
        problem = gpu_problem(prefix, options.gpu)
        if problem:
            raise CaffeError(f"cannot train on GPU {options.gpu}: {problem}; give --cpu instead of --gpu")
        say(f"training on GPU {options.gpu}")
        return options.gpu
    mode = solver.solver_mode if solver.HasField("solver_mode") else None
    if options.cpu or mode == caffe_pb2.SolverParameter.CPU:
        say("training on the CPU")
        return None
    number = max(0, solver.device_id)
    problem = gpu_problem(prefix, number)
    if problem:
        asked = "" if mode is None else f", though {SOLVER_TRAIN} has solver_mode: GPU"
        say(f"training on the CPU ({problem}){asked}")
        return None
    say(f"training on GPU {number}")
    return number
