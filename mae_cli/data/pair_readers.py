"""Preference pairs of public sets, read into a prompt and two continuations.

Place in the flow: `data.formats` hands lines with two answers here. Contract: the prompt may stand in a column of its
own, in both sides, or in both places; where it stands in none the line is refused, since a pair without a prompt
teaches an answer to nothing. Left out: rewards and pairs of our own rows (`preference_pairs`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from mae_cli.data.chat_messages import RefusedLineError, is_transcript, read_messages, rest, system_message
from mae_cli.records import Message

BLANK = "\n\n"
"""Text between an instruction and its input."""
SIDES = (
    ("chosen", "rejected"),
    ("chosen_response", "rejected_response"),  # argilla's binarized sets
    ("response", "rejected_response"),  # ms-swift
    ("preferred_output", "non_preferred_output"),  # OpenAI's and Together's preference files
    ("response_j", "response_k"),  # stack-exchange-paired
    ("chatgpt", "llama2-13b-chat"),  # orca_dpo_pairs as first published
)
_PROMPTS = ("prompt", "question", "instruction", "conversations", "conversation", "query", "input", "history")


class TwoAnswers(msgspec.Struct, frozen=True):
    """A pair as its columns hold it."""

    chosen: Any
    rejected: Any
    columns: tuple[str, ...]
    """Where the two stood, and what said which is better."""


def sides_of(tree: dict[str, Any]) -> TwoAnswers | None:
    """The two answers of a line; null where it holds no pair.

    Raises:
        RefusedLineError: one of two answers is null.
    """
    for good, bad in SIDES:
        if tree.get(good) is not None and tree.get(bad) is not None:
            return TwoAnswers(tree[good], tree[bad], (good, bad))
    turns = tree.get("messages")
    if isinstance(turns, list) and turns and tree.get("rejected_response") is not None:
        # ms-swift: the messages end with the better answer.
        return TwoAnswers(
            turns, [*turns[:-1], {**turns[-1], "content": tree["rejected_response"]}], ("messages", "rejected_response")
        )
    good, bad = SIDES[0]
    if good in tree and bad in tree and (tree[good] is None) != (tree[bad] is None):
        raise RefusedLineError(f'field "{good if tree[good] is None else bad}": null, and a pair needs both answers')
    for first, second, better, is_first in (
        ("human_ref_A", "human_ref_B", "labels", 1),  # SHP
        ("response_0", "response_1", "better_response_id", 0),  # PKU-SafeRLHF
    ):
        if isinstance(tree.get(first), str) and isinstance(tree.get(second), str) and tree.get(better) in (0, 1):
            good, bad = (first, second) if tree[better] == is_first else (second, first)
            return TwoAnswers(tree[good], tree[bad], (first, second, better))
    return None


def read_pair(
    tree: dict[str, Any],
) -> tuple[tuple[Message, ...], tuple[Message, ...], tuple[Message, ...], dict[str, Any]]:
    """(prompt, chosen, rejected, other keys) of a line with two answers.

    Raises:
        RefusedLineError: no prompt, sides that do not follow one prompt, or a turn that would lose something.
    """
    sides = sides_of(tree)
    if sides is None:
        raise RefusedLineError("no pair of answers")
    chosen, rejected = (
        read_messages(value, name, "assistant")
        for value, name in zip((sides.chosen, sides.rejected), sides.columns, strict=False)
    )
    told, used = _told_prompt(tree)
    if is_transcript(tree.get("prompt")):
        # The blank behind "Assistant:" belongs to the transcript.
        chosen, rejected = (tuple(Message(m.role, m.content.strip()) for m in side) for side in (chosen, rejected))
    shared = _shared(chosen, rejected)
    prompt = (*told, *shared) if not told or not shared else _joined(told, shared)
    for name, side in zip(sides.columns, (chosen[len(shared) :], rejected[len(shared) :]), strict=False):
        if len(side) != 1 or side[0].role != "assistant":
            raise RefusedLineError(f'field "{name}": expected one assistant message behind the common prompt')
    system = system_message(tree)
    if system and not (prompt and prompt[0].role == "system"):
        prompt = (*system, *prompt)
    if not prompt:
        raise RefusedLineError(
            "no prompt: neither a column of its own nor the beginning of both sides says what is answered"
        )
    extra = rest(tree, *sides.columns, *used, "system", "system_prompt")
    return prompt, chosen[len(shared) :], rejected[len(shared) :], extra


def _told_prompt(tree: dict[str, Any]) -> tuple[tuple[Message, ...], tuple[str, ...]]:
    """The prompt in a column of its own, and the columns it took."""
    name = next((key for key in _PROMPTS if tree.get(key)), None)
    if name is None:
        return (), ("prompt",)
    value = tree[name]
    given = tree.get("input")
    if name == "instruction" and isinstance(value, str) and isinstance(given, str):
        whole = f"{value}{BLANK}{given}" if given else value
        return (Message("user", whole),), (name, "input")
    if name == "input" and isinstance(value, dict) and "messages" in value:
        if value.get("tools"):
            raise RefusedLineError('field "input.tools": tool definitions are not put into the prompt; leave them out')
        return read_messages(value["messages"], "input.messages"), (name, "prompt")
    # UltraFeedback repeats the chosen side as `messages`; it stays what it is.
    return read_messages(value, name), (name, "prompt") if name != "prompt" else (name,)


def _shared(chosen: Sequence[Message], rejected: Sequence[Message]) -> tuple[Message, ...]:
    """What both sides begin with, up to the first answer that differs."""
    count = 0
    while count < min(len(chosen), len(rejected)) - 1 and chosen[count] == rejected[count]:
        count += 1
    return tuple(chosen[:count])


def _joined(told: tuple[Message, ...], shared: tuple[Message, ...]) -> tuple[Message, ...]:
    """One prompt of the two places it stands in.

    Raises:
        RefusedLineError: they say different things.
    """
    if told == shared[-len(told) :] or told == shared[: len(told)]:
        return shared
    texts = [message.content.strip() for message in shared if message.role == "user"]
    if all(message.role == "system" or message.content.strip() in texts for message in told):
        return (*(message for message in told if message.role == "system" and message not in shared), *shared)
    raise RefusedLineError('field "prompt": another text than the one both sides begin with; leave one of them out')
