"""The table of `convert --target list`."""

from __future__ import annotations

from ssdlite_caffe.targets.table import TARGETS
from ssdlite_caffe.terminal import table_console


def print_targets() -> None:
    """Print every target, what it is, and how it was checked."""
    from rich.table import Table

    table = Table("target", "program", "nets", "checked")
    for target in TARGETS.values():
        stages = ", ".join(dict.fromkeys(net.stage for net in target.nets))
        table.add_row(target.name, target.title, stages, f"{target.checked.how}: {target.checked.what}")
    table_console().print(table)
