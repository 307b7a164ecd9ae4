"""What all commands have in common: -h, -q, the style of option types in --help, and how results are printed."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO, TypeVar

import typer
from typer.core import TyperCommand, TyperOption

from ssdlite_caffe import terminal

_METAVARS = {
    "path": "PATH", "str": "TEXT", "text": "TEXT", "int": "N", "integer": "N", "int range": "N", "integer range": "N",
    "float": "X", "float range": "X", "choice": "NAME",
}  # fmt: skip
_Function = TypeVar("_Function", bound=Callable[..., None])
_OUTPUT_OPTIONS = ("as_json", "as_csv", "list_")


class Command(TyperCommand):
    """A command with `--quiet`, and with metavars of one style.

    Choices are listed in the help text, where words are not broken in a narrow terminal.
    """

    prints_result = False
    """Whether standard output is the result itself, such as the prototxt of `gen`, which --quiet does not suppress."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Create the command; arguments as of TyperCommand."""
        super().__init__(*args, **kwargs)
        for parameter in self.params:
            _plain(parameter)
        self.params.append(_quiet_option())

    def invoke(self, ctx: Any) -> Any:
        """Run the command; with --quiet, its messages on standard output are discarded."""
        asked = self.prints_result or any(ctx.params.get(name) for name in _OUTPUT_OPTIONS)
        try:
            if asked or not terminal.is_quiet():
                return super().invoke(ctx)
            with _nowhere() as stream, contextlib.redirect_stdout(stream):
                return super().invoke(ctx)
        finally:
            terminal.set_quiet(False)  # for a caller that runs several commands in one process


class PrintingCommand(Command):
    """A command whose standard output is its result."""

    prints_result = True


def group(help_text: str, name: str | None = None) -> typer.Typer:
    """A command with subcommands."""
    return typer.Typer(
        name=name,
        help=help_text,
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def add(app: typer.Typer, name: str, function: Callable[..., None], panel: str | None = None) -> None:
    """Make `function` the command `name` of `app`."""
    kind = PrintingCommand if getattr(function, "prints_result", False) else Command
    app.command(name, cls=kind, rich_help_panel=panel)(function)


def prints_result(function: _Function) -> _Function:
    """Mark a command whose standard output is its result."""
    function.prints_result = True  # type: ignore[attr-defined]
    return function


def print_result(data: dict[str, Any], as_json: bool, text: str) -> None:
    """Print a result as JSON or as text."""
    print(json.dumps(data, indent=2) if as_json else text)


def _nowhere() -> TextIO:
    """A stream that drops what is printed, any file name included."""
    return Path(os.devnull).open("w", encoding="utf-8", errors="backslashreplace")


def _quiet_option() -> TyperOption:
    return TyperOption(
        param_decls=["-q", "--quiet"],
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=lambda context, parameter, value: terminal.set_quiet(bool(value)),
        help="Print only errors: no progress, notes or summary.",
    )


def _plain(parameter: Any) -> None:
    """Give a parameter a metavar in upper case, and move the choices of an option into its help text."""
    kind = parameter.type
    if parameter.metavar is None and kind.name in _METAVARS and not getattr(parameter, "is_flag", False):
        if parameter.param_type_name == "argument":
            parameter.metavar = parameter.name.upper()
        else:
            parameter.metavar = _METAVARS[kind.name]
    if kind.name == "choice" and parameter.param_type_name == "option":
        choices = [str(choice) for choice in kind.choices]
        said = set(re.findall(r"[\w-]+", parameter.help or ""))
        if not said.issuperset(choices):
            parameter.help = f"{parameter.help or ''} Choices: {', '.join(choices)}.".lstrip()
