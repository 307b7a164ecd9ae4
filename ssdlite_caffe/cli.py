"""The command `ssdlite-caffe`: starts what is asked for, and prints errors that a user can cause as one line on stderr.

A command is imported when it runs, and for the list of them that --help prints not even typer is, so that it is fast.
Results go to stdout, progress and errors to stderr. The exit status is 1 for an error and 2 for wrong usage.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable

from ssdlite_caffe.errors import SsdliteError

INTERRUPTED = 130
"""Typer's exit status after Ctrl-C."""

_FOR_TYPER = (
    "_SSDLITE_CAFFE_COMPLETE", "TYPER_USE_RICH", "TERMINAL_WIDTH", "FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS",
    "_TYPER_FORCE_DISABLE_TERMINAL",
)  # fmt: skip
"""Environment variables that typer reads; with one of them, it prints the list of commands."""


def main() -> None:
    """Run the command; an error that a user can cause is printed as one line on stderr."""
    _prepare_streams()
    status = _attempt(_run)
    unwritten = _attempt(sys.stdout.flush)
    if unwritten:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # or Python would flush again at exit, and print a traceback
    sys.exit(status or unwritten)


def _run() -> None:
    if sys.argv[1:] in (["-h"], ["--help"]) and not any(name in os.environ for name in _FOR_TYPER):
        from ssdlite_caffe.commands.listing import print_listing

        print_listing()
        return
    from ssdlite_caffe.commands.root import app

    app(prog_name="ssdlite-caffe")


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
