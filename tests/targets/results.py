"""What was measured (results.json), and its tables in docs/runtimes.md and README.md.

`python -m tests.targets.results` measures, and writes all of them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.targets.cases import CASES, MODELS, Case
from tests.targets.environments import ENVIRONMENTS, UnavailableError, environment
from tests.targets.measure import Measured, measure
from tests.targets.workshop import ROOT, Workshop, find_shared

RESULTS = Path(__file__).resolve().parent / "results.json"
PAGE, README = ROOT / "docs" / "runtimes.md", ROOT / "README.md"
BEGIN = "<!-- made by tests/targets/results.py of tests/targets/results.json -->"
END = "<!-- end of what is made -->"

_OF_DETECTIONS = ("--clip", "--score-threshold")
"""Options that change nothing in a headless net."""

Results = Mapping[str, Mapping[str, Any]]


def read() -> dict[str, dict[str, Any]]:
    """What was measured of each case, by the case's name."""
    found: dict[str, dict[str, Any]] = json.loads(RESULTS.read_text("utf-8"))
    return found


def in_table(results: Results, cases: Iterable[Case] = CASES) -> dict[str, Mapping[str, Any]]:
    """The results of the cases of today's table, in its order."""
    return {case.name: results[case.name] for case in cases if case.name in results}


def with_table(page: str, table: str) -> str:
    """The page with a table between its two marks.

    Raises:
        ValueError: the page has not both marks, once.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise ValueError(f"the page must have {BEGIN} and {END} once each")
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n\n{table}\n{END}{rest.split(END)[1]}"


def write_pages(results: Results) -> None:
    """Write the tables of both pages anew."""
    for path, table in ((PAGE, render(results)), (README, render_short(results))):
        path.write_text(with_table(path.read_text("utf-8"), table), "utf-8")


def render_short(results: Results, cases: Iterable[Case] = CASES) -> str:
    """A Markdown table: a row for each program and precision, a column for each model."""
    rows: dict[str, dict[str, list[str]]] = {}
    for case in cases:
        if case.net == "headless" and case.name in results:
            row = rows.setdefault(_program(case, results[case.name]), {model: [] for model in MODELS})
            row[case.model].append(_short(case, results[case.name]))
    head = ["program", *MODELS.values()]
    lines = [_row(head), _row(["---"] * len(head))]
    for program, found in rows.items():
        lines.append(
            _row([program, *(next((c for c in cells if c), "no" if cells else "") for cells in found.values())])
        )
    return "\n".join(lines) + f"\n\n{_when(results)}\n"


def _short(case: Case, result: Mapping[str, Any]) -> str:
    """The largest difference, and what it took; '' for a net that is not computed as it should be."""
    if case.wrong or not result["runs"]:
        return ""
    pairs = zip(case.options[::2], case.options[1::2], strict=True)
    took = [f"`{' '.join(pair)}`" for pair in pairs if pair[0] not in _OF_DETECTIONS]
    return ", ".join([f"{max(result['relative'].values()):.1e}", *took])


def _when(results: Results) -> str:
    dates = sorted({result["date"] for result in results.values()})
    return f"Measured on {dates[0]}." if len(dates) == 1 else f"Measured from {dates[0]} to {dates[-1]}."


def _program(case: Case, result: Mapping[str, Any]) -> str:
    """A program, its version and, unless it is fp32, its precision."""
    version = next(iter(result["versions"].values()), "")
    precision = "" if case.precision == "fp32" else f", {case.precision}"
    return f"{ENVIRONMENTS[case.program].title} {version}".strip() + precision


def render(results: Results, cases: Iterable[Case] = CASES) -> str:
    """A Markdown table: a row for each case that was measured."""
    head = ["program", "model", "net, and what it took", "loads", "runs", "largest difference", "detections"]
    lines = [_row(head), _row(["---"] * len(head))]
    lines += [_row(_cells(case, results[case.name])) for case in cases if case.name in results]
    return "\n".join(lines) + f"\n\n{_when(results)}\n"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(case: Case, result: Mapping[str, Any]) -> list[str]:
    took = [case.net]
    took += [f"`{' '.join(pair)}`" for pair in zip(case.options[::2], case.options[1::2], strict=True)]
    if not result["runs"]:
        yes_no = ["yes" if result["loads"] else "no", "no", "", f"`{case.fails}`"]
    else:
        largest = f"{max(result['relative'].values()):.1e}" if result["relative"] else ""
        wrong = ": **wrong**" if case.wrong else ""
        extra = f", {result['extra']} more" if result["extra"] else ""
        yes_no = ["yes", "yes", largest, f"{result['paired']} of {result['expected']}{extra}{wrong}"]
    return [_program(case, result), MODELS[case.model], ", ".join(took), *yes_no]


def record(cases: Iterable[Case], workshop: Workshop, results: dict[str, dict[str, Any]]) -> None:
    """Measure cases and put them into `results`, saying of each what was seen; what cannot be measured stays."""
    for case in cases:
        source = workshop.source(case.model)
        if source is None or not source.exists():
            print(f"not measured: {case.name}: no model {case.model}", flush=True)
            continue
        try:
            measured: Measured = measure(case, environment(case.program), workshop)
        except UnavailableError as error:
            print(f"not measured: {case.name}: {error}", flush=True)
            continue
        results[case.name] = measured.to_dict()
        print(f"{case.name}: {json.dumps(results[case.name])}", flush=True)


def main(arguments: list[str]) -> int:
    """Measure, and write results.json and the pages anew."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--only", default="", metavar="TEXT", help="cases with this in their names")
    parser.add_argument("--page", action="store_true", help="measure nothing, write the pages alone")
    options = parser.parse_args(arguments)
    results = read() if RESULTS.exists() else {}
    if not options.page:
        with tempfile.TemporaryDirectory() as folder:
            workshop = Workshop(Path(folder), find_shared())
            for case in (case for case in CASES if options.only in case.name):
                record([case], workshop, results)
                RESULTS.write_text(json.dumps(in_table(results), indent=1) + "\n", "utf-8")
    write_pages(in_table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
