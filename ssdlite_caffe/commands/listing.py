"""The list of all commands that `ssdlite-caffe --help` prints, as typer prints it, in half of the time.

Typer's own module for this imports Markdown, tracebacks and syntax highlighting, for a text that has none of them. A
test compares the two, in terminals of several widths and in colour.

Source: `rich_format_help` in typer/rich_utils.py.
"""

from __future__ import annotations

from collections import defaultdict

from rich.align import Align
from rich.columns import Columns
from rich.console import Console
from rich.highlighter import RegexHighlighter
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

from ssdlite_caffe.commands.entries import ENTRIES, TITLE, Entry

_OPTIONS = (
    ("--version", "-V", "Print the version and exit."),
    ("--install-completion", "", "Install completion for the current shell."),
    ("--show-completion", "", "Show completion for the current shell, to copy it or customize the installation."),
    ("--help", "-h", "Show this message and exit."),
)
"""Long and short names, and what they do."""
_STYLES = {"option": "bold cyan", "switch": "bold green", "usage": "yellow"}


class _Highlighter(RegexHighlighter):
    """Colours the names of options."""

    highlights = [  # noqa: RUF012 - as in the base class
        r"(^|\W)(?P<switch>\-\w+)(?![a-zA-Z0-9])",
        r"(^|\W)(?P<option>\-\-[\w\-]+)(?![a-zA-Z0-9])",
        r"(?P<usage>Usage: )",
    ]


_HIGHLIGHT = _Highlighter()


def print_listing(console: Console | None = None) -> None:
    """Print it to standard output, or to a console with `themed`."""
    out = console or themed(Console())
    out.print(Padding(_HIGHLIGHT("Usage: ssdlite-caffe [OPTIONS] COMMAND [ARGS]..."), 1), style="bold")
    out.print(Padding(Align(_HIGHLIGHT(TITLE), pad=False), (0, 1, 1, 1)))
    options = _table()
    for long, short, text in _OPTIONS:
        options.add_row(_HIGHLIGHT(long), _HIGHLIGHT(short), "", "", "", Columns([_HIGHLIGHT(text)]))
    out.print(_panel("Options", options))
    panels: defaultdict[str, list[tuple[str, Entry]]] = defaultdict(list)
    for name, entry in ENTRIES.items():
        panels[entry.panel].append((name, entry))
    for title, listed in panels.items():
        table = _table()
        table.add_column(style="bold cyan", no_wrap=True, width=max(map(len, ENTRIES)))
        table.add_column(ratio=10)
        for name, entry in listed:
            table.add_row(Text(name), _HIGHLIGHT(entry.help))
        out.print(_panel(title, table))
    out.print()


def themed(console: Console) -> Console:
    """The console, with the colours of options."""
    console.push_theme(Theme(_STYLES))
    return console


def _table() -> Table:
    return Table(show_header=False, expand=True, box=None, pad_edge=False, padding=(0, 1))


def _panel(title: str, table: Table) -> Panel:
    return Panel(table, border_style="dim", title=title, title_align="left")
