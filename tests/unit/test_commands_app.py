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
import typer.main

from ssdlite_caffe import __version__
from ssdlite_caffe.cli import Commands, app
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


@pytest.mark.parametrize("name", Commands.entries)
def test_the_list_says_what_the_command_says(name: str) -> None:
    """--help lists commands without importing them, from lines of its own."""
    entry = Commands.entries[name]
    said = " ".join((entry.load(name).help or "").split("\n\n")[0].split())
    assert said == entry.help


def test_help_imports_no_command() -> None:
    """Nor what a command is made of; it takes a quarter of the time so."""
    code = (
        "import sys; from ssdlite_caffe.cli import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted(name for name in sys.modules if name.startswith('ssdlite_caffe')), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "Convert a detector" in done.stdout
    assert done.stderr.strip() == str(
        ["ssdlite_caffe", *(f"ssdlite_caffe.{name}" for name in (
            "cli", "commands", "commands.app", "commands.lazy", "errors", "terminal"
        ))]
    )  # fmt: skip


def test_convert_imports_what_it_needs(example_model: Path, tmp_path: Path) -> None:
    """Each of these takes a tenth of a second or some hundredths, and only some conversions need it."""
    code = (
        "import sys; from ssdlite_caffe.cli import app\n"
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
