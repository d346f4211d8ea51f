"""Each role's figures of a round, and how figures are shown: plain tables and one HTML page.

Pure functions; the stages and the loop write what these return, and print the same as tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import msgspec

from mae_cli.metrics import mean_and_spread
from mae_cli.records import Row


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


def role_figures(rows: Iterable[Row], trained: Sequence[dict[str, Any]]) -> list[RoleFigures]:
    """Figures of each role.

    Args:
        rows: all train rows of the round, selected and dropped.
        trained: the lines of the adapter's `train_rows.jsonl`.
    """
    candidates = [row for row in rows if row.purpose == "train"]
    figures = []
    for role in ("proposer", "solver", "judge"):
        group = [row for row in candidates if row.role == role]
        if not group:
            continue
        known = [row.reward for row in group if row.reward is not None]
        reward = mean_and_spread(known) if known else (None, None)
        advantages = [line["advantage"] for line in trained if line["role"] == role]
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


def table(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A plain text table, numbers to the right; reads the same on a terminal, in a log and in a mail."""
    cells = [list(headings), *[list(line) for line in lines]]
    widths = [max(len(line[column]) for line in cells) for column in range(len(headings))]
    shown = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]
    return "\n".join([shown[0], "  ".join("-" * width for width in widths), *shown[1:]])


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


def percent(share: float | None) -> str:
    """A share as a percentage with one decimal; a dash where it is unknown."""
    return "-" if share is None else f"{100 * share:.1f} %"


def p_text(p_value: float | None) -> str:
    """A p-value for people; a dash where nothing was tested."""
    if p_value is None:
        return "-"
    return f"{p_value:.2g}" if p_value >= 0.001 else f"{p_value:.1e}"


def html_page(title: str, sections: Sequence[tuple[str, str]]) -> str:
    """One self-contained page: a heading and preformatted text per section, everything escaped."""
    style = "body{font:16px/1.5 sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}pre{overflow-x:auto}"
    body = "".join(f"<h2>{escape(heading)}</h2><pre>{escape(text)}</pre>" for heading, text in sections)
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{style}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body><h1>{escape(title)}</h1>{body}</body></html>\n'
