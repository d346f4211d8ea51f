"""Default values of a fingerprint's keys, so that files made before a key existed go on.

Place in the flow: an output compares the fingerprint in its meta file with that of the command. A key that is missing
there did not exist when the file was begun, and the command did then what is the key's default today. Contract: a pure
function of the fingerprint; a key without a known default gets none and is compared as it stands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from mae_cli.errors import MaeError
from mae_cli.plugins import registry
from mae_cli.recipe.fields import section_fields
from mae_cli.recipe.sections import SECTIONS, Recipe, Section

_KINDS = {
    "verifier": "verifiers",
    "proposer": "proposers",
    "objective": "objectives",
    "rewards": "rewards",
    "judges": "judges",
    "filters": "filters",
}
"""Keys of fingerprints that hold plugins with their options, and the kind of them."""


def defaults_of(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tree like the fingerprint's with the defaults of its sections' keys and of its plugins' options."""
    found: dict[str, Any] = {}
    for key, value in fingerprint.items():
        if key in SECTIONS and isinstance(value, Mapping):
            section: Section = getattr(Recipe(), key)
            known = {name: default for name, _, _, default in section_fields(type(section))}
            found[key] = {**{name: known[name] for name in value if name in known}, **defaults_of(value)}
        elif key in _KINDS:
            found[key] = _plugins(_KINDS[key], value)
    return found


def _plugins(kind: str, value: Any) -> Any:
    if isinstance(value, Mapping) and isinstance(value.get("name"), str):
        return _options(kind, value["name"])
    if isinstance(value, Mapping):
        return {name: _plugins(kind, one) for name, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plugins(kind, one) for one in value]
    return {}


def _options(kind: str, name: str) -> dict[str, Any]:
    try:
        plugin = registry.load(kind, name)
    except MaeError:
        return {}
    options: dict[str, Any] = {}
    for field in msgspec.structs.fields(plugin):
        if field.default is not msgspec.NODEFAULT:
            options[field.name] = field.default
        elif field.default_factory is not msgspec.NODEFAULT:
            options[field.name] = field.default_factory()
    # An option that changed what the plugin does when it came: files without it were made in the former way.
    return {**options, **getattr(plugin, "FORMER", {})}
