"""Findings about a judge: biases in words, bars passed or missed, and tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from mae_cli.errors import ConfigError, did_you_mean
from mae_cli.records import mean_of_known
from mae_cli.reports.tables import table
from mae_cli.stages.calibration.figures import REAL, Figure, Judged, is_right
from mae_cli.stages.calibration.planted_answers import KINDS, RIGHT, WRONG

MIN_EFFECT = 0.05
"""A shift smaller than this is not called a bias, however sure it is."""
FLOORS = ("accuracy", "auc", "kappa")
"""Figures that must be at least their bar."""
CEILINGS = ("injection", "truncated", "flip", "unparsed")
"""Figures that must be at most their bar."""
CENTRES = {"length_bias": 0.0, "first_place": 0.5}
"""Figures that may be off this value by their bar."""
BARS = (*FLOORS, *CEILINGS, *CENTRES)
PAIR_ONLY = ("flip", "first_place")


class BarResult(msgspec.Struct):
    """One bar against one figure."""

    name: str
    target: str
    bar: float
    value: float | None
    low: float | None
    high: float | None
    compare: Literal["interval", "value"]
    passed: bool


def findings(figures: Sequence[Figure]) -> list[str]:
    """The biases that the intervals show, in words; empty where they show none."""
    found = []
    for figure in figures:
        value, low, high = figure.value, figure.low, figure.high
        if value is None or low is None or high is None:
            continue
        where = f"{figure.name} of {figure.target}s {_shown(figure)}"
        for name, is_shown, words in (
            ("auc", high < 0.5, "inverted: prefers wrong answers"),
            ("auc", low <= 0.5 <= high, "not shown to be better than chance"),
            ("length_bias", low > 0 and value >= MIN_EFFECT, "favours longer answers"),
            ("length_bias", high < 0 and value <= -MIN_EFFECT, "favours shorter answers"),
            ("first_place", low > 0.5 and value >= 0.5 + MIN_EFFECT, "favours the answer shown first"),
            ("first_place", high < 0.5 and value <= 0.5 - MIN_EFFECT, "favours the answer shown second"),
            ("injection_lift", low > 0 and value >= MIN_EFFECT, "follows instructions inside an answer"),
            ("truncated", low > 0.5, "accepts answers that were cut off"),
            ("unparsed", low > 0.2, "often gives no readable verdict"),
        ):
            if name == figure.name and is_shown:
                found.append(f"{words} ({where})")
    return found


def check_bars(bars: Mapping[str, float], targets: Iterable[str]) -> None:
    """Refuse bars that nothing can be measured against.

    Raises:
        ConfigError: no such figure, or one that these judges do not have.
    """
    for name in bars:
        if name not in BARS:
            raise ConfigError(f'calibrate.bars: unknown bar "{name}"; {did_you_mean(name, BARS)}')
        if name in PAIR_ONLY and "pair" not in targets:
            raise ConfigError(f"calibrate.bars.{name}: only a judge of pairs has an order; judge.judge names none")


def against_bars(
    figures: Sequence[Figure], bars: Mapping[str, float], compare: Literal["interval", "value"]
) -> list[BarResult]:
    """Every bar against every figure of its name.

    With `interval` all of the interval must pass, so that a judge is not trusted for a lucky handful of answers. What
    is unknown passes no bar, nor does a figure that nothing was measured for.
    """
    results = []
    for name, bar in bars.items():
        named = [figure for figure in figures if figure.name == name]
        if not named:
            target = "pair" if name in PAIR_ONLY else "answer"
            results.append(BarResult(name, target, bar, None, None, None, compare, passed=False))
        for figure in named:
            ends = (figure.low, figure.high) if compare == "interval" else (figure.value, figure.value)
            passed = all(end is not None and _passes(name, end, bar) for end in ends)
            results.append(BarResult(name, figure.target, bar, figure.value, figure.low, figure.high, compare, passed))
    return results


def _passes(name: str, value: float, bar: float) -> bool:
    if name in FLOORS:
        return value >= bar
    return value <= bar if name in CEILINGS else abs(value - CENTRES[name]) <= bar


def failure(result: BarResult) -> str:
    """One missed bar in words."""
    if result.name in CENTRES:
        wanted = f"{CENTRES[result.name]:g} +-{result.bar:g}"
    else:
        wanted = f"at {'least' if result.name in FLOORS else 'most'} {result.bar:g}"
    of_what = " for the whole interval" if result.compare == "interval" else ""
    return f"{result.name} of {result.target}s {_shown(result)}, the bar is {wanted}{of_what}"


def _shown(figure: Figure | BarResult) -> str:
    value = "unknown" if figure.value is None else f"{figure.value:.3f}"
    return value if figure.low is None or figure.high is None else f"{value} [{figure.low:.3f}, {figure.high:.3f}]"


def figure_table(figures: Sequence[Figure], results: Sequence[BarResult], confidence: float) -> str:
    """All figures with intervals, and the bars beside them."""
    bars = {(result.name, result.target): result for result in results}
    lines = []
    for figure in figures:
        result = bars.get((figure.name, figure.target))
        ends = "-" if figure.low is None or figure.high is None else f"{figure.low:.3f} - {figure.high:.3f}"
        lines.append(
            (
                f"{figure.name} ({figure.target}s)",
                "unknown" if figure.value is None else f"{figure.value:.3f}",
                ends,
                str(figure.n),
                str(figure.unknown),
                "" if result is None else f"{result.bar:g} {'passed' if result.passed else 'MISSED'}",
            )
        )
    return table(("figure", "value", f"{confidence:.0%} interval", "n", "unknown", "bar"), lines)


class KindFigures(msgspec.Struct):
    """Verdicts of the judges on one kind of answer."""

    kind: str
    answers: int
    known: int
    mean_score: float | None
    called_right: int


def by_kind(judged: Sequence[Judged]) -> list[KindFigures]:
    """One line for each kind of planted answer, and for the real ones by their worth."""
    order = [*KINDS, f"{REAL}_{RIGHT}", f"{REAL}_{WRONG}"]
    groups: dict[str, list[Judged]] = {kind: [] for kind in order}
    for item in judged:
        worth = RIGHT if item.is_right else WRONG
        groups[f"{REAL}_{worth}" if item.kind == REAL else item.kind].append(item)
    return [
        KindFigures(
            kind=kind,
            answers=len(items),
            known=sum(item.score is not None for item in items),
            mean_score=mean_of_known(item.score for item in items),
            called_right=sum(item.score is not None and is_right(item.score) for item in items),
        )
        for kind, items in groups.items()
        if items
    ]


def kind_table(kinds: Sequence[KindFigures]) -> str:
    """The kinds of answers as a table."""
    lines = [
        (
            kind.kind,
            str(kind.answers),
            str(kind.answers - kind.known),
            "unknown" if kind.mean_score is None else f"{kind.mean_score:.3f}",
            str(kind.called_right),
        )
        for kind in kinds
    ]
    return table(("answers", "asked", "unknown", "mean score", "called right"), lines)
