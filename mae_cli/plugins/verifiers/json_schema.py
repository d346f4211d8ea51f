"""Check an answer against a JSON Schema, in a worker process that is killed at the limit."""

from __future__ import annotations

import importlib.util
import re
from typing import Any, ClassVar

import msgspec

from mae_cli.checking import killable as workers
from mae_cli.errors import MissingDependencyError
from mae_cli.records import Problem, Verdict, VerdictStatus

TARGET = "mae_cli.checking.patterns:schema_fault"
MAX_LENGTH = 100_000
_FENCE = re.compile(r"```(?:json)?\s*\n(.*?)\n\s*```", re.DOTALL)


class JsonSchema(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The answer is JSON that fits `schema`, or the problem's `meta.schema`; a code fence around it is allowed.

    References out of the schema are never fetched. Source: JSON Schema, draft 2020-12 unless the schema names another.
    """

    schema: dict[str, Any] | None = None
    """For every problem; null takes each problem's own."""
    timeout_seconds: float = 2.0
    needs_reference: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if importlib.util.find_spec("jsonschema") is None:
            raise MissingDependencyError("verifier json_schema needs jsonschema: pip install 'mae-cli[verify]'")

    def check(self, problem: Problem, answer: str | None) -> Verdict:
        """The verdict on an answer; unknown where there is no sound schema or checking takes too long."""
        schema = self.schema if self.schema is not None else problem.meta.get("schema")
        if not isinstance(schema, dict | bool):
            return _null("unsupported", "the problem brings no schema")
        if answer is None or not answer.strip():
            return Verdict("json_schema", "verifier", "answer", score=0.0, reason="no answer found")
        if len(answer) > MAX_LENGTH:
            return _null("unsupported", f"longer than {MAX_LENGTH} characters")
        fenced = _FENCE.fullmatch(answer.strip())
        item = (schema, fenced[1] if fenced else answer.strip())
        (outcome,) = workers.shared(TARGET).call([item], self.timeout_seconds)
        if outcome.status == "timeout":
            return _null("timeout", outcome.message)
        if outcome.status != "ok":
            return _null("error", outcome.message or outcome.status)
        score, reason = float(outcome.value is None), outcome.value or "fits the schema"
        return Verdict("json_schema", "verifier", "answer", score=score, reason=reason)


def _null(status: VerdictStatus, reason: str) -> Verdict:
    return Verdict("json_schema", "verifier", "answer", status=status, reason=reason)
