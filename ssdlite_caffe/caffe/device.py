"""Whether a built Caffe can use a GPU on this machine."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from ssdlite_caffe.caffe.log import reason
from ssdlite_caffe.caffe.prefix import STAMP

_SECONDS = 60
"""A GPU that does not answer within this time counts as missing."""


def gpu_problem(prefix: Path, number: int = 0) -> str:
    """Why a built Caffe cannot use a GPU, in a few words; empty where it can.

    Args:
        prefix: where Caffe is installed.
        number: of the GPU, from 0.
    """
    if _built_for_cpu(prefix):
        return f"the Caffe in {prefix} is built for the CPU alone"
    command = [os.fspath(prefix / "bin" / "caffe"), "device_query", f"-gpu={number}"]
    try:
        asked = subprocess.run(  # noqa: S603
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"GPU {number} does not answer ({error})"
    if asked.returncode == 0:
        return ""
    log = asked.stderr.decode("utf-8", "replace").splitlines()
    return reason(log, status=asked.returncode)


def _built_for_cpu(prefix: Path) -> bool:
    """Whether the stamp of the build says so; a Caffe of another origin has none."""
    try:
        stamp = json.loads((prefix / STAMP).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(stamp, dict) and stamp.get("cuda") is False
