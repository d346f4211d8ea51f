"""Regular expressions and JSON Schemas against texts; both can take for ever, so they run in a worker process."""

from __future__ import annotations

import json
import re
from typing import Any


def matches(pattern: str, text: str, ignore_case: bool, whole: bool) -> bool:
    """Whether a pattern matches a text, all of it or somewhere."""
    compiled = re.compile(pattern, re.IGNORECASE if ignore_case else 0)
    return (compiled.fullmatch(text) if whole else compiled.search(text)) is not None


def schema_fault(schema: Any, text: str) -> str | None:
    """Reason why a text is no JSON of the schema; null where it is. References to other schemas are not fetched."""
    import jsonschema
    from referencing import Registry

    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        return f"not JSON: {error}"
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    kind.check_schema(schema)
    fault = next(iter(kind(schema, registry=Registry()).iter_errors(value)), None)
    return None if fault is None else f"{fault.json_path}: {fault.message}"[:200]


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
