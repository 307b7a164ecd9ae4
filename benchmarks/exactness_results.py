"""The measurements of exactness.py as a JSON file: reading, adding to it, writing it.

    runs     by name: the date, the machine, and the versions of what was run
    models   by name: title, sha256 of its file, and records: `verify` and `precision` by runtime, `inexact` by dialect
    left     the models that an interrupted run did not come to

Each record names its run, so that numbers which cannot be measured again keep their date.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import common
from exactness_models import KNOWN

from ssdlite_caffe.files import write_text

DEFAULT = common.ROOT / "benchmarks" / "results" / "exactness.json"
Part = Literal["verify", "precision", "inexact"]
PARTS: tuple[Part, ...] = ("verify", "precision", "inexact")


def read(path: Path) -> dict[str, Any]:
    """The results of earlier runs; none if there is no such file."""
    if not path.is_file():
        return {"runs": {}, "models": {}, "left": []}
    try:
        data: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        sys.exit(f"{path} is not JSON: {error}; restore it from the repository")
    return data


def write(path: Path, results: Mapping[str, Any]) -> None:
    """Write the file in one step, without the runs that no record names any more."""
    used = {record["run"] for _, _, _, record in records(results)}
    runs = {name: run for name, run in sorted(results["runs"].items()) if name in used}
    models = {name: results["models"][name] for name in ordered(results["models"])}
    text = json.dumps({"runs": runs, "models": models, "left": results["left"]}, indent=1, allow_nan=False)
    write_text(path, text + "\n", force=True)


def ordered(names: Iterable[str]) -> list[str]:
    """Model names in the order of the pages."""
    known = list(KNOWN)
    return sorted(names, key=lambda name: (known.index(name) if name in KNOWN else len(known), name))


def records(results: Mapping[str, Any]) -> list[tuple[str, Part, str, dict[str, Any]]]:
    """All records: model, part, runtime or dialect, and the record."""
    return [
        (name, part, key, record)
        for name, model in results["models"].items()
        for part in PARTS
        for key, record in model[part].items()
    ]


def run_name(results: dict[str, Any], run: Mapping[str, Any]) -> str:
    """The name of a run: its date, with a letter where that day saw another machine or other versions."""
    names: tuple[str, ...] = (run["date"], *(f"{run['date']} {letter}" for letter in "bcdefghijklmnopqrstuvwxyz"))
    for name in names:
        if results["runs"].setdefault(name, dict(run)) == run:
            return name
    sys.exit(f"{run['date']} has had too many different machines or versions")


def model_of(results: dict[str, Any], name: str, title: str, sha256: str) -> tuple[dict[str, Any], bool]:
    """The entry of a model, and whether it is of another file than the earlier one; then its records are dropped."""
    model = results["models"].get(name)
    changed = model is not None and model["sha256"] != sha256
    if model is None or changed:
        model = results["models"][name] = {
            "title": title,
            "sha256": sha256,
            "verify": {},
            "precision": {},
            "inexact": {},
        }
    model["title"] = title
    return model, changed


def dates(model: Mapping[str, Any]) -> str:
    """The runs that a model's records are of."""
    return ", ".join(sorted({record["run"] for part in PARTS for record in model[part].values()}))


def number(value: float | None) -> float | str | None:
    """Six digits; "Inf" and "NaN" as text, since JSON does not have them."""
    if value is None or math.isfinite(value):
        return None if value is None else float(f"{value:.6g}")
    return "NaN" if math.isnan(value) else "Inf"


def plan(
    results: Mapping[str, Any], found: Iterable[str], *, only: Iterable[str] = (), resume: bool = False
) -> tuple[list[str], list[str]]:
    """Which models are measured, and which are missing: measured earlier or named by the pages, but not found.

    Args:
        results: of earlier runs.
        found: the models at hand.
        only: the models that were asked for; empty: all.
        resume: measure what an interrupted run did not come to.
    """
    found, only = list(found), list(only)
    known = {*found, *results["models"], *KNOWN}
    unknown = [name for name in only if name not in known]
    if unknown:
        sys.exit(f"there is no model {unknown[0]}; there are {', '.join(ordered(known))}")
    absent = [name for name in only if name not in found]
    if absent:
        sys.exit(f"{absent[0]} is not at hand; give its folder with --model {absent[0]}=FOLDER, or --models")
    wanted = only or ordered(known)
    if resume:
        if not results["left"]:
            sys.exit("no run was interrupted, so there is nothing to resume")
        wanted = [name for name in wanted if name in results["left"]]
    return [name for name in wanted if name in found], [name for name in wanted if name not in found]
