"""The tables that `make exactness` writes: the pages show the checked-in results, and all of them."""

from __future__ import annotations

import copy
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ssdlite_caffe.tools.comparison import Row
from ssdlite_caffe.tools.local_check import LocalDifference
from ssdlite_caffe.tools.verify import VerifyReport

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import exactness  # noqa: E402 - found through the path above
import exactness_measure  # noqa: E402
import exactness_models  # noqa: E402
import exactness_results  # noqa: E402
import exactness_tables  # noqa: E402

RESULTS = exactness_results.read(exactness_results.DEFAULT)
MADE = exactness_tables.tables(RESULTS)


@pytest.mark.parametrize("page", exactness_tables.PAGES, ids=lambda page: page.name)
def test_pages_show_the_results(page: Path) -> None:
    """Tables that were edited by hand, or results that were not rendered, fail; run `make exactness ARGS=--render`."""
    text = page.read_text("utf-8")
    assert exactness_tables.named_on(text)
    assert exactness_tables.placed(text, MADE) == text


def test_each_table_is_on_one_page() -> None:
    named = [name for page in exactness_tables.PAGES for name in exactness_tables.named_on(page.read_text("utf-8"))]
    assert sorted(named) == sorted(MADE)


def test_an_edited_table_is_replaced() -> None:
    page = exactness_tables.PAGES[0].read_text("utf-8")
    cell = next(f"{model['precision']['opencv']['ap']:.4f}" for model in RESULTS["models"].values())
    assert cell in page
    edited = page.replace(cell, "1.0000")
    assert exactness_tables.placed(edited, MADE) == page


def test_a_page_with_an_unknown_table() -> None:
    comments = "<!-- speed: made by `make exactness` -->\n<!-- end of speed -->"
    with pytest.raises(KeyError, match="speed"):
        exactness_tables.placed(comments, MADE)


def test_the_results_are_whole() -> None:
    """No run was interrupted; every model that the pages are to have is there, in each runtime."""
    assert RESULTS["left"] == []
    assert list(RESULTS["models"]) == list(exactness_models.KNOWN)
    for name, model in RESULTS["models"].items():
        assert model["title"] == exactness_models.KNOWN[name].title
        assert set(model["verify"]) == set(exactness_measure.RUNTIMES)
        wanted = {"tensorflow", *exactness_measure.RUNTIMES} if exactness_models.KNOWN[name].classes else set()
        assert set(model["precision"]) == wanted
        assert set(model["inexact"]) == (
            set(exactness_measure.INEXACT) if exactness_models.KNOWN[name].inexact else set()
        )


def leaves(value: Any, *path: str) -> Iterator[tuple[str, ...]]:
    """The paths of all numbers and texts."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, *path, key)
    else:
        yield path


def changed(value: Any) -> Any:
    if isinstance(value, str):
        return f"{value} or not"
    return 0.5 if value is None else type(value)(value * 3) if value else 3


def test_every_number_is_in_a_table() -> None:
    """Whatever number or verdict changes, a table does."""
    unseen = {"sha256", "date"}  # the date is in the run's name
    paths = [path for part in ("runs", "models") for path in leaves(RESULTS[part], part)]
    paths = [path for path in paths if path[-1] not in unseen and path[-1] != "run"]
    assert len(paths) > 200
    for path in paths:
        other = copy.deepcopy(RESULTS)
        inner = other
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = changed(inner[path[-1]])
        assert exactness_tables.tables(other) != MADE, path


def test_earlier_numbers_have_their_date() -> None:
    other = copy.deepcopy(RESULTS)
    newest = max(other["runs"])
    other["runs"]["2020-02-29"] = {**other["runs"][newest], "date": "2020-02-29", "cpu": "an older one"}
    model = other["models"]["examples"]
    for part in exactness_results.PARTS:
        for record in model[part].values():
            record["run"] = "2020-02-29"
    made = exactness_tables.tables(other)
    for name in ("results", "float64", "runtimes", "precision", "dialects"):
        rows = [line for line in made[name].splitlines() if line.startswith(f"| {model['title']}")]
        assert rows
        assert all("(2020-02-29)" in row for row in rows), name
        assert made[name].count("2020-02-29") == len(rows)
    assert "- 2020-02-29: an older one" in made["machines"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        ("Inf", "Inf"),
        (0.0, "0"),
        (2.38e-7, "2.4e-7"),
        (1.2e-10, "1.2e-10"),
        (0.0043, "0.0043"),
        (1.0, "1"),
    ],
)
def test_how_a_difference_is_written(value: float | str | None, text: str) -> None:
    assert exactness_tables._difference(value) == text


def report(*rows: Row, unproved: str = "", names: tuple[str, ...] = ("a",)) -> VerifyReport:
    return VerifyReport("model", "out", "opencv", rows, names, True, unproved=unproved)


def row(stage: str, absolute: float, *, share: float | None = None, ratio: float | None = None, **more: Any) -> Row:
    double = None if share is None else LocalDifference((), absolute, share, (), 0.0, 0.0, 0.0)
    layer = stage not in {"boxes", "scores", "detections", "boxes in float64", "scores in float64"}
    ok = more.pop("ok", True)
    return Row(stage, "", (), absolute, absolute / 10, 1.0, layer, ok, double=double, ratio=ratio, **more)


ENDS = (row("boxes", 2e-7), row("scores", 1e-6), row("detections", 3e-7))


def test_record_has_the_worst_of_all_reports() -> None:
    first = report(row("Conv", 1e-4, share=0.5, ratio=1.5), row("dead", 1e-9, ratio=0.1), *ENDS, names=("a", "b"))
    second = report(row("Conv", 3e-4, share=0.75, ratio=2.5), *ENDS[:1], row("scores", 5e-6), ENDS[2])
    assert exactness_measure.record([first, second]) == {
        "images": 2, "images64": 2, "verdict": "equal", "share": 0.75, "ratio": 2.5, "ratio_at": "Conv",
        "boxes": 2e-7, "scores": 5e-6, "detections": 3e-7, "layer": 3e-5, "boxes64": None, "scores64": None,
    }  # fmt: skip


def test_record_takes_whole_nets_in_float64_where_there_are_any() -> None:
    whole = row("boxes in float64", 1e-8, share=9.0, ratio=9.0), row("scores in float64", 2e-13)
    rows = row("Conv", 1e-4, share=0.5, ratio=1.5), *ENDS, *whole
    found = exactness_measure.record([report(*rows, names=("a", "b", "c"))])
    assert found["images64"] == 3  # all, where the whole nets are computed in float64
    assert (found["boxes64"], found["scores64"]) == (1e-8, 2e-13)
    assert (found["share"], found["ratio"], found["boxes"]) == (0.5, 1.5, 2e-7)


def test_record_of_nets_that_are_not_equal() -> None:
    good, bad = report(row("Conv", 1.0), *ENDS), report(row("Conv", 2.0, ok=False), *ENDS)
    assert exactness_measure.record([good, bad])["verdict"].startswith("the first stage beyond its bound is Conv")
    less = report(row("Conv", 1.0, ratio=5.0), *ENDS)
    assert exactness_measure.record([good, less])["verdict"] == "equal, but less exact than TensorFlow"
    unproved = report(*ENDS, unproved="a reason")
    found = exactness_measure.record([unproved])
    assert "a reason" in found["verdict"]
    assert found["images64"] == 0


def test_record_of_values_that_json_does_not_have() -> None:
    found = exactness_measure.record([report(row("boxes", math.nan), row("scores", 1.0), row("detections", math.inf))])
    assert (found["boxes"], found["detections"]) == ("NaN", "Inf")
    json.dumps(found, allow_nan=False)


def test_a_checkout_with_the_example_alone() -> None:
    found = exactness_models.find(ROOT / "examples", [])
    wanted, missing = exactness_results.plan(RESULTS, found)
    assert wanted == ["examples"]
    assert missing == [name for name in exactness_models.KNOWN if name != "examples"]
    with pytest.raises(SystemExit, match="none is no folder"):
        exactness_models.find(ROOT / "none", [])


def test_models_in_a_folder_and_by_name(tmp_path: Path) -> None:
    for name in ("other", "bccd_v2_ssdlite_3"):
        (tmp_path / "models" / name).mkdir(parents=True)
    (tmp_path / "models" / "README.md").write_text("")
    more = f"random_v3_small_37={tmp_path}"
    found = exactness_models.find(tmp_path / "models", [more])
    assert list(found) == ["bccd_v2_ssdlite_3", "examples", "random_v3_small_37", "other"]
    assert found["other"].known.title == "other"
    for wrong in ("no separator", f"={tmp_path}", f"a={tmp_path}/none", f"other={tmp_path}"):
        with pytest.raises(SystemExit, match=wrong.split("=")[0] or "NAME=FOLDER"):
            exactness_models.find(tmp_path / "models", [wrong])


def test_one_model_and_what_an_interrupted_run_left() -> None:
    results = {"runs": {}, "models": {"gone": {}}, "left": ["examples", "gone"]}
    assert exactness_results.plan(results, ["examples", "a"], only=["a"]) == (["a"], [])
    wanted, missing = exactness_results.plan(results, ["examples", "a"], resume=True)
    assert (wanted, missing) == (["examples"], ["gone"])
    with pytest.raises(SystemExit, match="there is no model b;"):
        exactness_results.plan(results, ["a"], only=["b"])
    with pytest.raises(SystemExit, match="gone is not at hand"):
        exactness_results.plan(results, ["a"], only=["gone"])
    with pytest.raises(SystemExit, match="nothing to resume"):
        exactness_results.plan({**results, "left": []}, ["a"], resume=True)


def test_numbers_of_another_file_are_dropped() -> None:
    results = copy.deepcopy(RESULTS)
    sha256 = results["models"]["examples"]["sha256"]
    same, dropped = exactness_results.model_of(results, "examples", "title", sha256)
    assert (same["verify"], dropped) == (RESULTS["models"]["examples"]["verify"], False)
    other, dropped = exactness_results.model_of(results, "examples", "title", "00")
    assert (other["verify"], other["precision"], dropped) == ({}, {}, True)
    assert results["models"]["examples"] is other


def test_runs_of_one_day_with_other_versions() -> None:
    results: dict[str, Any] = {"runs": {}}
    run = {"date": "2026-01-01", "opencv": "4.14"}
    assert exactness_results.run_name(results, run) == "2026-01-01"
    assert exactness_results.run_name(results, dict(run)) == "2026-01-01"
    assert exactness_results.run_name(results, {**run, "opencv": "4.8"}) == "2026-01-01 b"
    assert len(results["runs"]) == 2


def test_runs_without_records_are_not_written(tmp_path: Path) -> None:
    results = copy.deepcopy(RESULTS)
    results["runs"]["2020-02-29"] = {"date": "2020-02-29"}
    exactness_results.write(tmp_path / "results.json", results)
    assert exactness_results.read(tmp_path / "results.json") == RESULTS


@pytest.mark.slow
@pytest.mark.tensorflow
@pytest.mark.opencv
def test_measuring_the_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Numbers of what is not there stay and are named; the pages show the project's own results only."""
    monkeypatch.setattr(exactness_measure, "SCENES", 2)
    monkeypatch.setattr(exactness, "INEXACT", {"--padding symmetric": exactness_measure.INEXACT["--padding symmetric"]})
    results = tmp_path / "results.json"
    exactness_results.write(results, RESULTS)
    options = ["--models", str(ROOT / "examples"), "--results", str(results), "--runtime", "opencv", "--images", "1"]
    monkeypatch.setattr(sys, "argv", ["exactness.py", *options])
    with pytest.raises(SystemExit) as ended:
        exactness.main()
    assert not ended.value.code
    told = capsys.readouterr()
    assert "missing: bccd_v2_ssdlite_3: its folder was not found; its numbers of 20" in told.err
    assert "[1/1] examples" in told.err
    found = exactness_results.read(results)
    example, earlier = found["models"]["examples"], RESULTS["models"]["examples"]
    assert (example["verify"]["opencv"]["images"], example["verify"]["opencv"]["verdict"]) == (1, "equal")
    assert example["precision"]["opencv"]["data"] == "2 drawn scenes"
    assert example["precision"]["opencv"]["ap"] == example["precision"]["tensorflow"]["ap"] > 0.9
    assert example["verify"]["caffe"] == earlier["verify"]["caffe"]
    assert {**found["models"], "examples": earlier} == RESULTS["models"]
    assert found["left"] == []
