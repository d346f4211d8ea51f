"""Fingerprints: the settings that determine an output, compared key by key, so two experiments never mix in a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from mae_cli.errors import ConfigError


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings, and lists of mappings, as dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        elif isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
            flat.update(flatten({str(place): one for place, one in enumerate(value)}, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


REMEDY = "use --overwrite (moves it aside) or another -o"


def compare_fingerprints(
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    where: str,
    remedy: str = REMEDY,
    *,
    defaults: Mapping[str, Any] | None = None,
) -> None:
    """Refuse to mix two experiments in one file.

    Raises:
        ConfigError: the settings differ; names each key with both values.
    """
    before, after = flatten(old), flatten(plain(new))
    usual = flatten(plain(defaults or {}))
    before = {**{key: usual[key] for key in after.keys() - before.keys() if key in usual}, **before}
    changed = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    if changed:
        listed = "; ".join(f"{key}: {before.get(key)!r} there, {after.get(key)!r} now" for key in changed[:6])
        more = f" (+{len(changed) - 6} more)" if len(changed) > 6 else ""
        raise ConfigError(f"{where} was made with other settings: {listed}{more}; {remedy}")


def plain(value: Any) -> Any:
    """The value as a JSON file gives it back."""
    return msgspec.json.decode(msgspec.json.encode(value))
