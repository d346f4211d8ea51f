from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mae_cli.plugins.verifiers.majority import Majority, vote
from tests.support import a_problem


def check(answers: list[str | None], **options: object) -> list[tuple[float | None, str]]:
    verdicts = Majority(**options).check_many([a_problem()] * len(answers), answers, ["g"] * len(answers))
    return [(verdict.score, verdict.status) for verdict in verdicts]


RIGHT, WRONG, UNSURE = (1.0, "ok"), (0.0, "ok"), (None, "unsure")


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["7", "7", "8"], [RIGHT, RIGHT, WRONG]),
        (["7", "7.0", "$7$", "8"], [RIGHT, RIGHT, RIGHT, WRONG]),
        (["\\frac{1}{2}", "0.5", "1/2", "2"], [RIGHT, RIGHT, RIGHT, WRONG]),
        (["x+1", "1+x", "x-1"], [RIGHT, RIGHT, WRONG]),
        (["Paris", "paris.", "London"], [RIGHT, RIGHT, WRONG]),
        (["7", "8"], [UNSURE, UNSURE]),
        (["7", "7", "8", "8"], [UNSURE] * 4),
        (["7", "8", "9"], [UNSURE] * 3),
        (["7"], [UNSURE]),
        (["7", None, "7"], [RIGHT, WRONG, RIGHT]),
        (["7", None, None], [UNSURE, WRONG, WRONG]),
        ([None, None], [WRONG, WRONG]),
        (["5!", "5", "5"], [WRONG, RIGHT, RIGHT]),
        (["5!", "120", "5"], [RIGHT, RIGHT, WRONG]),
        (["no real roots", "no integer roots", "no real roots"], [RIGHT, WRONG, RIGHT]),
    ],
)
def test_the_largest_cluster_is_right_and_a_tie_is_unsure(
    answers: list[str | None], expected: list[tuple[float | None, str]]
) -> None:
    assert check(answers) == expected


def test_share_and_size_stand_in_the_reason() -> None:
    answers = ["7", "7.0", "8", None]
    verdicts = Majority().check_many([a_problem()] * 4, answers, ["g"] * 4)

    assert verdicts[0].reason == "2 of 4 answers agree (share 0.50, 2 clusters)"


def test_a_share_below_the_minimum_is_unsure() -> None:
    assert check(["7", "7", "8", "9"], min_share=0.6) == [UNSURE] * 4


def test_groups_do_not_see_each_other() -> None:
    verdicts = Majority().check_many([a_problem()] * 4, ["7", "7", "8", "8"], ["a", "a", "b", "b"])

    assert [verdict.score for verdict in verdicts] == [1.0] * 4


def test_an_unclear_comparison_that_could_overturn_the_lead_makes_all_unsure() -> None:
    links = {("a", "b"): False, ("a", "c"): False, ("b", "c"): None}

    # a leads with 3 of 6; b and c, 2 and 1, may be one cluster of 3.
    assert {verdict.status for verdict in vote(["a", "a", "a", "b", "b", "c"], links)} == {"unsure"}
    # With 4 against 3 the lead stands.
    assert [v.score for v in vote(["a", "a", "a", "a", "b", "b", "c"], links)] == [1.0] * 4 + [0.0] * 3


def test_a_rival_beside_the_lead_makes_all_unsure_even_where_one_of_its_parts_may_be_the_leads() -> None:
    links = {("a", "b"): None, ("a", "c"): False, ("b", "c"): None}

    # b and c, 2 each, may be one cluster of 4 against the 3 of a.
    assert {verdict.status for verdict in vote(["a", "a", "a", "b", "b", "c", "c"], links)} == {"unsure"}
    # Against 5 they are not enough; b may still say what a says, and c what b says.
    found = [verdict.score for verdict in vote(["a"] * 5 + ["b", "b", "c", "c"], links)]
    assert found == [1.0] * 5 + [None] * 4


def test_an_answer_that_may_be_the_majoritys_is_unsure_itself() -> None:
    verdicts = vote(["a", "a", "b", "c"], {("a", "b"): None, ("a", "c"): False, ("b", "c"): False})

    assert [verdict.score for verdict in verdicts] == [1.0, 1.0, None, 0.0]


@settings(max_examples=150)
@given(st.data())
def test_permuting_the_answers_permutes_the_verdicts(data: st.DataObject) -> None:
    texts = data.draw(st.lists(st.sampled_from(["a", "b", "c", "d", None]), max_size=8))
    links = {pair: data.draw(st.sampled_from([True, False, None])) for pair in itertools.combinations("abcd", 2)}
    order = data.draw(st.permutations(range(len(texts))))

    straight = vote(texts, links)
    permuted = vote([texts[index] for index in order], links)

    assert permuted == [straight[index] for index in order]


def test_permuting_real_answers_permutes_the_verdicts() -> None:
    answers = ["0.5", "\\frac12", "2", "1/2", "two", None]

    for order in itertools.islice(itertools.permutations(range(len(answers))), 0, 720, 97):
        assert check([answers[i] for i in order]) == [check(answers)[i] for i in order]
