from __future__ import annotations

from typing import Any

import pytest

from mae_cli.plugins.verifiers.json_schema import JsonSchema
from tests.support import PATIENT_SECONDS, a_problem

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ('{"name": "Ana", "age": 3}', (1.0, "ok")),
        ('```json\n{"name": "Ana"}\n```', (1.0, "ok")),
        ('{"name": "Ana", "age": -1}', (0.0, "ok")),
        ('{"age": 3}', (0.0, "ok")),
        ('{"name": "Ana", "more": 1}', (0.0, "ok")),
        ("{name: Ana}", (0.0, "ok")),
        ('{"name": NaN}', (0.0, "ok")),
        ("[" * 50_000, (0.0, "ok")),
        (None, (0.0, "ok")),
        ('"' + "a" * 100_000 + '"', (None, "unsupported")),
    ],
)
def test_an_answer_fits_the_schema_or_not(answer: str | None, expected: tuple[float | None, str]) -> None:
    verdict = JsonSchema(schema=SCHEMA, timeout_seconds=PATIENT_SECONDS).check(a_problem(), answer)

    assert (verdict.score, verdict.status) == expected, verdict.reason


def test_the_reason_says_where() -> None:
    verdict = JsonSchema(timeout_seconds=PATIENT_SECONDS).check(a_problem(schema=SCHEMA), '{"name": 3}')

    assert verdict.reason == "$.name: 3 is not of type 'string'"


@pytest.mark.parametrize(
    ("schema", "status"),
    [
        (None, "unsupported"),
        ("text", "unsupported"),
        ({"type": "nonsense"}, "error"),
        ({"$ref": "http://127.0.0.1:9/schema.json"}, "error"),
        ({"$ref": "file:///etc/passwd"}, "error"),
    ],
)
def test_an_unsound_schema_says_nothing_about_the_answer(schema: Any, status: str) -> None:
    verdict = JsonSchema(timeout_seconds=PATIENT_SECONDS).check(a_problem(schema=schema), "1")

    assert (verdict.score, verdict.status) == (None, status)


def test_a_pattern_inside_a_schema_that_takes_for_ever_is_a_timeout() -> None:
    schema = {"pattern": "(a+)+b$"}
    assert JsonSchema(schema=schema, timeout_seconds=PATIENT_SECONDS).check(a_problem(), '"aab"').score == 1.0

    assert JsonSchema(schema=schema, timeout_seconds=0.5).check(a_problem(), '"' + "a" * 40 + '"').status == "timeout"
