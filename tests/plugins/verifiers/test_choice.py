import pytest
from hypothesis import given
from hypothesis import strategies as st

from mae_cli.plugins.verifiers.choice import choice_score

CITIES = ("London", "Paris", "Rome", "A small town")


@pytest.mark.parametrize(
    "answer", ["B", "b", "(B)", "[b]", "B.", "B) Paris", "(B) Paris", "option B", "Paris", " paris. ", "**B**"]
)
@pytest.mark.parametrize("reference", ["B", "(B)", "Paris", "B. Paris"])
def test_letter_and_text_name_the_same_choice(answer: str, reference: str) -> None:
    assert choice_score(answer, reference, CITIES) == (1.0, "ok", "the right choice")


@pytest.mark.parametrize("answer", ["A", "(C)", "Rome", "D", "A small town"])
def test_another_choice_is_wrong(answer: str) -> None:
    assert choice_score(answer, "B", CITIES) == (0.0, "ok", "another choice")


@pytest.mark.parametrize("answer", ["E", "Berlin", "B or C", "18", "A big town", "B. Berlin"])
def test_answer_outside_the_choices_is_wrong(answer: str) -> None:
    assert choice_score(answer, "B", CITIES) == (0.0, "ok", "the answer is none of the choices")


@pytest.mark.parametrize("answer", [None, "", " "])
def test_missing_answer_is_wrong(answer: str | None) -> None:
    assert choice_score(answer, "B", CITIES) == (0.0, "ok", "no answer found")


@pytest.mark.parametrize(
    ("reference", "choices"),
    [
        ("E", CITIES),
        ("Berlin", CITIES),
        ("", CITIES),
        ("2", CITIES),
        ("B. Rome", CITIES),
        ("Paris", ("Paris", "Paris")),
        ("B", ("B", "A")),
        ("Paris", ()),
    ],
)
@pytest.mark.parametrize("answer", [None, "B"])
def test_reference_that_names_no_single_choice_is_unsupported(
    answer: str | None, reference: str, choices: tuple[str, ...]
) -> None:
    score, status, reason = choice_score(answer, reference, choices)

    assert (score, status) == (None, "unsupported")
    assert reason


def test_letter_that_contradicts_its_text_is_unsure() -> None:
    assert choice_score("B. London", "B", CITIES)[:2] == (None, "unsure")
    assert choice_score("B. London", "A", CITIES)[:2] == (None, "unsure")


def test_answer_that_is_a_letter_and_the_text_of_another_choice_is_unsure() -> None:
    assert choice_score("B", "x", ("x", "y", "B"))[:2] == (0.0, "ok")
    assert choice_score("B", "y", ("x", "y", "B"))[:2] == (None, "unsure")


def test_text_that_two_choices_share_is_right_if_one_of_them_is() -> None:
    assert choice_score("Paris", "B", ("Rome", "Paris", "Paris"))[0] == 1.0


def test_choices_may_carry_their_own_letters() -> None:
    choices = ("A) London", "(B) Paris", "C. Rome")

    assert choice_score("Paris", "B", choices)[0] == 1.0
    assert choice_score("B", "Paris", choices)[0] == 1.0
    assert choice_score("(B) Paris", "(B) Paris", choices)[0] == 1.0
    assert choice_score("Rome", "B", choices)[0] == 0.0


def test_letters_are_compared_where_no_choices_are_given() -> None:
    assert choice_score("(c)", "C", ())[0] == 1.0
    assert choice_score("D", "C", ())[0] == 0.0


@given(st.text(max_size=20) | st.none(), st.text(max_size=20), st.lists(st.text(max_size=8), max_size=5))
def test_score_is_null_exactly_where_the_status_is_not_ok(
    answer: str | None, reference: str, choices: list[str]
) -> None:
    score, status, reason = choice_score(answer, reference, choices)

    assert (score is None) == (status != "ok")
    assert score in {None, 0.0, 1.0}
    assert reason
