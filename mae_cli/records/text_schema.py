"""What a text must look like, as engines get it: a JSON schema, a regular expression, or one of several texts.

Place in the flow: a recipe's `schema` key becomes the text in `Sampling.schema`; engines hold their texts to it and the
stage checks them. Contract: the text form is canonical, so equal schemas give equal settings.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Kind = Literal["json", "regex", "choices"]


class TextSchema(msgspec.Struct, frozen=True):
    """One of the three kinds, with its JSON schema, its pattern, or its list of texts."""

    kind: Kind
    value: Any

    def text(self) -> str:
        """The form that stands in `Sampling.schema`."""
        return msgspec.json.encode({self.kind: self.value}).decode()


def text_schema(text: str) -> TextSchema:
    """Return what `TextSchema.text` wrote."""
    ((kind, value),) = msgspec.json.decode(text).items()
    return TextSchema(kind, value)
