"""Reading a verdict out of token probabilities, and the options of the shipped judges."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mae_cli.errors import ConfigError
from mae_cli.plugins.contracts import Option
from mae_cli.plugins.judges.pairwise import Pairwise
from mae_cli.plugins.judges.process import Process
from mae_cli.plugins.judges.rubric import Rubric
from mae_cli.plugins.judges.score_tag import parse_word
from tests.support import a_problem

NONCE = "0123456789ab"
THREE = Rubric(scale="3-band").ask(a_problem(), ("7",), NONCE).options
JUDGES = [Rubric(), Rubric(scale="3-band"), Rubric(scale="yes/no"), Pairwise(), Process()]


def text_of(judge: object, candidates: tuple[str, ...], answer: str | None = "7") -> str:
    (message,) = judge.ask(a_problem(answer=answer), candidates, NONCE).messages  # type: ignore[attr-defined]
    return str(message.content)


def logs(*probabilities: float) -> list[float | None]:
    return [math.log(p) for p in probabilities]


def test_the_score_is_expected_over_the_options_that_are_likely() -> None:
    # Scores 0, 0.5, 1 with probabilities 0.1, 0.1, 0.2 of all text, so 1/4, 1/4, 1/2: 0.125 + 0.5.
    reading = Rubric(scale="3-band").read_logprobs(logs(0.1, 0.1, 0.2), THREE)

    assert (reading.score, reading.status) == (pytest.approx(0.625), "ok")
    assert reading.reason == "expected over 3 options of mass 0.4"


def test_very_unlikely_options_keep_their_proportions() -> None:
    # e^-2000 is no float; its ratio to e^-2001 is. 1 / (1 + e) of the weight is on score 0.
    yes_no = Rubric(scale="yes/no")
    options = yes_no.ask(a_problem(), ("7",), NONCE).options

    assert yes_no.read_logprobs([-2000.0, -2001.0], options).score == pytest.approx(math.e / (1 + math.e))


def test_one_option_that_could_not_be_scored_leaves_the_verdict_unknown() -> None:
    reading = Rubric(scale="3-band").read_logprobs([-1.0, None, -2.0], THREE)

    assert reading == (None, "error", "1 of 3 options could not be scored")


def test_a_judge_that_would_say_something_else_is_unsure_below_the_wanted_mass() -> None:
    judge = Rubric(scale="3-band", min_mass=0.5)

    assert judge.read_logprobs(logs(0.1, 0.1, 0.2), THREE)[:2] == (None, "unsure")
    assert judge.read_logprobs(logs(0.1, 0.1, 0.4), THREE)[1] == "ok"
    assert judge.read_logprobs([-math.inf] * 3, THREE)[:2] == (None, "unsure")


@given(st.lists(st.floats(-30, 0), min_size=3, max_size=3), st.permutations([0, 1, 2]))
def test_the_order_of_the_options_never_changes_the_score(logprobs: list[float], order: list[int]) -> None:
    judge = Rubric(scale="3-band")

    plain = judge.read_logprobs(logprobs, THREE)
    mixed = judge.read_logprobs([logprobs[i] for i in order], [THREE[i] for i in order])

    assert plain == mixed
    assert plain.score is not None
    assert 0.0 <= plain.score <= 1.0


@pytest.mark.parametrize("judge", JUDGES, ids=lambda judge: f"{type(judge).__name__} {getattr(judge, 'scale', '')}")
def test_every_option_is_read_back_as_its_score(judge: Rubric) -> None:
    candidates = ("7", "8") if "pair" in judge.targets else ("one\ntwo\nthree",)
    options = judge.ask(a_problem(), candidates, NONCE).options

    assert len(options) > 1
    for option in options:
        assert judge.read_reply(judge.reply_of(option), options)[:2] == (pytest.approx(option.score), "ok")


@pytest.mark.parametrize("judge", JUDGES, ids=lambda judge: f"{type(judge).__name__} {getattr(judge, 'scale', '')}")
@pytest.mark.parametrize("reply", ["", "yes", "<score></score>", "<score>maybe</score>", "<score>A or B</score>"])
def test_what_is_no_option_is_unparsed(judge: Rubric, reply: str) -> None:
    candidates = ("7", "8") if "pair" in judge.targets else ("7",)

    found = judge.read_reply(reply, judge.ask(a_problem(), candidates, NONCE).options)

    assert found[:2] == (None, "unparsed")
    assert found.reason


@pytest.mark.parametrize(
    ("reply", "index"),
    [
        ("<score>yes</score>", 0),
        ("<score> **Yes**. </score>", 0),
        ("<score>NO</score>", 1),
        ("<score>yes</score><score>no</score>", 1),
        ("<think><score>no</score></think><score>yes</score>", 0),
        ("<think><score>yes</score>", None),
        ("<score>yes and no</score>", None),
        ("<score>yes</score> but <score>", None),
        ("yes", None),
    ],
)
def test_a_word_counts_alone_in_the_last_tag(reply: str, index: int | None) -> None:
    assert parse_word(reply, ("yes", "no"))[0] == index


def test_the_reference_answer_is_shown_only_where_it_is_asked_for_and_there() -> None:
    for judge, candidates in (
        (Rubric, ("an answer",)),
        (Pairwise, ("one", "other")),
        (Process, ("a step",)),
    ):
        shown = text_of(judge(reference=True), candidates, answer="forty-two")
        assert f"===== reference answer {NONCE} =====\nforty-two" in shown
        assert "forty-two" not in text_of(judge(), candidates, answer="forty-two")
        assert "reference" not in text_of(judge(reference=True), candidates, answer=None)


def test_a_rubric_file_without_a_place_for_the_reference_is_refused(tmp_path: Path) -> None:
    bare = tmp_path / "bare.txt"
    bare.write_text("[user]\n{{ nonce }} Grade {{ answer }} to {{ question }} in <score> tags.\n")

    Rubric(answer_prompt=str(bare)).prompt_digests()
    with pytest.raises(ConfigError, match=r"bare.txt: reference is on, but the file never shows"):
        Rubric(answer_prompt=str(bare), reference=True).prompt_digests()


@pytest.mark.parametrize("options", [{"read": "probability"}, {"constrain": True}])
def test_where_nothing_but_a_verdict_is_written_no_reasoning_is_asked_for(options: dict[str, object]) -> None:
    plain, terse = text_of(Rubric(), ("7",)), text_of(Rubric(**options), ("7",))  # type: ignore[arg-type]

    assert "Think about it first" in plain
    assert "Give nothing but one whole number from 1 to 10" in terse
    assert "think" not in terse.lower()


def test_each_scale_has_a_rubric_file_of_its_own() -> None:
    digests = {scale: Rubric(scale=scale).prompt_digests() for scale in ("1-10", "3-band", "yes/no")}  # type: ignore[arg-type]

    assert len({digest for pair in digests.values() for digest in pair}) == 6
    assert Rubric(answer_prompt="judge_answer_3band").prompt_digests()[0] == digests["3-band"][0]


def test_the_options_of_a_scale_span_it_evenly() -> None:
    assert [option.score for option in THREE] == [0.0, 0.5, 1.0]
    assert [o.score for o in Rubric().ask(a_problem(), (), NONCE).options] == [n / 9 for n in range(10)]
    assert Option("tie", 0.5) in Pairwise().ask(a_problem(), ("a", "b"), NONCE).options
