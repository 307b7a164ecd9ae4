"""What all commands have in common: -h, -q, -V, panels, metavars and choices in --help, completion."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rich.console
import typer.main

from ssdlite_caffe import __version__
from ssdlite_caffe.commands.entries import ENTRIES
from ssdlite_caffe.commands.lazy import load
from ssdlite_caffe.commands.listing import print_listing, themed
from ssdlite_caffe.commands.root import app
from ssdlite_caffe.terminal import is_quiet
from tests.commands import Command


def commands(group: Any = None, names: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command with its words."""
    group = group or typer.main.get_command(app)
    context = group.make_context(group.name, [], resilient_parsing=True)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if hasattr(command, "commands"):
            yield from commands(command, (*names, name))
        else:
            yield " ".join((*names, name)), command


COMMANDS = dict(commands())


def test_there_are_all_commands() -> None:
    assert len(COMMANDS) >= 24
    assert {"convert", "lmdb voc", "keras export tflite", "caffe build", "merge-bn"} <= COMMANDS.keys()


@pytest.mark.parametrize("name", COMMANDS)
def test_help_at_80_columns(name: str, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """No choice is broken in mid-word, and many options stand in panels."""
    monkeypatch.setenv("COLUMNS", "80")
    short, long = command(*name.split(), "-h"), command(*name.split(), "--help")
    assert short.status == long.status == 0
    assert short.out == long.out
    assert max(map(len, short.out.splitlines())) <= 80
    words = set(re.findall(r"[\w-]+", short.out))
    options = [p for p in COMMANDS[name].params if p.param_type_name == "option"]
    for option in options:
        for choice in getattr(option.type, "choices", ()):
            assert set(re.findall(r"[\w-]+", choice)) <= words, f"{choice} is broken"
    if len(options) > 10:
        assert len(re.findall(r"^╭─ (?!Arguments)", short.out, re.MULTILINE)) >= 3, "no panels"


@pytest.mark.parametrize("name", COMMANDS)
def test_metavars_are_of_one_style(name: str) -> None:
    for parameter in COMMANDS[name].params:
        if not getattr(parameter, "is_flag", False):
            assert re.fullmatch(r"[A-Z][A-Za-z|,.]*", parameter.metavar or ""), parameter.name


def test_one_name_for_one_thing() -> None:
    """Options of the same name have the same short form; names that were given up are gone."""
    gone = {"--min-score", "--confidence-threshold", "--rate", "--lr", "--max-iter"}
    short: dict[str, set[tuple[str, ...]]] = {}
    for name, one in COMMANDS.items():
        for option in (p for p in one.params if p.param_type_name == "option"):
            long = {text for text in option.opts if text.startswith("--")}
            assert not long & gone, name
            assert name == "gen" or not long & {"--size", "--input", "--lmdb"}, name
            for text in long:
                short.setdefault(text, set()).add(tuple(o for o in option.opts if not o.startswith("--")))
    for text in ("--out", "--label-map", "--weights", "--jobs", "--quiet", "--version"):
        assert len(short[text]) == 1, text


def test_version(command: Command) -> None:
    assert command("-V").out == command("--version").out == f"ssdlite-caffe {__version__}\n"


def test_quiet_leaves_errors_and_what_was_asked_for(command: Command, example_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = command("convert", example_model, "-o", out, "-q")
    assert (done.status, done.out, done.err) == (0, "", "")
    assert (out / "report.json").is_file()
    assert not is_quiet(), "the next command in this process is not"
    done = command("convert", example_model, "-o", out, "--quiet")
    assert done.status == 1
    assert done.err.startswith(f"ssdlite-caffe: {out} exists already")
    done = command("convert", example_model, "-o", out, "--force", "-q", "--json")
    assert json.loads(done.out)["arch"]["num_classes"] == 4
    assert command("gen", "-c", 4, "-q").out.startswith("# MobileNetv2-SSDLite")
    assert command("lint", out / "deploy.prototxt").out


def test_quiet_takes_any_file_name_and_leaves_a_list(example_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"o\xff")
    run = [sys.executable, "-m", "ssdlite_caffe"]
    done = subprocess.run([*run, "convert", example_model, "-o", folder, "-q"], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    done = subprocess.run([*run, "dump", example_model, "--list", "-q"], capture_output=True, check=False)
    assert b"FeatureExtractor" in done.stdout


def test_completion_names_the_commands(command: Command) -> None:
    environment = {"_SSDLITE_CAFFE_COMPLETE": "complete_bash", "COMP_WORDS": "ssdlite-caffe con", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "ssdlite_caffe"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["convert"]


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "ssdlite_caffe", "-V"], capture_output=True, text=True, check=True)
    assert done.stdout == f"ssdlite-caffe {__version__}\n"
    arguments = ["-m", "ssdlite_caffe.gen_model", "-c", "4"]
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("# MobileNetv2-SSDLite")


@pytest.mark.parametrize("name", ENTRIES)
def test_the_list_says_what_the_command_says(name: str) -> None:
    """--help lists commands without importing them, from lines of its own."""
    entry = ENTRIES[name]
    said = " ".join((load(entry, name).help or "").split("\n\n")[0].split())
    assert said == entry.help


def by_typer(capsys: pytest.CaptureFixture[str]) -> str:
    """The list of commands as typer prints it."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        app(["--help"], prog_name="ssdlite-caffe")
    assert end.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("columns", [20, 60, 80, 81, 97, 120, 240])
def test_the_list_is_typers(columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    theirs = by_typer(capsys)
    print_listing()
    assert capsys.readouterr().out == theirs


@pytest.mark.parametrize("terminal", ["xterm", "xterm-256color", "dumb"])
def test_the_list_is_typers_in_colour(
    terminal: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", terminal)
    monkeypatch.setattr("typer.rich_utils.FORCE_TERMINAL", True)
    theirs = by_typer(capsys)
    assert ("\x1b[1;36mconvert" in theirs) == (terminal != "dumb")
    print_listing(themed(rich.console.Console(force_terminal=True)))
    assert capsys.readouterr().out == theirs


@pytest.mark.parametrize("option", ["-h", "--help"])
@pytest.mark.parametrize("variable", [None, "TYPER_USE_RICH", "TERMINAL_WIDTH", "FORCE_COLOR"])
def test_help_imports_no_command(option: str, variable: str | None) -> None:
    """Nor what a command is made of, nor typer unless an environment variable is set that it reads."""
    code = (
        f"import sys; from ssdlite_caffe.cli import main; sys.argv = ['ssdlite-caffe', {option!r}]\n"
        "try: main()\n"
        "finally: print(*sorted(name for name in sys.modules if name.startswith(('ssdlite_caffe', 'typer'))),"
        " file=sys.stderr)"
    )
    unset = ("TYPER_USE_RICH", "TERMINAL_WIDTH", "FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    if variable is not None:
        environment[variable] = {"TYPER_USE_RICH": "0", "TERMINAL_WIDTH": "70", "FORCE_COLOR": "1"}[variable]
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    assert "Convert a detector" in done.stdout
    assert ("╭" in done.stdout) == (variable != "TYPER_USE_RICH")
    assert ("\x1b[" in done.stdout) == (variable == "FORCE_COLOR")
    assert ("─" * 75 in done.stdout) == (variable in (None, "FORCE_COLOR"))
    ours = ["commands.listing"] if variable is None else ["commands.app", "commands.lazy", "commands.root", "terminal"]
    names = sorted(["cli", "commands", "commands.entries", "errors", *ours])
    modules = done.stderr.split()
    assert [name for name in modules if not name.startswith("typer")] == [
        "ssdlite_caffe", *(f"ssdlite_caffe.{name}" for name in names)
    ]  # fmt: skip
    assert ("typer" in modules) == (variable is not None)


def test_convert_imports_what_it_needs(example_model: Path, tmp_path: Path) -> None:
    """Each of these takes a tenth of a second or some hundredths, and only some conversions need it."""
    code = (
        "import sys; from ssdlite_caffe.commands.root import app\n"
        "try: app(sys.argv[1:])\n"
        "except SystemExit as end: assert not end.code\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    run = [sys.executable, "-c", code, "convert", example_model, "-o", tmp_path / "out", "--json"]
    done = subprocess.run(run, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout)["files"]
    modules = set(done.stderr.split())
    assert "ssdlite_caffe.tools.convert" in modules
    for name in ("numpy.ma", "rich.console", "ssdlite_caffe.targets.table", "ssdlite_caffe.tools.expected",
                 "ssdlite_caffe.runtimes.source_detector", "ssdlite_caffe.runtimes.draw"):  # fmt: skip
        assert name not in modules, name
