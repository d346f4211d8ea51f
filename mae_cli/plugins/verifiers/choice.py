"""Compare an answer with the right one of several choices, by letter or by text.

Place in the flow: `judge` and `eval` call it through the registry. Contract: letters are A, B, C
.. by position; an answer that is none of the choices is wrong (0.0); a reference that is none of
them cannot be checked, and a letter that contradicts its own text is unsure (null). Left out:
finding the letter in a longer text (`mae_cli.answers.choices`).
"""

import re
from collections.abc import Sequence

import msgspec

from mae_cli.plugins.verifiers.exact_match import normalise_answer
from mae_cli.records import Problem, Verdict, VerdictStatus, choices_of

# "B", "(B)", "[b].", "B) Paris", "option B: Paris"; a letter before a blank is only a word.
_LABELLED = re.compile(
    r"(?:(?:option|choice|answer)\s+)?"
    r"(?:[(\[]\s?(?P<in>[a-z])\s?[)\]]\s*[.:]?|(?P<bare>[a-z])\s*(?:[.):]|$))\s*(?P<text>.*)",
    re.IGNORECASE | re.DOTALL,
)


def choice_score(
    answer: str | None, reference: str, choices: Sequence[str] = ()
) -> tuple[float | None, VerdictStatus, str]:
    """Return (score, status, reason): 1.0 if the answer names the reference's choice, else 0.0.

    Args:
        answer: a letter ("B", "(b)", "B. Paris") or the text of a choice; None is a wrong answer.
        reference: likewise; (None, "unsupported", reason) if it does not name exactly one choice.
        choices: texts by position, with or without their own letters; empty means that only
            letters are compared.

    Source: no published rule; texts are compared as by `exact_match`.
    """
    texts = [_choice_text(choice, index) for index, choice in enumerate(choices)]
    expected = _named(reference, texts)
    if len(expected) != 1:
        what = "none" if not expected else "more than one"
        return None, "unsupported", f"the reference answer names {what} of the choices"
    if answer is None or not answer.strip():
        return 0.0, "ok", "no answer found"
    if _contradicts_itself(answer, texts):
        return None, "unsure", "the answer's letter and its text name different choices"
    found = _named(answer, texts)
    if not found:
        return 0.0, "ok", "the answer is none of the choices"
    if expected <= found and (len(found) == 1 or len({texts[index] for index in found}) == 1):
        return 1.0, "ok", "the right choice"
    if expected <= found:
        return None, "unsure", "the answer is one choice by letter and another by text"
    return 0.0, "ok", "another choice"


def _choice_text(choice: str, index: int) -> str:
    match = _LABELLED.fullmatch(choice.strip())
    if match and match["text"] and _position(match) == index:
        return normalise_answer(match["text"])
    return normalise_answer(choice)


def _position(match: re.Match[str]) -> int:
    return ord((match["in"] or match["bare"]).upper()) - ord("A")


def _named(text: str, texts: Sequence[str]) -> set[int]:
    """Positions of the choices a text names, by its own text or by its letter."""
    normalised = normalise_answer(text)
    named = {index for index, choice in enumerate(texts) if choice == normalised}
    match = _LABELLED.fullmatch(text.strip().strip("*_`").strip())
    if match is None:
        return named
    position = _position(match)
    own_text = normalise_answer(match["text"])
    if not texts and not own_text:
        return {position}
    if position < len(texts) and own_text in {"", texts[position]}:
        named.add(position)
    return named


def _contradicts_itself(text: str, texts: Sequence[str]) -> bool:
    """Tell whether a text such as "B. London" has the letter of one choice and the text of another."""
    match = _LABELLED.fullmatch(text.strip().strip("*_`").strip())
    if match is None:
        return False
    own_text = normalise_answer(match["text"])
    position = _position(match)
    return position < len(texts) and own_text != texts[position] and own_text in texts


class Choice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The right one of several choices, by letter or by text; see `choice_score`.

    Source: the usual multiple-choice accuracy (ARC, arXiv:1803.05457).
    """

    def check(self, problem: Problem, answer: str | None) -> Verdict:
        """The verdict on an answer; unknown where the problem has no reference answer."""
        if problem.reference_answer is None:
            return Verdict("choice", "verifier", "answer", status="unsupported", reason="no reference answer")
        score, status, reason = choice_score(answer, problem.reference_answer, choices_of(problem))
        return Verdict("choice", "verifier", "answer", score=score, status=status, reason=reason)
