"""What people see and do at a terminal: tables, progress, notes, quiet, and Ctrl-C."""

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
_quiet = False


def set_quiet(quiet: bool) -> None:
    """Whether progress and notes are kept from the screen; `--quiet` sets it."""
    global _quiet
    _quiet = quiet


def is_quiet() -> bool:
    """Whether `--quiet` was given."""
    return _quiet


def note(text: str) -> None:
    """A line on stderr that is no error; nothing with `--quiet`."""
    if not _quiet:
        print(f"ssdlite-caffe: {text}", file=sys.stderr)


def shows_progress() -> bool:
    """Whether there is a terminal to show progress on, and no `--quiet`."""
    return not _quiet and sys.stderr.isatty()


def table_console() -> Console:
    """A console on stdout; a file or pipe has no width, and lines there must not be folded for want of one."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=_WIDTH)


def size_text(count: int) -> str:
    """A number of bytes for people, as in `1.2 GB` (powers of 1000)."""
    value, units = float(count), iter(("kB", "MB", "GB", "TB"))
    if count < 1000:
        return f"{count} bytes"
    unit = ""
    while value >= 999.95 or not unit:
        value, unit = value / 1000, next(units)
    return f"{value:.1f} {unit}"


def duration_text(seconds: float) -> str:
    """A time for people, as in `1 h 5 min`, `3 min 20 s` or `12 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


class Share:
    """How much of some work is done, from 0 to 1; it never falls, even where the total turns out to be larger."""

    def __init__(self) -> None:
        """Nothing is done yet."""
        self.value = 0.0

    def update(self, done: int, total: int) -> float:
        """The share after `done` of `total`; as before where the total is not known (0)."""
        if total > 0:
            self.value = max(self.value, min(1.0, done / total))
        return self.value


@contextlib.contextmanager
def bar(verb: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr, on a terminal, with the time left.

    It has a way of its own to the terminal, so that it is seen while image libraries are silenced.

    Args:
        verb: what is being done ("detecting").

    Yields:
        A function to report to: how much is done, and of how much.
    """
    with steps_bar() as shown:
        yield lambda done, total: shown(verb, done, total)


@contextlib.contextmanager
def steps_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar as `bar`, for work of several steps: what is being done is reported with each of them."""
    if not shows_progress():
        yield lambda what, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[count]}"), TimeElapsedColumn(),
        TimeRemainingColumn(),
    )  # fmt: skip
    share = Share()
    with (
        os.fdopen(os.dup(sys.stderr.fileno()), "w") as stream,
        Progress(*columns, console=Console(file=stream), transient=True) as shown,
    ):
        task = shown.add_task("", total=None, count="")

        def update(what: str, done: int, total: int) -> None:
            known = 1.0 if total or share.value else None
            count = f"{done} of {total}" if total else ""
            shown.update(task, description=what, completed=share.update(done, total), total=known, count=count)

        yield update


@contextlib.contextmanager
def status() -> Iterator[Callable[[str], None]]:
    """A line on stderr that says what is being done, on a terminal; nothing elsewhere."""
    if not shows_progress():
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
