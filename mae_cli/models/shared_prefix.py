"""Tokens that several prompts begin with, which a model needs to read only once."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any


def common_prefix_length(prompts: Sequence[Sequence[int]]) -> int:
    """Length of what all prompts begin with; at least one token of each is left over, for its output is wanted."""
    length = max(0, min(len(prompt) for prompt in prompts) - 1)
    first = prompts[0]
    for prompt in prompts[1:]:
        if list(prompt[:length]) != list(first[:length]):
            length = next(place for place in range(length) if prompt[place] != first[place])
    return length


def takes_common_cache(model: Any) -> bool:
    """Whether the model's class takes the library's common cache; RWKV and others would pass over it in silence."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "past_key_values" in inspect.signature(type(base).forward).parameters
