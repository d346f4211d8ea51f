"""A recipe file, `--set` and flags, made into one checked `Recipe`.

Place in the flow: every command starts here. Precedence: the defaults in `sections.py`, then the recipe file, then
`--set section.key=value`, then flags. Contract: an unknown key or a wrong type is refused with all faults at once. Left
out: where the files lie (`recipe.files`), and the options of plugins (`plugins.check`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import msgspec

from mae_cli.errors import ConfigError, did_you_mean
from mae_cli.recipe.sections import SECTIONS, Recipe, Section, section_fields


def load_recipe(path: Path | None, settings: Sequence[str] = (), flags: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe after --set and flags, fully checked.

    Args:
        path: a YAML file, or none for the defaults.
        settings: `section.key=value` strings; the value is read as YAML.
        flags: dotted keys to values; nulls are ignored.

    Raises:
        ConfigError: unreadable YAML, an unknown key (with the nearest known one) or a value of the wrong type.
    """
    tree: dict[str, Any] = {}
    where = "defaults"
    if path is not None:
        where = str(path)
        tree = _read_yaml(path)
    origins: dict[str, str] = {}
    for setting in settings:
        key, separator, text = setting.partition("=")
        if not separator:
            raise ConfigError(f"--set {setting}: expected section.key=value")
        origins[key.strip()] = f"--set {setting}"
        _assign(tree, key.strip(), _yaml_value(text), f"--set {setting}")
    for key, value in (flags or {}).items():
        if value is not None:
            origins[key] = f"--{key.rpartition('.')[2].replace('_', '-')}"
            _assign(tree, key, value, origins[key])
    _check_keys(tree, Recipe, where, "", origins)
    try:
        recipe = msgspec.convert(_spelled_out(tree, Recipe), Recipe)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at ")
        field = place.strip("`$.") or "recipe"
        raise ConfigError(
            f"{origins.get(field, where)}: {field}: {message[:1].lower()}{message[1:].replace('`', '')}"
        ) from error
    for field, variable in key_variables(recipe).items():
        if not _VARIABLE.fullmatch(variable):
            raise _no_variable(field)
    return recipe


_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


def key_variables(recipe: Recipe) -> dict[str, str]:
    """The names of environment variables that hold API keys, by their place in the recipe."""
    sections = {role: getattr(recipe.roles, role) for role in recipe.roles.__struct_fields__}
    roles = {f"roles.{role}.api_key_env": section.api_key_env for role, section in sections.items()}
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


def _spelled_out(tree: Mapping[str, Any], kind: type[msgspec.Struct]) -> dict[str, Any]:
    """The tree without empty sections, and with null for the word "none" where a key may be null."""
    hints = {name: hint for name, hint, _, _ in section_fields(kind)}
    result: dict[str, Any] = {}
    for key, value in tree.items():
        hint = hints[key]
        if isinstance(hint, type) and issubclass(hint, Section):
            result[key] = _spelled_out(value or {}, hint)
        else:
            result[key] = None if value == "none" and type(None) in get_args(hint) else value
    return result


def _load_yaml(text: str) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """YAML 1.1 reads 5e-4 as text; everyone who writes it means the number."""

    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
        list("-+.0123456789"),
    )
    return yaml.load(text, Loader)


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        tree = _load_yaml(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{place}: not YAML: {getattr(error, 'problem', error)}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected a mapping of sections, found {type(tree).__name__}")
    return tree


def _yaml_value(text: str) -> Any:
    import yaml

    try:
        return _load_yaml(text)
    except yaml.YAMLError:
        return text


def _assign(tree: dict[str, Any], dotted: str, value: Any, where: str) -> None:
    *parents, leaf = dotted.split(".")
    for name in parents:
        child = tree.setdefault(name, {})
        if child is None:
            child = tree[name] = {}
        if not isinstance(child, dict):
            raise ConfigError(f'{where}: "{name}" is not a section')
        tree = child
    if not parents and leaf in SECTIONS and isinstance(value, dict):
        # `--set solve={a: 1}` changes a section's keys; it does not throw the others away.
        tree[leaf] = {**(tree.get(leaf) or {}), **value}
    else:
        tree[leaf] = value


def _check_keys(
    tree: Mapping[str, Any], kind: type[msgspec.Struct], where: str, prefix: str, origins: Mapping[str, str]
) -> None:
    known = {name: hint for name, hint, _, _ in section_fields(kind)}
    for key, value in tree.items():
        if key not in known:
            near = did_you_mean(str(key), known)
            place = origins.get(f"{prefix}{key}", where)
            raise ConfigError(f'{place}: unknown key "{prefix}{key}"; {near}')
        inner = known[key]
        if isinstance(inner, type) and issubclass(inner, Section):
            if value is None:
                continue
            if not isinstance(value, Mapping):
                raise ConfigError(f'{origins.get(key, where)}: "{key}" is a section; found {value!r}')
            _check_keys(value, inner, where, f"{prefix}{key}.", origins)
