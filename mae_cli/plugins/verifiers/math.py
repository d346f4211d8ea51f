"""Compare an answer with the reference answer as mathematics, checked twice.

Place in the flow: `judge` and `eval` call it through the registry. Contract: math-verify and a reader of our own
(`checking.mathematics`) each say equal, different or unknown; what both call equal is right, what ours read and calls
different and math-verify does not call equal is wrong, and everything else is `unsure` and says why. Both run in a
worker process that is killed at the limit. Left out: finding the answer in a longer text (`mae_cli.answers.extract`).
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence

import msgspec

from mae_cli.checking import killable as workers
from mae_cli.errors import MissingDependencyError
from mae_cli.records import Problem, Verdict, VerdictStatus

TARGET = "mae_cli.checking.mathematics.check:both"
MAX_LENGTH = 2000
"""Longest text compared, in characters."""


class Math(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    r"""Equal as mathematics: fractions, roots, expressions, tuples, sets, intervals, matrices, equations.

    Source: math-verify (Hugging Face, Apache-2.0) with the reference first, and our own comparison beside it.
    """

    timeout_seconds: float = 5.0
    """Of one comparison, on the wall clock."""
    memory_mib: int = 1024
    """Memory a worker may take beyond its start."""

    def __post_init__(self) -> None:
        if importlib.util.find_spec("math_verify") is None:
            raise MissingDependencyError("verifier math needs math-verify: pip install 'mae-cli[verify]'")

    def check(self, problem: Problem, answer: str | None) -> Verdict:
        """The verdict on an answer; unknown where the problem has no reference answer."""
        return self.check_many([problem], [answer], [problem.id])[0]

    def check_many(
        self, problems: Sequence[Problem], answers: Sequence[str | None], groups: Sequence[str]
    ) -> list[Verdict]:
        """One verdict per answer; equal pairs are compared once."""
        given = list(zip(problems, answers, strict=True))
        verdicts = [_before(problem.reference_answer, answer) for problem, answer in given]
        keys = [(problem.reference_answer or "", answer or "", names_in(problem.question)) for problem, answer in given]
        asked = {key: None for key, verdict in zip(keys, verdicts, strict=True) if verdict is None}
        found = dict(zip(asked, self._compare(list(asked)), strict=True))
        return [verdict or msgspec.structs.replace(found[key]) for key, verdict in zip(keys, verdicts, strict=True)]

    def compare(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        """Verdicts on (reference, answer) pairs of texts, of problems that are not known."""
        return self._compare([(reference, answer, "") for reference, answer in pairs])

    def _compare(self, asked: Sequence[tuple[str, str, str]]) -> list[Verdict]:
        if not asked:
            return []
        outcomes = workers.shared(TARGET, memory_mib=self.memory_mib).call(asked, self.timeout_seconds)
        return [_verdict(outcome) for outcome in outcomes]


_FORMULA = re.compile(r"\$\$?(?P<formula>[^$]+)\$|\\[(\[](?P<other>.+?)\\[)\]]", re.DOTALL)
_LONE_LETTER = re.compile(r"(?<![a-zA-Z'\u2019\\])(?!a(?= [a-z]{2})|I\b|A(?= [a-z]{2}))[a-zA-Z](?![a-zA-Z'\u2019])")


def names_in(question: str) -> str:
    """The letters that name quantities in a question: those of its formulas, and those that stand alone in its text."""
    formulas = " ".join(match["formula"] or match["other"] for match in _FORMULA.finditer(question))
    letters = set(re.findall(r"[a-zA-Z]", re.sub(r"\\[a-zA-Z]+(?:\{[^{}]*\})?", " ", formulas)))
    return "".join(sorted(letters | set(_LONE_LETTER.findall(_FORMULA.sub(" ", question)))))


def _before(reference: str | None, answer: str | None) -> Verdict | None:
    """The verdict that needs no comparison, if any."""
    if reference is None or not reference.strip():
        return _null("unsupported", "no reference answer")
    if answer is None or not answer.strip():
        return Verdict("math", "verifier", "answer", score=0.0, reason="no answer found")
    if reference.split() == answer.split():
        return Verdict("math", "verifier", "answer", score=1.0, reason="the same text")
    if max(len(reference), len(answer)) > MAX_LENGTH:
        return _null("unsupported", f"longer than {MAX_LENGTH} characters")
    return None


def _verdict(outcome: workers.CallOutcome) -> Verdict:
    if outcome.status == "timeout":
        return _null("timeout", outcome.message)
    if outcome.status == "memory":
        return _null("unsupported", "more memory than a worker may take")
    if outcome.status != "ok":
        return _null("error", outcome.message)
    library, own = outcome.value
    told = f"math-verify: {_WORD[library]}, own reading: {_WORD[own]}"
    if library and own:
        return Verdict("math", "verifier", "answer", score=1.0, reason="equal, checked twice")
    if own is False and not library:
        return Verdict("math", "verifier", "answer", score=0.0, reason=told)
    if library is None and own is None:
        return _null("unsupported", "not read as mathematics by either check")
    return _null("unsure", told)


_WORD = {True: "equal", False: "different", None: "cannot tell"}


def _null(status: VerdictStatus, reason: str) -> Verdict:
    return Verdict("math", "verifier", "answer", status=status, reason=reason)
