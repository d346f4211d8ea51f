"""Commands under one name (`mae`, `mae data`, `mae models`): a group that starts no slower than it must."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup


class Group(TyperGroup):
    """Reads its own options only where one of them comes first: typer loads pydantic even to read that none is given.

    A group's options stand before the command (`mae --version`), so a line that begins with a command has none. Help
    then costs half; a command that runs loads pydantic for its own options anyway.
    """

    _begins_with_a_command = False

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The command and what follows it, as it stands."""
        self._begins_with_a_command = bool(args) and not args[0].startswith("-")
        try:
            return super().parse_args(ctx, args)
        finally:
            self._begins_with_a_command = False

    def get_params(self, ctx: Any) -> list[Any]:
        """The options to read; all of them for its help."""
        return [] if self._begins_with_a_command else super().get_params(ctx)
