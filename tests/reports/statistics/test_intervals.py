import math
import random
from itertools import combinations
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mae_cli.reports.statistics.at_k import majority_is_correct, pass_at_k
from mae_cli.reports.statistics.diversity import distinct_n
from mae_cli.reports.statistics.intervals import (
    bootstrap_interval,
    clustered_interval,
    clustered_ratio_interval,
    paired_bootstrap_difference,
    wilson_interval,
)
from mae_cli.reports.statistics.paired_tests import sign_flip_test
from mae_cli.reports.statistics.spread import mean_and_spread


def test_wilson_interval_is_the_hand_computed_one() -> None:
    # z = 1 at confidence 0.6826894921370859; n = 4, p = 1/2:
    # centre = (1/2 + 1/8) / (5/4) = 1/2; half = (4/5) * sqrt(1/16 + 1/64) = 0.8 * sqrt(5)/8 = 0.223606797749979
    low, high = wilson_interval(2, 4, 0.6826894921370859)

    assert low == pytest.approx(0.276393202250021, abs=1e-12)
    assert high == pytest.approx(0.723606797749979, abs=1e-12)


def test_wilson_interval_ends_exactly_at_zero_and_one() -> None:
    # z = 1, n = 4, no success: high = (1/8 + 1/8) / (5/4) = 0.2
    low, high = wilson_interval(0, 4, 0.6826894921370859)
    assert low == 0.0
    assert high == pytest.approx(0.2, abs=1e-12)

    low, high = wilson_interval(4, 4, 0.6826894921370859)
    assert low == pytest.approx(0.8, abs=1e-12)
    assert high == 1.0


def test_wilson_interval_of_no_trials_is_everything() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("successes", "n"), [(5, 4), (-1, 4), (0, -1)])
def test_wilson_interval_refuses_impossible_counts(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="successes"):
        wilson_interval(successes, n)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0, float("nan")])
def test_confidence_must_be_between_zero_and_one(confidence: float) -> None:
    with pytest.raises(ValueError, match="confidence"):
        wilson_interval(1, 2, confidence)


@pytest.mark.parametrize(
    ("wins", "losses", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),  # 2 * 1/2
        (5, 0, 0.0625),  # 2 * 1/32
        (0, 5, 0.0625),
        (8, 2, 0.109375),  # 2 * (1 + 10 + 45) / 1024 = 112/1024
        (3, 3, 1.0),  # 2 * (1 + 6 + 15 + 20) / 64 = 84/64, capped
        (10, 1, 0.01171875),  # 2 * (1 + 11) / 2048 = 24/2048
    ],
)
def test_mcnemar_is_the_exact_sign_test_on_discordant_pairs(wins: int, losses: int, p: float) -> None:
    assert sign_flip_test([1] * wins + [-1] * losses) == p


def test_mcnemar_stays_exact_for_many_pairs() -> None:
    assert sign_flip_test([1] * 5000) == 0.0  # 2**-4999 is below the smallest double
    assert 0.04 < sign_flip_test([1] * 5000 + [-1] * 5206) < 0.05  # z = 206 / sqrt(10206) = 2.04


def test_bootstrap_difference_is_after_minus_before() -> None:
    # means 0.25 and 0.75
    estimate = paired_bootstrap_difference([0, 0, 0, 1], [1, 1, 0, 1], seed=1, resamples=500)

    assert estimate.difference == 0.5
    assert 0.0 <= estimate.low <= 0.5 <= estimate.high <= 1.0


def test_bootstrap_interval_has_no_width_when_all_pairs_differ_alike() -> None:
    assert paired_bootstrap_difference([1, 2, 3], [1.5, 2.5, 3.5], seed=0, resamples=50) == (0.5, 0.5, 0.5)


def test_bootstrap_is_a_function_of_its_seed() -> None:
    before, after = [0.0, 1.0, 0.0, 1.0, 0.0, 0.5], [1.0, 1.0, 0.0, 0.0, 1.0, 0.5]

    one = paired_bootstrap_difference(before, after, seed=7, resamples=200)
    again = paired_bootstrap_difference(before, after, seed=7, resamples=200)

    assert one == again


def test_bootstrap_interval_is_near_the_normal_one() -> None:
    # 400 pairs, half of them +1: mean 0.5, standard error sqrt(0.25 / 400) = 0.025, ends 0.5 -+ 1.96 * 0.025
    estimate = paired_bootstrap_difference([0.0] * 400, [0.0, 1.0] * 200, seed=3, resamples=4000)

    assert estimate.low == pytest.approx(0.451, abs=0.006)
    assert estimate.high == pytest.approx(0.549, abs=0.006)


@pytest.mark.parametrize(
    ("before", "after", "resamples"),
    [([], [], 10), ([1.0], [1.0, 2.0], 10), ([1.0], [1.0], 0), ([1.0], [float("nan")], 10)],
)
def test_bootstrap_refuses_what_is_not_paired_finite_scores(
    before: list[float], after: list[float], resamples: int
) -> None:
    with pytest.raises(ValueError, match=r"scores|resamples"):
        paired_bootstrap_difference(before, after, seed=0, resamples=resamples)


def test_mean_and_spread_use_the_population_formula_and_leave_out_unknowns() -> None:
    # mean of 2, 4, 4, 4, 5, 5, 7, 9 is 40/8 = 5; squared deviations 9+1+1+1+0+0+4+16 = 32; sqrt(32/8) = 2
    assert mean_and_spread([2, 4, 4, 4, 5, 5, 7, 9]) == (5.0, 2.0)
    assert mean_and_spread([None, 3.0, None]) == (3.0, 0.0)
    assert mean_and_spread([None]) == mean_and_spread([]) == (None, None)


def test_distinct_n_is_the_share_of_different_n_grams() -> None:
    # words a b a b | A b: unigrams 6 of which {a, b}; bigrams ab ba ab | ab: 4 of which {ab, ba}
    assert distinct_n(["a b a b", "A b"], 1) == 2 / 6
    assert distinct_n(["a b a b", "A b"], 2) == 2 / 4
    assert distinct_n(["a b", "c d"], 2) == 1.0  # b c is no bigram


def test_distinct_n_is_unknown_where_there_are_no_n_grams() -> None:
    assert distinct_n([], 1) is None
    assert distinct_n(["one", ""], 2) is None
    with pytest.raises(ValueError, match="at least 1"):
        distinct_n(["a"], 0)


@given(st.integers(0, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.999))
def test_wilson_interval_holds_the_share_and_stays_within_zero_and_one(counts: tuple[int, int], level: float) -> None:
    successes, n = counts

    low, high = wilson_interval(successes, n, level)

    assert 0 <= low <= high <= 1
    assert n == 0 or low - 1e-12 <= successes / n <= high + 1e-12


@pytest.fixture(scope="module")
def stats() -> ModuleType:
    module = pytest.importorskip("scipy.stats")
    assert isinstance(module, ModuleType)
    return module


@given(wins=st.integers(0, 200), losses=st.integers(0, 200))
def test_mcnemar_agrees_with_scipy(stats: ModuleType, wins: int, losses: int) -> None:
    expected = stats.binomtest(wins, wins + losses, 0.5).pvalue if wins + losses else 1.0

    found = [sign_flip_test([sign] * wins + [-sign] * losses) for sign in (1, -1)]
    assert found == pytest.approx([expected] * 2, rel=1e-9)


@given(
    counts=st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), level=st.floats(0.5, 0.999)
)
def test_wilson_interval_agrees_with_scipy(stats: ModuleType, counts: tuple[int, int], level: float) -> None:
    expected = stats.binomtest(*counts).proportion_ci(confidence_level=level, method="wilson")

    assert wilson_interval(*counts, level) == pytest.approx((expected.low, expected.high), abs=1e-9)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30))
def test_mean_and_spread_agree_with_the_definition(values: list[float]) -> None:
    mean, spread = mean_and_spread(values)

    assert mean is not None
    assert spread is not None
    assert mean == pytest.approx(sum(values) / len(values), abs=1e-6)
    assert spread == pytest.approx(math.sqrt(sum((x - mean) ** 2 for x in values) / len(values)), abs=1e-6)


def test_pass_at_k_is_the_hand_computed_one() -> None:
    # 2 of 4 correct, k = 2: of the 6 pairs only the one of both wrong ones fails, 1 - 1/6. k = 3: every triple has one.
    assert pass_at_k(4, 2, 2) == 1 - 1 / 6
    assert pass_at_k(4, 2, 3) == 1.0
    assert pass_at_k(4, 0, 4) == 0.0
    # k = 1 is the mean: 3/10; Chen et al. 2021, n = 10, c = 3, k = 5: 1 - C(7,5)/C(10,5) = 1 - 21/252.
    assert pass_at_k(10, 3, 1) == pytest.approx(0.3)
    assert pass_at_k(10, 3, 5) == 1 - 21 / 252


def test_pass_at_k_is_the_mean_over_all_subsets() -> None:
    for n in range(1, 8):
        for c in range(n + 1):
            outcomes = [True] * c + [False] * (n - c)
            for k in range(1, n + 1):
                subsets = [any(subset) for subset in combinations(outcomes, k)]
                assert pass_at_k(n, c, k) == pytest.approx(sum(subsets) / len(subsets), abs=1e-12), (n, c, k)


@pytest.mark.parametrize(("n", "c", "k"), [(2, 1, 3), (2, 3, 1), (2, 1, 0), (2, -1, 1)])
def test_pass_at_k_refuses_impossible_counts(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match="expected"):
        pass_at_k(n, c, k)


def test_the_majority_is_the_commonest_answer_of_the_first_k() -> None:
    votes = [("7", 1.0), ("8", 0.0), ("8", 0.0), (None, 0.0), ("7", 1.0), ("7", 1.0)]

    # k = 1: 7. k = 2: tie of a right and a wrong answer. k = 3 and 4: 8 leads. k = 6: 7 leads with three.
    assert [majority_is_correct(votes, k) for k in (1, 2, 3, 4, 5, 6)] == [1.0, 0.5, 0.0, 0.0, 0.5, 1.0]
    assert majority_is_correct([(None, 0.0)], 1) == 0.0
    assert majority_is_correct([("7", None), ("7", None), ("8", 0.0)], 3) is None


@given(
    st.lists(st.tuples(st.sampled_from(["7", "8", None]), st.sampled_from([1.0, 0.0, None])), max_size=7),
    st.randoms(use_true_random=False),
)
def test_the_order_of_all_votes_never_changes_the_majority(
    votes: list[tuple[str | None, float | None]], rng: random.Random
) -> None:
    mixed = rng.sample(votes, len(votes))

    assert majority_is_correct(mixed, len(votes)) == majority_is_correct(votes, len(votes))


def test_one_answer_with_several_scores_counts_their_known_mean() -> None:
    # "7" leads with two votes, one of which the checker failed on; then one right, one wrong.
    assert majority_is_correct([("7", None), ("7", 1.0), ("8", 0.0)], 3) == 1.0
    assert majority_is_correct([("7", 0.0), ("7", 1.0), ("8", 0.0)], 3) == 0.5


def test_the_bootstrap_agrees_with_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    random = np.random.RandomState(2)
    values = [float(v) for v in random.choice([-1.0, 0.0, 0.25, 1.0], 150, p=[0.1, 0.5, 0.2, 0.2])]

    low, high = bootstrap_interval(values, seed=1, resamples=20_000)

    found = stats.bootstrap(
        (np.array(values),), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(3)
    ).confidence_interval
    # The ends of two sets of 20,000 resamples; the interval is about 0.18 wide.
    assert (low, high) == pytest.approx((found.low, found.high), abs=0.005)


def test_the_bootstrap_covers_the_true_difference_at_about_the_stated_rate() -> None:
    # 200 items, wins 15 %, losses 5 %: the true difference is 0.1. 1000 sets at 95 %: standard error 0.7 points.
    random = np.random.RandomState(3)
    covered = 0
    for number in range(1000):
        differences = random.choice([1.0, -1.0, 0.0], 200, p=[0.15, 0.05, 0.8])
        low, high = bootstrap_interval(differences.tolist(), seed=number, resamples=1000)
        covered += low <= 0.1 <= high

    assert 0.925 <= covered / 1000 <= 0.97


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_wilsons_interval_covers_the_share_at_about_the_stated_rate(share: float) -> None:
    random = np.random.RandomState(4)
    counts, repeats = np.unique(random.binomial(100, share, 20_000), return_counts=True)

    covered = sum(
        int(times)
        for successes, times in zip(counts, repeats, strict=True)
        if wilson_interval(int(successes), 100).low <= share <= wilson_interval(int(successes), 100).high
    )

    # Exact coverage swings around 95 % as counts are whole.
    assert 0.93 <= covered / 20_000 <= 0.975


def test_the_interval_of_clustered_samples_covers_and_the_plain_one_does_not() -> None:
    # 100 items with solve rates from Beta(0.3, 0.7), eight samples each: the mean is 0.3, samples of an item alike.
    random = np.random.RandomState(5)
    clustered = plain = 0
    for _ in range(1000):
        correct = random.binomial(8, random.beta(0.3, 0.7, 100))
        low, high = clustered_interval((correct / 8).tolist(), 8)
        clustered += low <= 0.3 <= high
        low, high = wilson_interval(int(correct.sum()), 800)
        plain += low <= 0.3 <= high

    assert 0.925 <= clustered / 1000 <= 0.975
    assert plain / 1000 < 0.8


def test_clusters_of_any_size_give_the_interval_worked_out_by_hand() -> None:
    # (2 of 2), (0 of 1), (1 of 3): p = 3/6. y - p m = 1, -1/2, -1/2: squares 1.5; variance 1.5 * 3/2 / 36 = 1/16;
    # 1/4 / (1/16) = 4 trials, between the 3 clusters and the 6 outcomes.
    assert clustered_ratio_interval([(2, 2), (0, 1), (1, 3)]) == pytest.approx(wilson_interval(2, 4))
    # Nothing varies: as many trials as clusters.
    assert clustered_ratio_interval([(3, 3), (3, 3)]) == wilson_interval(2, 2)
    with pytest.raises(ValueError, match="expected at least one"):
        clustered_ratio_interval([(2, 1)])


def test_with_one_sample_per_item_the_clustered_interval_is_wilsons() -> None:
    assert clustered_interval([1.0, 0.0, 0.0, 1.0, 0.0], 1) == pytest.approx(wilson_interval(2, 5))
    assert clustered_interval([0.0], 3) == wilson_interval(0, 1)
