"""Writing rows of schema 1: a run that began with it goes on in it and ends with the bytes it would have had.

Schema 1 has no stage, step, player, key, origin, asked, signals, labels and spans. In a verdict it has one field
`rollout_id` for three things, and readings and aggregates stand in the verdict's name. Reading it needs nothing of
this: `Row` fills what is missing.
"""

from __future__ import annotations

from typing import Any

import msgspec

from mae_cli.records.row import Row, Verdict

_NEW_KEYS = ("stage", "step", "player", "key", "origin", "asked", "signals", "labels", "spans")


def as_schema_1(row: Row) -> dict[str, Any]:
    """Return the row as a JSON object of schema 1, its keys in the order they had there."""
    tree: dict[str, Any] = msgspec.to_builtins(row)
    for key in _NEW_KEYS:
        del tree[key]
    for verdict, written in zip(row.verdicts, tree["verdicts"], strict=True):
        for key in ("reading", "aggregate", "judge_id", "opponent_id"):
            del written[key]
        written["rollout_id"] = _rollout_id(row, verdict)
    return tree


def _rollout_id(row: Row, verdict: Verdict) -> str | None:
    if verdict.kind == "verifier":
        # `mae judge` wrote the checked rollout's own id; propose and eval wrote none.
        return row.rollout_id if row.stage == "solve" and verdict.target == "answer" else None
    return verdict.opponent_id if verdict.target == "pair" else verdict.judge_id
