"""The report about evaluated policies as text: accuracies, comparisons, bounds, and the power of a set.

Place in the flow: `eval`, `diff` and `mae run` print and write these texts. Contract: pure functions over figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mae_cli.reports.accuracy import Accuracy, accuracy, readings_in
from mae_cli.reports.comparison import Comparison, Side, compare
from mae_cli.reports.eval_figures import EvalFigures, _ended, main_reading
from mae_cli.reports.statistics.intervals import wilson_interval
from mae_cli.reports.statistics.power import minimum_detectable_effect
from mae_cli.reports.tables import p_text, percent, table

DISCORDANT_SHARES = (0.1, 0.2, 0.4)
"""Shares of changed answers that the power line is worked out for; a short LoRA training changes about a fifth."""


def power_line(name: str, items: int, *, alpha: float, confidence: float, paired: bool) -> str:
    """One line about the smallest difference that a set of this size can show, printed before anything is generated.

    Args:
        name: of the set.
        items: in it.
        alpha: level of each test, corrected for their number.
        confidence: of the interval.
        paired: whether two policies will be compared.
    """
    low, high = wilson_interval(items // 2, items, confidence)
    text = f"{name}: {items} items: one accuracy near 50 % is known to +-{50 * (high - low):.1f} points"
    if not paired:
        return text
    effects = [
        (share, minimum_detectable_effect(items, discordant_share=share, alpha=alpha)) for share in DISCORDANT_SHARES
    ]
    shown = [
        f"{100 * effect:.1f} (if {share:.0%} of the answers change)" for share, effect in effects if effect is not None
    ]
    if not shown:
        return f"{text}; too few to find any difference with 80 % power"
    return f"{text}; smallest difference found with 80 % power at p < {alpha:.2g}, in points: {', '.join(shown)}"


def power_lines(sizes: Mapping[str, int], confidence: float, *, paired: bool) -> list[str]:
    """The power line of every set that has items, by name; the level of each test is divided among the sets."""
    alpha = (1 - confidence) / max(1, len(sizes))
    return [
        power_line(name, items, alpha=alpha, confidence=confidence, paired=paired)
        for name, items in sizes.items()
        if items
    ]


def progress_table(policies: Sequence[Side], confidence: float) -> str:
    """Every policy on the same items, all readings side by side, each compared with the first policy.

    `cut off` and `no answer` count as not correct; where a checker failed, the bounds are printed below.
    """
    level = f"{confidence:.0%}"
    readings = readings_in(row for _, rows in policies for row in rows)
    main = main_reading(readings)
    headings = [
        "policy", "items", *(text for r in readings for text in (r, f"{level} interval", "p")),
        "won", "lost", "cut off", "no answer",
    ]  # fmt: skip
    lines = []
    for position, (label, rows) in enumerate(policies):
        cells = [label, str(len({row.problem.id for row in rows if row.problem}))]
        for reading in readings:
            figure = accuracy(label, rows, reading, confidence)
            versus = compare(policies[0], (label, rows), reading, confidence=confidence)
            cells += [
                percent(figure.share),
                _range(figure.low, figure.high),
                p_text(versus.p_value if position else None),
            ]
        against = compare(policies[0], (label, rows), main, confidence=confidence)
        cells += [str(against.wins), str(against.losses)] if position else ["-", "-"]
        cells += [str(_ended(rows, status)) for status in ("truncated", "unparsed")]
        lines.append(cells)
    too_long = [_missing_line(label, 0, 0, _ended(rows, "too_long")) for label, rows in policies]
    return "\n".join([table(headings, lines), *filter(None, too_long), *bounds(policies, confidence)])


def _missing_line(label: str, truncated: int, unparsed: int, too_long: int) -> str:
    """How many answers of a policy are missing, and why; empty where none is."""
    counts = (
        (truncated, "cut off"),
        (unparsed, "without an answer"),
        (too_long, "never asked: the prompt is too long"),
    )
    told = ", ".join(f"{count} {what}" for count, what in counts if count)
    return f"{label}: counted as wrong: {told}" if told else ""


def bounds(policies: Sequence[Side], confidence: float) -> list[str]:
    """A line for each policy and reading with unknown verdicts: its share if all of them were wrong, or right."""
    figures = [accuracy(label, rows, reading, confidence) for label, rows in policies for reading in readings_in(rows)]
    return [_bounds_line(figure) for figure in figures if figure.unknown]


def _bounds_line(figure: Accuracy) -> str:
    return (
        f"{figure.policy} ({figure.reading}): {figure.unknown} of {figure.items + figure.unknown} unknown, the checker "
        f"or the engine failed; between {percent(figure.worst)} and {percent(figure.best)} with them"
    )


def final_line(policies: Sequence[Side]) -> str:
    """First policy against the last over the paired items in one line, main reading, exact paired test."""
    reading = main_reading(readings_in(policies[0][1]))
    versus = compare(policies[0], policies[-1], reading)
    if not versus.items:
        return f"final: no item has a known verdict for both {versus.first} and {versus.second}"
    return (
        f"final: {versus.first} {percent(versus.first_share)} -> {versus.second} {percent(versus.second_share)}, "
        f"n = {versus.items}, p = {p_text(versus.p_value)}"
    )


def unchanged_line(base: Side) -> str:
    """The final line of a run that accepted no round."""
    figure = accuracy(base[0], base[1], main_reading(readings_in(base[1])), 0.95)
    share = percent(figure.share) if figure.items else "unknown"
    return f"final: {base[0]} {share}, n = {figure.items}; no round was accepted"


def details_text(figures: EvalFigures) -> str:
    """The figures of one eval file as text: accuracies, comparisons, bounds, groups."""
    several = any(figure.benchmark for figure in figures.accuracy)
    headings = ["policy", *(["benchmark"] if several else []), "items", "correct", "interval", "unknown"]
    lines = [
        [
            f"{figure.policy} ({figure.reading})",
            *([figure.benchmark or "all"] if several else []),
            *_cells(figure),
        ]
        for figure in figures.accuracy
    ]
    parts = [table(headings, lines)]
    if figures.contamination is not None:
        parts.append(f"trained on: {figures.contamination.line}")
    missing = (
        _missing_line(label, count, figures.unparsed[label], figures.too_long.get(label, 0))
        for label, count in figures.truncated.items()
    )
    parts += filter(None, missing)
    parts += [_at_k_line(figure) for figure in figures.accuracy if figure.pass_at]
    parts += [comparison_line(comparison) for comparison in figures.comparisons]
    parts += [_bounds_line(figure) for figure in figures.accuracy if figure.unknown and figure.benchmark is None]
    if figures.groups:
        reading = figures.groups[0].reading
        rows = [[f"{figure.policy}: {figure.group}", *_cells(figure)] for figure in figures.groups]
        parts.append(table([f"group ({reading})", *headings[-4:]], rows))
    return "\n".join(parts)


def _cells(figure: Accuracy) -> list[str]:
    return [str(figure.items), percent(figure.share), _range(figure.low, figure.high), str(figure.unknown)]


def _range(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{100 * low:.1f} - {100 * high:.1f}"


def _points(difference: float | None) -> str:
    return "unknown" if difference is None else f"{100 * difference:+.1f}"


def _at_k_line(figure: Accuracy) -> str:
    where = f", {figure.benchmark}" if figure.benchmark else ""
    shares = [f"mean of {figure.samples} {percent(figure.share)}"]
    shares += [f"pass@{at.k} {percent(at.value)}" for at in figure.pass_at]
    shares += [f"maj@{at.k} {percent(at.value)}" for at in figure.majority_at if at.k > 1]
    return f"{figure.policy} ({figure.reading}{where}): {', '.join(shares)}"


def comparison_line(comparison: Comparison) -> str:
    """One comparison in one line, its bounds in a second where a checker failed."""
    where = f", {comparison.benchmark}" if comparison.benchmark else ""
    holm = f", Holm {p_text(comparison.p_holm)}" if comparison.p_holm is not None else ""
    text = f"{comparison.first} -> {comparison.second} ({comparison.reading}{where}): "
    if comparison.items:
        text += (
            f"{_points(comparison.difference)} points ({_points(comparison.low)} to {_points(comparison.high)}), "
            f"won {comparison.wins}, lost {comparison.losses}, n = {comparison.items}, "
            f"p = {p_text(comparison.p_value)}{holm} ({comparison.test})"
        )
    else:
        text += "unknown, no item has a known verdict on both sides"
    if comparison.unknown:
        text += (
            f"\n  {comparison.unknown} items left out, the checker or the engine failed: between "
            f"{_points(comparison.worst)} and {_points(comparison.best)} points with them"
        )
    return text
