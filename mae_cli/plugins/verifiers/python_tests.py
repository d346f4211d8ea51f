"""Run a program against the unit tests its problem brings, in the sandbox.

Place in the flow: `judge` and `eval` call it through the registry; the answer is the program's text. Contract: a
program that fails a test, raises or does not parse is wrong (0.0); one that runs out of time or memory, or needs what
the sandbox lacks, is unknown, and so is every program where the tests are broken themselves. A program cannot pass by
returning objects that equal everything, by renaming what the tests use, or by leaving early.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from mae_cli.answers import programs
from mae_cli.checking.code import sandbox, unit_tests
from mae_cli.checking.code.harness import key_for, prelude
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
        tests = unit_tests.unit_tests_of(problem)
        if tests is None:
            return _unknown("unsupported", "the problem brings no unit tests that can be read")
        if answer is None or not answer.strip():
            return _verdict(0.0, "no program found")
        program = programs.whole_program(problem, answer)
        key = key_for(program, tests.definitions, tests.source)
        limits = sandbox.Limits(seconds=self.timeout_seconds, memory_mib=self.memory_mib)
        parts = _parts(key, tests, programs.head_of(problem) or "", program)
        run = sandbox.run(*parts.values(), limits=limits)
        if run.status in UNKNOWN:
            return _unknown(UNKNOWN[run.status], run.reason)
        if key in run.message:
            return _unknown("unsupported", "the program returns objects of its own, or renames what the tests use")
        if run.status == "raised":
            return _failed(run, list(parts)[len(run.values)], tests)
        if unit_tests.reaches(program, tests):
            return _unknown("unsupported", "the program reads the tests' values, or renames what they use")
        return _verdict(1.0, "all tests passed")


def _verdict(score: float, reason: str) -> Verdict:
    return Verdict("python_tests", "verifier", "answer", score=score, reason=reason)


def _unknown(status: VerdictStatus, reason: str) -> Verdict:
    return Verdict("python_tests", "verifier", "answer", status=status, reason=reason)


def _failed(run: sandbox.ProgramRun, part: str, tests: unit_tests.UnitTests) -> Verdict:
    """The verdict where a part of the run raised: the program's fault, or that of the problem."""
    missing = sandbox.NAMED.search(run.message) if run.error == "NameError" else None
    if part == "names" and missing and missing[1] not in tests.asked:
        return _unknown("unsupported", f"the tests use {missing[1]}, which nothing defines")
    if part in ("head", "definitions"):
        return _unknown("unsupported", f"the problem's own code fails: {run.reason}")
    return _verdict(0.0, "a test failed" if part == "tests" and run.error == "AssertionError" else run.reason)


def _parts(key: str, tests: unit_tests.UnitTests, head: str, program: str) -> dict[str, str]:
    """Sources to run one after the other; the tests use guarded functions, and the helpers and builtins as given."""
    kept = sorted((unit_tests.functions_in(head) & set(tests.taken)) - set(tests.asked))
    renamed = f"if [name for name in {key}_locals() if name in {sorted(tests.builtins)!r}]:\n    {key}_refuse()"
    names = [
        renamed,
        *(f"{name} = {key}_kept_{name}" for name in kept),
        "".join(f"{name}, " for name in tests.taken),
        *(f"{name} = {key}_guard({name})" for name in tests.called),
        *(f"{name} = {key}_taken({name})" for name in tests.used),
    ]
    return {
        "prelude": prelude(key, for_tests=True),
        "head": "\n".join([head, *(f"{key}_kept_{name} = {name}" for name in kept)]),
        "program": program,
        "names": "\n".join(names),
        "definitions": tests.definitions,
        "tests": f"check({key}_guard({tests.candidate}))" if tests.candidate else tests.source,
        "end": f"{renamed}\nif {key}_refused:\n    {key}_refuse()",
    }
