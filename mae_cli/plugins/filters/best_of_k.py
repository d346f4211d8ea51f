"""Keep the best rollouts of each group."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from mae_cli.plugins.contracts import Selection
from mae_cli.records import Row


class BestOfK(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Keep in each group the k train rows with the highest reward, none below `min_reward`; ties by sample index.

    Rows with an unknown reward are dropped as unknown. With `per_group` off the roles' rows are one group each.
    Rows that an earlier filter dropped do not count. Source: rejection sampling as in STaR and ReST.
    """

    k: int = 1
    min_reward: float = 0.0
    roles: tuple[str, ...] = ("solver",)
    per_group: bool = True

    def select(self, rows: Sequence[Row]) -> list[Selection]:
        """One selection per row."""
        groups: dict[str, list[Row]] = {}
        for row in rows:
            if self._concerns(row) and row.kept is not False and row.reward is not None:
                groups.setdefault(row.group_id if self.per_group else row.role, []).append(row)
        kept = set()
        for group in groups.values():
            best = sorted(group, key=lambda row: (-(row.reward or 0.0), row.sample_index))
            kept |= {row.id for row in best[: self.k] if (row.reward or 0.0) >= self.min_reward}
        return [self._one(row, kept) for row in rows]

    def _concerns(self, row: Row) -> bool:
        return row.purpose == "train" and row.role in self.roles

    def _one(self, row: Row, kept: set[str]) -> Selection:
        if not self._concerns(row) or row.kept is False or row.id in kept:
            return Selection()
        if row.reward is None:
            return Selection(reason="best_of_k:unknown reward")
        low = row.reward < self.min_reward
        return Selection(reason=f"best_of_k:reward {row.reward:.3g}" if low else "best_of_k:enough of its group")
