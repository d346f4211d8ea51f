"""Run a program against the tests its problem brings, in the sandbox.

Place in the flow: `judge` and `eval` call it through the registry; the answer is the program's text. Contract: a
program that fails a test, raises or does not parse is wrong (0.0); one that runs out of time or memory, or needs what
the sandbox lacks, is unknown, and so is every program where the tests are broken or check nothing. The tests run in
another interpreter than the program, so it can neither read nor end them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import msgspec

from mae_cli.checking.code import runtime, sandbox, unit_tests
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
    """Tests of a Python program, all passed: asserts, `check(candidate)`, test functions and classes, doctests, cases.

    `meta.tests` and `meta.entry_point`, or the fields of HumanEval, MBPP, APPS, TACO and LiveCodeBench; see
    `mae_cli.checking.code.unit_tests`.

    Source: functional correctness, HumanEval, arXiv:2107.03374; MBPP, arXiv:2108.07732; APPS, arXiv:2105.09938.
    """

    timeout_seconds: float = 5.0
    """Of all unit tests together, or of each case of a script."""
    memory_mib: int = 512
    needs_reference: ClassVar[bool] = False

    def __post_init__(self) -> None:
        runtime.require("verifier python_tests")

    def check(self, problem: Problem, answer: str | None) -> Verdict:
        """The verdict on a program; unsupported where the problem has no tests."""
        return self.check_many([problem], [answer], [problem.id])[0]

    def check_many(
        self, problems: Sequence[Problem], answers: Sequence[str | None], groups: Sequence[str]
    ) -> list[Verdict]:
        """One verdict per program; they run on all CPUs, and equal programs for equal problems once."""
        limits = sandbox.Limits(seconds=self.timeout_seconds, memory_mib=self.memory_mib)
        verdicts: dict[tuple[str, str | None], Verdict] = {}
        orders: dict[tuple[str, str | None], sandbox.Order] = {}
        for key, problem in zip(zip(groups, answers, strict=True), problems, strict=True):
            if key in verdicts or key in orders:
                continue
            if not unit_tests.has_tests(problem) or key[1] is None or not key[1].strip():
                verdicts[key] = _without_a_run(problem, key[1])
                continue
            order = unit_tests.tests_order(problem, key[1], limits)
            if isinstance(order, str):
                verdicts[key] = unknown("python_tests", "unsupported", order)
            else:
                orders[key] = order
        runs = sandbox.run_all(list(orders.values()))
        verdicts |= {key: verdict_of("python_tests", run) for key, run in zip(orders, runs, strict=True)}
        return [msgspec.structs.replace(verdicts[key]) for key in zip(groups, answers, strict=True)]


def _without_a_run(problem: Problem, answer: str | None) -> Verdict:
    cases = unit_tests.cases_of(problem)
    if not unit_tests.has_tests(problem):
        reason = cases if isinstance(cases, str) else "the problem brings no tests that can be read"
        return unknown("python_tests", "unsupported", reason)
    return Verdict("python_tests", "verifier", "answer", score=0.0, reason="no program found")


def verdict_of(name: str, run: sandbox.ProgramRun) -> Verdict:
    """The verdict that the result of an order stands for."""
    if run.status in UNKNOWN:
        return unknown(name, UNKNOWN[run.status], run.reason)
    return Verdict(name, "verifier", "answer", score=float(run.status == "passed"), reason=run.reason)


def unknown(name: str, status: VerdictStatus, reason: str) -> Verdict:
    """A verdict without a score."""
    return Verdict(name, "verifier", "answer", status=status, reason=reason)
