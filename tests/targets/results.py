"""What was measured (results.json), and the table in docs/runtimes.md: `python -m tests.targets.results`."""

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
PAGE = ROOT / "docs" / "runtimes.md"
BEGIN = "<!-- made by tests/targets/results.py of tests/targets/results.json -->"
END = "<!-- end of what is made -->"

Results = Mapping[str, Mapping[str, Any]]


def read() -> dict[str, dict[str, Any]]:
    """What was measured of each case, by the case's name."""
    found: dict[str, dict[str, Any]] = json.loads(RESULTS.read_text("utf-8"))
    return found


def in_table(results: Results, cases: Iterable[Case] = CASES) -> dict[str, Mapping[str, Any]]:
    """The results of the cases of today's table, in its order."""
    return {case.name: results[case.name] for case in cases if case.name in results}


def with_table(page: str, results: Results) -> str:
    """The page with the tables between its two marks.

    Raises:
        ValueError: the page has not both marks, once.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise ValueError(f"{PAGE} must have {BEGIN} and {END} once each")
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n\n{render(results)}\n{END}{rest.split(END)[1]}"


def render(results: Results, cases: Iterable[Case] = CASES) -> str:
    """A Markdown table: a row for each case that was measured."""
    head = ["program", "model", "net, and what it took", "loads", "runs", "largest difference", "detections"]
    lines = [_row(head), _row(["---"] * len(head))]
    lines += [_row(_cells(case, results[case.name])) for case in cases if case.name in results]
    return "\n".join(lines) + "\n"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(case: Case, result: Mapping[str, Any]) -> list[str]:
    version = next(iter(result["versions"].values()), "")
    precision = "" if case.precision == "fp32" else f", {case.precision}"
    took = [case.net]
    took += [f"`{' '.join(pair)}`" for pair in zip(case.options[::2], case.options[1::2], strict=True)]
    if not result["runs"]:
        yes_no = ["yes" if result["loads"] else "no", "no", "", f"`{case.fails}`"]
    else:
        largest = f"{max(result['relative'].values()):.1e}" if result["relative"] else ""
        wrong = ": **wrong**" if case.wrong else ""
        extra = f", {result['extra']} more" if result["extra"] else ""
        yes_no = ["yes", "yes", largest, f"{result['paired']} of {result['expected']}{extra}{wrong}"]
    name = f"{ENVIRONMENTS[case.program].title} {version}".strip()
    return [name + precision, MODELS[case.model], ", ".join(took), *yes_no]


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
    """Measure, and write results.json and the page anew."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--only", default="", metavar="TEXT", help="cases with this in their names")
    parser.add_argument("--page", action="store_true", help="measure nothing, write the page alone")
    options = parser.parse_args(arguments)
    results = read() if RESULTS.exists() else {}
    if not options.page:
        with tempfile.TemporaryDirectory() as folder:
            workshop = Workshop(Path(folder), find_shared())
            for case in (case for case in CASES if options.only in case.name):
                record([case], workshop, results)
                RESULTS.write_text(json.dumps(in_table(results), indent=1) + "\n", "utf-8")
    PAGE.write_text(with_table(PAGE.read_text("utf-8"), in_table(results)), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
