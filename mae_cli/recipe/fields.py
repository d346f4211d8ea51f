"""What the declaration of a recipe says of each key: type, documentation, default, and whether it changes a file."""

from __future__ import annotations

import functools
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from mae_cli.recipe.sections import Recipe, RoleSection, Section


@functools.cache  # every command is built from it, and reading type hints is what a start costs most
def section_fields(section: type[msgspec.Struct]) -> list[tuple[str, Any, str, Any]]:
    """(name, type without notes, documentation, default) of each field, in order."""
    hints = get_type_hints(section, include_extras=True)
    result = []
    for field in msgspec.structs.fields(section):
        kind, doc = _bare(hints[field.name])
        default = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
        result.append((field.name, kind, doc, default))
    return result


@functools.cache
def free_keys(section: type[msgspec.Struct] = Recipe) -> frozenset[str]:
    """Return the dotted keys that change no file; `roles.*.KEY` stands for every role's, `KEY.` for all below it."""
    found: set[str] = set()
    hints = get_type_hints(section, include_extras=True)
    for field in msgspec.structs.fields(section):
        hint = hints[field.name]
        kind, _ = _bare(hint)
        notes = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
        if any(isinstance(note, Meta) and (note.extra or {}).get("free") for note in notes):
            found |= {field.name, *([f"{field.name}."] if get_origin(kind) is dict else [])}
        elif isinstance(kind, type) and issubclass(kind, Section):
            found |= {f"{field.name}.{key}" for key in free_keys(kind)}
        elif get_origin(kind) is dict and get_args(kind)[1] is RoleSection:
            found |= {f"{field.name}.*.{key}" for key in free_keys(RoleSection)}
    return frozenset(found)


def is_free(key: str) -> bool:
    """Whether a dotted recipe key changes speed, place or what is shown, never what is in a file."""
    parts = key.split(".")
    general = ".".join([parts[0], "*", *parts[2:]]) if parts[0] == "roles" else key
    known = free_keys()
    return general in known or any(general.startswith(one) for one in known if one.endswith("."))


def _bare(hint: Any) -> tuple[Any, str]:
    doc = ""
    while get_origin(hint) is Annotated:
        hint, *notes = get_args(hint)
        for note in notes:
            if isinstance(note, Meta) and note.description:
                doc = note.description
    return hint, doc
