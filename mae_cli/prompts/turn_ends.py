"""What ends an assistant's turn in a chat template: read off the template itself, not off a list of names.

Place in the flow: generation stops at it, and training appends it to an answer. Contract: a chat with a known answer is
rendered, and what stands behind the answer is its end: one token, or a text of several ordinary tokens; a template that
writes nothing there leaves it to the next turn's first token where the model stops at that, else to EOS.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from mae_cli.errors import EngineError
from mae_cli.records import Message

_QUESTION, _ANSWER, _NEXT = "7c1fq", "7c1fa", "7c1fn"
Render = Callable[[Sequence[Message]], str]
"""Messages to text, without a generation prompt; raises EngineError where the template refuses them."""


class TurnEnd(msgspec.Struct, frozen=True):
    """The end of an assistant's turn, as text and as token ids."""

    text: str
    ids: tuple[int, ...]
    is_written: bool
    """The template writes it; else it is the tokenizer's EOS, or nothing where there is none."""


def find_turn_end(tokenizer: Any, render: Render, ends: frozenset[int] = frozenset()) -> TurnEnd:
    """The end of an assistant's turn.

    Args:
        tokenizer: a transformers tokenizer.
        render: writes messages with the template.
        ends: ids at which the model stops; the first token of the next turn counts as an end only if it is one of
            them (GLM stops at <|user|>).
    """
    tokens = added_tokens(tokenizer)
    before, behind = _around_answer(render)
    longer = _behind_answer(render)
    both = shared = behind if longer is None else behind[: _shared_length(behind, longer)]
    if shared != behind:
        shared = shared[: shared.rfind("\n") + 1]  # both go on with another turn, whose heads may begin alike
    token = _first(tokens, behind)
    # A token in front of the answer that is not before the next turn as well opens a turn; it does not end one.
    if token is not None and (token in both or token not in before):
        return TurnEnd(token, (tokens[token],), True)
    if shared.strip():
        ids = tokenizer.encode(shared.strip(), add_special_tokens=False)
        return TurnEnd(shared.strip(), tuple(ids), True)
    follows = _first(tokens, longer or "")
    if not behind.strip() and follows is not None and tokens[follows] in ends:
        return TurnEnd(follows, (tokens[follows],), True)
    eos = tokenizer.eos_token_id
    return TurnEnd("" if eos is None else tokenizer.eos_token, () if eos is None else (eos,), False)


def added_tokens(tokenizer: Any) -> dict[str, int]:
    """Special and other added tokens by their text; runs of blanks are none that could end a turn."""
    return {
        token.content: token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.content.strip()
    }


def _around_answer(render: Render) -> tuple[str, str]:
    """The texts before and behind a known answer; empty where the template takes no such chat."""
    for chat in ([Message("user", _QUESTION), Message("assistant", _ANSWER)], [Message("assistant", _ANSWER)]):
        try:
            text = render(chat)
        except EngineError:
            continue
        if _ANSWER in text:
            before, _, behind = text.rpartition(_ANSWER)
            return before, behind
    return "", ""


def _behind_answer(render: Render) -> str | None:
    """What stands behind a known answer that another question follows."""
    try:
        text = render([Message("user", _QUESTION), Message("assistant", _ANSWER), Message("user", _NEXT)])
    except EngineError:
        return None
    return text.rpartition(_ANSWER)[2].partition(_NEXT)[0] if _ANSWER in text else None


def _shared_length(one: str, other: str) -> int:
    """Characters that two texts begin with alike."""
    pairs = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _first(tokens: dict[str, int], text: str) -> str | None:
    """The added token that stands first in a text, the longest of several at one place."""
    found = [(text.find(token), -len(token), token) for token in tokens if token in text]
    return min(found)[2] if found else None
