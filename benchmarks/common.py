"""What the benchmarks share: folders of models and images, alternating runs, spreads, tables."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
GRAPH = "frozen_inference_graph.pb"


def parser(description: str | None, *, repetitions: int | None = None) -> argparse.ArgumentParser:
    """A parser with the options of all benchmarks."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    made.add_argument("--models", type=Path, default=_default_models(), help="folder of models, or one model's folder")
    if repetitions is not None:
        made.add_argument("-n", "--repetitions", type=int, default=repetitions, help="runs of each side, alternating")
    made.add_argument("--json", action="store_true", help="print the result as JSON")
    return made


def _beside(name: str) -> Path | None:
    """A folder beside the repository or above it."""
    return next((parent / name for parent in ROOT.parents if (parent / name).is_dir()), None)


def _default_models() -> Path:
    return _beside("shared/models") or ROOT / "examples"


def default_images() -> Path | None:
    """Folder of the bccd images and annotations; None if there is none."""
    return _beside("shared/data/bccd")


def graphs(models: Path) -> dict[str, Path]:
    """Frozen graphs by name, in a folder of models or in the folder of one model."""
    if (models / GRAPH).is_file():
        return {models.name: models / GRAPH}
    found = {path.parent.name: path for path in sorted(models.glob(f"*/{GRAPH}"))}
    if not found:
        sys.exit(f"{models} and the folders in it have no {GRAPH}; give another folder with --models")
    return found


@dataclass(frozen=True)
class Spread:
    """Least, median and largest of several measurements."""

    least: float
    median: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(min(values), statistics.median(values), max(values))

    def text(self, form: str = "{:.3f}") -> str:
        return " / ".join(form.format(value) for value in (self.least, self.median, self.most))


def alternate(
    sides: Mapping[str, Callable[[], Any]], repetitions: int, *, pause: float = 0.0, warm: float = 0.0
) -> dict[str, list[Any]]:
    """Run each side once untimed, then all sides in turn, `repetitions` times, starting with another side each time.

    Args:
        sides: functions that run a side once and return its measurement.
        repetitions: number of timed runs of each side.
        pause: seconds to sleep before each run, so that spinning threads of the previous side stop (OpenBLAS's spin for
            tens of milliseconds).
        warm: seconds to run a side untimed before each timed run, so that its threads are awake, its data is in the
            caches and the processor is at full speed.
    """
    for side in sides.values():
        side()
    results: dict[str, list[Any]] = {name: [] for name in sides}
    names = list(sides)
    for turn in range(repetitions):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            time.sleep(pause)
            ready = time.perf_counter() + warm
            while time.perf_counter() < ready:
                sides[name]()
            results[name].append(sides[name]())
    return results


def ratios(over: Sequence[float], under: Sequence[float]) -> Spread:
    """Quotients of two sides' measurements in the same turn."""
    return Spread.of([a / b for a, b in zip(over, under, strict=True)])


def machine(*packages: str) -> dict[str, Any]:
    """The machine, and the versions of Python and of packages."""
    return {
        "processors": os.cpu_count(),
        "architecture": platform.machine(),
        "system": platform.system(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        **{package: _version(package) for package in packages},
    }


def _version(package: str) -> str | None:
    names = {"tensorflow": ("tensorflow", "tensorflow-cpu"), "opencv": ("opencv-python-headless", "opencv-python")}
    for name in names.get(package, (package,)):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that reads as plain text and as Markdown."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

    def line(row: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"

    return "\n".join([line(head), "|" + "|".join("-" * (width + 2) for width in widths) + "|", *map(line, rows)])


def report(result: dict[str, Any], text: Iterator[str], *, as_json: bool) -> None:
    """Print the result as JSON, or as text with the machine."""
    if as_json:
        print(json.dumps(result, indent=2, default=asdict))
        return
    for paragraph in text:
        print(paragraph)
    print("\n" + ", ".join(f"{name} {value}" for name, value in result["machine"].items()))
