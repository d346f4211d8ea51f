"""Chat messages of other tools' training files, and what is refused in them.

Place in the flow: the readers of `data.sample_readers` and `data.pair_readers` read every turn here. Contract: role and
text are kept; a key without a value says nothing and is passed over; what would be lost, a tool call above all, is
refused by its name. Left out: which turns make up a sample.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal, get_args

from mae_cli.errors import DataError
from mae_cli.records import Message
from mae_cli.records.prompt_text import content_text, messages_in_text

ChatRole = Literal["system", "user", "assistant", "tool"]
ROLES: dict[str, ChatRole] = {name: name for name in get_args(ChatRole)}
SHAREGPT: dict[str, ChatRole] = {"system": "system", "human": "user", "gpt": "assistant", "tool": "tool"}
"""The names that we write in ShareGPT files."""
_NAMES: dict[str, ChatRole] = {
    **ROLES,
    **SHAREGPT,
    **dict.fromkeys(("chatgpt", "model", "bing", "bard"), "assistant"),
    **dict.fromkeys(("observation", "function", "function_response", "tool_response"), "tool"),
    "developer": "system",
}
_EXCHANGES = (("human", "assistant"), ("input", "output"))
"""Names of the two halves where one entry holds a question and its answer (BELLE; Capybara, XTuner)."""
_ABOUT = frozenset(
    {
        *("id", "message_id", "timestamp", "created_at", "language", "lang", "redacted", "toxic", "country", "state"),
        *("hashed_ip", "header", "turn_identifier", "openai_id", "model"),
    }
)
"""What logs say about a message (WildChat, LMSYS): nothing that a model would read."""
_WEIGHTS = ("weight", "train", "training")
_CALLS = ("function_call", "tool_call")
_CALL_KEYS = ("tool_calls", "function_call")
_TRANSCRIPT = re.compile(r"(?:^|\n\n)(Human|Assistant):")


class RefusedLineError(ValueError):
    """One line is not as its format wants it; the message says why."""


def read_messages(value: Any, field: str, role: ChatRole = "user") -> tuple[Message, ...]:
    """Chat messages in any of the usual forms, a single one, or a text as one message of the given role.

    Raises:
        RefusedLineError: something else, or a turn that would lose something.
    """
    if isinstance(value, str):
        value = messages_in_text(value) or value
    if isinstance(value, str):
        return _transcript(value) or (Message(role, value),)
    if isinstance(value, dict):
        return (_message(value, field),)
    if not isinstance(value, list):
        raise RefusedLineError(f'field "{field}": expected text or messages, found {type(value).__name__}')
    if value and all(isinstance(turn, str) for turn in value):
        # LIMA: the turns alone, user first.
        return tuple(Message("assistant" if place % 2 else "user", turn) for place, turn in enumerate(value))
    messages: list[Message] = []
    for index, turn in enumerate(value):
        place = f"{field}[{index}]"
        messages += _exchange(turn, place) or [_message(turn, place)]
    return tuple(messages)


def _exchange(turn: Any, place: str) -> list[Message]:
    """The messages of an entry that holds a question and its answer; none where it is a message."""
    for asked, told in _EXCHANGES:
        if isinstance(turn, dict) and {asked, told} <= turn.keys() <= {asked, told, "system"}:
            system = [Message("system", turn["system"])] if turn.get("system") else []
            return [
                *system,
                Message("user", _text(turn[asked], f"{place}.{asked}")),
                Message("assistant", _text(turn[told], f"{place}.{told}")),
            ]
    return []


def _message(turn: Any, field: str) -> Message:
    if not isinstance(turn, dict):
        raise RefusedLineError(f'field "{field}": expected an object, found {type(turn).__name__}')
    role_key = "from" if "from" in turn and "role" not in turn else "role"
    text_key = "value" if "value" in turn and "content" not in turn else "content"
    name = turn.get(role_key)
    if isinstance(name, str) and name in _CALLS:
        raise RefusedLineError(f'field "{field}.{role_key}": {name}: {_TOOL_CALL}')
    role = _NAMES.get(name.casefold()) if isinstance(name, str) else None
    if role is None:
        raise RefusedLineError(f'field "{field}.{role_key}": unknown role {name!r}; known: {", ".join(_NAMES)}')
    for key in _CALL_KEYS:
        if turn.get(key):
            raise RefusedLineError(f'field "{field}.{key}": {_TOOL_CALL}')
    for key, value in turn.items():
        if key in (role_key, text_key, *_ABOUT) or value in (None, "", [], {}):
            continue
        if key in _WEIGHTS and (role != "assistant" or value == 1):
            continue
        if key in _WEIGHTS:
            raise RefusedLineError(
                f'field "{field}.{key}": {value}: every turn is trained with weight 1; leave this one out'
            )
        raise RefusedLineError(f'field "{field}.{key}": not understood, and it would be lost')
    return Message(role, _text(turn.get(text_key), f"{field}.{text_key}"))


_TOOL_CALL = "a tool call, which is not trained here and would be lost; write it into the text as your model spells it"


def _text(value: Any, field: str) -> str:
    try:
        return content_text(value, f'field "{field}"')
    except DataError as error:
        raise RefusedLineError(str(error)) from error


def _transcript(text: str) -> tuple[Message, ...]:
    """The turns of a transcript in the style of HH-RLHF; none where the text is no such transcript."""
    if not is_transcript(text):
        return ()
    marks = list(_TRANSCRIPT.finditer(text))
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    turns = [
        Message("user" if mark[1] == "Human" else "assistant", text[mark.end() : end].strip())
        for mark, end in zip(marks, ends, strict=True)
    ]
    # A prompt ends with the name of who speaks next.
    return tuple(turns[:-1] if turns[-1].role == "assistant" and not turns[-1].content else turns)


def is_transcript(value: Any) -> bool:
    """Whether a text holds turns as HH-RLHF writes them."""
    return isinstance(value, str) and value.startswith(("\n\nHuman:", "Human:")) and "\n\nAssistant:" in value


def system_message(tree: dict[str, Any]) -> tuple[Message, ...]:
    """The system message that a column of its own holds; none where it is empty.

    Raises:
        RefusedLineError: it is no text.
    """
    for name in ("system", "system_prompt"):
        value = tree.get(name)
        if not isinstance(value, str | None):
            raise RefusedLineError(f'field "{name}": expected text, found {type(value).__name__}')
        if value:
            return (Message("system", value),)
    return ()


def rest(tree: dict[str, Any], *known: str) -> dict[str, Any]:
    """The keys that belong to no format."""
    return {key: value for key, value in tree.items() if key not in known}


def says_nothing(messages: Sequence[Message]) -> bool:
    """Whether there is nothing in a prompt that could be answered."""
    return not any(message.content.strip() for message in messages)
