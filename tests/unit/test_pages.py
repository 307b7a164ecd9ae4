"""The pages against the code: options, modules, files and anchors that they name are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import ssdlite_caffe
from ssdlite_caffe.targets.page import BEGIN, with_tables
from tests.unit.test_commands_app import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        ROOT / "examples" / "README.md",
        ROOT / "src_cuda" / "README.md",
    ]
)
OF_OTHERS = {"--help", "--version", "--install-completion", "--show-completion"}
"""Of typer, and on the top level."""


def options() -> set[str]:
    """Of all commands, benchmarks, make and the programs that the pages start."""
    of_commands = {name for one in COMMANDS.values() for p in one.params for name in (*p.opts, *p.secondary_opts)}
    scripts = [*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "docs").rglob("*.py"), ROOT / "tests" / "conftest.py"]
    scripts += [ROOT / "tests" / "targets" / f"{name}.py" for name in ("results", "int8")]
    scripts += (ROOT / "ssdlite_caffe" / "templates" / "targets").rglob("*.py.j2")
    of_scripts = {name for file in scripts for name in re.findall(r'"(--[a-z0-9-]+)"', file.read_text("utf-8"))}
    of_programs = {"--durations", "--gtest_filter", "--logdir"}
    return of_commands | of_scripts | of_programs | OF_OTHERS


def anchors(page: Path) -> set[str]:
    """The headings of a page, as they are linked to."""
    headings = re.findall(r"^#+ (.*)", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-") for text in headings}


def test_there_are_pages() -> None:
    assert len(PAGES) > 25


@pytest.mark.parametrize("page", [p for p in PAGES if p.name != "CHANGELOG.md"], ids=lambda p: str(p.relative_to(ROOT)))
def test_options_exist(page: Path) -> None:
    lines = [line for line in page.read_text("utf-8").splitlines() if "-->" not in line]  # arrows
    found = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9_-]*", "\n".join(lines)))
    assert found <= options()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_on_a_page(name: str) -> None:
    """Each option by its long name, and each of its choices."""
    pages = "\n".join(page.read_text("utf-8") for page in PAGES if page.name != "CHANGELOG.md")

    def said(word: str) -> bool:
        return re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", pages) is not None

    for option in (p for p in COMMANDS[name].params if p.param_type_name == "option"):
        names = [text for text in (*option.opts, *option.secondary_opts) if text.startswith("--")]
        assert any(map(said, names)), names
        for choice in getattr(option.type, "choices", ()):
            assert said(str(getattr(choice, "value", choice))), f"{names}: {choice}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_exist(page: Path) -> None:
    for name in re.findall(r"ssdlite_caffe[./][\w./]+\w", page.read_text("utf-8")):
        path = ROOT / (name if "/" in name else name.replace(".", "/"))
        places = (path, path.with_suffix(".py"), path.parent.with_suffix(".py"))  # a module, or a name in one
        new = "squeezenet" in name or "recipes" in str(page)  # what a recipe adds
        api = name.removeprefix("ssdlite_caffe.") in ssdlite_caffe.__all__
        assert new or api or any(place.exists() for place in places), name


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text("utf-8")):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_in_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    listed = {
        (index.parent / link.partition("#")[0]).resolve() for link in re.findall(r"\]\(([^)]+)\)", index.read_text())
    }
    assert {page for page in PAGES if page.is_relative_to(ROOT / "docs") and page != index} <= listed


@pytest.mark.slow
def test_runtimes_is_made_of_the_tables() -> None:
    """`make pages` writes it anew."""
    page = (ROOT / "docs" / "runtimes.md").read_text("utf-8")
    assert with_tables(page) == page
    assert "| `ascend` |" in page
    with pytest.raises(ValueError, match="once each"):
        with_tables(page + BEGIN)
