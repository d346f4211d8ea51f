"""Call a program's function with given inputs and compare what it returns, in the sandbox.

Place in the flow: `judge` and `eval` call it through the registry; the answer is the program's text. Contract: as
`python_tests`; the comparison happens outside the program, on plain values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec

from mae_cli.answers import programs
from mae_cli.checking.code import runtime, sandbox
from mae_cli.plugins.verifiers.python_tests import unknown, verdict_of
from mae_cli.records import Problem, Verdict


class Call(msgspec.Struct, frozen=True):
    """One call of the entry point and the value it should return."""

    args: list[Any]
    output: Any
    kwargs: dict[str, Any] = {}


class PythonCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Input and output pairs: `meta.entry_point`, and `meta.calls` or `meta.inputs` with `meta.outputs`.

    `calls` is a list of `{args, kwargs, output}`; `inputs` a list of argument lists. Values are JSON, so a tuple may
    stand for a list. All calls must match. Source: ours; the usual check of input-output sets (APPS, arXiv:2105.09938).
    """

    timeout_seconds: float = 5.0
    memory_mib: int = 512
    tolerance: float = 1e-9
    """Of floats: |a - b| <= tolerance * max(1, |a|, |b|)."""
    needs_reference: ClassVar[bool] = False

    def __post_init__(self) -> None:
        runtime.require("verifier python_call")

    def check(self, problem: Problem, answer: str | None) -> Verdict:
        """The verdict on a program; unsupported where the problem has no calls."""
        return self.check_many([problem], [answer], [problem.id])[0]

    def check_many(
        self, problems: Sequence[Problem], answers: Sequence[str | None], groups: Sequence[str]
    ) -> list[Verdict]:
        """One verdict per program; they run on all CPUs."""
        given = [self._order(problem, answer) for problem, answer in zip(problems, answers, strict=True)]
        runs = iter(sandbox.run_all([order for order in given if isinstance(order, sandbox.Order)]))
        return [item if isinstance(item, Verdict) else verdict_of("python_call", next(runs)) for item in given]

    def _order(self, problem: Problem, answer: str | None) -> sandbox.Order | Verdict:
        entry_point = programs.entry_point_of(problem)
        calls = calls_of(problem)
        if entry_point is None or not calls:
            reason = "the problem brings no entry_point with calls, or inputs and outputs"
            return unknown("python_call", "unsupported", reason)
        if answer is None or not answer.strip():
            return Verdict("python_call", "verifier", "answer", score=0.0, reason="no program found")
        return sandbox.calls_order(
            programs.whole_program(problem, answer),
            entry_point,
            [{"args": call.args, "kwargs": call.kwargs} for call in calls],
            outputs=[call.output for call in calls],
            tolerance=self.tolerance,
            limits=sandbox.Limits(seconds=self.timeout_seconds, memory_mib=self.memory_mib),
        )


def calls_of(problem: Problem) -> list[Call]:
    """The calls a problem brings; empty where it has none that can be read."""
    meta = problem.meta
    raw = meta.get("calls")
    if raw is None and isinstance(meta.get("inputs"), list) and isinstance(meta.get("outputs"), list):
        if len(meta["inputs"]) != len(meta["outputs"]):
            return []
        pairs = zip(meta["inputs"], meta["outputs"], strict=True)
        raw = [{"args": args if isinstance(args, list) else [args], "output": output} for args, output in pairs]
    try:
        return msgspec.convert(raw, list[Call])
    except msgspec.ValidationError:
        return []
