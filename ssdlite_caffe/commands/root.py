"""The command `ssdlite-caffe` itself, of which all others are subcommands."""

from __future__ import annotations

from typing import Annotated

import typer

from ssdlite_caffe import __version__
from ssdlite_caffe.commands.entries import ENTRIES, TITLE
from ssdlite_caffe.commands.lazy import LazyGroup


class Commands(LazyGroup):
    """All commands."""

    entries = ENTRIES


app = typer.Typer(
    name="ssdlite-caffe",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"ssdlite-caffe {__version__}")
        raise typer.Exit


@app.callback(help=TITLE)
def _options(
    version: Annotated[
        bool, typer.Option("-V", "--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass
