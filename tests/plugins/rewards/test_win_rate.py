from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mae_cli.plugins.contracts import RewardContext, RewardReading
from mae_cli.plugins.rewards.win_rate import WinRate
from mae_cli.records import Verdict
from tests.support import a_row


def context(*scores: float | None) -> RewardContext:
    return RewardContext([], [], [], pair_verdicts=[Verdict("pairwise", "judge", "pair", score) for score in scores])


def terms_of(reading: RewardReading) -> dict[str, float | None]:
    return {term.name: term.value for term in reading.terms}


def test_the_reward_is_the_mean_of_the_known_comparisons() -> None:
    # Won, lost, a tie, unknown: (1 + 0 + 0.5) / 3.
    reading = WinRate().score(a_row(), context(1.0, 0.0, 0.5, None))

    assert reading.reward == 0.5
    assert (terms_of(reading)["pairs_known"], terms_of(reading)["pairs"]) == (3.0, 4.0)


def test_without_a_known_comparison_the_reward_is_unknown() -> None:
    assert WinRate().score(a_row(), context()).reward is None
    assert WinRate().score(a_row(), context(None, None)).reward is None
    assert WinRate(format_weight=1.0).score(a_row(completion="<answer>1</answer>"), context(None)).reward is None


@pytest.mark.parametrize(
    ("completion", "status", "form"),
    [("<answer>7</answer>", "ok", 1.0), ("7", "ok", 0.0), ("<answer>7</answer>", "truncated", 0.0)],
)
def test_the_format_has_its_weight(completion: str, status: str, form: float) -> None:
    row = a_row(completion=completion, status=status)

    # 0.75 * 0.5 + 0.25 * F
    assert WinRate(format_weight=0.25).score(row, context(1.0, 0.0)).reward == 0.375 + 0.25 * form


def test_rock_paper_scissors_pays_all_three_the_same() -> None:
    beats = {("rock", "scissors"), ("scissors", "paper"), ("paper", "rock")}
    moves = ("rock", "paper", "scissors")

    rewards = [
        WinRate().score(a_row(), context(*(float((mine, other) in beats) for other in moves if other != mine))).reward
        for mine in moves
    ]

    assert rewards == [0.5, 0.5, 0.5]


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=6, max_size=6))
def test_the_win_rates_of_a_group_sum_to_half_its_size(scores: list[float]) -> None:
    # P(a beats b) = 1 - P(b beats a) for the six pairs of four answers: the sum is 4 / 2.
    table = dict(zip(itertools.combinations(range(4), 2), scores, strict=True))
    won = [[table[i, j] if i < j else 1.0 - table[j, i] for j in range(4) if j != i] for i in range(4)]

    rewards = [WinRate().score(a_row(), context(*row)).reward for row in won]

    assert math.fsum(reward for reward in rewards if reward is not None) == pytest.approx(2.0)


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=8), st.randoms(use_true_random=False))
def test_order_and_more_unknown_comparisons_change_nothing(scores: list[float | None], random: object) -> None:
    mixed = [*scores, None, None]
    random.shuffle(mixed)  # type: ignore[attr-defined]

    assert WinRate().score(a_row(), context(*mixed)).reward == WinRate().score(a_row(), context(*scores)).reward
