from __future__ import annotations

from mae_cli.plugins.filters.best_of_k import BestOfK
from mae_cli.records import Row
from tests.support import a_problem, a_row

FIRST, SECOND = a_problem("a?"), a_problem("b?")


def rollouts(*rewards: float | None, problem: object = FIRST) -> list[Row]:
    return [
        a_row(problem=problem, index=index, reward=reward, kept=True)  # type: ignore[arg-type]
        for index, reward in enumerate(rewards)
    ]


def reasons(plugin: BestOfK, rows: list[Row]) -> list[str | None]:
    return [selection.reason for selection in plugin.select(rows)]


def test_the_best_of_each_group_stay_and_ties_go_to_the_first() -> None:
    rows = [*rollouts(0.5, 1.0, 1.0), *rollouts(0.0, 0.1, problem=SECOND)]

    more = "best_of_k:enough of its group"
    assert reasons(BestOfK(k=1), rows) == [more, None, more, more, None]
    assert reasons(BestOfK(k=2), rows) == [more, None, None, None, None]


def test_none_below_the_smallest_reward_is_kept() -> None:
    assert reasons(BestOfK(k=3, min_reward=0.5), rollouts(0.25, 0.5, 1.0)) == ["best_of_k:reward 0.25", None, None]


def test_an_unknown_reward_is_dropped_as_unknown() -> None:
    assert reasons(BestOfK(k=3), rollouts(None, 0.0)) == ["best_of_k:unknown reward", None]


def test_a_row_dropped_before_takes_no_place() -> None:
    rows = rollouts(1.0, 0.5)
    rows[0].kept = False

    assert reasons(BestOfK(k=1), rows) == [None, None]


def test_a_role_can_be_one_group() -> None:
    rows = [*rollouts(0.5, 0.2), *rollouts(1.0, problem=SECOND), a_row("judge", reward=0.0)]

    more = "best_of_k:enough of its group"
    assert reasons(BestOfK(k=2, per_group=False), rows) == [None, more, None, None]
