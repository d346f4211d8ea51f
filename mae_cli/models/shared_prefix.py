"""Tokens that several prompts begin with, which a model needs to read only once."""

from __future__ import annotations

from collections.abc import Sequence


def common_prefix_length(prompts: Sequence[Sequence[int]]) -> int:
    """Length of what all prompts begin with; at least one token of each is left over, for its output is wanted."""
    length = max(0, min(len(prompt) for prompt in prompts) - 1)
    first = prompts[0]
    for prompt in prompts[1:]:
        if list(prompt[:length]) != list(first[:length]):
            length = next(place for place in range(length) if prompt[place] != first[place])
    return length
