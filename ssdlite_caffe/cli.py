"""The command `ssdlite-caffe`: assembles the commands, and prints errors that a user can cause as one line on stderr.

Commands import what they need inside their functions, so that --help is fast. Results go to stdout, progress and errors
to stderr. The exit status is 1 for an error and 2 for wrong usage.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from ssdlite_caffe import __version__
from ssdlite_caffe.commands import caffe, keras, lmdb
from ssdlite_caffe.commands.app import add
from ssdlite_caffe.commands.convert import convert
from ssdlite_caffe.commands.cut import cut
from ssdlite_caffe.commands.detect import detect
from ssdlite_caffe.commands.dump import dump
from ssdlite_caffe.commands.evaluate import evaluate
from ssdlite_caffe.commands.gen import gen
from ssdlite_caffe.commands.kit import kit
from ssdlite_caffe.commands.lint import lint
from ssdlite_caffe.commands.load import load
from ssdlite_caffe.commands.merge_bn import merge_bn
from ssdlite_caffe.commands.remap import remap
from ssdlite_caffe.commands.shapes import shapes
from ssdlite_caffe.commands.test import run_test
from ssdlite_caffe.commands.train import train
from ssdlite_caffe.commands.verify import verify
from ssdlite_caffe.errors import SsdliteError

INTERRUPTED = 130
"""Typer's exit status after Ctrl-C."""

_TITLE = "MobileNet SSD and SSDLite detectors from TensorFlow to Caffe, with the same detections."

app = typer.Typer(
    name="ssdlite-caffe",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_PANELS: dict[str, dict[str, Callable[..., None]]] = {
    "From a model to Caffe": {"convert": convert, "verify": verify, "detect": detect, "evaluate": evaluate},
    "Nets and weights": {
        "gen": gen, "dump": dump, "load": load, "remap": remap, "merge-bn": merge_bn, "lint": lint,
        "cut": cut,
    },
    "Data and training": {"shapes": shapes, "kit": kit, "train": train, "test": run_test},
}  # fmt: skip
for _panel, _commands in _PANELS.items():
    for _name, _function in _commands.items():
        add(app, _name, _function, _panel)
app.add_typer(lmdb.app, name="lmdb", rich_help_panel="Data and training")
app.add_typer(keras.app, name="keras", rich_help_panel="Keras and the Caffe that we build")
app.add_typer(caffe.app, name="caffe", rich_help_panel="Keras and the Caffe that we build")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"ssdlite-caffe {__version__}")
        raise typer.Exit


@app.callback(help=_TITLE)
def _options(
    version: Annotated[
        bool, typer.Option("-V", "--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command; an error that a user can cause is printed as one line on stderr."""
    _prepare_streams()
    status = _attempt(lambda: app(prog_name="ssdlite-caffe"))
    unwritten = _attempt(sys.stdout.flush)
    if unwritten:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # or Python would flush again at exit, and print a traceback
    sys.exit(status or unwritten)


def _prepare_streams() -> None:
    """Redirect stdout and stderr to /dev/null if they are closed, and let them print file names in any encoding."""
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            # The descriptor must be taken: the next file to be opened would get it, and receive what libraries print.
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
            setattr(sys, name, open(descriptor, "w", closefd=False))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _attempt(action: Callable[[], object]) -> int:
    """The exit status of an action; errors that a user can cause are printed as one line."""
    try:
        action()
    except SystemExit as end:
        if end.code == INTERRUPTED:
            _say("interrupted")
        return end.code if isinstance(end.code, int) else 0
    except SsdliteError as error:
        _say(str(error))
    except BrokenPipeError:
        pass  # the reader has ended, as in `| head`
    except MemoryError:
        _say("not enough memory")
    except OSError as error:
        _say(f"{error.filename or 'cannot read or write'}: {error.strerror or error}")
    else:
        return 0
    return 1


def _say(message: str) -> None:
    print(f"ssdlite-caffe: {message}", file=sys.stderr)


if __name__ == "__main__":
    main()
