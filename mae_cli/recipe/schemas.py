"""The recipe key `schema` of `propose` and `solve`: a JSON schema or its file, `{regex: ...}`, or a list of choices.

Contract: what is no schema is refused in one line before anything is generated; whether an engine can hold texts to it
is the engine's to say.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

from mae_cli.errors import ConfigError
from mae_cli.recipe.files import find_file
from mae_cli.records.text_schema import TextSchema

EXPECTED = "expected a JSON schema, the file of one, {regex: PATTERN}, or a list of texts to choose from"


def read_schema(told: str | dict[str, Any] | list[str], key: str) -> TextSchema:
    """The schema that a recipe names.

    Raises:
        ConfigError: none, or a file that is not JSON, or a pattern that is no regular expression.
    """
    if isinstance(told, list):
        return _choices(told, key)
    if isinstance(told, str):
        path = find_file(told)
        told = _file(path, key)
        key = f"{key}: {path}"
    if set(told) == {"regex"}:
        return _regex(told["regex"], key)
    if set(told) == {"choices"} and isinstance(told["choices"], list):
        return _choices(told["choices"], key)
    _check_json_schema(told, key)
    return TextSchema("json", told)


def _choices(texts: list[Any], key: str) -> TextSchema:
    if not texts or not all(isinstance(text, str) and text for text in texts):
        raise ConfigError(f"{key}: choices are texts, at least one and none empty")
    if len(set(texts)) < len(texts):
        raise ConfigError(f"{key}: a choice stands twice")
    return TextSchema("choices", texts)


def _regex(pattern: Any, key: str) -> TextSchema:
    if not isinstance(pattern, str) or not pattern:
        raise ConfigError(f"{key}.regex: expected a pattern, found {pattern!r}")
    try:
        re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"{key}.regex: {pattern}: no regular expression: {error}") from error
    return TextSchema("regex", pattern)


def _file(path: Path, key: str) -> dict[str, Any]:
    try:
        tree = msgspec.json.decode(path.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(f"{key}: {path}: not JSON: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{key}: {path}: {EXPECTED}; found {type(tree).__name__}")
    return tree


def _check_json_schema(tree: dict[str, Any], key: str) -> None:
    if not tree:
        raise ConfigError(f"{key}: empty; {EXPECTED}")
    words = {"type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref", "properties", "items", "prefixItems", "format"}
    words |= {"pattern", "minimum", "maximum", "minLength", "maxLength", "required", "additionalProperties", "not"}
    if not words & set(tree):
        raise ConfigError(f"{key}: {EXPECTED}; found a mapping with {', '.join(sorted(tree)[:4])}")
