"""The reasoning block of a model's text, split from the rest.

Place in the flow: engines split a text as generated with the recipe's `think_tags` (`split_reasoning`); readers of
quoted text split by the names of well-known tags (`split_named_reasoning`). Contract: pure functions; a block that
never ends makes everything after its opening tag reasoning, so that no answer is read from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from mae_cli.answers.tags import _tag_pattern
from mae_cli.errors import ConfigError


class Reasoning(NamedTuple):
    """A model's text in two parts; `closed` is false when the reasoning never ended."""

    reasoning: str | None
    completion: str
    closed: bool


def think_pairs(tags: Sequence[str]) -> list[tuple[str, str]]:
    """The reasoning tags as pairs of an opening and a closing tag.

    Raises:
        ConfigError: an odd number of tags, or an empty one.
    """
    if len(tags) % 2 or not all(tags):
        raise ConfigError(f"think_tags: expected pairs of opening and closing tags, found {list(tags)}")
    return list(zip(tags[::2], tags[1::2], strict=True))


def opens_think(prompt: str, tags: Sequence[str]) -> bool:
    """Whether a rendered prompt ends inside a reasoning block that its template has opened."""
    tail = prompt.rstrip()
    return any(tail.endswith(opening) for opening, _ in think_pairs(tags))


def split_reasoning(raw: str, tags: Sequence[str], prompt_tail_opens_think: bool) -> Reasoning:
    """Split a text as generated into its reasoning and its completion.

    A closing tag ends the reasoning that began at the last opening tag, or at the start of the text when there is
    none (templates that open the block themselves), so nothing from inside a block ever reaches a scorer. A block
    that never ends makes the whole text reasoning and `closed` false; the caller calls the row truncated.
    """
    blocks: list[str] = []
    outside = ""
    rest = raw
    inside = prompt_tail_opens_think
    pairs = think_pairs(tags)
    while (found := _next_tag(rest, pairs)) is not None:
        before, rest, is_opening = found
        if is_opening and not inside:
            outside, inside = outside + before, True
        elif is_opening:
            # Some models write the tag again although the template has opened the block.
            blocks.append(before)
        elif inside:
            blocks.append(before)
            inside = False
        else:
            blocks.append(outside + before)
            outside = ""
    if inside:
        return Reasoning(_join([*blocks, outside, rest]), "", False)
    if not blocks:
        return Reasoning(None, raw, True)
    return Reasoning(_join(blocks), (outside + rest).strip(), True)


def _next_tag(text: str, pairs: Sequence[tuple[str, str]]) -> tuple[str, str, bool] | None:
    found = None
    for pair in pairs:
        for tag in pair:
            at = text.find(tag)
            if at >= 0 and (found is None or at < found[0]):
                found = (at, tag, tag == pair[0])
    if found is None:
        return None
    at, tag, is_opening = found
    return text[:at], text[at + len(tag) :], is_opening


def _join(blocks: Sequence[str]) -> str:
    return "\n".join(block.strip() for block in blocks if block.strip())


REASONING_TAGS: Final = ("think", "thinking", "thought", "reasoning", "scratchpad")
"""Names of the tags whose content is reasoning, not output."""


@dataclass(frozen=True)
class ReasoningSplit:
    """A text taken apart into its reasoning blocks and the rest, each joined by newlines."""

    reasoning: str
    visible: str
    is_closed: bool
    """False when the last block was never closed (reasoning cut off)."""


def split_named_reasoning(text: str, tags: Sequence[str] = REASONING_TAGS) -> ReasoningSplit:
    """Split the reasoning blocks off a text.

    A block runs from its opening tag to the first closing tag of the same name. An unclosed block swallows everything
    after it. A closing tag without an opening one means that the prompt opened the block: everything before it is
    reasoning. Where the prompt opened a block that may have been cut off, pass the opening tag plus the text.

    Args:
        text: any text.
        tags: names of reasoning tags, without brackets.
    """
    reasoning: list[str] = []
    visible: list[str] = []
    open_name: str | None = None
    start = 0
    for match in _tag_pattern(tuple(tags)).finditer(text):
        name, is_closing = match["name"].lower(), bool(match["slash"])
        piece = text[start : match.start()]
        if open_name is None and is_closing:
            reasoning.extend([*visible, piece])
            visible = []
        elif open_name is None:
            visible.append(piece)
            open_name = name
        elif is_closing and name == open_name:
            reasoning.append(piece)
            open_name = None
        else:
            continue  # another tag inside a block is part of the reasoning
        start = match.end()
    (visible if open_name is None else reasoning).append(text[start:])
    # The newline keeps the two sides of a block from forming a new number or tag.
    return ReasoningSplit("\n".join(reasoning), "\n".join(visible), open_name is None)
