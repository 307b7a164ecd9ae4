"""The options of `keras train`, as they are given, or as a resumed training was started with."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import typer

from ssdlite_caffe.coco.label_map import BUILTIN
from ssdlite_caffe.commands.options import is_given, long_names
from ssdlite_caffe.errors import TrainingError

_OF_THIS_RUN = {"out", "resume", "force", "as_json"}
_PATHS = ("data", "images", "label_map", "start", "test_data", "test_images")
_FREE = {*_PATHS, "iterations", "checkpoint_every", "test_every", "test_split", "test_limit"}
"""A resumed training may change these: its data are compared by content, and the others do not change its result."""
_OF_NEW_NETS = ("version", "head", "width_multiplier", "input_size", "scores")
_RATES = {"sgd": 0.02, "rmsprop": 0.004, "adam": 0.001}


def settled(context: typer.Context, out: Path, *, resume: bool) -> dict[str, Any]:
    """The value of each option by its name in Python, without those that say what this run does.

    Args:
        context: of the command.
        out: the training's folder.
        resume: take the options that the training in the folder was started with, where they are not given.

    Raises:
        typer.BadParameter: options contradict each other, or a number is out of range.
        TrainingError: there is no training to resume, or an option is given that was another one at its start.
    """
    given = {name for name in context.params if is_given(context, name)}
    values = {name: value for name, value in context.params.items() if name not in _OF_THIS_RUN}
    if resume:
        values = _resumed(context, out, values, given)
    else:
        _check(context, values, given)
    if values["learning_rate"] is None:
        values["learning_rate"] = _RATES[values["optimizer"]]
    if values["warmup"] is None:
        values["warmup"] = min(100, values["iterations"] // 10)
    rate = values["learning_rate"]
    if not (math.isfinite(rate) and rate > 0):
        raise typer.BadParameter(f"learning rate must be positive, got {rate:g}")
    return values


def kept(values: dict[str, Any]) -> dict[str, Any]:
    """The options for run.json; paths are absolute, so that a training can be resumed from anywhere."""
    return {name: _absolute(value) if _is_path(name, value) else value for name, value in values.items()}


def _check(context: typer.Context, values: dict[str, Any], given: set[str]) -> None:
    if values["data"] is None:
        raise typer.BadParameter("give the data to train on with --data")
    chosen = [_option(context, name) for name in _OF_NEW_NETS if name in given]
    if values["start"] is not None and chosen:
        raise typer.BadParameter(f"--from gives the net; leave out {', '.join(chosen)}")
    if values["drops"] and values["schedule"] != "step":
        raise typer.BadParameter(f"--drops needs --schedule step, got {values['schedule']}")


def _resumed(context: typer.Context, out: Path, values: dict[str, Any], given: set[str]) -> dict[str, Any]:
    from ssdlite_caffe.keras.run_folder import RUN, options_of

    known = options_of(out)
    missing = sorted(values.keys() - known.keys())
    if missing:
        raise TrainingError(f"{out / RUN} keeps no {_option(context, missing[0])}: it was written by another version")
    recalled = {name: _checked(context, name, known[name], out / RUN) for name in values}
    wrong = [
        f"{_option(context, name)} was {recalled[name]} and is {values[name]}"
        for name in sorted(given & values.keys() - _FREE)
        if values[name] != recalled[name]
    ]
    if wrong:
        raise TrainingError(
            f"{'; '.join(wrong)}: leave that out to resume the training in {out}, or start another in another folder"
        )
    return {name: values[name] if name in given else recalled[name] for name in values}


def _checked(context: typer.Context, name: str, value: Any, file: Path) -> Any:
    """A value from run.json, checked as the command line's are."""
    parameter = next(one for one in context.command.params if one.name == name)
    try:
        return None if value is None else parameter.type_cast_value(context, value)
    except (typer.BadParameter, TypeError, ValueError) as error:
        raise TrainingError(f"{file} has {_option(context, name)} {value!r}, which is not allowed: {error}") from error


def _is_path(name: str, value: Any) -> bool:
    """Whether the value of an option is a path; coco and voc are label maps even where a folder has that name."""
    return name in _PATHS and value is not None and not (name == "label_map" and value in BUILTIN)


def _absolute(value: Any) -> Any:
    """A path from the root of the disk; one that is not there, as it is."""
    return str(Path(value).absolute()) if Path(value).exists() else value


def _option(context: typer.Context, name: str) -> str:
    """What an option is called on the command line."""
    return next(long for long in long_names(context, name))
