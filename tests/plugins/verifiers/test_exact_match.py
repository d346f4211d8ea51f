import pytest
from hypothesis import given
from hypothesis import strategies as st

from mae_cli.plugins.verifiers.exact_match import exact_match_score, normalise_answer


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("Paris", "Paris"),
        ("  paris\n", "PARIS"),
        ("New\u00a0 York", "new york"),
        ("Paris.", "Paris"),
        ("Paris", "Paris!?"),
        ("\uff30aris", "Paris"),
        ("STRASSE", "stra\u00dfe"),
        ("\u00bd", "1/2"),
        ("5\u00b2", "5^2"),
        ("?", "?"),
        ("It is Paris!", "it is paris"),
        ("5!.", "5!"),
        ("18.", "18"),
    ],
)
def test_same_text_is_right_whatever_its_spelling(answer: str, reference: str) -> None:
    assert exact_match_score(answer, reference) == (1.0, "ok", "same text")


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("London", "Paris"),
        ("Paris, France", "Paris"),
        ("18.0", "18"),
        ("1\u2070", "10"),  # a raised 0 is no digit
        ("1\u00bd", "11/2"),
        ("newyork", "new york"),
        ("-3", "3"),
        ("5!", "5"),  # a factorial
        ("5!!", "5!"),
        ("(n+1)!", "(n+1)"),
    ],
)
def test_other_text_is_wrong(answer: str, reference: str) -> None:
    assert exact_match_score(answer, reference) == (0.0, "ok", "different text")


@pytest.mark.parametrize("answer", [None, "", " \n"])
def test_missing_answer_is_wrong(answer: str | None) -> None:
    assert exact_match_score(answer, "Paris") == (0.0, "ok", "no answer found")


@pytest.mark.parametrize("reference", ["", "  "])
def test_empty_reference_is_unsupported(reference: str) -> None:
    score, status, reason = exact_match_score("Paris", reference)

    assert (score, status) == (None, "unsupported")
    assert reason


@given(st.text())
def test_every_text_matches_itself_or_is_empty(text: str) -> None:
    score, status, _ = exact_match_score(text, text)

    assert (score, status) == ((1.0, "ok") if normalise_answer(text) else (None, "unsupported"))


@pytest.mark.parametrize(
    ("answer", "reference", "score"), [("Yes.", "True", 1.0), ("false", "no", 1.0), ("yes", "False", 0.0)]
)
def test_yes_is_true_and_no_is_false(answer: str, reference: str, score: float) -> None:
    assert exact_match_score(answer, reference)[0] == score
