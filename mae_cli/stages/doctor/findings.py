"""Findings of `mae doctor`: one line each, and the guard that turns a check that fails into a finding.

Contract: no check ever stops the others; an exception inside one becomes a problem that names the check.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import msgspec

from mae_cli.errors import ConfigError, DataError, MaeError, TemporaryError, one_line

Level = Literal["ok", "note", "problem"]


class Finding(msgspec.Struct, frozen=True):
    """Result of one check."""

    check: str
    """What was looked at, e.g. `model weights`."""
    level: Level
    text: str
    fix: str = ""
    """What the user can do; empty where nothing is to be done."""
    temporary: bool = False
    """A problem that may be gone later without the user's doing: exit code 75, not 2."""

    def line(self) -> str:
        """The finding on one line."""
        fix = f"; fix: {self.fix}" if self.fix else ""
        return " ".join(f"{self.level:<8} {self.check}: {self.text}{fix}".split(" "))


def ok(check: str, text: str) -> Finding:
    """Nothing to do."""
    return Finding(check, "ok", text)


def note(check: str, text: str, fix: str = "") -> Finding:
    """Worth knowing; work is possible."""
    return Finding(check, "note", text, fix)


def problem(check: str, text: str, fix: str, *, temporary: bool = False) -> Finding:
    """Work would fail or mislead."""
    return Finding(check, "problem", text, fix, temporary)


def guarded(check: str, work: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """Return the findings of one check; what it raises becomes a problem behind those it came to."""
    found: list[Finding] = []
    try:
        for one in work():
            found.append(one)
    except MaeError as error:
        found.append(_refused(check, error))
    except BaseException as error:
        # A panic of a Rust extension is no Exception, and must not end the other checks.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        told = f"the check itself failed: {type(error).__name__}: {one_line(error)}"
        found.append(problem(check, told, "if all is well otherwise, report this line as a fault of mae"))
    return found


def _refused(check: str, error: MaeError) -> Finding:
    fixes = {ConfigError: "correct the recipe or the flag", DataError: "correct the file at that place"}
    fix = next((text for kind, text in fixes.items() if isinstance(error, kind)), "see the message")
    is_temporary = isinstance(error, TemporaryError)
    return problem(check, one_line(error), "try again later" if is_temporary else fix, temporary=is_temporary)


def exit_code(findings: Sequence[Finding]) -> int:
    """0 without a problem, 2 where the user must do something, 75 where all problems are temporary."""
    problems = [one for one in findings if one.level == "problem"]
    if not problems:
        return 0
    return TemporaryError.exit_code if all(one.temporary for one in problems) else MaeError.exit_code
