"""YAML text as a tree of keys and values: every key once, nothing with two readings, each error with its line.

Place in the flow: `load.py` reads recipe files and the values of `--set` with it. Contract: keys are texts; scalars get
the type that the recipe declares for them (`yaml_values.py`); anchors and merges are expanded, explicit keys win. Left
out: which keys there are (`keys.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec

from mae_cli.errors import ConfigError
from mae_cli.recipe.fields import section_fields
from mae_cli.recipe.sections import Recipe
from mae_cli.recipe.yaml_values import AmbiguousError, parts_of, value_of
from mae_cli.records.encodings import marked_encoding

MOST_VALUES, DEEPEST = 100_000, 60
"""Bounds on what aliases may blow up to."""
_CORE = "tag:yaml.org,2002:"
_QUOTES = (("“", "”"), ("„", "“"), ("„", "”"), ("‘", "’"), ("«", "»"), ("”", "”"))


def read_yaml(path: Path) -> tuple[Any, dict[str, int]]:
    """(tree, lines of its dotted keys) of a recipe file.

    Raises:
        ConfigError: unreadable, not YAML, or with a key twice or a value of two readings; names file and line.
    """
    try:
        data = path.read_bytes()
        text = data.decode(marked_encoding(data) or "utf-8").removeprefix("\ufeff")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}:{line}: not YAML: byte 0x{data[error.start]:02x} is not UTF-8") from error
    return parse_yaml(text, Recipe, str(path), has_lines=True)


def parse_yaml(text: str, hint: Any, where: str, *, has_lines: bool, key: str = "") -> tuple[Any, dict[str, int]]:
    """(tree, lines of its dotted keys) of a text.

    Args:
        text: one YAML document.
        hint: the type it should have; its scalars are read by it.
        where: the place named in errors.
        has_lines: whether the line belongs to the place.
        key: dotted path of the value, for errors.

    Raises:
        ConfigError: see `read_yaml`.
        yaml.YAMLError: not YAML, where the text is no file.
    """
    import yaml

    builder = _Builder(where, has_lines)
    try:
        node = yaml.compose(text, yaml.BaseLoader)
        return (None if node is None else builder.build(node, hint, key, 0)), builder.lines
    except RecursionError as error:
        raise ConfigError(f"{where}: lists or mappings are nested too deeply") from error
    except yaml.YAMLError as error:
        if not has_lines:
            raise
        mark = getattr(error, "problem_mark", None)
        place = f"{where}:{mark.line + 1}" if mark else where
        what = getattr(error, "problem", None) or " ".join(str(error).split())
        if what.startswith("but found another document"):
            raise ConfigError(f"{place}: a second document (---) begins; one recipe stands in a file") from error
        raise ConfigError(f"{place}: not YAML: {what}") from error


def hint_of(dotted: str, tree_hint: Any = Recipe) -> Any:
    """The type of a dotted recipe key; Any where it is not declared."""
    hint = tree_hint
    for name in dotted.split("."):
        hint = _hint_below(hint, name)
    return hint


def _hint_below(hint: Any, name: str) -> Any:
    """The type of what stands under a key in a value of this type; object is JSON all the way down."""
    if hint is object:
        return object
    for kind in parts_of(hint):
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            return next((inner for field, inner, _, _ in section_fields(kind) if field == name), Any)
        if get_origin(kind) is dict:
            return get_args(kind)[1]
    return Any


def _element(hint: Any) -> Any:
    if hint is object:
        return object
    return next((get_args(kind)[0] for kind in parts_of(hint) if get_origin(kind) is list), Any)


class _Step(msgspec.Struct):
    """Stands for a step of the pipeline where its keys are looked up."""


_TAGS = {"int": int, "float": float, "bool": bool, "null": Any}


class _Builder:
    """Makes values of nodes and remembers where keys stand."""

    def __init__(self, where: str, has_lines: bool) -> None:
        self.lines: dict[str, int] = {}
        self._where, self._has_lines, self._count = where, has_lines, 0

    def _error(self, node: Any, text: str) -> ConfigError:
        place = f"{self._where}:{node.start_mark.line + 1}" if self._has_lines else self._where
        return ConfigError(f"{place}: {text}")

    def build(self, node: Any, hint: Any, key: str, depth: int) -> Any:
        self._count += 1
        if self._count > MOST_VALUES:
            raise self._error(node, "too many values; aliases blow them up")
        if depth > DEEPEST:
            raise self._error(node, "lists or mappings are nested too deeply")
        if node.id != "scalar" and node.tag not in (f"{_CORE}map", f"{_CORE}seq"):
            raise self._error(node, f"not YAML: the tag {node.tag} has no meaning here")
        if node.id == "mapping":
            return self._mapping(node, hint, key, depth)
        if node.id == "sequence":
            inner = _element(hint)
            return [self.build(one, inner, f"{key}[{place}]", depth + 1) for place, one in enumerate(node.value, 1)]
        return self._scalar(node, hint, key)

    def _mapping(self, node: Any, hint: Any, key: str, depth: int) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        seen: dict[str, int] = {}
        for name_node, value_node in node.value:
            if name_node.id != "scalar":
                raise self._error(name_node, "a key is a text, not a list or a mapping")
            name = name_node.value
            dotted = f"{key}.{name}" if key else name
            line = name_node.start_mark.line + 1
            if name in seen:
                raise self._error(name_node, f'"{dotted}" stands on line {seen[name]} too; a key may stand once')
            seen[name] = line
            if name == "<<" and name_node.style is None:
                merged = self._merged(value_node, hint, key, depth)
                continue
            self.lines.setdefault(dotted, line)
            inner = _hint_below(hint, name)
            if name == "schema" and value_node.id == "mapping":
                inner = object  # JSON: its words are true and false only
            if hint is _Step:
                inner = _hint_below(Recipe, name)
            elif dotted == "pipeline":
                inner = list[_Step]
            own[name] = self.build(value_node, inner, dotted, depth + 1)
        return {**merged, **own}

    def _merged(self, node: Any, hint: Any, key: str, depth: int) -> dict[str, Any]:
        sources = node.value if node.id == "sequence" else [node]
        found: dict[str, Any] = {}
        for source in sources:
            if source.id != "mapping":
                raise self._error(node, "<< merges mappings; found another value")
            # Of several, the first has the last word.
            found = {**self._mapping(source, hint, key, depth + 1), **found}
        return found

    def _scalar(self, node: Any, hint: Any, key: str) -> Any:
        tag = node.tag.removeprefix(_CORE)
        if node.tag == "tag:yaml.org,2002:str":
            text: str = node.value
            if node.style is not None:
                return text
            if len(text) > 2 and any(text[0] == first and text[-1] == last for first, last in _QUOTES):
                raise self._error(node, f'{key}: {text} has typographic quotes; write plain ones: "{text[1:-1]}"')
        elif tag not in _TAGS:
            raise self._error(node, f"not YAML: the tag {node.tag} has no meaning here")
        else:
            hint = _TAGS[tag]
        try:
            value = value_of(node.value, hint)
        except AmbiguousError as error:
            raise self._error(node, f"{key}: {error}") from error
        return float(value) if hint is float and isinstance(value, int) else value


def dump_yaml(tree: Mapping[str, Any]) -> bytes:
    """YAML text that is read back as it was, also by readers of YAML 1.1: words like numbers are quoted."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Quotes what another reader could take for a number or a truth value."""

    def represent(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
        style = '"' if _is_like_a_value(text) else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Dumper.add_representer(str, represent)
    return yaml.dump(tree, Dumper=Dumper, sort_keys=False, allow_unicode=True).encode()


def _is_like_a_value(text: str) -> bool:
    try:
        return not isinstance(value_of(text), str)
    except AmbiguousError:
        return True
