"""Drop rows that did not end by themselves."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from mae_cli.plugins.contracts import Selection
from mae_cli.records import PREDEFINED_ROLES, Row


class KeepFinishReason(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Keep train rows that finished with one of these reasons; a cut-off text teaches never to stop.

    Source: the usual rule of rejection sampling; requested by name in many trackers of such tools.
    """

    keep: tuple[str, ...] = ("stop",)
    roles: tuple[str, ...] = PREDEFINED_ROLES
    """The roles it looks at; all three predefined ones together mean every role."""

    def select(self, rows: Sequence[Row]) -> list[Selection]:
        """One selection per row."""
        return [
            Selection(reason=f"finish_reason:{row.finish_reason}")
            if row.purpose == "train" and self._looks_at(row) and row.finish_reason not in self.keep
            else Selection()
            for row in rows
        ]

    def _looks_at(self, row: Row) -> bool:
        return self.roles == PREDEFINED_ROLES or row.role in self.roles
