"""Figures of each role in one round: rows, rewards, unparsed and cut-off shares, and the rows that were trained.

Place in the flow: `mae run` writes them to `roles.json` and prints them as a table. Contract: pure functions over rows;
a figure of which nothing is known is null.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from mae_cli.records import Row, roles_in
from mae_cli.records.trained_row import TrainedRow
from mae_cli.reports.statistics.spread import mean_and_spread
from mae_cli.reports.tables import table


class RoleFigures(msgspec.Struct):
    """One role's train rows in one round; shares are of `rows`."""

    role: str
    rows: int
    reward_mean: float | None
    reward_spread: float | None
    unknown: int
    """Rows whose reward is unknown."""
    kept_share: float
    unparsed_share: float
    truncated_share: float
    trained: int
    advantage_mean: float | None
    advantage_spread: float | None


def role_figures(rows: Iterable[Row], trained: Sequence[TrainedRow]) -> list[RoleFigures]:
    """Figures of each role.

    Args:
        rows: all train rows of the round, selected and dropped.
        trained: the lines of the adapter's `train_rows.jsonl`.
    """
    candidates = [row for row in rows if row.purpose == "train"]
    figures = []
    for role in roles_in(candidates):
        group = [row for row in candidates if row.role == role]
        if not group:
            continue
        known = [row.reward for row in group if row.reward is not None]
        reward = mean_and_spread(known) if known else (None, None)
        advantages = [row.advantage for row in trained if row.role == role]
        advantage = mean_and_spread(advantages) if advantages else (None, None)
        figures.append(
            RoleFigures(
                role=role,
                rows=len(group),
                reward_mean=reward[0],
                reward_spread=reward[1],
                unknown=len(group) - len(known),
                kept_share=sum(row.kept is True for row in group) / len(group),
                unparsed_share=sum(row.status == "unparsed" for row in group) / len(group),
                truncated_share=sum(row.status == "truncated" for row in group) / len(group),
                trained=len(advantages),
                advantage_mean=advantage[0],
                advantage_spread=advantage[1],
            )
        )
    return figures


def role_table(figures: Sequence[RoleFigures]) -> str:
    """The figures of one round's roles as a table."""
    headings = (
        "role", "rows", "reward mean", "spread", "unknown", "kept", "unparsed", "truncated", "trained",
        "adv. mean", "adv. spread",
    )  # fmt: skip
    lines = [
        (
            figure.role,
            str(figure.rows),
            _number(figure.reward_mean),
            _number(figure.reward_spread),
            str(figure.unknown),
            f"{figure.kept_share:.0%}",
            f"{figure.unparsed_share:.0%}",
            f"{figure.truncated_share:.0%}",
            str(figure.trained),
            _number(figure.advantage_mean),
            _number(figure.advantage_spread),
        )
        for figure in figures
    ]
    return table(headings, lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{round(value, 3) + 0.0:.3f}"  # no "-0.000"
