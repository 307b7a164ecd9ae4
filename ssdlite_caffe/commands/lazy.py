"""Commands that are imported when they run, so that `--help` and every other command start without them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import typer.main
from typer.core import TyperCommand, TyperGroup

from ssdlite_caffe.commands.app import add


@dataclass(frozen=True)
class Entry:
    """A command or group of commands.

    Attributes:
        module: of `ssdlite_caffe.commands`.
        name: in the module: a function, or a typer.Typer with subcommands.
        panel: of `--help`.
        help: its line there; the first sentence of what the command itself says, which a test compares.
    """

    module: str
    name: str
    panel: str
    help: str

    def load(self, name: str) -> Any:
        """Import it, as the click command `name`."""
        found: typer.Typer | Callable[..., None] = getattr(
            import_module(f"ssdlite_caffe.commands.{self.module}"), self.name
        )
        if not isinstance(found, typer.Typer):
            function, found = found, typer.Typer(add_completion=False, pretty_exceptions_enable=False)
            add(found, name, function)
        command = typer.main.get_command(found)
        command.name = name
        return command

    def listed(self, name: str) -> TyperCommand:
        """What `--help` of the group shows of it."""
        return TyperCommand(name, help=self.help, rich_help_panel=self.panel)


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
            return entry.listed(cmd_name)
        if cmd_name not in self.commands:
            self.commands[cmd_name] = entry.load(cmd_name)
        return self.commands[cmd_name]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help, for which nothing is imported."""
        self._lists = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self._lists = False
