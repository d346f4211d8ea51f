"""Two policies on the same items, over hand-made eval rows."""

from __future__ import annotations

import pytest

from mae_cli.records import Row
from mae_cli.reports.comparison import common_differences, compare, compare_all, known_pairs, paired_items
from mae_cli.reports.statistics.intervals import wilson_interval
from tests.support import eval_rows


def test_a_failing_checker_leaves_both_sides_of_the_pair_and_bounds_the_difference() -> None:
    before = eval_rows([1.0, 0.0, None, 0.0])
    after = eval_rows([1.0, 1.0, 1.0, None])

    versus = compare(("a", before), ("b", after), "flexible")

    # Items 0 and 1 are known on both sides: one win, no loss.
    assert (versus.items, versus.wins, versus.losses, versus.difference) == (2, 1, 0, 0.5)
    # Worst: item 2 right before, item 3 wrong after: (0 + 1 + 0 + 0) / 4. Best: (0 + 1 + 1 + 1) / 4.
    assert (versus.unknown, versus.worst, versus.best) == (2, 0.25, 0.75)


def test_without_a_known_pair_every_figure_of_the_comparison_is_null() -> None:
    versus = compare(("a", eval_rows([None, 1.0])), ("b", eval_rows([1.0, None])), "flexible")

    told = (versus.first_share, versus.second_share, versus.difference, versus.low, versus.high, versus.p_value)
    assert told == (None,) * 6
    assert (versus.items, versus.unknown, versus.worst, versus.best) == (0, 2, -0.5, 0.5)


def test_a_benchmark_without_a_known_pair_takes_no_part_in_holms_correction() -> None:
    # a: 8 wins of 8, p = 2/256, the only test there is.
    sides = []
    for one in (0.0, 1.0):
        rows = eval_rows([one] * 8, benchmark="a")
        others = eval_rows([None], benchmark="b")
        for row in others:
            assert row.problem is not None
            row.problem.id += "b"
        sides.append((str(one), [*rows, *others]))

    found = compare_all(*sides)

    assert [(c.benchmark, c.p_value, c.p_holm) for c in found[1:3]] == [("a", 2 / 256, 2 / 256), ("b", None, None)]


def test_every_item_is_won_lost_both_or_neither() -> None:
    versus = compare(("a", eval_rows([0.0, 1.0, 1.0, 0.0, 0.0])), ("b", eval_rows([1.0, 0.0, 1.0, 0.0, 0.0])), "strict")

    assert (versus.wins, versus.losses, versus.both, versus.neither) == (1, 1, 1, 2)
    assert versus.test == "exact McNemar"


def test_items_without_a_change_still_leave_room_for_one() -> None:
    rows = eval_rows([1.0, 0.0] * 10)

    versus = compare(("a", rows), ("b", rows), "strict")

    assert (versus.difference, versus.low, versus.high) == (0.0, -versus.high, wilson_interval(0, 20).high)


def test_several_samples_are_compared_item_by_item() -> None:
    # Differences in correct samples +2, +1, -1: of the eight sign patterns of (2, 1, 1) the sums 4, 2, 2 reach 2,
    # so the one-sided p is 3/8 and the two-sided one 6/8. Sample by sample McNemar would see 3 against 1.
    before = eval_rows([[0.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    after = eval_rows([[1.0, 1.0], [1.0, 0.0], [1.0, 0.0]])

    versus = compare(("a", before), ("b", after), "strict")

    assert (versus.items, versus.wins, versus.losses, versus.p_value) == (3, 2, 1, 0.75)
    assert versus.difference == pytest.approx((1 + 0.5 - 0.5) / 3)
    assert versus.test == "exact paired randomisation"


def test_different_numbers_of_samples_are_brought_to_one_unit() -> None:
    # 1 of 1 against 1 of 2 is -1/2, 0 of 1 against 2 of 2 is +1: in halves -1 and +2.
    pairs = paired_items(eval_rows([1.0, 0.0]), eval_rows([[1.0, 0.0], [1.0, 1.0]]), "strict")

    assert common_differences(known_pairs(pairs)) == [-1, 2]


def test_several_benchmarks_are_corrected_by_holm_within_a_reading() -> None:
    # a: 8 wins of 8, p = 2/256; b: 1 win, p = 1. Two tests: 2 * 2/256 and 1.
    def both(first: list[float | None], second: list[float | None]) -> list[Row]:
        rows = eval_rows(first, benchmark="a")
        others = eval_rows(second, benchmark="b")
        for row in others:
            assert row.problem is not None
            row.problem.id += "b"
        return rows + others

    found = compare_all(("x", both([0.0] * 8, [0.0, 1.0])), ("y", both([1.0] * 8, [1.0, 1.0])))

    shown = [(c.reading, c.benchmark, c.p_value, c.p_holm) for c in found[:3]]
    assert shown == [("strict", None, 2 / 512, None), ("strict", "a", 2 / 256, 4 / 256), ("strict", "b", 1.0, 1.0)]
    assert [c.reading for c in found] == ["strict"] * 3 + ["flexible"] * 3
