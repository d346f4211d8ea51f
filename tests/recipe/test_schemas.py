"""The key `schema`: what is meant is read, what is none is refused with its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec import UNSET

from mae_cli.errors import ConfigError
from mae_cli.recipe.load import load_recipe
from mae_cli.recipe.sections import Recipe
from mae_cli.records.text_schema import TextSchema, text_schema


def schema_of(recipe: Recipe) -> TextSchema:
    told = recipe.solve.sampling().schema
    assert isinstance(told, str)
    return text_schema(told)


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("solve: {schema: {type: object}}", "json", {"type": "object"}),
        ("solve: {schema: {enum: [yes, no, on, 1:30, true, 1e-2, 2024-01-01]}}", "json",
         {"enum": ["yes", "no", "on", "1:30", True, 0.01, "2024-01-01"]}),
        ("solve: {schema: {properties: {no: {const: off}}}}", "json", {"properties": {"no": {"const": "off"}}}),
        ("solve: {schema: {regex: '[0-9]+'}}", "regex", "[0-9]+"),
        ("solve: {schema: {choices: [a, b]}}", "choices", ["a", "b"]),
        ("solve: {schema: [yes, no]}", "choices", ["yes", "no"]),
        ("solve: {schema: [1, 2]}", "choices", ["1", "2"]),
        ("solve: {schema: s.json}", "json", {"type": "integer"}),
    ],
)  # fmt: skip
def test_a_schema_is_what_its_writer_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, kind: str, value: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.json").write_text(json.dumps({"type": "integer"}))
    (tmp_path / "r.yaml").write_text(text)

    assert schema_of(load_recipe(tmp_path / "r.yaml")) == TextSchema(kind, value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("solve: {schema: none.json}", "r.yaml:1: none.json: no such file"),
        ("solve: {schema: bad.json}", "solve.schema: bad.json: not JSON"),
        ("solve: {schema: list.json}", "found list"),
        ("solve: {schema: {regex: '('}}", "r.yaml:1: solve.schema.regex: (: no regular expression"),
        ("solve: {schema: {regex: 5}}", "solve.schema.regex: expected a pattern"),
        ("solve: {schema: []}", "at least one"),
        ("solve: {schema: [a, a]}", "stands twice"),
        ("solve: {schema: ['']}", "none empty"),
        ("solve: {schema: {}}", "empty"),
        ("solve: {schema: {tpye: object}}", "found a mapping with tpye"),
        ("propose: {schema: {regx: a}}", "propose.schema: expected a JSON schema"),
        ("judge: {schema: {type: object}}", 'unknown key "judge.schema"'),
        ("eval: {schema: [a]}", 'unknown key "eval.schema"'),
    ],
)
def test_what_is_no_schema_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "r.yaml").write_text(text)

    with pytest.raises(ConfigError) as caught:
        load_recipe(tmp_path / "r.yaml")
    assert message in str(caught.value)


def test_without_a_schema_the_sampling_is_as_before() -> None:
    assert Recipe().solve.sampling().schema is UNSET
    assert Recipe().propose.sampling().schema is UNSET
