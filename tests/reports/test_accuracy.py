"""Figures of one policy over hand-made eval rows."""

from __future__ import annotations

from mae_cli.reports.accuracy import AtK, accuracy, benchmarks_in, group_accuracies, items_of, normal_form, readings_in
from tests.support import eval_rows


def test_an_unknown_verdict_leaves_the_share_and_bounds_it() -> None:
    figure = accuracy("a", eval_rows([1.0, 0.0, None, 1.0]), "flexible", 0.95)

    # 2 of 3 known; with the unknown one wrong 2 of 4, right 3 of 4.
    assert (figure.items, figure.unknown, figure.correct, figure.share) == (3, 1, 2, 2 / 3)
    assert (figure.worst, figure.best) == (0.5, 0.75)


def test_where_every_verdict_is_unknown_the_share_and_its_interval_are_null() -> None:
    figure = accuracy("a", eval_rows([None, None]), "flexible", 0.95)

    assert (figure.items, figure.unknown, figure.share, figure.low, figure.high) == (0, 2, None, None, None)
    assert (figure.worst, figure.best) == (0.0, 1.0)


def test_samples_of_one_item_are_averaged_before_anything_else() -> None:
    figure = accuracy(
        "a", eval_rows([[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]), "flexible", 0.95
    )

    # Item means 1/2, 1, 0. pass@2: 1 - C(2,2)/C(4,2) = 5/6, 1, 0. maj@2 by the first two: 1, 1, 0; maj@4: tie 1/2.
    assert (figure.items, figure.samples, figure.correct, figure.share) == (3, 4, 6, 0.5)
    assert figure.pass_at == [AtK(1, 0.5), AtK(2, (5 / 6 + 1) / 3), AtK(4, 2 / 3)]
    assert figure.majority_at == [AtK(1, 2 / 3), AtK(2, 2 / 3), AtK(4, 0.5)]


def test_an_item_with_one_unknown_sample_is_unknown() -> None:
    figure = accuracy("a", eval_rows([[1.0, None], [1.0, 0.0]]), "strict", 0.95)

    # Known: item 2 at 1/2. Bounds over both: (1/2 + 1/2) / 2 and (1 + 1/2) / 2.
    assert (figure.items, figure.unknown, figure.share) == (1, 1, 0.5)
    assert (figure.worst, figure.best) == (0.5, 0.75)


def test_resembling_samples_do_not_narrow_the_interval() -> None:
    alike = accuracy("a", eval_rows([[1.0] * 4, [0.0] * 4] * 20), "strict", 0.95)
    single = accuracy("a", eval_rows([1.0, 0.0] * 20), "strict", 0.95)
    different = accuracy("a", eval_rows([[1.0, 0.0, 1.0, 0.0]] * 40), "strict", 0.95)

    assert (alike.low, alike.high) == (single.low, single.high)
    assert different.high - different.low <= single.high - single.low


def test_no_correct_answer_does_not_mean_that_the_share_is_known_to_be_zero() -> None:
    figure = accuracy("a", eval_rows([[0.0, 0.0]] * 10), "strict", 0.95)

    # Wilson for 0 of 10: high = z^2 / (10 + z^2) = 3.8415 / 13.8415
    assert figure.low == 0.0
    assert abs(figure.high - 0.27753) < 1e-4


def test_groups_are_shown_by_the_values_of_a_meta_field() -> None:
    rows = eval_rows([1.0, 0.0], level=2)
    for row in rows[:1]:
        assert row.problem is not None
        row.problem.meta["level"] = 1

    figures = group_accuracies("a", rows, "flexible", 0.95, ["level", "subject"])

    assert [(f.group, f.items, f.share) for f in figures] == [("level=1", 1, 1.0), ("level=2", 1, 0.0)]


def test_a_row_that_was_cut_off_does_not_vote() -> None:
    rows = eval_rows([[1.0, 0.0]])
    rows[0].status = "truncated"

    assert items_of(rows, "strict")[rows[0].problem.id].answers == [None, "2"]  # type: ignore[union-attr]


def test_equal_numbers_and_equal_texts_have_one_normal_form() -> None:
    assert normal_form("1,000.0") == normal_form("$1000") == "1000"
    assert normal_form("The  Cat.") == normal_form("the cat")


def test_readings_and_benchmarks_come_in_their_own_order() -> None:
    rows = eval_rows([1.0], benchmark="b") + eval_rows([1.0], benchmark="a")

    assert readings_in(rows) == ["strict", "flexible"]
    assert benchmarks_in(rows) == ["b", "a"]


def test_answers_vote_only_in_the_reading_that_rows_hold_the_answer_of() -> None:
    rows = eval_rows([[1.0, 1.0, 0.0, 0.0]])

    assert accuracy("a", rows, "flexible", 0.95).majority_at
    assert accuracy("a", rows, "strict", 0.95).majority_at == []
