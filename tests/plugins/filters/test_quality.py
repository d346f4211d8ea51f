from __future__ import annotations

from mae_cli.plugins.contracts import Selection
from mae_cli.plugins.filters.quality import Quality
from mae_cli.records import Row, Verdict
from tests.support import a_problem, a_row


def proposal(*scores: float | None) -> Row:
    verdicts = [Verdict("rubric", "judge", "problem", score) for score in scores]
    return a_row("proposer", problem=a_problem(), verdicts=verdicts)


def test_a_question_is_stored_from_the_threshold_on_and_trained_either_way() -> None:
    rows = [proposal(0.7), proposal(0.6, 0.8), proposal(0.69), proposal(None, 0.9)]

    assert Quality().select(rows) == [
        Selection(stored="questions"),
        Selection(stored="questions"),
        Selection(),
        Selection(stored="questions"),
    ]


def test_a_question_of_unknown_quality_is_not_stored() -> None:
    assert Quality().select([proposal(None), proposal()]) == [Selection(), Selection()]


def test_with_drop_a_low_and_an_unknown_quality_have_their_reasons() -> None:
    assert Quality(drop=True).select([proposal(0.25), proposal(None), proposal(0.9)]) == [
        Selection(reason="quality:0.25"),
        Selection(reason="quality:unknown"),
        Selection(stored="questions"),
    ]


def test_every_answered_train_pair_is_stored_good_or_bad_and_no_other_row() -> None:
    problem = a_problem()
    rows = [
        a_row(problem=problem, reward=0.0),
        a_row(problem=problem, completion=" "),
        a_row(purpose="difficulty", problem=problem),
        a_row("judge", problem=problem),
        a_row("judge", "grade", problem=problem),
        a_row("proposer"),
    ]

    assert Quality().select(rows) == [Selection(stored="pairs"), *[Selection()] * 5]
    assert Quality(pairs=False).select(rows[:1]) == [Selection()]
