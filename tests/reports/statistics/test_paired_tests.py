"""Exact tests, Holm, spending and power, each against hand values and an independent implementation."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mae_cli.reports.statistics.paired_tests import binomial_tail, holm, sign_flip_test, spent_level
from mae_cli.reports.statistics.power import minimum_detectable_effect


def mcnemar_exact(wins: int, losses: int) -> float:
    """The two-sided exact p-value as min(1, 2 P(X <= min(wins, losses))), in whole numbers until the last division."""
    tail = sum(math.comb(wins + losses, k) for k in range(min(wins, losses) + 1))
    return min(1.0, 2 * tail / (1 << (wins + losses)))


def test_the_one_sided_tail_is_the_hand_counted_one() -> None:
    # X ~ Binomial(5, 1/2): P(X >= 4) = (5 + 1) / 32; P(X >= 0) = 1; P(X >= 5) = 1/32; six successes of five cannot be.
    assert [binomial_tail(5, s) for s in (4, 0, 5, 6)] == [6 / 32, 1.0, 1 / 32, 0.0]


def test_differences_of_one_give_the_exact_mcnemar_p() -> None:
    # 8 wins, 2 losses: 2 * (1 + 10 + 45) / 1024 = 112/1024, one-sided half of it.
    differences = [1] * 8 + [-1] * 2 + [0] * 30

    assert sign_flip_test(differences) == 112 / 1024
    assert sign_flip_test(differences, "greater") == 56 / 1024
    assert sign_flip_test([-d for d in differences], "greater") == pytest.approx(1 - (1 + 10) / 1024)


def test_without_a_difference_nothing_is_shown() -> None:
    assert sign_flip_test([]) == sign_flip_test([0, 0]) == 1.0
    assert sign_flip_test([0, 0], "greater") == 1.0


@given(st.lists(st.integers(-4, 4), max_size=9))
@settings(max_examples=150)
def test_the_convolution_is_the_enumeration_of_all_sign_patterns(differences: list[int]) -> None:
    observed = sum(differences)
    sums = [
        sum(sign * abs(d) for sign, d in zip(signs, differences, strict=True))
        for signs in product((1, -1), repeat=len(differences))
    ]
    upper = sum(total >= observed for total in sums) / len(sums)
    lower = sum(total <= observed for total in sums) / len(sums)

    assert sign_flip_test(differences, "greater") == pytest.approx(upper, rel=1e-12)
    assert sign_flip_test(differences) == pytest.approx(min(1.0, 2 * min(upper, lower)), rel=1e-12)


def test_many_samples_agree_with_scipys_paired_permutation_test() -> None:
    stats = pytest.importorskip("scipy.stats")
    random = np.random.RandomState(5)
    before, after = random.binomial(8, 0.4, 60), random.binomial(8, 0.41, 60)

    p = sign_flip_test([int(d) for d in after - before], "greater")

    found = stats.permutation_test(
        (after, before),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=20_000,
        alternative="greater",
        rng=np.random.default_rng(1),
    )
    # 20,000 resamples of a p below 0.3: standard error at most 0.0033
    assert p == pytest.approx(found.pvalue, abs=0.01)
    assert 0.005 < p < 0.3


@given(st.integers(0, 60), st.integers(0, 60))
def test_two_sided_equals_the_other_exact_implementation(wins: int, losses: int) -> None:
    assert sign_flip_test([1] * wins + [-1] * losses) == pytest.approx(mcnemar_exact(wins, losses), rel=1e-12)


def test_holm_is_the_hand_computed_one() -> None:
    # Sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.04; never falling: 0.04, 0.06, 0.06, 0.06.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(max_examples=50)
def test_holm_equals_statsmodels(p_values: list[float]) -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")

    assert holm(p_values) == pytest.approx(list(multitest.multipletests(p_values, method="holm")[1]), abs=1e-12)


def test_the_spent_levels_of_all_rounds_stay_within_alpha() -> None:
    # 0.05 * 6 / pi^2 = 0.030396; a quarter of it in round 2.
    assert spent_level(0.05, 1) == pytest.approx(0.0303964, abs=1e-7)
    assert spent_level(0.05, 2) == pytest.approx(0.0303964 / 4, abs=1e-7)
    assert 0.0499 < sum(spent_level(0.05, r) for r in range(1, 10_000)) < 0.05
    with pytest.raises(ValueError, match="round >= 1"):
        spent_level(0.05, 0)


@pytest.mark.parametrize("items", [50, 200])
def test_the_minimum_detectable_effect_is_found_with_the_promised_power(items: int) -> None:
    effect = minimum_detectable_effect(items, discordant_share=0.2)
    assert effect is not None
    random = np.random.RandomState(1)

    draws = random.multinomial(items, [0.1 + effect / 2, 0.1 - effect / 2, 0.8], size=4000)

    found = np.mean([mcnemar_exact(wins, losses) <= 0.05 and wins > losses for wins, losses, _ in draws])
    # 4000 draws at 0.8: standard error 0.006
    assert found == pytest.approx(0.8, abs=0.025)


def test_fifty_items_cannot_show_two_points_and_five_cannot_show_anything() -> None:
    fifty = minimum_detectable_effect(50, discordant_share=0.2)

    assert fifty is not None
    assert fifty > 0.15
    # Six wins of six are the least that p < 0.05 takes: 2 / 2^6.
    assert minimum_detectable_effect(5, discordant_share=1.0) is None


def test_the_normal_form_takes_over_where_both_agree() -> None:
    exact = minimum_detectable_effect(2000, discordant_share=0.2)
    normal = minimum_detectable_effect(2001, discordant_share=0.2)

    assert exact == pytest.approx(normal, rel=0.03)
