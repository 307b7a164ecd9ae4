"""Output to a terminal: tables, progress, notes, --quiet; and Ctrl-C."""

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
    """Set whether progress and notes are suppressed, as `--quiet` asks for."""
    global _quiet
    _quiet = quiet


def is_quiet() -> bool:
    """Whether `--quiet` was given."""
    return _quiet


def note(text: str) -> None:
    """Print a line that is not an error to stderr; nothing with `--quiet`."""
    if not _quiet:
        print(f"ssdlite-caffe: {text}", file=sys.stderr)


def shows_progress() -> bool:
    """Whether progress is shown: stderr is a terminal, and `--quiet` was not given."""
    return not _quiet and sys.stderr.isatty()


def table_console() -> Console:
    """A console on stdout; for a file or pipe it is 240 columns wide, so that lines are not folded."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=_WIDTH)


def size_text(count: int) -> str:
    """A number of bytes as text, such as `1.2 GB` (powers of 1000)."""
    value, units = float(count), iter(("kB", "MB", "GB", "TB"))
    if count < 1000:
        return f"{count} bytes"
    unit = ""
    while value >= 999.95 or not unit:
        value, unit = value / 1000, next(units)
    return f"{value:.1f} {unit}"


def duration_text(seconds: float) -> str:
    """A duration as text, such as `1 h 5 min`, `3 min 20 s` or `12 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


class Share:
    """Share of work that is done, 0 to 1; it never falls, even if the total grows."""

    def __init__(self) -> None:
        """Start at 0."""
        self.value = 0.0

    def update(self, done: int, total: int) -> float:
        """The share after `done` of `total`; unchanged if the total is not known (0)."""
        if total > 0:
            self.value = max(self.value, min(1.0, done / total))
        return self.value


@contextlib.contextmanager
def bar(verb: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar with the remaining time on stderr, if that is a terminal.

    It writes to a copy of the file descriptor, so that it is visible while image libraries are silenced.

    Args:
        verb: what is being done, such as "detecting".

    Yields:
        A function to call with the amount of work done and the total.
    """
    with steps_bar() as shown:
        yield lambda done, total: shown(verb, done, total)


@contextlib.contextmanager
def steps_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar as `bar`, for work in several steps; the function's first argument is what is being done."""
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
    """A status line on stderr, if that is a terminal; yields a function that sets its text."""
    if not shows_progress():
        yield lambda _: None
        return
    from rich.console import Console

    with Console(stderr=True).status("") as line:
        yield line.update


@contextlib.contextmanager
def on_interrupt(action: Callable[[], None]) -> Iterator[None]:
    """Call `action` at the first Ctrl-C or SIGTERM; a second one has its usual effect.

    Only the main thread receives signals, so in other threads this does nothing.
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
    """Discard what libraries in C and C++ write to stderr and, with `stdout`, to stdout."""
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
