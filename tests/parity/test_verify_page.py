"""What verify shows: its verdict and table on a terminal, and its page, in a real browser where there is one."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.tools import verify_report
from ssdlite_caffe.tools.comparison import ImageComparison, Row
from ssdlite_caffe.tools.local_check import LocalDifference
from ssdlite_caffe.tools.verify import VerifyReport
from ssdlite_caffe.tools.verify_html import AMPLIFIED, LARGEST_SIDE, difference_image, page
from ssdlite_caffe.tools.verify_text import cells, verdict, worst_of_sections
from tests.browser import Page, find_browser, open_browser
from tests.scenes import draw_scene

pytestmark = [pytest.mark.opencv, pytest.mark.xdist_group("verify page")]

NAMES = ["background", "circle", "square", "triangle"]
LONGEST = "conv_13/expand_mbox_conf/depthwise"
NOTE = "a.png: only the reference has class 1, score 0.90000, box (0.1000, 0.2000, 0.3000, 0.4000); and 104 more"


def layer(stage: str, absolute: float = 1.25e-6, relative: float = 3e-7, section: str = "body") -> Row:
    return Row(stage, section, (576, 160, 160), absolute, relative, 3e-4, True, relative <= 3e-4)


def detections(unpaired: bool) -> Row:
    worst, note = (math.inf, NOTE) if unpaired else (2e-7, "2 in a.png")
    return Row("detections", "detections", (100, 6), worst, 2e-7, 2e-5, False, not unpaired, note)


def files(changed: float = 0) -> Row:
    note = "changed since conversion: train.caffemodel" if changed else "as converted"
    return Row("other files", "files", (), changed, changed, 0.5, False, not changed, note)


def report_of(*rows: Row, exact: bool = True) -> VerifyReport:
    return VerifyReport("a/model.pb", "out", "opencv", rows, ("a.png", "b.png"), exact, form="frozen graph")


BODY = [layer(f"conv_{number}/expand", section=f"block {number}") for number in range(20)]
GOOD = report_of(*BODY, layer(LONGEST, section="heads"), detections(False), files())
BAD = report_of(*BODY, layer(LONGEST, math.nan, math.nan, "heads"), detections(True), files())


def proved(row: Row, share: float = 0.987, ratio: float | None = 1.25) -> Row:
    """The row with what float64 says of it."""
    double = LocalDifference(row.shape, 3.25e-7, share, (0,), 1.0, 1.0, 3e-7)
    return dataclasses.replace(row, double=double, ratio=ratio, ok=share <= 1)


def whole(share: float) -> Row:
    row = Row("boxes in float64", "float64", (1917, 4), share * 1e-7, share * 1e-7, 1e-7, False, True, "after it 1e-7")
    return proved(row, share, None)


PROVED = report_of(*map(proved, BODY), proved(layer(LONGEST, section="heads")), whole(0.5), detections(False), files())
NOT_PROVED = report_of(
    *map(proved, BODY), proved(layer(LONGEST, section="heads"), math.inf, 5000), whole(30.0), files()
)


def found(*scores: float) -> Detections:
    boxes = np.array([[0.1, 0.3, 0.5, 0.6], [0.4, 0.5, 0.9, 0.9]], np.float32)[: len(scores)]
    return Detections(np.arange(1, len(scores) + 1), np.array(scores, np.float32), boxes)


def comparison(name: str = "a.png", caffe: Detections | None = None) -> ImageComparison:
    return ImageComparison(name, draw_scene(0)[0], found(0.9, 0.5), found(0.9, 0.5) if caffe is None else caffe)


class TestVerdict:
    def test_equal(self) -> None:
        assert verdict(GOOD) == "equal on 2 images"

    @pytest.mark.parametrize(
        ("row", "text"),
        [
            (layer("Conv", 6.0, 1.25), "Conv, 6.00e+00, relative 1.2e+00 (bound 3e-04)"),
            (layer("Conv", math.nan, math.nan), "Conv, NaN, relative NaN (bound 3e-04)"),
            (layer("Conv", math.inf, math.inf), "Conv, Inf, relative Inf (bound 3e-04)"),
            (Row("boxes", "detections", (9, 4), 1e-3, 1e-3, 2e-5, False, False), "boxes, 1.00e-03 (bound 2e-05)"),
            (detections(True), f"detections, unpaired: {NOTE}"),
            (files(1), "other files: changed since conversion: train.caffemodel"),
        ],
    )
    def test_the_first_stage_that_differs_with_its_bound(self, row: Row, text: str) -> None:
        report = report_of(layer("first"), row, detections(True))
        assert verdict(report) == f"the first stage beyond its bound is {text}"
        assert verdict(dataclasses.replace(report, exact=False)).endswith(" (the folder says that it is not exact)")

    @pytest.mark.parametrize(
        ("absolute", "bound", "used"),
        [(5e-6, 2e-5, "25.0%"), (1.0, 2e-5, ">999%"), (0.0, 0.0, ""), (1.0, 0.0, ""), (math.nan, 2e-5, "")],
    )
    def test_the_share_of_the_bound(self, absolute: float, bound: float, used: str) -> None:
        assert cells(Row("boxes", "detections", (), absolute, absolute, bound, False, False)).used == used

    def test_what_passes_beyond_the_bound_has_no_share(self) -> None:
        assert cells(Row("detections", "detections", (), 4e-5, 4e-5, 2e-5, False, True)).used == ""


@pytest.mark.parametrize("report", [GOOD, BAD], ids=["equal", "differs"])
@pytest.mark.parametrize("all_layers", [False, True])
def test_the_terminal_shows_the_verdict_first_in_80_columns(
    report: VerifyReport, all_layers: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_report, "table_console", lambda: Console(width=80))
    verify_report.print_report(report, all_layers=all_layers)
    first, second, *table = capsys.readouterr().out.splitlines()
    assert first == verdict(report)
    assert second == f"frozen graph {report.source} and {report.folder}"
    assert max(map(len, table)) <= 80
    assert len(table) == 3 + len(report.rows), "no row takes two lines"
    assert [line.split()[0] for line in table[3:-2]] == [row.stage for row in report.rows[:-2]]


@pytest.mark.parametrize("report", [PROVED, NOT_PROVED], ids=["equal", "differs"])
def test_the_table_with_float64_has_no_more_than_100_columns(
    report: VerifyReport, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_report, "table_console", lambda: Console(width=100))
    verify_report.print_report(report, all_layers=True)
    _, _, *table = capsys.readouterr().out.splitlines()
    assert max(map(len, table)) <= 100
    assert table[1].split() == ["stage", "shape", "float64", "float32", "ratio", "bound", "of", "bound"]
    assert len(table) == 3 + len(report.rows) + 2, "no row takes two lines; the last two say what the columns are"
    assert table[3].split() == [
        "conv_0/expand",
        "576x160x160",
        "3.25e-07",
        "1.25e-06",
        "1.2",
        "rounding",
        "98.7%",
        "ok",
    ]
    lines = {line.split()[0]: line.split() for line in table[3:-2]}
    if report is PROVED:
        assert lines["boxes"] == ["boxes", "in", "float64", "1917x4", "5.00e-08", "1e-07", "50.0%", "ok"]
        assert lines["detections"] == ["detections", "100x6", "2.00e-07", "2e-05", "1.0%", "ok"]
    else:
        assert lines[LONGEST] == [LONGEST, "576x160x160", "3.25e-07", "1.25e-06", ">999", "rounding", ">999%", "FAIL"]
        assert lines["boxes"] == ["boxes", "in", "float64", "1917x4", "3.00e-06", "1e-07", ">999%", "FAIL"]


def test_the_worst_of_a_section_is_the_nearest_to_a_bound_of_float64() -> None:
    def row(name: str, share: float, ratio: float) -> Row:
        return proved(layer(name, 1e-9 / share), share, ratio)

    by_share = [row("a", 0.5, 1), row("b", 0.9, 1), row("c", 0.6, 1)]
    assert [found.stage for found in worst_of_sections(by_share)] == ["b"]
    assert [found.stage for found in worst_of_sections([*by_share, row("d", 0.1, 3.9)])] == ["d"]
    assert [found.stage for found in worst_of_sections([row("e", 1.1, 1), *by_share, row("d", 0.1, 9)])] == ["e"]


class TestPage:
    def test_the_columns_of_float64(self) -> None:
        text = page(PROVED, [], NAMES)
        heads = re.findall(r"<th[^>]*>([^<]*)</th>", text.partition("</thead>")[0])
        assert heads == ["", "stage", "shape", "float64", "float32", "ratio", "bound", "of bound", "note"]
        for value in ("3.25e-07", "1.25e-06", "1.2", "rounding", "98.7%"):
            assert f'<td class="number">{value}</td>' in text
        assert "opencv against TensorFlow." in text
        heads = re.findall(r"<th[^>]*>([^<]*)</th>", page(GOOD, [], NAMES).partition("</thead>")[0])
        assert heads == ["", "stage", "shape", "max diff", "relative", "bound", "of bound", "note"]

    def test_it_needs_nothing_else(self) -> None:
        text = page(BAD, [comparison()], NAMES)
        assert not re.search(r"https?:|url\(|@import|<script|<link", text)
        assert set(re.findall(r'(?:src|href)="([^"]{11})', text)) == {"data:image/"}

    def test_it_is_the_same_each_time(self) -> None:
        assert page(BAD, [comparison()], NAMES) == page(BAD, [comparison()], NAMES)

    def test_names_are_escaped(self) -> None:
        odd = "<script>alert(1)</script>"
        report = dataclasses.replace(BAD, source=odd, folder=odd, rows=(layer(odd, 1.0, 1.0),))
        assert "<script" not in page(report, [comparison(odd)], NAMES)

    def test_captions_say_what_is_drawn(self) -> None:
        same = page(GOOD, [comparison()], NAMES)
        assert "TensorFlow: 2 detections<" in same
        assert "Caffe: 2 detections<" in same
        assert f"Difference, times {AMPLIFIED}: 0 of 102400 pixels differ<" in same
        other = page(BAD, [comparison(caffe=found(0.9, 0.2))], NAMES)
        assert "Caffe: 1 detection<" in other
        assert re.search(rf"Difference, times {AMPLIFIED}: [1-9]\d* of 102400 pixels differ<", other)

    def test_large_images_are_made_smaller(self) -> None:
        large = dataclasses.replace(comparison(), image=np.zeros((500, 4 * LARGEST_SIDE, 3), np.uint8))
        assert f'width="{LARGEST_SIDE}" height="125"' in page(GOOD, [large], NAMES)

    def test_the_difference_image(self) -> None:
        image = np.full((2, 2, 3), 200, np.uint8)
        one, other = image.copy(), image.copy()
        one[0, 0] = (200, 190, 198)
        other[1, 1] = 0
        shown = difference_image(image, one, other)
        assert shown[0, 1].tolist() == [50, 50, 50]
        assert shown[0, 0].tolist() == [4, 24, 40]
        assert shown[1, 1].tolist() == [25, 153, 255]


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    program = find_browser()
    if program is None:
        pytest.skip("no Chromium is installed; on Debian: apt-get install chromium")
    with open_browser(program) as opened:
        yield opened


@pytest.fixture(scope="module", params=["equal", "differs", "equal in float64"])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    report = {"equal": GOOD, "differs": BAD, "equal in float64": PROVED}[request.param]
    report = dataclasses.replace(report, source="a/rather/long/" * 8 + "model.pb")
    path.write_text(page(report, [comparison(), comparison("b" * 90 + ".png", found(0.4))], NAMES))
    return path


MEASURE = """(() => {
  const box = element => element.getBoundingClientRect().toJSON();
  const root = document.documentElement;
  const scroll = document.querySelector(".scroll");
  return {
    verdict: box(document.getElementById("verdict")),
    verdictText: document.getElementById("verdict").textContent,
    table: box(document.querySelector("table")),
    images: [...document.images].map(image => ({...box(image), loaded: image.complete && image.naturalWidth > 0})),
    window: [innerWidth, innerHeight],
    pageWidth: Math.max(root.scrollWidth, document.body.scrollWidth),
    tableHidden: scroll.scrollWidth - scroll.clientWidth,
    lines: [...document.querySelectorAll(".scroll td:not(.long)")].map(cell => {
      const range = document.createRange();
      range.selectNodeContents(cell);
      return new Set([...range.getClientRects()].map(line => Math.round(line.top))).size;
    }),
    ground: getComputedStyle(document.body).backgroundColor,
    contrast: ["body", "#verdict", ".number", ".note", "figcaption"].map(name => {
      let element = document.querySelector(name);
      const colour = getComputedStyle(element).color;
      while (getComputedStyle(element).backgroundColor === "rgba(0, 0, 0, 0)") element = element.parentElement;
      return [colour, getComputedStyle(element).backgroundColor];
    }),
  };
})()"""


def luminance(colour: str) -> float:
    values = np.array([int(v) for v in re.findall(r"\d+", colour)[:3]]) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


@pytest.mark.browser
@pytest.mark.slow
class TestInABrowser:
    @pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
    @pytest.mark.parametrize("size", [(1280, 800), (375, 812)], ids=["wide", "narrow"])
    def test_the_verdict_is_seen_at_once_and_the_page_is_as_wide_as_the_window(
        self, browser: Page, written: Path, size: tuple[int, int], dark: bool
    ) -> None:
        browser.open(written, *size, dark=dark)
        seen: dict[str, Any] = browser.evaluate(MEASURE)
        assert browser.errors == []
        assert seen["window"] == list(size)
        assert 0 <= seen["verdict"]["left"] < seen["verdict"]["right"] <= size[0]
        assert 0 <= seen["verdict"]["top"] < seen["verdict"]["bottom"] <= size[1]
        assert seen["verdictText"].startswith(("equal on", "the first stage beyond"))
        assert seen["verdict"]["bottom"] < seen["table"]["top"]
        assert seen["pageWidth"] == size[0], "the page does not scroll sideways"
        assert max(seen["lines"]) == 1, "no cell takes two lines"
        assert (seen["tableHidden"] > 0) == (size[0] == 375), "the table scrolls in a narrow window, and only there"
        assert len(seen["images"]) == 6
        for image in seen["images"]:
            assert image["loaded"]
            assert image["top"] > seen["table"]["bottom"]
            assert 0 <= image["left"] < image["right"] <= size[0]
        tops = {image["top"] for image in seen["images"]}
        assert len(tops) == (2 if size[0] == 1280 else 6), "side by side, or below each other in a narrow window"
        assert (luminance(seen["ground"]) < 0.1) == dark
        for text, ground in seen["contrast"]:
            lighter, darker = sorted((luminance(text), luminance(ground)), reverse=True)
            assert (lighter + 0.05) / (darker + 0.05) >= 4.5, (text, ground)

    def test_errors_of_a_page_are_noticed(self, browser: Page, tmp_path: Path) -> None:
        bad = tmp_path / "bad.html"
        bad.write_text('<script>console.error("one"); none.at.all</script><img src="missing.png">')
        browser.open(bad, 800, 600)
        errors = " | ".join(browser.errors)
        for text in ("one", "none is not defined", "ERR_FILE_NOT_FOUND"):
            assert text in errors
