"""A schema in the fields that OpenAI-compatible servers read.

`response_format` is the common form of a JSON schema (OpenAI, vLLM, llama.cpp, SGLang). For a pattern or choices vLLM
reads `structured_outputs`, SGLang `regex`, and llama.cpp a `grammar`; each passes over what it does not know, so a text
that no server held to its schema shows when the stage checks it.
"""

from __future__ import annotations

import json
import re
from typing import Any

from mae_cli.records.text_schema import TextSchema

FIELDS = ("response_format", "json_schema", "structured_outputs", "regex", "grammar", "schema")
"""What a refusal may name."""


def schema_fields(schema: TextSchema) -> dict[str, Any]:
    """The fields of a request that hold its text to a schema."""
    if schema.kind == "json":
        form = {"name": "answer", "schema": schema.value, "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": form}}
    if schema.kind == "regex":
        return {"structured_outputs": {"regex": schema.value}, "regex": schema.value}
    return {
        "structured_outputs": {"choice": schema.value},
        "regex": "|".join(re.escape(text) for text in schema.value),
        "grammar": "root ::= " + " | ".join(json.dumps(text, ensure_ascii=False) for text in schema.value),
    }
