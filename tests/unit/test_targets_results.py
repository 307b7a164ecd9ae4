"""docs/runtimes.md, README.md and docs/targets.md have the tables that tests/targets makes of what was measured."""

from __future__ import annotations

import pytest

from tests.targets import int8, results
from tests.targets.cases import CASES, MODELS, Case
from tests.targets.environments import ENVIRONMENTS


def test_pages_have_what_was_measured() -> None:
    for path, table in (
        (results.PAGE, results.render(results.read())),
        (results.README, results.render_short(results.read())),
    ):
        page = path.read_text("utf-8")
        assert page == results.with_table(page, table), "run: python -m tests.targets.results --page"


def test_page_has_what_int8_loses() -> None:
    page = int8.PAGE.read_text("utf-8")
    assert page == int8.with_table(page, int8.read()), "run: python -m tests.targets.int8 --page"


def test_int8_loses_little_with_outputs_of_each_map() -> None:
    lost = {
        form.name: found["tensorflow"]["ap50"] - found["device"]["ap50"]
        for form in int8.FORMS
        for found in [int8.read().get(form.name)]
        if found is not None and form.outputs == "per-map"
    }
    assert lost
    assert max(lost.values()) <= int8.MOST_LOST, lost


def test_every_program_is_in_the_short_table() -> None:
    lines = results.render_short(results.read()).splitlines()
    for case in CASES:
        assert any(line.startswith(f"| {ENVIRONMENTS[case.program].title} ") for line in lines), case.program
    assert all(line.count(" |") == len(MODELS) + 1 for line in lines[:2])


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
            "date": "2026-01-02",
        },
        fails.name: {"loads": False, "runs": False, "relative": {}, "versions": {}, "date": "2026-01-03"},
    }
    table = [works, fails, Case("ncnn", "example", "deploy")]
    lines = results.render(seen, table).splitlines()
    took = "headless, `--priors none`, `--gate interp`"
    assert lines[2] == f"| MNN 3.6.0 | {MODELS['example']} | {took} | yes | yes | 1.5e-06 | 5 of 6, 1 more |"
    assert lines[3] == f"| MNN, int8 | {MODELS['example']} | deploy | no | no |  | `SIGSEGV` |"
    assert lines[4:] == ["", "Measured from 2026-01-02 to 2026-01-03."]
    refused = Case("mnn", "bccd_v2_ssdlite_3", "headless", fails="x")
    seen[refused.name] = {**seen[fails.name], "versions": {"MNN": "3.6.0"}}
    short = results.render_short(seen, [*table, refused]).splitlines()
    assert short[2:4] == ["| MNN 3.6.0 | 1.5e-06, `--priors none`, `--gate interp` | no |  |  |  |", ""]


def test_page_without_marks() -> None:
    with pytest.raises(ValueError, match="once each"):
        results.with_table("no mark", "a table")
