"""Drop rows whose completion is too short or too long."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from mae_cli.plugins.contracts import Selection
from mae_cli.records import Row


class Length(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Keep train rows whose completion has between `low` and `high` tokens (words where tokens are not known).

    Source: our own bound; 0 for `high` is no limit.
    """

    low: int = 1
    high: int = 0

    def select(self, rows: Sequence[Row]) -> list[Selection]:
        """One selection per row."""
        return [self._one(row) for row in rows]

    def _one(self, row: Row) -> Selection:
        if row.purpose != "train":
            return Selection()
        ids = row.completion_token_ids
        size = len(ids) if ids is not None else len((row.completion or "").split())
        if size < self.low or (self.high and size > self.high):
            return Selection(reason=f"length:{size}")
        return Selection()
