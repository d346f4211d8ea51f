"""Chat messages of a prompt as the one text of a question.

Place in the flow: `records.problems` reads questions that published sets write as messages (verl, inspect, OpenAI
evals). Contract: system and user texts are joined; earlier answers (examples) are told apart by who speaks; a last
answer is no part of the question; what is no text is an error that names it.
"""

from __future__ import annotations

import ast
from typing import Any

import msgspec

from mae_cli.errors import DataError

_SPEAKERS = {"user": "User", "human": "User", "assistant": "Assistant", "gpt": "Assistant"}
_ASSISTANT = ("assistant", "gpt")


def messages_in_text(text: str) -> list[Any] | None:
    """The messages that a table has made a text of, as JSON or as Python writes them; null for any other text."""
    start = text.lstrip()
    if not start.startswith("[") or not start[1:].lstrip().startswith("{"):
        return None
    found: Any = None
    try:
        found = msgspec.json.decode(start)
    except (msgspec.DecodeError, RecursionError):
        try:
            found = ast.literal_eval(start)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
    are_messages = isinstance(found, list) and all(
        isinstance(one, dict) and ("role" in one or "from" in one) and ("content" in one or "value" in one)
        for one in found
    )
    return found if are_messages else None


def prompt_text(messages: list[Any], where: str) -> str:
    """Return the text that a prompt of messages asks.

    Raises:
        DataError: an entry is no message, or holds something else than text.
    """
    turns: list[tuple[str, str]] = []
    for index, message in enumerate(messages):
        place = f"{where}[{index}]"
        if not isinstance(message, dict):
            raise DataError(f"{place}: expected a message, found {type(message).__name__}")
        role, content = message.get("role", message.get("from")), message.get("content", message.get("value"))
        turns.append((str(role), content_text(content, place)))
    while turns and turns[-1][0] in _ASSISTANT:
        turns.pop()
    told = [(role, text.strip()) for role, text in turns if text.strip()]
    if not told:
        raise DataError(f"{where}: empty")
    if any(role in _ASSISTANT for role, _ in told):
        return "\n\n".join(f"{_SPEAKERS[role]}: {text}" if role in _SPEAKERS else text for role, text in told)
    return "\n\n".join(text for _, text in told)


def content_text(content: Any, where: str) -> str:
    """Return the text of a message's content, which may be a list of parts.

    Raises:
        DataError: a part is an image, a sound or a file, or the content is no text at all.
    """
    if isinstance(content, str):
        return content
    if isinstance(content, list) and content:
        texts = []
        for part in content:
            kind = part.get("type", "text") if isinstance(part, dict) else "text"
            text = part.get("text") if isinstance(part, dict) else part
            if kind not in ("text", "input_text") or not isinstance(text, str):
                raise DataError(f"{where}: a part of type {kind}, which is not understood; expected text")
            texts.append(text)
        return "\n".join(texts)
    raise DataError(f"{where}: expected text, found {type(content).__name__}")
