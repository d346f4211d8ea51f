"""Texts of a random model held to schemas: whole rows are sound, masks change nothing else, what cannot be is told."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from mae_cli.engines.hf.constraints import Masks, check_schema
from mae_cli.engines.hf.engine import HfEngine
from mae_cli.errors import ConfigError
from mae_cli.records import Completion, Message, Request, Sampling
from mae_cli.records.text_schema import TextSchema

jsonschema = pytest.importorskip("jsonschema")
pytest.importorskip("llguidance")

OBJECT = {"type": "object", "additionalProperties": False}
SHORT = {"type": "string", "maxLength": 5}
# Each short enough for a random model to end; kinds as in the public JSON-Schema-Test-Suite.
SUPPORTED: list[dict[str, Any]] = [
    {"type": "integer", "minimum": 0, "maximum": 99},
    {"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 7},
    {"type": "integer", "minimum": -20, "maximum": -3},
    {"type": "number", "minimum": 0, "maximum": 1, "multipleOf": 0.5},
    {"type": "integer", "multipleOf": 7, "minimum": 0, "maximum": 700},
    {"type": "boolean"},
    {"type": "null"},
    {"type": ["boolean", "null"]},
    {"enum": ["a", "b"]},
    {"enum": [1, "1", None, True, [1], {"a": 1}]},
    {"const": 5},
    {"const": "a\"b\\c"},
    {"const": {"a": [1, 2, {"b": None}]}},
    {"const": "ünï → 日本"},
    {"const": ""},
    SHORT,
    {"type": "string", "minLength": 2, "maxLength": 3},
    {"type": "string", "pattern": "^[a-c]{2,4}$"},
    {"type": "string", "pattern": "^(yes|no)$"},
    {"type": "string", "format": "date"},
    {"type": "string", "format": "time"},
    {"type": "string", "format": "uuid"},
    {"type": "string", "format": "ipv4"},
    {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3},
    {"type": "array", "items": {"enum": ["x"]}, "maxItems": 0},
    {"type": "array", "prefixItems": [{"const": 1}, {"const": "b"}], "items": False, "minItems": 2},
    {"type": "array", "prefixItems": [{"type": "boolean"}], "items": {"type": "null"}, "maxItems": 3},
    {"type": "array", "items": {"type": "array", "items": {"const": 0}, "maxItems": 2}, "maxItems": 2},
    {**OBJECT},
    {**OBJECT, "properties": {"a": {"type": "boolean"}}},
    {**OBJECT, "properties": {"a": {"type": "boolean"}}, "required": ["a"]},
    {**OBJECT, "properties": {"a": {"const": 1}, "b": SHORT}, "required": ["a", "b"]},
    {**OBJECT, "properties": {"a": {"const": 1}, "b": {"const": 2}, "c": {"const": 3}}, "required": ["b"]},
    {**OBJECT, "properties": {"a b\"c": {"type": "null"}}, "required": ["a b\"c"]},
    {**OBJECT, "properties": {"o": {**OBJECT, "properties": {"p": {"type": "null"}}, "required": ["p"]}}},
    {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
    {"anyOf": [{"const": 1}, {"const": "one"}, {**OBJECT}]},
    {"oneOf": [{"type": "boolean"}, {"type": "null"}]},
    {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 9}]},
    {"allOf": [{"type": "string", "maxLength": 4}, {"minLength": 2}]},
    {"$defs": {"x": {"type": "boolean"}}, "$ref": "#/$defs/x"},
    {"$defs": {"x": {"enum": [1, 2]}}, "type": "array", "items": {"$ref": "#/$defs/x"}, "minItems": 1, "maxItems": 2},
    {"definitions": {"x": {"const": True}}, "$ref": "#/definitions/x"},
    {"$defs": {"t": {**OBJECT, "properties": {"n": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/t"}]}}}},
     "$ref": "#/$defs/t"},
    {"title": "T", "description": "words change nothing", "examples": [1], "default": 2, "const": 1},
    {"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "null"},
    {"$schema": "http://json-schema.org/draft-07/schema#", "type": "boolean"},
    {"type": "object", "patternProperties": {"^[ab]$": {"type": "null"}}, "additionalProperties": False},
    {"type": "object", "additionalProperties": {"type": "null"}, "maxProperties": 0},
    {"type": "string", "enum": ["日", "ü", "a b"]},
    {"type": "integer", "enum": [7, 12]},
    {"type": "array", "items": {"anyOf": [{"const": 0}, {"const": "z"}]}, "minItems": 2, "maxItems": 2},
]  # fmt: skip
REFUSED: list[dict[str, Any]] = [
    {"not": {"type": "string"}},
    {"type": "array", "uniqueItems": True},
    {"type": "array", "contains": {"type": "integer"}},
    {"if": {"type": "integer"}, "then": {"minimum": 1}},
    {"type": "object", "unevaluatedProperties": False},
    {"type": "object", "propertyNames": {"maxLength": 2}},
    {"type": "object", "dependentRequired": {"a": ["b"]}},
    {"oneOf": [{"type": "integer"}, {"type": "number"}]},
    {"$ref": "http://example.com/other.json"},
    {"$ref": "#/$defs/missing"},
    {"type": "strin"},
    {"type": "string", "format": "no-such-format"},
    {"type": "string", "pattern": "a(?=b)"},
    {"type": "string", "pattern": "("},
    {"type": "integer", "minimum": 5, "maximum": 4},
    {"type": 3},
]


@pytest.fixture(scope="module")
def engine(tiny_model_dir: Path) -> HfEngine:
    from mae_cli.recipe.sections import Recipe

    return HfEngine(Recipe(model=str(tiny_model_dir), device="cpu", batch_size=4))


def requests(count: int) -> list[Request]:
    return [Request(id=str(i), messages=(Message("user", f"question {i % 3}"),), seed=11 * i) for i in range(count)]


def answers(
    engine: HfEngine, schema: TextSchema, count: int = 4, *, tokens: int = 120, temperature: float = 1.0
) -> list[Completion]:
    sampling = Sampling(max_new_tokens=tokens, temperature=temperature, schema=schema.text())
    return engine.generate(requests(count), sampling)


@pytest.mark.parametrize("schema", SUPPORTED, ids=lambda schema: json.dumps(schema)[:60])
def test_every_whole_row_is_json_of_its_schema(engine: HfEngine, schema: dict[str, Any]) -> None:
    check_schema(TextSchema("json", schema))

    rows = answers(engine, TextSchema("json", schema))

    whole = [row for row in rows if row.status == "ok"]
    assert whole
    for row in whole:
        jsonschema.validate(json.loads(row.completion or ""), schema)
        assert row.completion_token_ids is not None
        assert row.completion_token_ids[-1] in engine.end_ids
    # What the limit cut is told as cut, and is the beginning of a sound text.
    assert {row.status for row in rows} <= {"ok", "truncated"}


@pytest.mark.parametrize("schema", REFUSED, ids=lambda schema: json.dumps(schema)[:60])
def test_a_schema_with_parts_that_cannot_be_held_is_refused_by_name(schema: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="engine hf cannot hold texts to it: ") as caught:
        check_schema(TextSchema("json", schema))

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "pattern", ["[0-9]{2}", "yes|no", "(?i)maybe", "A: [a-z]{1,3}\\.", "\\d+/\\d{2}", "[ü日]{2}", "a{3}b?", "^ab$"]
)
def test_every_whole_row_is_a_text_of_its_pattern(engine: HfEngine, pattern: str) -> None:
    rows = answers(engine, TextSchema("regex", pattern), tokens=40)

    whole = [row.raw or "" for row in rows if row.status == "ok"]
    assert whole
    assert all(re.fullmatch(pattern, text) for text in whole)


@pytest.mark.parametrize("pattern", ["(", "a(?=b)", "(a)\\1", "\\bword\\b", "(?<n>a)(?P=n)"])
def test_a_pattern_that_cannot_be_held_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigError, match="engine hf cannot hold texts to it"):
        check_schema(TextSchema("regex", pattern))


def test_a_row_is_one_of_its_choices_also_where_one_begins_another(engine: HfEngine) -> None:
    texts = ["a", "ab", 'say "x"', "日本", "back\\slash", "line\nend"]

    rows = answers(engine, TextSchema("choices", texts), 12, tokens=40)

    assert all(row.raw in texts and row.status == "ok" for row in rows)
    assert len({row.raw for row in rows}) > 1


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_rows_text_is_the_same_in_any_batch(engine: HfEngine, temperature: float) -> None:
    schema = TextSchema("json", {**OBJECT, "properties": {"a": SHORT, "b": {"type": "boolean"}}, "required": ["a"]})
    alone: list[str | None] = []
    for request in requests(6):
        sampling = Sampling(max_new_tokens=60, temperature=temperature, schema=schema.text())
        alone.append(engine.generate([request], sampling)[0].raw)

    together = [row.raw for row in answers(engine, schema, 6, tokens=60, temperature=temperature)]

    assert together == alone


def test_greedy_takes_the_likeliest_allowed_token(engine: HfEngine) -> None:
    schema = TextSchema("json", {"type": "integer", "minimum": 0, "maximum": 9999})
    [row] = answers(engine, schema, 1, temperature=0.0)
    ids = list(row.prompt_token_ids or [])
    masks = Masks(schema.text(), engine.tokenizer, engine.end_ids)
    masks.open(0)
    for token in row.completion_token_ids or []:
        with torch.no_grad():
            logits = engine.model(torch.tensor([ids])).logits[:, -1].float()
        allowed = masks.applied(logits, [0])
        assert int(allowed.argmax()) == token
        masks.accept([0], [token])
        ids.append(token)


def test_a_sampled_token_is_drawn_from_the_policy_among_the_allowed(engine: HfEngine) -> None:
    schema = TextSchema("choices", ["x", "y"])
    masks = Masks(schema.text(), engine.tokenizer, engine.end_ids)
    masks.open(0)
    logits = torch.randn(1, len(engine.tokenizer), generator=torch.Generator().manual_seed(1))
    names = {engine.tokenizer.encode(text, add_special_tokens=False)[0] for text in ("x", "y")}

    found = masks.applied(logits, [0])

    assert set(found[0].isfinite().nonzero().flatten().tolist()) == names
    for name in names:
        assert found[0, name] == logits[0, name]


def test_a_cut_text_is_the_beginning_of_a_sound_one(engine: HfEngine) -> None:
    schema = TextSchema("json", {"const": {"alpha": [1, 2, 3], "beta": "gamma"}})
    whole = '{"alpha":[1,2,3],"beta":"gamma"}'

    for tokens in random.Random(0).sample(range(1, 20), 6):
        [row] = answers(engine, schema, 1, tokens=tokens)
        assert row.status == "truncated"
        assert whole.replace(",", ", ").startswith(row.raw or "") or whole.startswith((row.raw or "").replace(" ", ""))


def test_rows_without_a_schema_are_written_as_before() -> None:
    assert "schema" not in msgspec.json.decode(msgspec.json.encode(Sampling(max_new_tokens=3)))
