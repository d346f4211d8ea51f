from __future__ import annotations

from mae_cli.plugins.contracts import Selection
from mae_cli.plugins.filters.dedup import Dedup
from tests.support import a_problem, a_row


def test_the_first_of_equal_questions_stays_whatever_its_white_space_and_case() -> None:
    rows = [
        a_row("proposer", problem=a_problem(question), index=index)
        for index, question in enumerate(("Why is it so?", "why  is it so?", "Why is it not?"))
    ]

    assert Dedup().select(rows) == [Selection(), Selection(reason=f"dedup:same as {rows[0].id}"), Selection()]


def test_one_sum_in_other_words_is_the_same_question() -> None:
    rows = [
        a_row("proposer", problem=a_problem("What is 3 + 4?"), index=0),
        a_row("proposer", problem=a_problem("What is four plus three?"), index=1),
    ]

    assert Dedup().select(rows)[1].reason is not None


def test_rollouts_repeat_when_prompt_and_completion_do() -> None:
    rows = [
        a_row(index=0, completion="a"),
        a_row(index=1, completion="a "),
        a_row(index=2, completion="b"),
        a_row(index=3, prompt="other", completion="a"),
    ]

    assert [selection.reason is None for selection in Dedup().select(rows)] == [True, False, True, True]


def test_a_row_dropped_before_does_not_take_its_sound_copy_with_it() -> None:
    broken = a_row("proposer", problem=a_problem(), index=0, kept=False)
    sound = a_row("proposer", problem=a_problem(), index=1, kept=True)

    assert Dedup().select([broken, sound]) == [Selection(), Selection()]


def test_rows_that_are_not_trained_and_proposals_without_a_question_are_let_be() -> None:
    rows = [a_row(purpose="difficulty", index=0), a_row(index=1), a_row("proposer"), a_row("proposer", index=1)]

    assert Dedup().select(rows) == [Selection()] * 4
