"""What may be said about a run: accuracies with intervals, paired comparisons, and each role's figures.

Pure functions over rows; the stages and the loop write what these return, and print the same as tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import msgspec

from mae_cli.metrics import mcnemar_exact, mean_and_spread, wilson_interval
from mae_cli.records import Row

READINGS = ("strict", "flexible")


class Accuracy(msgspec.Struct):
    """How one policy did on one reading of the answers."""

    policy: str
    reading: str
    correct: int
    items: int
    """Rollouts with a known verdict."""
    unknown: int
    share: float
    low: float
    high: float


class Comparison(msgspec.Struct):
    """Two policies on the same items: `wins` only the second has right, `losses` only the first."""

    reading: str
    first: str
    second: str
    items: int
    wins: int
    losses: int
    first_share: float
    second_share: float
    """Shares of correct among the paired items alone."""
    difference: float
    p_value: float


def scores(rows: Sequence[Row], reading: str) -> dict[tuple[str, int], float | None]:
    """(problem id, sample index) to the score of one reading; null where the checker failed."""
    found: dict[tuple[str, int], float | None] = {}
    for row in rows:
        if row.problem is None:
            continue
        verdict = next((v for v in row.verdicts if v.name.endswith("/" + reading)), None)
        found[row.problem.id, row.sample_index] = verdict.score if verdict else None
    return found


def accuracy(label: str, rows: Sequence[Row], reading: str, confidence: float) -> Accuracy:
    """Share of correct rollouts with its Wilson interval."""
    values = list(scores(rows, reading).values())
    known = [value for value in values if value is not None]
    correct = sum(value == 1.0 for value in known)
    low, high = wilson_interval(correct, len(known), confidence) if known else (0.0, 1.0)
    share = correct / len(known) if known else 0.0
    return Accuracy(label, reading, correct, len(known), len(values) - len(known), share, low, high)


def compare(first: tuple[str, Sequence[Row]], second: tuple[str, Sequence[Row]], reading: str) -> Comparison:
    """Exact McNemar test over the items (sample for sample) that both policies have a known verdict on."""
    before, after = scores(first[1], reading), scores(second[1], reading)
    pairs = [
        (before[key] == 1.0, after[key] == 1.0)
        for key in before
        if before[key] is not None and after.get(key) is not None
    ]
    wins = sum(b and not a for a, b in pairs)
    losses = sum(a and not b for a, b in pairs)
    return Comparison(
        reading=reading,
        first=first[0],
        second=second[0],
        items=len(pairs),
        wins=wins,
        losses=losses,
        first_share=sum(a for a, _ in pairs) / len(pairs) if pairs else 0.0,
        second_share=sum(b for _, b in pairs) / len(pairs) if pairs else 0.0,
        difference=(wins - losses) / len(pairs) if pairs else 0.0,
        p_value=mcnemar_exact(wins, losses),
    )


def summarise(rows: Sequence[Row], labels: dict[str | None, str], confidence: float) -> dict[str, Any]:
    """Accuracies of each policy in the file, how its rows ended, and comparisons with the first policy."""
    by_policy: dict[str, list[Row]] = {}
    for row in rows:
        by_policy.setdefault(labels.get(row.policy.adapter, row.policy.adapter or "base"), []).append(row)
    groups = list(by_policy.items())
    return {
        "accuracy": [
            msgspec.to_builtins(accuracy(label, group, reading, confidence))
            for label, group in groups
            for reading in READINGS
        ],
        "comparisons": [
            msgspec.to_builtins(compare(groups[0], other, reading)) for other in groups[1:] for reading in READINGS
        ],
        "unparsed": {label: sum(row.status == "unparsed" for row in group) for label, group in groups},
        "truncated": {label: sum(row.status == "truncated" for row in group) for label, group in groups},
    }


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


def percent(share: float) -> str:
    """A share as a percentage with one decimal."""
    return f"{100 * share:.1f} %"


def p_text(p_value: float) -> str:
    """A p-value for people."""
    return f"{p_value:.2g}" if p_value >= 0.001 else f"{p_value:.1e}"


def progress_table(policies: Sequence[tuple[str, Sequence[Row]]], confidence: float) -> str:
    """Every policy on the same items, both readings side by side, each compared with the first policy.

    `cut off` and `no answer` count as not correct; where a checker failed, the bounds are printed below.
    """
    level = f"{confidence:.0%}"
    headings = (
        "policy", "items", "strict", f"{level} interval", "p", "flexible", f"{level} interval", "p", "won", "lost",
        "cut off", "no answer",
    )  # fmt: skip
    lines = []
    for position, (label, rows) in enumerate(policies):
        cells = [label, str(len(rows))]
        for reading in READINGS:
            figure = accuracy(label, rows, reading, confidence)
            versus = compare(policies[0], (label, rows), reading)
            cells += [
                percent(figure.share) if figure.items else "-",
                f"{100 * figure.low:.1f} - {100 * figure.high:.1f}" if figure.items else "-",
                p_text(versus.p_value) if position and versus.items else "-",
            ]
        flexible = compare(policies[0], (label, rows), READINGS[1])
        cells += [str(flexible.wins), str(flexible.losses)] if position else ["-", "-"]
        cells += [str(sum(row.status == status for row in rows)) for status in ("truncated", "unparsed")]
        lines.append(cells)
    return "\n".join([table(headings, lines), *bounds(policies, confidence)])


def bounds(policies: Sequence[tuple[str, Sequence[Row]]], confidence: float) -> list[str]:
    """A line for each policy and reading with unknown verdicts: its share if all of them were wrong, or right."""
    lines = []
    for label, rows in policies:
        for reading in READINGS:
            figure = accuracy(label, rows, reading, confidence)
            total = figure.items + figure.unknown
            if figure.unknown:
                worst, best = figure.correct / total, (figure.correct + figure.unknown) / total
                lines.append(
                    f"{label} ({reading}): {figure.unknown} of {total} unknown, the checker failed; "
                    f"between {percent(worst)} and {percent(best)} with them"
                )
    return lines


def final_line(policies: Sequence[tuple[str, Sequence[Row]]]) -> str:
    """First policy against the last over the paired items in one line, flexible reading, exact paired test."""
    versus = compare(policies[0], policies[-1], "flexible")
    if not versus.items:
        return f"final: no item has a known verdict for both {versus.first} and {versus.second}"
    return (
        f"final: {versus.first} {percent(versus.first_share)} -> {versus.second} {percent(versus.second_share)}, "
        f"n = {versus.items}, p = {p_text(versus.p_value)}"
    )


def table_of_details(details: dict[str, Any]) -> str:
    """The figures of one eval file as text: accuracies, then comparisons."""
    accuracies = [
        (
            f"{a['policy']} ({a['reading']})",
            str(a["items"]),
            percent(a["share"]) if a["items"] else "-",
            f"{100 * a['low']:.1f} - {100 * a['high']:.1f}" if a["items"] else "-",
            str(a["unknown"]),
        )
        for a in details["accuracy"]
    ]
    text = table(("policy", "items", "correct", "interval", "unknown"), accuracies)
    for c in details["comparisons"]:
        text += (
            f"\n{c['first']} -> {c['second']} ({c['reading']}): {100 * c['difference']:+.1f} points, "
            f"won {c['wins']}, lost {c['losses']}, n = {c['items']}, p = {p_text(c['p_value'])}"
        )
    return text


def html_page(title: str, sections: Sequence[tuple[str, str]]) -> str:
    """One self-contained page: a heading and preformatted text per section, everything escaped."""
    style = "body{font:16px/1.5 sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}pre{overflow-x:auto}"
    body = "".join(f"<h2>{escape(heading)}</h2><pre>{escape(text)}</pre>" for heading, text in sections)
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{style}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body><h1>{escape(title)}</h1>{body}</body></html>\n'
