"""How far evaluated items are among what was trained on: the figure beside an evaluation."""

from __future__ import annotations

import msgspec


class Contamination(msgspec.Struct, frozen=True):
    """How many evaluated items are among the questions a policy was trained on."""

    items: int
    overlapping: int
    removed: int
    """Rows that asked a held-out item and therefore were not trained, in all trainings of the policy."""

    @property
    def line(self) -> str:
        """The figures in one line."""
        return f"{self.overlapping} of {self.items} items overlap; {self.removed} rows removed"
