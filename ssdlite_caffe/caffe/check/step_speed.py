"""A V2-SSDLite's training step: ours, with data layer and update, beside the same net in PyTorch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from . import steps
from .machine import Machine, MissingError, StepError, python_with
from .result import Result
from .torch_side import ask


def step_speed(machine: Machine, folder: Path, seconds: float) -> Result:
    """Milliseconds, images a second and memory, by arithmetic (float32 and TF32)."""
    request: dict[str, Any] = json.loads((folder / "step.json").read_text("utf-8"))
    mine = steps.step_speed(machine, folder / "speed", seconds / 3)
    problem = ""
    theirs: dict[str, dict[str, Any]] = {}
    try:
        theirs = ask(machine, python_with("torchvision"), {"step": request}, seconds)["step"]
    except (MissingError, StepError) as error:
        problem = f"; no comparison: {error}"
    rows = [
        {"arithmetic": name, "who": who, **of[name], "images/s": request["batch"] / of[name]["median"] * 1e3}
        for name in mine
        for who, of in (("ours", mine), ("PyTorch", theirs))
        if name in of
    ]
    ratios = {name: theirs[name]["median"] / mine[name]["median"] for name in mine if name in theirs}
    said = f"batch {request['batch']}; PyTorch's time over ours: " + ", ".join(
        f"{k} {v:.2f}" for k, v in ratios.items()
    )
    return Result("", "ok", said + problem, rows)
