"""`python -m ssdlite_caffe.gen_model`: the command `gen` by itself."""

from __future__ import annotations

import sys

import typer

from ssdlite_caffe.commands.gen import gen
from ssdlite_caffe.errors import SsdliteError

if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command()(gen)
    try:
        app(prog_name="python -m ssdlite_caffe.gen_model")
    except SsdliteError as error:
        sys.exit(f"error: {error}")
