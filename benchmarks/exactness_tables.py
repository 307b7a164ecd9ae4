"""The tables of README.md and docs/exactness.md, made from the results of exactness.py; nothing is measured here.

Each stands on its page between two comments with its name, and is replaced there. Every number of the results is in
one of the tables.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import common

from ssdlite_caffe.files import write_text
from ssdlite_caffe.gen_model.arch import matters

Results = Mapping[str, Any]
PAGES = (common.ROOT / "README.md", common.ROOT / "docs" / "exactness.md")
NAMES = {"tensorflow": "TensorFlow", "opencv": "OpenCV", "caffe": "built Caffe", "reference": "reference (numpy)"}
NOTHING = "-"
"""What was not computed, or not measured."""
VERSIONS = {
    "python": "Python", "numpy": "NumPy", "tensorflow": "TensorFlow", "opencv": "OpenCV", "pycocotools": "pycocotools",
    "ssdlite_caffe": "ssdlite-caffe",
}  # fmt: skip
_BLOCK = re.compile(r"(<!-- ([a-z0-9]+): made by `make exactness` -->\n).*?(<!-- end of \2 -->)", re.DOTALL)


def tables(results: Results) -> dict[str, str]:
    """Every table as Markdown, by the name that stands on the pages."""
    return {
        "results": _results(results),
        "float64": _float64(results),
        "runtimes": _runtimes(results),
        "precision": _precision(results),
        "dialects": _dialects(results),
        "machines": _machines(results),
    }


def placed(page: str, made: Mapping[str, str]) -> str:
    """A page with the tables in place of what stands between their comments.

    Raises:
        KeyError: the page names a table that there is not.
    """
    return _BLOCK.sub(lambda found: f"{found[1]}\n{made[found[2]]}\n\n{found[3]}", page)


def named_on(page: str) -> set[str]:
    """Names of the tables that a page has."""
    return {found[2] for found in _BLOCK.finditer(page)}


def write_pages(results: Results) -> list[Path]:
    """Put the tables into the pages; the pages that changed."""
    made, changed = tables(results), []
    for path in PAGES:
        old = path.read_text("utf-8")
        new = placed(old, made)
        if new != old:
            write_text(path, new, force=True)
            changed.append(path)
    return changed


def _float64(results: Results) -> str:
    rows = []
    for model in results["models"].values():
        found = list(model["verify"].values())
        if not found:
            continue
        share = _largest([one["share"] for one in found])
        ends = [_difference(_largest([one[key] for one in found])) for key in ("boxes64", "scores64")]
        images = ", ".join(map(str, sorted({one["images64"] for one in found})))
        rows.append([_title(results, model, found), images, _text(share, "{:.2f}"), *ends])
    return _table(["model", "images", "layers: share of what is allowed", "whole net: boxes", "scores"], rows)


def _runtimes(results: Results) -> str:
    rows = []
    for model in results["models"].values():
        for runtime, one in _sorted(model["verify"]):
            place = "" if one["ratio_at"] is None else f" ({_code(one['ratio_at'])})"
            ratio = _text(one["ratio"], "{:.1f}") + place
            rows.append(
                [
                    _title(results, model, [one]), NAMES[runtime], str(one["images"]), one["verdict"], ratio,
                    _difference(one["boxes"]), _difference(one["scores"]),
                    "unpaired" if one["detections"] == "Inf" else _difference(one["detections"]),
                    _difference(one["layer"]),
                ]
            )  # fmt: skip
    head = ["model", "runtime", "images", "verdict", "rounding", "boxes", "scores", "detections", "layers, relative"]
    return _table(head, rows)


def _precision(results: Results) -> str:
    rows = []
    for model in results["models"].values():
        for runtime, one in _sorted(model["precision"]):
            threshold = _text(one["threshold"], "{:.2g}").replace("e-0", "e-")
            figures = [_text(one[key], "{:.4f}") for key in ("ap", "ap50")]
            title = _title(results, model, [one])
            rows.append([title, one["data"], threshold, NAMES[runtime], *figures, str(one["detections"])])
    return _table(["model", "test images", "scores from", "runtime", "AP", "AP50", "detections"], rows)


def _results(results: Results) -> str:
    """The README's: average precision by runtime, and the largest differences of OpenCV and Caffe."""
    rows = []
    for model in results["models"].values():
        scores = model["precision"]
        if not scores:
            continue
        one = next(iter(scores.values()))
        compared = [model["verify"][name] for name in ("opencv", "caffe") if name in model["verify"]]
        title = _title(results, model, [*scores.values(), *compared])
        if one["threshold"] is not None and matters(one["threshold"]):
            title += f", score threshold {one['threshold']:g}"
        figures = [_figures(scores.get(name)) for name in ("tensorflow", "opencv", "caffe")]
        ends = [_difference(_largest([found[key] for found in compared])) for key in ("boxes", "scores")]
        rows.append([title, one["data"], *figures, *ends])
    head = ["model", "test images", *(NAMES[name] for name in ("tensorflow", "opencv", "caffe")), "boxes", "scores"]
    return _table(head, rows)


def _dialects(results: Results) -> str:
    rows = []
    for model in results["models"].values():
        for dialect, one in model["inexact"].items():
            ends = [_difference(one[key]) for key in ("boxes", "scores")]
            rows.append([_title(results, model, [one]), _code(dialect), str(one["images"]), *ends])
    return _table(["model", "dialect", "images", "boxes", "scores"], rows)


def _machines(results: Results) -> str:
    lines = []
    for name, run in sorted(results["runs"].items(), reverse=True):
        versions = ", ".join(f"{text} {run[key] or 'none'}" for key, text in VERSIONS.items())
        lines.append(f"- {name}: {run['cpu']}, {run['cores']} cores; {versions}; Caffe: {run['caffe'] or 'none'}.")
    return "\n".join(lines) or f"- {NOTHING}"


def _title(results: Results, model: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> str:
    """The model's title, with the runs of the records where one is not the newest."""
    runs = sorted({record["run"] for record in records})
    newest = max(results["runs"])
    return model["title"] if runs in ([], [newest]) else f"{model['title']} ({', '.join(runs)})"


def _sorted(records: Mapping[str, Any]) -> list[tuple[str, Any]]:
    order = list(NAMES)
    return sorted(records.items(), key=lambda item: order.index(item[0]))


def _largest(values: Sequence[float | str | None]) -> float | str | None:
    """The largest number; a text, which is Inf or NaN, is larger than any; None if there is none."""
    known = [value for value in values if value is not None]
    return next((value for value in known if isinstance(value, str)), max(known, default=None))


def _text(value: float | str | None, form: str) -> str:
    return NOTHING if value is None else value if isinstance(value, str) else form.format(value)


def _difference(value: float | str | None) -> str:
    """2.4e-7, 0.0043, 0.23, Inf."""
    form = "{:.2g}" if isinstance(value, float) and value >= 1e-3 else "{:.1e}"
    return "0" if value == 0 else _text(value, form).replace("e-0", "e-")


def _figures(score: Mapping[str, Any] | None) -> str:
    return NOTHING if score is None else ", ".join(_text(score[key], "{:.4f}") for key in ("ap", "ap50"))


def _code(text: str) -> str:
    return f"`{text}`"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    lines[1] = "|" + "---|" * len(head)
    return "\n".join(lines)
