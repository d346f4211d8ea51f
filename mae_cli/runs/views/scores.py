"""Score of a round on the reported items, read from what its evaluation wrote; nothing is computed again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from mae_cli.runs.views.run_files import json_in


class ScoreOfRound(msgspec.Struct, kw_only=True):
    """A round and its held-out accuracy; of the figures those that are known."""

    round: str
    share: float | None = None
    """In [0, 1]."""
    low: float | None = None
    high: float | None = None
    items: int | None = None
    base: float | None = None
    """The base's share on the same items."""
    reading: str | None = None


def score_of(run_dir: Path, label: str | None) -> ScoreOfRound | None:
    """Return the score of a round that a link names; null where no round is linked."""
    if label is None:
        return None
    found = _accuracy(run_dir / label)
    if found is None:
        return ScoreOfRound(round=label)
    base = _accuracy(run_dir / "round-000", found.get("reading"))
    return ScoreOfRound(
        round=label,
        share=found.get("share"),
        low=found.get("low"),
        high=found.get("high"),
        items=found.get("items"),
        base=base.get("share") if base else None,
        reading=found.get("reading"),
    )


def _accuracy(folder: Path, reading: str | None = None) -> dict[str, Any] | None:
    """The figure over all items of a round's last evaluation: of one reading, by default the main one."""
    for path in sorted(folder.glob("*.summary.json"), reverse=True):
        if path.name.removesuffix(".summary.json").endswith("_gate"):
            continue
        whole = [
            figure
            for figure in json_in(path).get("accuracy", [])
            if figure.get("benchmark") is None and figure.get("group") is None
        ]
        wanted = [figure for figure in whole if figure.get("reading") == (reading or "flexible")] or whole
        if wanted:
            return dict(wanted[-1])
    return None
