"""Requests that allow only given replies, in the forms that servers know, and the reply read back.

Place in the flow: `dialect.py` puts the fields into a request; `send.py` checks the answer. Contract: pure. A reply
that is none of the allowed texts shows that the server passes this form over; then the next form is tried, and after
the last the command ends: never is a constraint dropped in silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

ChoiceForm = Literal["native", "schema"]
FORMS: tuple[ChoiceForm, ...] = ("native", "schema")
"""In the order they are tried. native: the reply is the text itself; schema: a JSON object that holds it."""
FIELDS = ("structured_outputs", "grammar", "response_format")
_KEY = "reply"


def choice_fields(form: ChoiceForm, choices: Sequence[str]) -> dict[str, Any]:
    """The fields of a request that allow only these replies.

    native: `structured_outputs` is vLLM's (0.12 and later), `grammar` llama.cpp's; each passes the other over.
    schema: `response_format` of OpenAI, SGLang, TGI, Ollama, LM Studio and most others.
    """
    if form == "native":
        return {
            "structured_outputs": {"choice": list(choices)},
            "grammar": "root ::= " + " | ".join(map(_literal, choices)),
        }
    schema = {
        "type": "object",
        "properties": {_KEY: {"type": "string", "enum": list(choices)}},
        "required": [_KEY],
        "additionalProperties": False,
    }
    return {
        "response_format": {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema, "strict": True}}
    }


def tokens_for(choices: Sequence[str]) -> int:
    """New tokens that are enough for any of these replies: a token holds at least one byte."""
    return max(len(text.encode()) for text in choices) + 32


def chosen(text: str, choices: Sequence[str]) -> str | None:
    """The allowed reply that a text is, by itself or inside the JSON object; none where it is none of them."""
    if text.strip() in choices:
        return text.strip()
    if text in choices:
        return text
    try:
        tree = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return None
    value = tree.get(_KEY) if isinstance(tree, dict) and len(tree) == 1 else None
    return value if isinstance(value, str) and value in choices else None


def _literal(text: str) -> str:
    """A text as a literal of llama.cpp's grammars (GBNF)."""
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return '"' + "".join(escapes.get(letter, letter) for letter in text) + '"'
