"""Commands that are imported when they run, so that `--help` and every other command start without them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, ClassVar

import typer.main
from typer.core import TyperCommand, TyperGroup

from ssdlite_caffe.commands.app import add
from ssdlite_caffe.commands.entries import Entry


def load(entry: Entry, name: str) -> Any:
    """Import a command, as the click command `name`."""
    found: typer.Typer | Callable[..., None] = getattr(
        import_module(f"ssdlite_caffe.commands.{entry.module}"), entry.name
    )
    if not isinstance(found, typer.Typer):
        function, found = found, typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        add(found, name, function)
    command = typer.main.get_command(found)
    command.name = name
    return command


def _listed(entry: Entry, name: str) -> TyperCommand:
    """What `--help` of the group shows of a command."""
    return TyperCommand(name, help=entry.help, rich_help_panel=entry.panel)


class LazyGroup(TyperGroup):
    """A group whose commands are imported when they are asked for; a subclass names its `entries`."""

    entries: ClassVar[Mapping[str, Entry]] = {}
    _lists = False

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of all commands, as `--help` lists them."""
        return list(self.entries)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name, imported; None where there is none."""
        entry = self.entries.get(cmd_name)
        if entry is None:
            return None
        if self._lists:
            return _listed(entry, cmd_name)
        if cmd_name not in self.commands:
            self.commands[cmd_name] = load(entry, cmd_name)
        return self.commands[cmd_name]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help, for which nothing is imported."""
        self._lists = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self._lists = False
