"""The figures of `mae eval` in one structure: accuracies of each policy, and comparisons with the first one.

Place in the flow: `eval`, `diff` and `mae run` compute them once, print them (`eval_report`) and store them in the
summary file. Contract: pure functions over rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from mae_cli.records import Row
from mae_cli.records.contamination import Contamination
from mae_cli.reports.accuracy import MAIN_READING, Accuracy, accuracy, benchmarks_in, group_accuracies, readings_in
from mae_cli.reports.comparison import Comparison, Side, compare_all


class EvalFigures(msgspec.Struct):
    """All figures that `mae eval` writes beside its rows."""

    accuracy: list[Accuracy]
    comparisons: list[Comparison]
    unparsed: dict[str, int]
    truncated: dict[str, int]
    too_long: dict[str, int] = {}
    """Rows never asked, since the prompt exceeds the context; wrong, like those cut off and those without an answer."""
    failed: dict[str, int] = {}
    """Rows the engine could not answer: unknown."""
    groups: list[Accuracy] = []
    contamination: Contamination | None = None
    """Items among what was trained on; null where nothing says what that was."""


def figures_of(policies: Sequence[Side], confidence: float, group_by: Sequence[str] = ()) -> EvalFigures:
    """Accuracies of each policy, how its rows ended, and comparisons of each with the first."""
    rows = [row for _, side in policies for row in side]
    names = benchmarks_in(rows)
    parts: list[str | None] = [None, *(names if len(names) > 1 else [])]
    readings = readings_in(rows)
    return EvalFigures(
        accuracy=[
            figure
            for label, side in policies
            for reading in readings
            for part in parts
            if (figure := accuracy(label, side, reading, confidence, benchmark=part)).items or figure.unknown
        ],
        comparisons=[
            comparison
            for other in policies[1:]
            for comparison in compare_all(policies[0], other, confidence=confidence)
        ],
        unparsed={label: _ended(side, "unparsed") for label, side in policies},
        truncated={label: _ended(side, "truncated") for label, side in policies},
        too_long={label: _ended(side, "too_long") for label, side in policies},
        failed={label: _ended(side, "error") for label, side in policies},
        groups=[
            figure
            for label, side in policies
            for figure in group_accuracies(label, side, main_reading(readings), confidence, group_by)
        ],
    )


def _ended(rows: Sequence[Row], *statuses: str) -> int:
    return sum(row.status in statuses for row in rows)


def main_reading(readings: Sequence[str]) -> str:
    """The reading that the final line and the tables of groups use: flexible, or the last one where that is missing."""
    return MAIN_READING if MAIN_READING in readings or not readings else readings[-1]


def by_policy(rows: Sequence[Row], labels: dict[str, str]) -> list[Side]:
    """The rows of each policy in a file, with the name that tables call it."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(labels.get(row.policy.weights, row.policy.adapter or "base"), []).append(row)
    return list(found.items())


def plain(figures: EvalFigures) -> dict[str, Any]:
    """The figures as they go into a JSON file."""
    tree: dict[str, Any] = msgspec.to_builtins(figures)
    if figures.contamination is None:
        del tree["contamination"]
    return tree
