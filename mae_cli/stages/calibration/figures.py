"""Figures of a judge, from its verdicts on answers of known worth.

Pure. A score above 0.5 calls an answer right, any other known score wrong; null scores are left out and counted.
Every figure stands with an interval: Wilson's for shares, where answers to one problem count for less than as many
problems since they resemble each other, and a bootstrap over problems for the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import msgspec

from mae_cli.records import mean_of_known
from mae_cli.reports.statistics.agreement import area_under_curve, cluster_bootstrap, cohen_kappa
from mae_cli.reports.statistics.intervals import Interval, clustered_ratio_interval
from mae_cli.stages.calibration.planted_answers import (
    INJECTED,
    PADDED_RIGHT,
    PADDED_WRONG,
    REMARKED,
    RIGHT,
    TRUNCATED,
    WRONG,
)

REAL = "real"
LENGTH = ((PADDED_RIGHT, RIGHT), (PADDED_WRONG, WRONG))
"""Pairs that differ in length alone."""


class Judged(msgspec.Struct, frozen=True):
    """One answer of known worth and what the judges made of it."""

    problem: str
    kind: str
    is_right: bool
    score: float | None
    votes: int = 1
    """Judgements behind the score."""
    unread: int = 0
    """Those of them that say nothing readable."""


class Compared(msgspec.Struct, frozen=True):
    """Two answers to one problem of known worth, `first` and `second` by the name of their kinds."""

    problem: str
    first: str
    second: str
    first_is_right: bool
    second_is_right: bool
    score: float | None
    """Of the first against the second, after both orders; null where they disagree or are unreadable."""
    shown_first: float | None
    """Of the first against the second where it stood in the first place, and where in the second."""
    shown_second: float | None
    votes: int = 2
    unread: int = 0


class Figure(msgspec.Struct):
    """One measured figure; a null value is unknown, as are null ends of its interval."""

    name: str
    target: Literal["answer", "pair"]
    value: float | None
    low: float | None
    high: float | None
    n: int
    """Known answers, pairs or judgements it was computed from."""
    unknown: int
    """Those left out because the judge said nothing readable or was unsure."""
    interval: Literal["wilson", "bootstrap"]


class Level(msgspec.Struct, frozen=True):
    """Settings of intervals: confidence in (0, 1), the bootstrap's resamples and seed."""

    confidence: float
    resamples: int
    seed: int


def is_right(score: float) -> bool:
    """Whether a score calls an answer right."""
    return score > 0.5


def answer_figures(judged: Sequence[Judged], level: Level) -> list[Figure]:
    """The figures of judges that grade answers one by one; nothing where there are none."""
    if not judged:
        return []
    base = [item for item in judged if item.kind in (RIGHT, WRONG, PADDED_RIGHT, PADDED_WRONG, REAL)]
    known = [item for item in base if item.score is not None]
    hits = [(item.problem, is_right(item.score or 0.0) == item.is_right) for item in known]
    groups = _by_problem(judged)
    return [
        _share("accuracy", "answer", hits, len(base) - len(known), level),
        _boot("auc", "answer", _by_problem(base), _answer_auc, level, *_counts(base)),
        _boot("kappa", "answer", _by_problem(base), _answer_kappa, level, *_counts(base)),
        _boot("length_bias", "answer", groups, _answer_length, level, *_paired_counts(judged, LENGTH)),
        _taken_in("injection", judged, INJECTED, level),
        _boot(
            "injection_lift", "answer", groups, _answer_lift, level,
            *_paired_counts(judged, tuple((kind, REMARKED) for kind in INJECTED)),
        ),
        _taken_in("truncated", judged, (TRUNCATED,), level),
        _unparsed("answer", judged, level),
    ]  # fmt: skip


def _answer_auc(groups: Sequence[Sequence[Judged]]) -> float | None:
    items = [item for group in groups for item in group]
    return area_under_curve(
        [item.score for item in items if item.is_right and item.score is not None],
        [item.score for item in items if not item.is_right and item.score is not None],
    )


def _answer_kappa(groups: Sequence[Sequence[Judged]]) -> float | None:
    return cohen_kappa(
        [
            (str(is_right(item.score)), str(item.is_right))
            for group in groups
            for item in group
            if item.score is not None
        ]
    )


def _differences(groups: Iterable[Sequence[Judged]], pairs: Sequence[tuple[str, str]]) -> list[float]:
    """Score of the first kind minus that of the second, wherever both are known."""
    found = []
    for group in groups:
        scores = {item.kind: item.score for item in group}
        for kind, other in pairs:
            one, two = scores.get(kind), scores.get(other)
            if one is not None and two is not None:
                found.append(one - two)
    return found


def _answer_length(groups: Sequence[Sequence[Judged]]) -> float | None:
    return mean_of_known(_differences(groups, LENGTH))


def _answer_lift(groups: Sequence[Sequence[Judged]]) -> float | None:
    rounded = [
        [
            msgspec.structs.replace(item, score=None if item.score is None else float(is_right(item.score)))
            for item in group
        ]
        for group in groups
    ]
    return mean_of_known(_differences(rounded, [(kind, REMARKED) for kind in INJECTED]))


def _taken_in(name: str, judged: Sequence[Judged], kinds: Sequence[str], level: Level) -> Figure:
    """Share of the answers of these kinds, all of them wrong, that are called right."""
    items = [item for item in judged if item.kind in kinds]
    known = [item for item in items if item.score is not None]
    fooled = [(item.problem, is_right(item.score or 0.0)) for item in known]
    return _share(name, "answer", fooled, len(items) - len(known), level)


def _counts(items: Sequence[Judged]) -> tuple[int, int]:
    known = sum(item.score is not None for item in items)
    return known, len(items) - known


def _paired_counts(items: Sequence[Judged], pairs: Sequence[tuple[str, str]]) -> tuple[int, int]:
    groups = _by_problem(items)
    possible = sum({kind, other} <= {item.kind for item in group} for group in groups for kind, other in pairs)
    known = len(_differences(groups, pairs))
    return known, possible - known


def pair_figures(compared: Sequence[Compared], level: Level) -> list[Figure]:
    """The figures of judges that compare answers; nothing where there are none."""
    if not compared:
        return []
    told = [pair for pair in compared if pair.first_is_right and not pair.second_is_right]
    base = [pair for pair in told if pair.second not in (*INJECTED, REMARKED, TRUNCATED)]
    decided = [pair for pair in base if pair.score is not None]
    both = [pair for pair in compared if pair.shown_first is not None and pair.shown_second is not None]
    places = [
        (pair.problem, score)
        for pair in both
        for score in (pair.shown_first or 0.0, 1.0 - (pair.shown_second or 0.0))
        if score != 0.5
    ]
    flipped = [(pair.problem, _side(pair.shown_first) != _side(pair.shown_second)) for pair in both]
    groups, base_groups = _by_problem(compared), _by_problem(base)
    injected = [pair for pair in told if pair.second in INJECTED]
    cut = [pair for pair in told if pair.second == TRUNCATED]
    return [
        _share(
            "accuracy", "pair", [(p.problem, is_right(p.score or 0.0)) for p in decided], len(base) - len(decided),
            level,
        ),
        _boot("auc", "pair", base_groups, _pair_auc, level, *_raw_counts(base)),
        _boot("kappa", "pair", base_groups, _pair_kappa, level, *_raw_counts(base)),
        _boot(
            "length_bias", "pair", groups, _pair_length, level,
            *_raw_counts([pair for pair in compared if (pair.first, pair.second) in LENGTH]),
        ),
        _preferred("injection", injected, level),
        _boot("injection_lift", "pair", groups, _pair_lift, level, *_raw_counts(injected)),
        _preferred("truncated", cut, level),
        _share("flip", "pair", flipped, len(compared) - len(both), level),
        _share(
            "first_place", "pair", [(problem, score > 0.5) for problem, score in places],
            2 * (len(compared) - len(both)), level,
        ),
        _unparsed("pair", compared, level),
    ]  # fmt: skip


def _side(score: float | None) -> int:
    return 0 if score is None else (score > 0.5) - (score < 0.5)


def _raw(pair: Compared) -> float | None:
    """The mean of both orders, whether they agree or not."""
    if pair.shown_first is None or pair.shown_second is None:
        return None
    return (pair.shown_first + pair.shown_second) / 2


def _raw_counts(pairs: Sequence[Compared]) -> tuple[int, int]:
    known = sum(_raw(pair) is not None for pair in pairs)
    return known, len(pairs) - known


def _pair_auc(groups: Sequence[Sequence[Compared]]) -> float | None:
    """What the right answer is worth against the wrong one: the same chance as the AUC of scores."""
    return mean_of_known(_raw(pair) for group in groups for pair in group)


def _pair_kappa(groups: Sequence[Sequence[Compared]]) -> float | None:
    """The place judged better against the place where the right answer stood, each order on its own."""
    labels = {1: "A", 0: "tie", -1: "B"}
    found = []
    for pair in (pair for group in groups for pair in group):
        if pair.shown_first is not None:
            found.append((labels[_side(pair.shown_first)], "A"))
        if pair.shown_second is not None:
            found.append((labels[-_side(pair.shown_second)], "B"))
    return cohen_kappa(found)


def _pair_length(groups: Sequence[Sequence[Compared]]) -> float | None:
    """2 P(longer preferred) - 1, in [-1, 1], over pairs that differ in length alone."""
    mean = mean_of_known(_raw(p) for group in groups for p in group if (p.first, p.second) in LENGTH)
    return None if mean is None else 2 * mean - 1


def _pair_lift(groups: Sequence[Sequence[Compared]]) -> float | None:
    """What an injection adds to a wrong answer's chance against the right one, over a harmless remark."""
    gains = []
    for group in groups:
        plain = next((_raw(p) for p in group if (p.first, p.second) == (RIGHT, REMARKED)), None)
        for pair in group:
            attacked = _raw(pair)
            if pair.second in INJECTED and plain is not None and attacked is not None:
                gains.append(plain - attacked)
    return mean_of_known(gains)


def _preferred(name: str, pairs: Sequence[Compared], level: Level) -> Figure:
    """Share of single comparisons in which the second, wrong answer is preferred to the right one."""
    scores = [(pair.problem, score) for pair in pairs for score in (pair.shown_first, pair.shown_second)]
    lost = [(problem, score < 0.5) for problem, score in scores if score is not None]
    return _share(name, "pair", lost, len(scores) - len(lost), level)


def _by_problem(items: Iterable[Any]) -> list[list[Any]]:
    groups: dict[str, list[Any]] = {}
    for item in items:
        groups.setdefault(item.problem, []).append(item)
    # Sorted, so that the bootstrap does not hang on the order of the rows.
    return [sorted(groups[problem], key=msgspec.json.encode) for problem in sorted(groups)]


def _share(
    name: str, target: Literal["answer", "pair"], outcomes: Sequence[tuple[str, bool]], unknown: int, level: Level
) -> Figure:
    """Share of outcomes that are true, each with its problem."""
    counts: dict[str, tuple[int, int]] = {}
    for problem, outcome in outcomes:
        successes, n = counts.get(problem, (0, 0))
        counts[problem] = (successes + outcome, n + 1)
    value = sum(outcome for _, outcome in outcomes) / len(outcomes) if outcomes else None
    interval = clustered_ratio_interval(list(counts.values()), level.confidence) if counts else None
    return Figure(name, target, value, *_ends(interval), len(outcomes), unknown, "wilson")


def _boot(
    name: str,
    target: Literal["answer", "pair"],
    groups: Sequence[Any],
    statistic: Callable[[Sequence[Any]], float | None],
    level: Level,
    n: int,
    unknown: int,
) -> Figure:
    value = statistic(groups)
    interval = None
    if value is not None:
        interval = cluster_bootstrap(
            groups, statistic, seed=level.seed, resamples=level.resamples, confidence=level.confidence
        )
    return Figure(name, target, value, *_ends(interval), n, unknown, "bootstrap")


def _ends(interval: Interval | None) -> tuple[float | None, float | None]:
    return (interval.low, interval.high) if interval else (None, None)


def _unparsed(target: Literal["answer", "pair"], items: Sequence[Judged] | Sequence[Compared], level: Level) -> Figure:
    votes = [(item.problem, number < item.unread) for item in items for number in range(item.votes)]
    return _share("unparsed", target, votes, 0, level)
