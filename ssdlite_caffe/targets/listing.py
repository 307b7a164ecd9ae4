"""The table of `convert --target list`, and what it says of targets that take no detector."""

from __future__ import annotations

import json

from ssdlite_caffe.gen_model.build import build, default_arch
from ssdlite_caffe.targets.table import TARGETS
from ssdlite_caffe.targets.target import Target
from ssdlite_caffe.terminal import table_console


def no_nets(target: Target) -> str:
    """Why a target gets no net of any detector; empty for one that does."""
    return target.refuses(build(default_arch("v1", 4)))


def print_targets(*, as_json: bool = False) -> None:
    """Print every target, what it is, its nets or why it gets none, and how it was checked."""
    if as_json:
        print(json.dumps([_entry(target) for target in TARGETS.values()], indent=2))
        return
    from rich.table import Table

    table = Table("target", "program", "nets", "checked")
    for target in TARGETS.values():
        reason = no_nets(target)
        nets = f"none: {reason.partition(';')[0]}" if reason else ", ".join(_stages(target))
        table.add_row(target.name, target.title, nets, f"{target.checked.how}: {target.checked.what}")
    table_console().print(table)


def _entry(target: Target) -> dict[str, object]:
    reason = no_nets(target)
    return {
        "target": target.name,
        "program": target.title,
        "nets": [] if reason else _stages(target),
        "refused": reason,
        "checked": {"how": target.checked.how, "what": target.checked.what},
    }


def _stages(target: Target) -> list[str]:
    return list(dict.fromkeys(net.stage for net in target.nets))
