"""Rows turned into token ids: the rows that can be trained, and the tokens they are trained on.

The trained span is exactly the completion: prompt and completion ids are used as the engine fed and generated them,
less what stands behind a stop string, and only a row without ids is tokenised again (counted, because tokenising text
is not always the way back), its answer behind its prompt. Chats from another tool's file are tokenised as the template
writes them.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from mae_cli.errors import DataError, EngineError
from mae_cli.records import Message, Row, digest, mean_score, verdicts_on
from mae_cli.records.rewarded import Rewarded

log = logging.getLogger(__name__)


class RefusedRowError(DataError):
    """The chat template refuses a row's messages, or leaves one of them out."""

    def __init__(self, row: Row, reason: str) -> None:
        super().__init__(f"row {row.id}: {reason}")
        self.row, self.reason = row, reason


class _TurnEnd(Protocol):
    """What ends an assistant's turn (`prompts.turn_ends.TurnEnd`)."""

    @property
    def text(self) -> str:
        """As text; empty where nothing does."""

    @property
    def ids(self) -> tuple[int, ...]:
        """As token ids; more than one where it is no token of its own."""


class _Answered(Protocol):
    """A prompt and its answer as token ids (`prompts.answer_ids.Answered`)."""

    @property
    def prompt(self) -> list[int]:
        """Ids before the answer."""

    @property
    def answer(self) -> list[int]:
        """Ids of the answer."""

    @property
    def is_joined(self) -> bool:
        """Whether one token spans the border."""


class Renderer(Protocol):
    """A tokenizer with the chat template it is used with (`prompts.chat_template.Chat`)."""

    @property
    def tokenizer(self) -> Any:
        """A transformers tokenizer."""

    @property
    def template(self) -> str:
        """The Jinja source of the template in use."""

    @property
    def is_raw(self) -> bool:
        """Whether prompts are sent as they stand."""

    def render(self, messages: Sequence[Message]) -> list[int]:
        """Prompt token ids, generation prompt included."""

    def turn_end(self, ends: frozenset[int]) -> _TurnEnd:
        """What ends an assistant's turn; `ends` are the ids at which the model stops."""

    def answered(self, messages: Sequence[Message], answer: str, *, end: str, by_template: bool) -> _Answered:
        """Prompt and answer as token ids, the answer behind its prompt and its end behind the answer."""


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
    reader = _Reader(chat, ends)
    examples: list[TrainingExample] = []
    rewarded: list[Rewarded] = []
    dropped: Counter[str] = Counter()
    retokenised = 0
    for row in rows:
        if needs_reward and row.reward is None:
            dropped["no_reward"] += 1
            continue
        prompt, completion = reader.ids(row)
        if not completion or not prompt:
            dropped["no_prompt" if completion else "no_completion"] += 1
            continue
        if len(prompt) + len(completion) > max_length:
            dropped["too_long"] += 1
            continue
        retokenised += row.prompt_token_ids is None or row.completion_token_ids is None
        examples.append(TrainingExample(row.id, row.role, row.group_id, row.reward, prompt, completion))
        rewarded.append(_rewarded(row, prompt, completion))
    reader.tell()
    return Examples(examples, rewarded, dict(sorted(dropped.items())), retokenised)


class _Reader:
    """Rows to prompt and completion ids, with one template; counts what was not as the engine gave it."""

    def __init__(self, chat: Renderer, ends: frozenset[int]) -> None:
        self._chat, self._ends = chat, ends
        self._end = chat.turn_end(ends)
        self._special = {i: token for i, token in chat.tokenizer.added_tokens_decoder.items() if token.special}
        self._counts: Counter[str] = Counter()

    def ids(self, row: Row) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Prompt and completion ids; an empty completion where nothing can be trained.

        Raises:
            RefusedRowError: the template refuses the row's messages.
        """
        if row.status in ("error", "too_long"):
            return (), ()
        try:
            if row.completion_token_ids is None:
                return self._behind_prompt(row)
            prompt = self._chat.render(row.messages) if row.prompt_token_ids is None else row.prompt_token_ids
            kept = self._up_to_stop(row, row.completion_token_ids)
            if kept is None:
                return self._behind_prompt(row)
        except EngineError as error:
            raise RefusedRowError(row, str(error)) from error
        return tuple(prompt), self._ended(row, kept)

    def _behind_prompt(self, row: Row) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The ids of the row's text behind its prompt."""
        # The raw text, not the parsed completion: reasoning is part of what the model wrote.
        text = row.raw or ""
        is_import = row.stage == "import"
        # Texts of prompt and completion are one text already; a chat's turns are put together by the template.
        by_template = is_import and not (self._chat.is_raw and row.policy.model.startswith("prompt-completion"))
        end = self._end.text if row.finish_reason == "stop" else ""
        if not text and not end:
            return (), ()
        found = self._chat.answered(row.messages, text, end=end, by_template=by_template)
        self._counts["joined"] += found.is_joined
        return tuple(found.prompt), tuple(found.answer)

    def _up_to_stop(self, row: Row, ids: Sequence[int]) -> list[int] | None:
        """The generated ids less those behind the row's text, which a stop string ended; null: it ended in a token."""
        raw = row.raw or ""
        # A special token that the recipe shows (a think tag) is part of the text.
        hidden = {i for i, token in self._special.items() if token.content not in raw} | self._ends
        decode = self._chat.tokenizer.decode

        def text_of(some: Sequence[int]) -> str:
            visible = [one for one in some if one not in hidden]
            return str(decode(visible, skip_special_tokens=False, clean_up_tokenization_spaces=False))

        kept = list(ids)
        text = text_of(kept)
        if row.finish_reason != "stop" or text == raw or not text.startswith(raw):
            return kept
        while kept and len(text_of(kept)) > len(raw):
            kept.pop()
        self._counts["stopped"] += 1
        return kept if text_of(kept) == raw else None

    def _ended(self, row: Row, ids: Sequence[int]) -> tuple[int, ...]:
        """The ids with the end of the turn behind them where the row ended by itself."""
        end = self._end.ids
        has_end = bool(ids) and (ids[-1] in self._ends or tuple(ids[-len(end) :]) == end)
        if row.finish_reason == "stop" and end and not has_end:
            # Ended at a stop string, or the engine cut the end token off.
            return (*ids, *end)
        return tuple(ids)

    def tell(self) -> None:
        """Say once what was not trained as it was generated."""
        if self._counts["stopped"]:
            log.info(
                "%d rows ended at a stop string: what stands behind it is not trained, the end of the turn is",
                self._counts["stopped"],
            )
        if self._counts["joined"]:
            log.info(
                "%d rows have a token that holds the end of the prompt and the beginning of the answer: both were "
                "tokenised as one text, and that token is trained",
                self._counts["joined"],
            )


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


def marked(example: TrainingExample, tokenizer: Any) -> str:
    """The example as text, special tokens included, with the trained span between ⟦ and ⟧."""
    prompt = tokenizer.decode(list(example.prompt), skip_special_tokens=False)
    completion = tokenizer.decode(list(example.completion), skip_special_tokens=False)
    return f"{prompt}⟦{completion}⟧"
