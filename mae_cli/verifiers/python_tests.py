"""Run a program against the unit tests its problem brings, in the sandbox.

Place in the flow: `judge` and `eval` call it through the registry; the answer is the program's text. Contract: a
program that fails a test, raises or does not parse is wrong (0.0); one that runs out of time or memory, or needs what
the sandbox lacks, is unknown. A program cannot pass by returning objects that equal everything, by renaming what the
tests use, or by leaving early.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from mae_cli.checking import programs, sandbox
from mae_cli.checking.harness import key_for, prelude
from mae_cli.records import Problem, Verdict, VerdictStatus

# What a run that says nothing about the program's correctness is called.
UNKNOWN: dict[str, VerdictStatus] = {
    "timeout": "timeout",
    "memory": "unsupported",
    "output": "unsupported",
    "unsupported": "unsupported",
    "crashed": "error",
}


class PythonTests(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Unit tests of a Python program (`meta.tests` and `meta.entry_point`; HumanEval and MBPP fields too), all passed.

    Source: functional correctness, HumanEval, arXiv:2107.03374; MBPP, arXiv:2108.07732.
    """

    timeout_seconds: float = 5.0
    memory_mib: int = 256
    needs_reference: ClassVar[bool] = False

    def __post_init__(self) -> None:
        sandbox.require_monty("verifier python_tests")

    def check(self, problem: Problem, answer: str | None) -> Verdict:
        """The verdict on a program; unsupported where the problem has no tests."""
        tests = programs.unit_tests_of(problem)
        if tests is None:
            return _unknown("unsupported", "the problem brings no unit tests that can be read")
        if answer is None or not answer.strip():
            return Verdict("python_tests", "verifier", "answer", score=0.0, reason="no program found")
        program = programs.whole_program(problem, answer)
        key = key_for(program, tests.source)
        limits = sandbox.Limits(seconds=self.timeout_seconds, memory_mib=self.memory_mib)
        run = sandbox.run(prelude(key, language_types=True), program, *_after(key, tests), limits=limits)
        if run.status in UNKNOWN:
            return _unknown(UNKNOWN[run.status], run.reason)
        if key in run.message:
            return _unknown("unsupported", "the program returns objects of its own, or renames what the tests use")
        if run.status == "raised":
            where = "a test failed" if run.error == "AssertionError" and len(run.values) > 1 else run.reason
            return Verdict("python_tests", "verifier", "answer", score=0.0, reason=where)
        return Verdict("python_tests", "verifier", "answer", score=1.0, reason="all tests passed")


def _unknown(status: VerdictStatus, reason: str) -> Verdict:
    return Verdict("python_tests", "verifier", "answer", status=status, reason=reason)


def _after(key: str, tests: programs.UnitTests) -> list[str]:
    """Refuse a program that renamed builtins the tests use, then run the tests on its guarded functions."""
    used = sorted(programs.builtins_in(tests.source))
    rebound = f"""
{key}_found = [name for name in {key}_locals() if name in {used!r}]
if {key}_found:
    raise {key}_error('{key}')
"""
    if tests.takes_candidate:
        return [rebound, tests.source, f"check({key}_guard({tests.entry_points[0]}))"]
    guards = [
        f"if {key}_type({name}) is {key}_type({key}_guard):\n    {name} = {key}_guard({name})"
        for name in tests.entry_points
    ]
    return [rebound, "\n".join(guards), tests.source]
