"""An answer as token ids behind its prompt: the ids of both together, less those of the prompt.

Place in the flow: training tokenises rows without engine ids here, engines the options they score. Contract: an answer
is never encoded as a text of its own, because many tokenizers put a blank before such a text; where one token spans the
border, the ids of the whole are kept and the border moves to the front of that token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec


class Answered(msgspec.Struct, frozen=True):
    """A prompt and its answer as token ids."""

    prompt: list[int]
    answer: list[int]
    is_joined: bool
    """One token holds the end of the prompt and the beginning of the answer; it is counted as the answer's."""


def split_at_answer(prompt: Sequence[int], whole: Sequence[int]) -> Answered:
    """The ids of a prompt with its answer, cut where the prompt alone has other ids."""
    shared = 0
    while shared < min(len(prompt), len(whole)) and prompt[shared] == whole[shared]:
        shared += 1
    return Answered(list(whole[:shared]), list(whole[shared:]), shared < len(prompt))


def ids_behind(tokenizer: Any, text: str) -> list[int]:
    """The ids of a text that stands behind another one, where the two cannot be encoded together.

    It is encoded behind a line end, which no usual tokenizer joins with what follows.
    """
    front: list[int] = tokenizer.encode("\n", add_special_tokens=False)
    whole: list[int] = tokenizer.encode("\n" + text, add_special_tokens=False)
    if front and whole[: len(front)] == front:
        return whole[len(front) :]
    alone: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return alone
