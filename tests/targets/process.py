"""Starting a program's script in its environment, and reading what it tells; the contract is in `runners`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
RUNNERS = Path(__file__).resolve().parent / "runners"
TIMEOUT = 1800.0
"""Seconds; the slowest, a quantised net in a simulator, takes some minutes on 2 cores."""


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    Attributes:
        loads: the program took the files.
        runs: it computed outputs.
        error: the message of the step that failed, '' if none did.
        log: what the program printed.
        versions: of its packages.
        messages: what a user should know.
        seconds: of each step.
        outputs: for each input, the arrays by name, or `#0`, `#1`, ... in the program's order.
    """

    loads: bool
    runs: bool
    error: str
    log: str
    versions: Mapping[str, str]
    messages: Sequence[str]
    seconds: Mapping[str, float]
    outputs: Sequence[Mapping[str, Array]]


def run(python: Path, program: str, folder: Path) -> Outcome:
    """Run the script `run_<program>.py` on a folder that has its net, inputs and job.json.

    Args:
        python: of the program's environment.
        program: a file in `runners`.
        folder: of the contract.
    """
    home = folder / "home"
    home.mkdir(exist_ok=True)
    ours = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    # A home of its own: the programs write settings there. No index: mnnconvert, for one, starts pip when it fails.
    surroundings = {name: value for name, value in os.environ.items() if name not in ours}
    surroundings |= {"HOME": str(home), "PIP_NO_INDEX": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
    command = [str(python), str(RUNNERS / "runner.py"), f"run_{program}", str(folder)]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=surroundings,
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=TIMEOUT)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            return _outcome(1, process.communicate()[0], f"not done after {TIMEOUT:g} s", folder)
    return _outcome(process.returncode, out, err, folder)


def _outcome(status: int, out: str, err: str, folder: Path) -> Outcome:
    events: list[dict[str, Any]] = [json.loads(line) for line in out.splitlines()]
    done = {event["step"]: event for event in events if "step" in event}
    error = next((event["message"] for event in done.values() if not event["ok"]), "")
    if status and not error:
        last = err.strip().splitlines() or ["no message"]
        error = f"ended by {signal.Signals(-status).name}" if status < 0 else last[-1]
    log = folder / "log.txt"
    return Outcome(
        loads=done.get("load", {}).get("ok", False),
        runs=not status and done.get("run", {}).get("ok", False),
        error=error,
        log=log.read_text("utf-8", "replace") if log.exists() else err,
        versions=next((event["versions"] for event in events if "versions" in event), {}),
        messages=[event["message"] for event in events if set(event) == {"message"}],
        seconds={name: event["seconds"] for name, event in done.items() if event["ok"]},
        outputs=[] if status else _outputs(folder / "outputs.npz"),
    )


def _outputs(path: Path) -> list[dict[str, Array]]:
    found: dict[int, dict[str, Array]] = {}
    with np.load(path) as file:
        for key in file.files:
            number, _, name = key.partition("/")
            found.setdefault(int(number), {})[name] = file[key]
    return [found[number] for number in sorted(found)]
