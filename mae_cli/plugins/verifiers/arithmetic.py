"""Check an arithmetic question by its own words: the question carries its answer."""

from __future__ import annotations

import msgspec

from mae_cli.answers.arithmetic import read_question
from mae_cli.answers.numbers import read_number
from mae_cli.records import Problem, Verdict


class Arithmetic(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Compute what a plain arithmetic question asks for and compare; any other question is unsupported.

    It needs no reference answer, so a model may write the problems. The reader is strict: a question that is not
    wholly understood is never guessed at. Source: our own grammar, `mae_cli.answers.arithmetic`.
    """

    def check(self, problem: Problem, answer: str | None) -> Verdict:
        """The verdict on an answer."""
        expression = read_question(problem.question)
        if expression is None:
            return Verdict("arithmetic", "verifier", "answer", status="unsupported", reason="not plain arithmetic")
        found = read_number(answer) if answer is not None else None
        score = float(found is not None and found == expression.value)
        reason = "no answer found" if answer is None else f"the question's value is {expression.value}"
        return Verdict("arithmetic", "verifier", "answer", score=score, reason=reason)

    def check_problem(self, problem: Problem) -> Verdict:
        """1.0 when the problem is a plain arithmetic question, 0.0 otherwise: this check knows no other problems."""
        expression = read_question(problem.question)
        score = float(expression is not None)
        reason = "plain arithmetic" if expression else "not plain arithmetic"
        return Verdict("arithmetic", "verifier", "problem", score=score, reason=reason)
