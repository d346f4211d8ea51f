"""The record schema in the form that the library `datasets` reads.

Place in the flow: `mae data features` prints it. Contract: derived from `records.Row`, so it cannot differ from it.
"""

from __future__ import annotations

import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from mae_cli.records import Row


def record_features() -> dict[str, Any]:
    """The record schema in the form of `datasets.Features.to_dict()`; open maps are Json features."""
    features: dict[str, Any] = _feature(Row)
    return features


def _feature(kind: Any) -> Any:
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _feature(next(part for part in get_args(kind) if part is not type(None)))
    if origin is Literal:
        return {"dtype": "string", "_type": "Value"}
    if origin in (list, tuple):
        return {"feature": _feature(get_args(kind)[0]), "_type": "List"}
    if origin is dict:
        return {"_type": "Json"}
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return {name: _feature(hint) for name, hint in get_type_hints(kind).items()}
    names = {str: "string", int: "int64", float: "float64", bool: "bool"}
    return {"dtype": names[kind], "_type": "Value"}
