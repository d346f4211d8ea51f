"""One line of an adapter's `train_rows.jsonl`: a row it was trained on, and how."""

from __future__ import annotations

import msgspec


class TrainedRow(msgspec.Struct, frozen=True):
    """A trained row; the lines stand in the order rows were first trained."""

    id: str
    role: str = ""
    reward: float | None = None
    advantage: float | None = None
    """Or weight, or label; null for the sides of pairs."""
    tokens: int = 0
    passes: int = 1
    """How often the row was part of an optimizer step."""
