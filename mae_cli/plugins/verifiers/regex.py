"""Match an answer with a regular expression, in a worker process that is killed at the limit."""

from __future__ import annotations

import re
from typing import ClassVar

import msgspec

from mae_cli.checking import killable as workers
from mae_cli.errors import ConfigError
from mae_cli.records import Problem, Verdict, VerdictStatus

TARGET = "mae_cli.checking.patterns:matches"
MAX_LENGTH = 100_000


class Regex(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The answer matches `pattern`, or the problem's `meta.pattern`, from end to end; Python's syntax.

    Source: ours; the check of instruction-following sets (IFEval, arXiv:2311.07911) in its simplest form.
    """

    pattern: str | None = None
    """For every problem; null takes each problem's own."""
    whole: bool = True
    """The pattern covers the whole answer without its outer blanks; false looks for it anywhere."""
    ignore_case: bool = False
    timeout_seconds: float = 2.0
    needs_reference: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.pattern is not None:
            try:
                re.compile(self.pattern)
            except re.error as error:
                raise ConfigError(f'verifier regex: pattern "{self.pattern}": {error}') from error

    def check(self, problem: Problem, answer: str | None) -> Verdict:
        """The verdict on an answer; unknown where there is no pattern or it takes too long."""
        pattern = self.pattern if self.pattern is not None else problem.meta.get("pattern")
        if not isinstance(pattern, str):
            return _null("unsupported", "the problem brings no pattern")
        if answer is None or not answer.strip():
            return Verdict("regex", "verifier", "answer", score=0.0, reason="no answer found")
        if len(answer) > MAX_LENGTH:
            return _null("unsupported", f"longer than {MAX_LENGTH} characters")
        item = (pattern, answer.strip(), self.ignore_case, self.whole)
        (outcome,) = workers.shared(TARGET).call([item], self.timeout_seconds)
        if outcome.status == "timeout":
            return _null("timeout", outcome.message)
        if outcome.status != "ok":
            return _null("error", outcome.message or outcome.status)
        reason = "matches" if outcome.value else "does not match"
        return Verdict("regex", "verifier", "answer", score=float(outcome.value), reason=reason)


def _null(status: VerdictStatus, reason: str) -> Verdict:
    return Verdict("regex", "verifier", "answer", status=status, reason=reason)
