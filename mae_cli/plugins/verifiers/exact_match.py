"""Compare an answer with the reference answer as text. The shortest verifier: copy this one.

Place in the flow: `judge` and `eval` call it through the registry. Contract: a missing or other
answer is wrong (0.0), a reference without any text cannot be checked (null). Left out: numbers
written in two ways (`numeric`) and letters of choices (`choice`).
"""

import unicodedata

import msgspec

from mae_cli.answers.numbers import expand_fraction_signs
from mae_cli.records import Problem, Verdict, VerdictStatus

# Sets write one truth value in either way, and prompts seldom say which is wanted.
_TRUTH = {"yes": "true", "no": "false"}


def exact_match_score(answer: str | None, reference: str) -> tuple[float | None, VerdictStatus, str]:
    """Return (score, status, reason): 1.0 if both texts are the same once normalised, else 0.0.

    Args:
        answer: the extracted answer; None or blank is a wrong answer; yes and true are one, no and false, too.
        reference: the reference answer; blank gives (None, "unsupported", reason).

    Source: normalisation as in `normalise_answer`; no published rule.
    """
    expected = normalise_answer(reference)
    if not expected:
        return None, "unsupported", "the reference answer is empty"
    found = normalise_answer(answer or "")
    if not found:
        return 0.0, "ok", "no answer found"
    if found == expected:
        return 1.0, "ok", "same text"
    if _TRUTH.get(found, found) == _TRUTH.get(expected, expected):
        return 1.0, "ok", "the same truth value"
    return 0.0, "ok", "different text"


def normalise_answer(text: str) -> str:
    """Return the text in NFKC, case-folded, blanks folded, without punctuation at its end.

    Raised digits are spelled "^2" and one-character fractions "1/2" first, because NFKC alone
    would make 10 out of a 1 with a raised 0. A text of punctuation alone keeps it, and so does a factorial ("5!").
    """
    spelled = "".join(
        "^" + character if unicodedata.decomposition(character).startswith("<super>") else character
        for character in expand_fraction_signs(text)
    )
    folded = " ".join(unicodedata.normalize("NFKC", spelled).casefold().split())
    bare = folded.rstrip(".,;:!?\u3002 ")
    end = folded[len(bare) :]
    if bare and (bare[-1].isdigit() or bare[-1] in ")]}"):
        return bare + "!" * (len(end) - len(end.lstrip("!")))
    return bare or folded


class ExactMatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Equal texts after Unicode, case, white space and trailing punctuation are evened out.

    Source: the usual exact match of question answering (SQuAD, arXiv:1606.05250, without dropping articles).
    """

    def check(self, problem: Problem, answer: str | None) -> Verdict:
        """The verdict on an answer; unknown where the problem has no reference answer."""
        if problem.reference_answer is None:
            return Verdict("exact_match", "verifier", "answer", status="unsupported", reason="no reference answer")
        score, status, reason = exact_match_score(answer, problem.reference_answer)
        return Verdict("exact_match", "verifier", "answer", score=score, status=status, reason=reason)
