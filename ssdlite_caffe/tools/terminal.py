"""Where tables are printed."""

from __future__ import annotations

import sys

from rich.console import Console

_WIDTH = 240


def table_console() -> Console:
    """A console on stdout; a file or pipe has no width, and lines there must not be folded for want of one."""
    return Console() if sys.stdout.isatty() else Console(width=_WIDTH)
