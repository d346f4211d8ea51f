from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mae_cli.records import mean_of_known
from mae_cli.reports.statistics.agreement import (
    MIN_CLUSTERS,
    area_under_curve,
    cluster_bootstrap,
    cohen_kappa,
    expanded_tail,
)

SCORES = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), max_size=8)


@pytest.mark.parametrize(
    ("right", "wrong", "area"),
    [
        ([1.0, 0.9], [0.1, 0.2], 1.0),
        ([0.1], [0.9], 0.0),
        ([0.5, 0.5], [0.5], 0.5),
        # 0.8 beats both, 0.3 beats 0.1 and ties with 0.3: (2 + 1.5) / 4.
        ([0.8, 0.3], [0.1, 0.3], 0.875),
        ([], [0.1], None),
        ([0.1], [], None),
    ],
)
def test_the_area_is_the_share_of_pairs_won(right: list[float], wrong: list[float], area: float | None) -> None:
    assert area_under_curve(right, wrong) == area


@given(SCORES, SCORES)
def test_the_area_equals_counting_every_pair(right: list[float], wrong: list[float]) -> None:
    won = [1.0 if r > w else 0.5 if r == w else 0.0 for r in right for w in wrong]

    area = area_under_curve(right, wrong)

    assert area == (pytest.approx(sum(won) / len(won)) if won else None)
    assert area == area_under_curve(right[::-1], wrong[::-1])


def test_kappa_is_the_agreement_beyond_chance() -> None:
    # 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: judged yes 25 of 50, truly yes 30 of 50.
    # p_o = 35/50 = 0.7; p_e = 0.5 * 0.6 + 0.5 * 0.4 = 0.5; kappa = 0.2 / 0.5.
    table = [("yes", "yes")] * 20 + [("yes", "no")] * 5 + [("no", "yes")] * 10 + [("no", "no")] * 15

    assert cohen_kappa(table) == pytest.approx(0.4)
    assert cohen_kappa(table[::-1]) == cohen_kappa(table)


def test_kappa_needs_two_labels() -> None:
    assert cohen_kappa([]) is None
    assert cohen_kappa([("yes", "yes")] * 3) is None
    assert cohen_kappa([("yes", "yes"), ("no", "no")]) == 1.0
    assert cohen_kappa([("yes", "no"), ("no", "yes")]) == -1.0


def mean_of_all(groups: object) -> float | None:
    return mean_of_known(value for group in groups for value in group)  # type: ignore[attr-defined]


def test_the_interval_holds_the_mean_and_narrows_with_more_problems() -> None:
    rng = random.Random(0)
    few, many = ([[rng.random()] for _ in range(count)] for count in (20, 2000))

    narrow = cluster_bootstrap(many, mean_of_all, seed=1, resamples=300, confidence=0.95)
    wide = cluster_bootstrap(few, mean_of_all, seed=1, resamples=300, confidence=0.95)

    assert narrow is not None
    assert wide is not None
    assert narrow.low < 0.5 < narrow.high
    # A mean of 2000 uniform values: 1.96 * sqrt(1/12 / 2000) = 0.0127 on either side.
    assert narrow.high - narrow.low == pytest.approx(0.0253, rel=0.2)
    assert wide.high - wide.low > 5 * (narrow.high - narrow.low)


def test_few_problems_are_covered_at_about_the_stated_rate() -> None:
    # The mean of three answers to each of eight problems, problems as different as answers; 600 sets at 95 %:
    # standard error 0.9 points. Plain percentiles cover 85 % here.
    rng = random.Random(2)
    covered = 0
    for number in range(600):
        clusters = []
        for _ in range(8):
            problem = rng.gauss(0, 1)
            clusters.append([problem + rng.gauss(0, 1) for _ in range(3)])
        interval = cluster_bootstrap(clusters, mean_of_all, seed=number, resamples=400, confidence=0.95)
        assert interval is not None
        covered += interval.low <= 0 <= interval.high

    assert 0.92 <= covered / 600 <= 0.975


@pytest.mark.parametrize("confidence", [0.8, 0.9, 0.95])
def test_the_percentiles_are_those_of_students_t(confidence: float) -> None:
    stats = pytest.importorskip("scipy.stats")

    for n in (MIN_CLUSTERS, 8, 12, 100):
        t = stats.t.ppf(0.5 + confidence / 2, n - 1)
        assert expanded_tail(n, confidence) == pytest.approx(stats.norm.cdf(-((n / (n - 1)) ** 0.5) * t), rel=0.03)
    assert expanded_tail(10**6, confidence) == pytest.approx((1 - confidence) / 2, rel=1e-3)


def test_answers_of_one_problem_move_together() -> None:
    # Ten problems of a hundred equal answers are ten facts, not a thousand.
    clusters = [[float(index % 2)] * 100 for index in range(10)]

    interval = cluster_bootstrap(clusters, mean_of_all, seed=1, resamples=500, confidence=0.95)

    assert interval is not None
    assert interval.high - interval.low > 0.4


def test_too_few_problems_and_statistics_that_are_mostly_unknown_have_no_interval() -> None:
    options = {"seed": 1, "resamples": 50, "confidence": 0.95}

    assert cluster_bootstrap([[1.0]] * (MIN_CLUSTERS - 1), mean_of_all, **options) is None  # type: ignore[arg-type]
    assert cluster_bootstrap([[1.0]] * MIN_CLUSTERS, mean_of_all, **options) == (1.0, 1.0)  # type: ignore[arg-type]
    assert cluster_bootstrap([[]] * 9, mean_of_all, **options) is None  # type: ignore[arg-type]
