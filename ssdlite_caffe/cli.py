"""The command `ssdlite-caffe`: names the commands, and prints errors that a user can cause as one line on stderr.

A command is imported when it runs, so that --help is fast. Results go to stdout, progress and errors
to stderr. The exit status is 1 for an error and 2 for wrong usage.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar

import typer

from ssdlite_caffe import __version__
from ssdlite_caffe.commands.lazy import Entry, LazyGroup
from ssdlite_caffe.errors import SsdliteError

INTERRUPTED = 130
"""Typer's exit status after Ctrl-C."""

_TITLE = "MobileNet SSD and SSDLite detectors from TensorFlow and PyTorch to Caffe, with the same detections."

_MODEL, _NETS, _TRAINING, _LIBRARIES = (
    "From a model to Caffe", "Nets and weights", "Data and training", "Keras and the Caffe that we build"
)  # fmt: skip


class Commands(LazyGroup):
    """All commands, as `--help` lists them."""

    entries: ClassVar[Mapping[str, Entry]] = {
        "convert": Entry("convert", "convert", _MODEL, "Convert a detector into a folder of Caffe files."),
        "verify": Entry(
            "verify", "verify", _MODEL,
            "Run TensorFlow and the converted net on the same inputs and compare them layer by layer.",
        ),
        "detect": Entry(
            "detect", "detect", _MODEL, "Detect objects in images, folders and videos with a converted model."
        ),
        "evaluate": Entry(
            "evaluate", "evaluate", _MODEL,
            "Average precision of a detector on annotated images, as defined by Pascal VOC and by COCO.",
        ),
        "gen": Entry(
            "gen", "gen", _NETS,
            "Print the prototxt of a MobileNet SSDLite or SSD detector, or of a MobileNet classifier.",
        ),
        "dump": Entry("dump", "dump", _NETS, "Write a model's weights as .npy files."),
        "load": Entry("load", "load", _NETS, "Fill a net with dumped weights."),
        "remap": Entry(
            "remap", "remap", _NETS, "Give a converted model other classes, by moving the rows of its class predictors."
        ),
        "merge-bn": Entry(
            "merge_bn", "merge_bn", _NETS, "Fold a trained net's BatchNorms into its convolutions, for deployment."
        ),
        "lint": Entry(
            "lint", "lint", _NETS, "Show shapes, parameters and multiply-adds of a prototxt, and what is wrong with it."
        ),
        "cut": Entry(
            "cut", "cut", _NETS,
            "Cut a net at a blob, to see what a runtime computes there. The caffemodel stays the same file.",
        ),
        "shapes": Entry(
            "shapes", "shapes", _TRAINING,
            "Draw scenes of circles, squares and triangles with annotations, to train and test on.",
        ),
        "kit": Entry(
            "kit", "kit", _TRAINING, "Write a training folder: nets, solvers, scripts, label map, first weights."
        ),
        "train": Entry(
            "train", "train", _TRAINING,
            "Train with Caffe's solver; log, losses and plot are written into the folder meanwhile.",
        ),
        "test": Entry(
            "test", "run_test", _TRAINING, "Average precision of trained weights on the training folder's test LMDB."
        ),
        "lmdb": Entry("lmdb", "app", _TRAINING, "Write the LMDB that Caffe trains on, and check one."),
        "keras": Entry("keras", "app", _LIBRARIES, "The same nets as Keras models: import, export, train, run."),
        "caffe": Entry("caffe", "app", _LIBRARIES, "Build the Caffe that runs and trains our nets."),
    }  # fmt: skip


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
