"""docs/runtimes.md has the table that tests/targets/results.py makes of what was measured."""

from __future__ import annotations

import pytest

from tests.targets import results
from tests.targets.cases import CASES, MODELS, Case


def test_page_has_what_was_measured() -> None:
    page = results.PAGE.read_text("utf-8")
    assert page == results.with_table(page, results.read()), "run: python -m tests.targets.results --page"


def test_results_are_those_of_the_table() -> None:
    measured = results.read()
    assert list(measured) == list(results.in_table(measured))
    for case in CASES:
        if case.name in measured:
            assert measured[case.name]["runs"] != bool(case.fails), case.name


def test_measured_within_bounds() -> None:
    for case in CASES:
        found = results.read().get(case.name)
        if found and case.wrong:
            assert found["paired"] < 0.5 * found["expected"], case.name
        elif found and not case.fails:
            assert max(found["relative"].values(), default=0) <= case.bound, case.name
            assert found["paired"] >= case.paired * found["expected"] > 0, case.name


def test_names_are_unique() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    assert {case.model for case in CASES} == set(MODELS)


def test_rows() -> None:
    works = Case("mnn", "example", "headless", ("--priors", "none", "--gate", "interp"))
    fails = Case("mnn", "example", "deploy", fails="SIGSEGV", precision="int8")
    seen = {
        works.name: {
            "loads": True,
            "runs": True,
            "relative": {"mbox_loc": 1.5e-6, "mbox_conf": 3e-7},
            "paired": 5,
            "expected": 6,
            "extra": 1,
            "versions": {"MNN": "3.6.0"},
        },
        fails.name: {"loads": False, "runs": False, "relative": {}, "versions": {}},
    }
    lines = results.render(seen, [works, fails, Case("ncnn", "example", "deploy")]).splitlines()
    took = "headless, `--priors none`, `--gate interp`"
    assert lines[2] == f"| MNN 3.6.0 | {MODELS['example']} | {took} | yes | yes | 1.5e-06 | 5 of 6, 1 more |"
    assert lines[3] == f"| MNN, int8 | {MODELS['example']} | deploy | no | no |  | `SIGSEGV` |"
    assert len(lines) == 4


def test_page_without_marks() -> None:
    with pytest.raises(ValueError, match="once each"):
        results.with_table("no mark", {})
