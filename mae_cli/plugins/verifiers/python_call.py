"""Call a program's function with given inputs and compare what it returns, in the sandbox.

Place in the flow: `judge` and `eval` call it through the registry; the answer is the program's text. Contract: as
`python_tests`; the comparison happens outside the program, on plain values.
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from mae_cli.answers import programs
from mae_cli.checking.code import plain_values, sandbox
from mae_cli.checking.code.harness import key_for, prelude
from mae_cli.plugins.verifiers.python_tests import UNKNOWN
from mae_cli.records import Problem, Verdict, VerdictStatus


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
    memory_mib: int = 256
    tolerance: float = 1e-9
    """Of floats: |a - b| <= tolerance * max(1, |a|, |b|)."""
    needs_reference: ClassVar[bool] = False

    def __post_init__(self) -> None:
        sandbox.require_monty("verifier python_call")

    def check(self, problem: Problem, answer: str | None) -> Verdict:
        """The verdict on a program; unsupported where the problem has no calls."""
        entry_point = programs.entry_point_of(problem)
        calls = calls_of(problem)
        if entry_point is None or not calls:
            return _unknown("unsupported", "the problem brings no entry_point with calls, or inputs and outputs")
        if answer is None or not answer.strip():
            return Verdict("python_call", "verifier", "answer", score=0.0, reason="no program found")
        program = programs.whole_program(problem, answer)
        limits = sandbox.Limits(seconds=self.timeout_seconds, memory_mib=self.memory_mib)
        key = key_for(program, repr(calls))
        inputs = {f"{key}_calls": tuple((call.args, call.kwargs) for call in calls)}
        called = f"[{key}_guard({entry_point})(*a, **k) for a, k in {key}_calls]"
        run = sandbox.run(prelude(key), program, called, limits=limits, inputs=inputs)
        if run.status in UNKNOWN:
            return _unknown(UNKNOWN[run.status], run.reason)
        if key in run.message:
            return _unknown("unsupported", "the program returns something that is no plain value")
        if run.status == "raised":
            return Verdict("python_call", "verifier", "answer", score=0.0, reason=run.reason)
        found = run.values[-1]
        if not isinstance(found, list) or len(found) != len(calls):
            return _unknown("error", "the run gave another number of values than there are calls")
        return self._compare(calls, found)

    def _compare(self, calls: list[Call], found: list[Any]) -> Verdict:
        right = [
            plain_values.values_equal(value, call.output, self.tolerance, lists_as_tuples=True)
            for call, value in zip(calls, found, strict=True)
        ]
        reason = f"{sum(right)} of {len(right)} calls right"
        return Verdict("python_call", "verifier", "answer", score=float(all(right)), reason=reason)


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


def _unknown(status: VerdictStatus, reason: str) -> Verdict:
    return Verdict("python_call", "verifier", "answer", status=status, reason=reason)
