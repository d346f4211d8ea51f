"""Samples of other tools' training files: which layout a line has, and its reader.

Place in the flow: `data.formats` reads every line here. Contract: a layout is known by its keys that have a value; all
are read into one neutral sample; layouts that are no conversation and no pair are refused by name, with a way out. Keys
that no format knows are kept. Source of the layouts: the documentation of TRL ("Dataset formats"), LLaMA-Factory,
ShareGPT and Stanford Alpaca, and the cards of the sets named in the code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import msgspec

from mae_cli.data.chat_messages import RefusedLineError, read_messages, rest, system_message
from mae_cli.data.pair_readers import BLANK, read_pair, sides_of
from mae_cli.records import Message
from mae_cli.records.prompt_text import messages_in_text
from mae_cli.records.read import is_record

Format = Literal["messages", "prompt-completion", "preference", "sharegpt", "alpaca"]
FORMATS: tuple[Format, ...] = get_args(Format)
_ASKED = ("prompt", "question", "query", "instruction")
_OF_PROBLEMS = ("problem", "test_list", "choices", "options")
_REFUSED: tuple[tuple[tuple[str, ...], str], ...] = (
    (("message_tree_id",), "an OpenAssistant tree; write each path through it as messages"),
    (("message_id", "role", "text"), "single messages of OpenAssistant trees; join them into messages"),
    (
        ("conversation_a", "conversation_b"),
        "an arena's battles (conversation_a, conversation_b); write pairs",
    ),
    (("prompt", "answers"), "ranked answers (Nectar); write the pairs you want as prompt, chosen, rejected"),
    (("prompt", "completions", "labels"), "step by step labels, which no objective here uses"),
    (("instruction", "completions"), "UltraFeedback's rated completions; take its binarized form (chosen, rejected)"),
    (("response1", "response2"), "two responses with a degree of preference; write prompt, chosen, rejected"),
    (("input_ids",), "tokens; give the texts they were made from"),
)
"""Keys of public layouts that are not trained, and what to do."""


class Sample(msgspec.Struct, frozen=True):
    """One line: a conversation, or a prompt with a chosen and a rejected continuation."""

    messages: tuple[Message, ...]
    """The whole conversation; of a pair, its prompt."""
    chosen: tuple[Message, ...] = ()
    rejected: tuple[Message, ...] = ()
    extra: dict[str, Any] = {}
    """Keys that belong to no format, by name."""

    @property
    def is_pair(self) -> bool:
        """Whether it holds two continuations."""
        return bool(self.chosen or self.rejected)


def detect(tree: dict[str, Any]) -> Format | None:
    """The format of a line by its keys, or null for a problem, a record or anything else.

    Raises:
        RefusedLineError: a public layout that is not trained.
    """
    if is_record(tree):
        return None
    # Tables pad rows of several layouts with nulls.
    filled = {key: value for key, value in tree.items() if value is not None}
    return _by_keys(filled) or _by_keys(tree)


def _by_keys(tree: dict[str, Any]) -> Format | None:
    if sides_of(tree) is not None:
        return "preference"
    for keys, name in _REFUSED:
        if all(key in tree for key in keys) and not any(
            isinstance(tree[key], str) for key in keys[1:2] if key == "answers"
        ):
            raise RefusedLineError(f"{name}")
    if "messages" in tree:
        return "messages"
    if "conversations" in tree or "conversation" in tree:
        return "sharegpt"
    if "prompt" in tree and "completion" in tree:
        return "prompt-completion"
    if "instruction" in tree and ("output" in tree or "response" in tree):
        return "alpaca"
    if "response" in tree and any(key in tree for key in _ASKED):
        return "prompt-completion"
    if isinstance(tree.get("text"), str) and not any(
        key in tree for key in (*_ASKED, "problem", "test_list", "choices")
    ):
        raise RefusedLineError(
            "plain text to go on with; there is no prompt in it: write messages, or prompt and completion"
        )
    return None


def read_sample(tree: dict[str, Any], kind: Format) -> Sample:
    """A line as its format.

    Raises:
        RefusedLineError: it is not as the format wants it.
    """
    return _READERS[kind](tree)


def _read_messages(tree: dict[str, Any]) -> Sample:
    return Sample(_with_system(tree, _turns(tree["messages"], "messages")), extra=rest(tree, "messages", *_SYSTEM))


def _turns(value: Any, name: str) -> tuple[Message, ...]:
    """The messages of a whole conversation, which may stand as a text in a table."""
    turns = messages_in_text(value) if isinstance(value, str) else value
    if not isinstance(turns, list):
        raise RefusedLineError(f'field "{name}": expected a list, found {type(value).__name__}')
    return read_messages(turns, name)


_SYSTEM = ("system", "system_prompt")


def _with_system(tree: dict[str, Any], messages: tuple[Message, ...]) -> tuple[Message, ...]:
    system = system_message(tree)
    return messages if not system or messages[:1] == system else (*system, *messages)


def _read_sharegpt(tree: dict[str, Any]) -> Sample:
    name = "conversations" if tree.get("conversations") is not None else "conversation"
    turns = tree[name] if name in tree else tree["conversations"]
    return Sample(_with_system(tree, _turns(turns, name)), extra=rest(tree, name, *_SYSTEM))


def _read_prompt_completion(tree: dict[str, Any]) -> Sample:
    told = "completion" if tree.get("completion") is not None else "response"
    asked = next((key for key in _ASKED if tree.get(key) is not None), "prompt")
    completion = read_messages(tree[told], told, "assistant")
    if len(completion) != 1 or completion[0].role != "assistant":
        raise RefusedLineError(f'field "{told}": expected one assistant message')
    prompt = _with_system(tree, (*_history(tree), *read_messages(tree[asked], asked)))
    return Sample((*prompt, *completion), extra=rest(tree, asked, told, "history", *_SYSTEM))


def _history(tree: dict[str, Any]) -> list[Message]:
    """The turns before the last, as pairs of texts."""
    messages: list[Message] = []
    for turn in tree.get("history") or []:
        if not (isinstance(turn, list) and len(turn) == 2 and all(isinstance(text, str) for text in turn)):
            raise RefusedLineError('field "history": expected pairs of texts')
        messages += [Message("user", turn[0]), Message("assistant", turn[1])]
    return messages


def _read_preference(tree: dict[str, Any]) -> Sample:
    return Sample(*read_pair(tree))


def _read_alpaca(tree: dict[str, Any]) -> Sample:
    # Dolly calls the two `context` and `response`.
    told = "output" if "output" in tree else "response"
    on = "input" if "input" in tree or told == "output" else "context"
    for name in ("instruction", on, told, "system"):
        if not isinstance(tree.get(name, ""), str | None):
            raise RefusedLineError(f'field "{name}": expected text, found {type(tree[name]).__name__}')
    for name in ("instruction", told):
        if tree.get(name) is None:
            raise RefusedLineError(f'field "{name}": expected text, found null')
    messages = [*system_message(tree), *_history(tree)]
    given = tree.get(on) or ""
    extra = rest(tree, "instruction", on, told, "history", *_SYSTEM)
    if given:
        extra["alpaca_input"] = given
    question = f"{tree['instruction']}{BLANK}{given}" if given else tree["instruction"]
    messages += [Message("user", question), Message("assistant", tree[told])]
    return Sample(tuple(messages), extra=extra)


_READERS: dict[Format, Callable[[dict[str, Any]], Sample]] = {
    "messages": _read_messages,
    "prompt-completion": _read_prompt_completion,
    "preference": _read_preference,
    "sharegpt": _read_sharegpt,
    "alpaca": _read_alpaca,
}
