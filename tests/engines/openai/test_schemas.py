"""The fields that hold a server's text to a schema."""

from __future__ import annotations

import json

import pytest

from mae_cli.engines.openai.dialect import Dialect
from mae_cli.engines.openai.refusal import read_refusal
from mae_cli.errors import EngineError
from mae_cli.records import Message, Request, Sampling
from mae_cli.records.text_schema import TextSchema

REQUEST = Request("r", (Message("user", "Hi"),), seed=3)
INTEGER = TextSchema("json", {"type": "integer"})


def body_of(schema: TextSchema) -> dict[str, object]:
    dialect = Dialect({}, lambda _: None)
    found: dict[str, object] = json.loads(
        dialect.body("m", REQUEST, Sampling(16, schema=schema.text()), max_new_tokens=16)
    )
    return found


def test_a_json_schema_goes_into_the_response_format() -> None:
    assert body_of(INTEGER)["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": {"type": "integer"}, "strict": True},
    }


def test_a_pattern_and_choices_go_into_each_servers_own_field() -> None:
    assert body_of(TextSchema("regex", "[0-9]+"))["structured_outputs"] == {"regex": "[0-9]+"}
    body = body_of(TextSchema("choices", ["a.", 'b"']))

    assert body["structured_outputs"] == {"choice": ["a.", 'b"']}
    assert body["grammar"] == 'root ::= "a." | "b\\""'
    assert body["regex"] == 'a\\.|b"'


def test_free_text_has_none_of_these_fields() -> None:
    body = json.loads(Dialect({}, lambda _: None).body("m", REQUEST, Sampling(16), max_new_tokens=16))

    assert not {"response_format", "structured_outputs", "grammar", "regex"} & body.keys()


@pytest.mark.parametrize(
    "message",
    [
        "response_format json_schema is not supported by this model",
        "Invalid schema for response_format 'answer': 'additionalProperties' is required",
        "JSON schema conversion failed: Unrecognized schema: {}",
        "extra_forbidden: structured_outputs",
    ],
)
def test_a_server_that_refuses_the_schema_is_an_error_and_not_asked_without_it(message: str) -> None:
    refusal = read_refusal(400, json.dumps({"error": {"message": message}}).encode(), None)

    with pytest.raises(EngineError, match="the server refuses the schema"):
        Dialect({}, lambda _: None).learn(refusal, Sampling(16, schema=INTEGER.text()), number=1, spoken=0)
