"""Tables on stdout, progress on stderr, and Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_WIDTH = 240


def table_console() -> Console:
    """A console on stdout; a file or pipe has no width, and lines there must not be folded for want of one."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=_WIDTH)


@contextlib.contextmanager
def bar(verb: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr, on a terminal; it keeps its own way there while image libraries are silenced."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(verb), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        os.fdopen(os.dup(sys.stderr.fileno()), "w") as stream,
        Progress(*columns, console=Console(file=stream), transient=True) as shown,
    ):
        task = shown.add_task("", total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)


@contextlib.contextmanager
def status() -> Iterator[Callable[[str], None]]:
    """A line on stderr that says what is being done, on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console

    with Console(stderr=True).status("") as line:
        yield line.update


@contextlib.contextmanager
def on_interrupt(action: Callable[[], None]) -> Iterator[None]:
    """Call `action` at the first Ctrl-C or SIGTERM; the second ends this process as ever.

    Signals are the main thread's: in another one nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, _: object) -> None:
        signal.signal(number, before[signal.Signals(number)])
        action()

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def silenced(*, stdout: bool = True) -> Iterator[None]:
    """Keep what libraries in C and C++ write to stderr, and to stdout unless told otherwise, from the screen."""
    kept = []
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)) if stdout else ((sys.stderr, 2),):
        with contextlib.suppress(OSError):  # closed
            stream.flush()
            kept.append((os.dup(number), number))
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for _, number in kept:
        os.dup2(nowhere, number)
    try:
        yield
    finally:
        for copy, number in kept:
            os.dup2(copy, number)
            os.close(copy)
        os.close(nowhere)
