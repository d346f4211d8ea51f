"""Rows turned into token ids: the rows that can be trained, and the tokens they are trained on.

The trained span is exactly the completion: prompt and completion ids are used as the engine fed and generated them,
and only a row without ids is tokenised again (counted, because tokenising text is not always the way back).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from mae_cli.errors import EngineError
from mae_cli.records import Message, Row, digest, mean_score, verdicts_on
from mae_cli.records.rewarded import Rewarded


class Renderer(Protocol):
    """A tokenizer with the chat template it is used with (`prompts.chat_template.Chat`)."""

    @property
    def tokenizer(self) -> Any:
        """A transformers tokenizer."""

    @property
    def template(self) -> str:
        """The Jinja source of the template in use."""

    def text(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> str:
        """The messages as the template writes them."""

    def render(self, messages: Sequence[Message]) -> list[int]:
        """Prompt token ids, generation prompt included."""


class TrainingExample(msgspec.Struct, frozen=True):
    """One row as token ids; the completion is what is trained."""

    id: str
    role: str
    group: str
    reward: float | None
    prompt: tuple[int, ...]
    completion: tuple[int, ...]

    @property
    def length(self) -> int:
        """Prompt and completion, in tokens."""
        return len(self.prompt) + len(self.completion)


class Examples(msgspec.Struct):
    """The rows that can be trained, and why the others cannot."""

    examples: list[TrainingExample]
    rewarded: list[Rewarded]
    """The part of each row that an objective may know, in the same order."""
    dropped: dict[str, int]
    """Reason to number of rows: no_completion, no_reward, no_prompt, too_long."""
    retokenised: int
    """Rows whose engine gave no token ids."""


def turn_end_id(chat: Renderer, ends: frozenset[int]) -> int | None:
    """The id (one of `ends`) that ends an assistant turn in this template, else EOS; null when the model has neither.

    They differ for some models (Gemma ends turns with <end_of_turn>, its EOS is <eos>), and a model that learns the
    wrong one never stops.
    """
    eos: int | None = chat.tokenizer.eos_token_id
    try:
        text = chat.text([Message("user", "a"), Message("assistant", "b")], add_generation_prompt=False)
    except EngineError:
        # A template for single prompts only, with no turn of its own to end.
        return eos
    found = [token for token in chat.tokenizer.encode(text, add_special_tokens=False) if token in ends]
    return int(found[-1]) if found else eos


def read_examples(
    rows: Sequence[Row], chat: Renderer, *, ends: frozenset[int], max_length: int, needs_reward: bool
) -> Examples:
    """Token ids of every row that can be trained, in the order given.

    Args:
        rows: rows picked for training.
        chat: tokenizer and template, for rows whose engine gave no ids.
        ends: ids that end a completion; a row that ended by "stop" without one gets the template's.
        max_length: longest prompt + completion, in tokens; a longer row is dropped, never cut, because a cut
            completion teaches not to stop.
        needs_reward: drop rows whose reward is unknown.
    """
    end_id = turn_end_id(chat, ends)
    examples: list[TrainingExample] = []
    rewarded: list[Rewarded] = []
    dropped: Counter[str] = Counter()
    retokenised = 0
    for row in rows:
        completion = _completion(row, chat, ends, end_id)
        if not completion:
            dropped["no_completion"] += 1
            continue
        if needs_reward and row.reward is None:
            dropped["no_reward"] += 1
            continue
        prompt = tuple(chat.render(row.messages) if row.prompt_token_ids is None else row.prompt_token_ids)
        if not prompt:
            dropped["no_prompt"] += 1
            continue
        if len(prompt) + len(completion) > max_length:
            dropped["too_long"] += 1
            continue
        retokenised += row.prompt_token_ids is None or row.completion_token_ids is None
        examples.append(TrainingExample(row.id, row.role, row.group_id, row.reward, prompt, completion))
        rewarded.append(_rewarded(row, prompt, completion))
    return Examples(examples, rewarded, dict(sorted(dropped.items())), retokenised)


def _rewarded(row: Row, prompt: tuple[int, ...], completion: tuple[int, ...]) -> Rewarded:
    others = dict.fromkeys(verdict.opponent_id for verdict in row.verdicts if verdict.target == "pair")
    found = {
        other: mean_score([verdict for verdict in verdicts_on(row, "pair") if verdict.opponent_id == other])
        for other in others
        if other is not None
    }
    return Rewarded(
        role=row.role,
        group=row.group_id,
        reward=row.reward,
        prompt=digest(prompt),
        completion=digest(completion),
        meta=row.problem.meta if row.problem else {},
        id=row.id,
        against={other: score for other, score in found.items() if score is not None},
    )


def _completion(row: Row, chat: Renderer, ends: frozenset[int], end_id: int | None) -> tuple[int, ...]:
    ids = row.completion_token_ids
    if ids is None:
        # The raw text, not the parsed completion: reasoning is part of what the model wrote.
        ids = list(chat.tokenizer.encode(row.raw or "", add_special_tokens=False))
    if row.finish_reason == "stop" and end_id is not None and (not ids or ids[-1] not in ends):
        # Ended at a stop string, or the engine cut the end token off.
        ids = [*ids, end_id]
    return tuple(ids) if row.status not in ("error", "too_long") else ()


def marked(example: TrainingExample, tokenizer: Any) -> str:
    """The example as text, special tokens included, with the trained span between ⟦ and ⟧."""
    prompt = tokenizer.decode(list(example.prompt), skip_special_tokens=False)
    completion = tokenizer.decode(list(example.completion), skip_special_tokens=False)
    return f"{prompt}⟦{completion}⟧"
