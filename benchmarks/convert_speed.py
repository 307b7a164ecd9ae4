"""How much time and memory does it take to convert a frozen graph, as a whole process?

Compared with the earlier scripts (`earlier_way.py`), which import TensorFlow to write the weights as .npy files, and so
do only the first half of the work; and with the same scripts with one session call for all weights in place of one for
each, as a faster variant. `--help` is timed too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common

ZOO = "zoo2018_v2_ssdlite_90"
OURS, HELP = "convert", "--help"
EARLIER, AT_ONCE = "earlier way, first half", "the same, one session call"

ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "3"} | {
    name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
}
"""Without PYTHONDONTWRITEBYTECODE, as for users: the untimed first runs write the bytecode."""


@dataclass(frozen=True)
class Run:
    """One process: seconds from start to end, processor seconds, and largest resident size in MB (10^6 bytes)."""

    seconds: float
    processor: float
    megabytes: float


def run(command: list[str]) -> Run:
    """Run a command; its output is shown only if it fails."""
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=output, env=ENVIRONMENT)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        if os.waitstatus_to_exitcode(status):
            output.seek(0)
            sys.exit(f"failed: {' '.join(command)}\n{output.read().decode(errors='replace')}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Run(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * unit / 1e6)


def measure(graph: Path, repetitions: int) -> dict[str, list[Run]]:
    ours = Path(sys.executable).with_name("ssdlite-caffe")
    if not ours.is_file():
        sys.exit(f"{ours} does not exist; install the package first: pip install --editable .")
    earlier = Path(__file__).with_name("earlier_way.py")
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out"

        def fresh(*command: str | Path) -> Callable[[], Run]:
            def once() -> Run:
                shutil.rmtree(out, ignore_errors=True)
                return run([str(part) for part in command])

            return once

        sides = {
            OURS: fresh(ours, "convert", graph, "-o", out),
            EARLIER: fresh(sys.executable, earlier, graph, out),
            AT_ONCE: fresh(sys.executable, earlier, graph, out, "--at-once"),
            HELP: fresh(ours, "--help"),
        }
        return common.alternate(sides, repetitions)


def main() -> None:
    parser = common.parser(__doc__, repetitions=9)
    parser.add_argument("--model", help=f"name of the model; by default {ZOO}, or else the first")
    options = parser.parse_args()
    graphs = common.graphs(options.models)
    name = options.model or (ZOO if ZOO in graphs else next(iter(graphs)))
    if name not in graphs:
        sys.exit(f"there is no model {name}; choose from {', '.join(graphs)}")
    about = common.machine("numpy", "protobuf", "jinja2", "typer", "tensorflow")
    runs = measure(graphs[name], options.repetitions)
    seconds = {side: [one.seconds for one in measured] for side, measured in runs.items()}
    result: dict[str, Any] = {
        "machine": about,
        "model": name,
        "graph_bytes": graphs[name].stat().st_size,
        "runs": runs,
        "times_faster": {side: common.ratios(seconds[side], seconds[OURS]) for side in (EARLIER, AT_ONCE)},
    }
    common.report(result, _text(result), as_json=options.json)


def _text(result: dict[str, Any]) -> Iterator[str]:
    size, count = result["graph_bytes"] / 1e6, len(result["runs"][OURS])
    yield f"{result['model']}, {size:.1f} MB; least / median / most of {count}\n"
    rows = []
    for side, measured in result["runs"].items():
        columns = zip(*((one.seconds, one.processor, one.megabytes) for one in measured), strict=True)
        wall, processor, memory = (common.Spread.of(column) for column in columns)
        rows.append([side, wall.text("{:.2f}"), processor.text("{:.2f}"), memory.text("{:.0f}")])
    yield common.table(["process", "seconds", "processor seconds", "peak MB"], rows)
    for side, times in result["times_faster"].items():
        yield f"\nconvert is {times.text('{:.1f}')} times faster, run by run: {side}"


if __name__ == "__main__":
    main()
