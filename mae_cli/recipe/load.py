"""A recipe file, `--set` and flags, made into one checked `Recipe`.

Place in the flow: every command starts here. Precedence: the defaults in `sections.py`, then the recipe file (its
sections, then the keys of its steps), then `--set`, then flags. Contract: an unknown key or a wrong type is refused in
one line with its place. Left out: where the files lie (`recipe.files`), and the options of plugins (`plugins.check`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from mae_cli.errors import ConfigError
from mae_cli.recipe.fields import section_fields
from mae_cli.recipe.keys import assign, check_keys, convert_section
from mae_cli.recipe.schemas import read_schema
from mae_cli.recipe.sections import SECTIONS, Recipe
from mae_cli.recipe.steps import steps_of, written
from mae_cli.recipe.yaml_text import hint_of, parse_yaml, read_yaml


def load_recipe(path: Path | None, settings: Sequence[str] = (), flags: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe after --set and flags, fully checked.

    Args:
        path: a YAML file, or none for the defaults.
        settings: `section.key=value` strings; the value is read as YAML, as in a file.
        flags: dotted keys to values; nulls are ignored.

    Raises:
        ConfigError: unreadable YAML, an unknown key (with the nearest known one) or a value of the wrong type.
    """
    tree: dict[str, Any] = {}
    origins: dict[str, str] = {}
    where = "defaults"
    if path is not None:
        where = str(path)
        tree, lines = _read_recipe(path)
        origins = {key: f"{path}:{line}" for key, line in lines.items()}
    for setting in settings:
        key, value = set_value(setting)
        origins[key] = f"--set {setting}"
        _assign(tree, key, value, origins[key])
    for key, value in (flags or {}).items():
        if value is not None:
            origins[key] = f"--{key.rpartition('.')[2].replace('_', '-')}"
            _assign(tree, key, value, origins[key])
    check_keys(tree, Recipe, where, "", origins)
    recipe = convert_section(tree, Recipe, where, origins)
    try:
        recipe = msgspec.structs.replace(recipe, pipeline=[written(step) for step in steps_of(recipe)])
    except ConfigError as error:
        raise ConfigError(f"{origins.get('pipeline', where)}: {error}") from error
    for name, schema in (("propose", recipe.propose.schema), ("solve", recipe.solve.schema)):
        if schema is not None:
            key = f"{name}.schema"
            try:
                read_schema(schema, key)
            except ConfigError as error:
                raise ConfigError(f"{origins.get(key, where)}: {error}") from error
    for field, variable in key_variables(recipe).items():
        if not _VARIABLE.fullmatch(variable):
            raise _no_variable(field)
    return recipe


_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


def key_variables(recipe: Recipe) -> dict[str, str]:
    """The names of environment variables that hold API keys, by their place in the recipe."""
    roles = {f"roles.{role}.api_key_env": section.api_key_env for role, section in recipe.roles.items()}
    return {k: name for k, name in {"api_key_env": recipe.api_key_env, **roles}.items() if isinstance(name, str)}


def check_keys_are_names(recipe: Recipe) -> None:
    """Refuse a recipe with what may be a key itself, before it is written anywhere.

    Raises:
        ConfigError: no environment variable of a given name is set. What was given is not repeated.
    """
    for field, variable in key_variables(recipe).items():
        if variable not in os.environ:
            raise _no_variable(field)


def _no_variable(field: str) -> ConfigError:
    return ConfigError(
        f"{field}: no environment variable of that name is set; expected the name of the variable that holds the key, "
        "never the key"
    )


def _read_recipe(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    tree, lines = read_yaml(path)
    if tree is not None and not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected a mapping of sections, found {type(tree).__name__}")
    return tree or {}, lines


def set_value(setting: str) -> tuple[str, Any]:
    """(dotted key, value) of a `--set`; the value is read as YAML, or is a text where it is none."""
    import yaml

    key, separator, text = setting.partition("=")
    key = key.strip()
    if not separator or not all(key.split(".")):
        raise ConfigError(f"--set {setting}: expected section.key=value")
    try:
        return key, parse_yaml(text, hint_of(key), f"--set {setting}", has_lines=False, key=key)[0]
    except yaml.YAMLError:
        return key, text


def _assign(tree: dict[str, Any], dotted: str, value: Any, where: str) -> None:
    """Set a key of the recipe or of one of its steps; what is set for a section wins over what its steps have."""
    head, *rest = dotted.split(".")
    steps = list(_step_trees(tree))
    known = {name for name, _, _, _ in section_fields(Recipe)}
    if rest and head not in known:
        for name, _, keys in steps:
            if name == head:
                return assign(keys, rest, value, where)
    if head in SECTIONS and rest:
        for _, stage, keys in steps:
            if stage == head and rest[0] in keys:
                assign(keys, rest, value, where)
    if not rest and head in SECTIONS and isinstance(value, dict):
        # `--set solve={a: 1}` changes a section's keys; it does not throw the others away.
        tree[head] = {**(tree.get(head) or {}), **value}
        for _, stage, keys in steps:
            keys.update({key: value[key] for key in keys.keys() & value.keys()} if stage == head else {})
        return None
    return assign(tree, [head, *rest], value, where)


def _step_trees(tree: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(name, stage, keys) of each step of a raw recipe, the keys to be changed in place; what is no step is passed."""
    pipeline = tree.get("pipeline")
    if not isinstance(pipeline, list):
        pipeline = tree["pipeline"] = list(Recipe().pipeline)
    for index, entry in enumerate(pipeline):
        if isinstance(entry, str):
            entry = pipeline[index] = {entry: {}}
        if isinstance(entry, dict) and len(entry) == 1:
            ((stage, keys),) = entry.items()
            if keys is None:
                keys = entry[stage] = {}
            if isinstance(keys, dict):
                yield str(keys.get("name", stage)), str(stage), keys
