"""Checking a tree of recipe keys: every key known, every value of its type, each fault told in one line with its place.

Place in the flow: `load.py` checks whole recipes with it, `steps.py` the keys of one step. Contract: an unknown key is
answered with the nearest known one; nothing is filled in here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, get_args, get_origin

import msgspec

from mae_cli.errors import ConfigError, did_you_mean
from mae_cli.recipe.fields import section_fields
from mae_cli.recipe.numbers import faults
from mae_cli.recipe.sections import Section

NONE_IS_A_VALUE = ("chat_template",)
"""Keys where "none" is not the absence of a value: `chat_template: none` sends prompts as they stand."""
Kind = TypeVar("Kind", bound=Section)


def check_keys(
    tree: Mapping[str, Any], kind: type[msgspec.Struct], where: str, prefix: str, origins: Mapping[str, str]
) -> None:
    """Refuse keys that a section does not have.

    Args:
        tree: keys to values, sections nested.
        kind: the section's struct.
        where: the place named in the message, e.g. a file.
        prefix: dotted path of the section, ending in a dot; empty at the top.
        origins: dotted keys to a nearer place, e.g. `--set judge.votes=3`.

    Raises:
        ConfigError: an unknown key, or a value where a section stands.
    """
    known = {name: hint for name, hint, _, _ in section_fields(kind)}
    for key, value in tree.items():
        if key not in known:
            near = did_you_mean(str(key), known)
            place = origins.get(f"{prefix}{key}", where)
            raise ConfigError(f'{place}: unknown key "{prefix}{key}"; {near}')
        inner, is_many = _section_in(known[key])
        if inner is None or value is None:
            continue
        if not isinstance(value, Mapping):
            raise ConfigError(f'{origins.get(key, where)}: "{prefix}{key}" is a section; found {value!r}')
        parts = value.items() if is_many else [("", value)]
        for name, part in parts:
            place = f"{prefix}{key}.{name}." if is_many else f"{prefix}{key}."
            if part is not None and not isinstance(part, Mapping):
                raise ConfigError(f'{origins.get(key, where)}: "{place[:-1]}" is a section; found {part!r}')
            check_keys(part or {}, inner, where, place, origins)


def spelled_out(tree: Mapping[str, Any], kind: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the tree without empty sections, and with null for the word "none" where a key may be null."""
    hints = {name: hint for name, hint, _, _ in section_fields(kind)}
    result: dict[str, Any] = {}
    for key, value in tree.items():
        inner, is_many = _section_in(hints[key])
        if inner is not None and is_many:
            result[key] = {name: spelled_out(part or {}, inner) for name, part in (value or {}).items()}
        elif inner is not None:
            result[key] = spelled_out(value or {}, inner)
        else:
            is_null = value == "none" and type(None) in get_args(hints[key]) and key not in NONE_IS_A_VALUE
            result[key] = None if is_null else value
    return result


def _section_in(hint: Any) -> tuple[type[Section] | None, bool]:
    """(section, whether the key holds a mapping of them by name) of a key; null for a plain key."""
    if isinstance(hint, type) and issubclass(hint, Section):
        return hint, False
    if get_origin(hint) is dict and isinstance(get_args(hint)[1], type) and issubclass(get_args(hint)[1], Section):
        return get_args(hint)[1], True
    return None, False


def convert_section(tree: Mapping[str, Any], kind: type[Kind], where: str, origins: Mapping[str, str]) -> Kind:
    """Return the section that a checked tree describes.

    Raises:
        ConfigError: a value of the wrong type or out of range.
    """
    full = spelled_out(tree, kind)
    for key, hint, _, _ in section_fields(kind):
        inner, is_many = _section_in(hint)
        if inner is not None and is_many:
            # One by one: an error in a mapping of sections would not say in which.
            for name, part in full.get(key, {}).items():
                _converted(part, inner, where, origins, f"{key}.{name}.")
    return _converted(full, kind, where, origins, "")


def _converted(tree: dict[str, Any], kind: type[Kind], where: str, origins: Mapping[str, str], prefix: str) -> Kind:
    try:
        converted = msgspec.convert(tree, kind)
        for key, message in faults(converted):
            field = f"{prefix}{key}"
            raise ConfigError(f"{origins.get(field, where)}: {field}: {message}")
        return converted  # noqa: TRY300 - what is found above belongs to the same check
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at ")
        field = prefix + place.strip("`$.") if place else prefix.rstrip(".") or "recipe"
        raise ConfigError(
            f"{origins.get(field, where)}: {field}: {message[:1].lower()}{message[1:].replace('`', '')}"
        ) from error


def assign(tree: dict[str, Any], path: list[str], value: Any, where: str) -> None:
    """Set a nested key, making the mappings on the way; a plugin named by a text becomes a mapping with its name.

    Raises:
        ConfigError: a value stands where a mapping is needed.
    """
    *parents, leaf = path
    for name in parents:
        child = tree.get(name)
        if child is None:
            child = tree[name] = {}
        elif isinstance(child, str) and name not in ("seeds", "model"):
            child = tree[name] = {"name": child}
        if not isinstance(child, dict):
            raise ConfigError(f'{where}: "{name}" is not a section')
        tree = child
    tree[leaf] = value
