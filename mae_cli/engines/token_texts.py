"""The text side of an engine that renders chats itself: chats to token ids, generated ids to completions."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from mae_cli.answers import reasoning
from mae_cli.errors import DataError, EngineError
from mae_cli.models.digests import model_digest
from mae_cli.prompts import chat_template
from mae_cli.prompts.answer_ids import ids_behind
from mae_cli.prompts.base_prompts import next_question_stops
from mae_cli.recipe.sections import Recipe
from mae_cli.records import Completion, Message, Policy, Request, Sampling, Usage


class RenderedPrompt(msgspec.Struct, frozen=True):
    """A rendered chat, or why it could not be rendered."""

    ids: list[int]
    opens_think: bool
    error: str | None = None
    stops: tuple[str, ...] = ()
    """Strings that end an answer to this very prompt."""


class TokenTexts:
    """Chats and completions of one tokenizer.

    Attributes:
        context: the most tokens, prompt and completion, the model takes; none when it does not say.
        policy: who writes, without an adapter.
    """

    def __init__(self, recipe: Recipe, folder: Path, tokenizer: Any) -> None:
        if len(tokenizer) <= len(tokenizer.added_tokens_decoder):
            # transformers makes up a tokenizer without words where a folder has none.
            raise EngineError(
                f"{folder}: the tokenizer has {len(tokenizer)} tokens, all of them special; tokenizer.json or "
                "tokenizer.model is missing there"
            )
        self.tokenizer = tokenizer
        self.chat = chat_template.named_chat(tokenizer, recipe.chat_template, recipe.chat_template_kwargs)
        self.policy = Policy(
            model=model_digest(folder), revision=recipe.revision, adapter=None, template=self.chat.digest
        )
        self.context: int | None = None
        self._think_tags = recipe.think_tags
        self._end = self.chat.turn_end()
        # An end that is added but not special would stand in the text.
        ends = self._end.ids if len(self._end.ids) == 1 else ()
        self._hidden = chat_template.hidden_token_ids(tokenizer, self._think_tags) | frozenset(ends)
        self._prompts: dict[tuple[Message, ...], RenderedPrompt] = {}

    def prompt(self, messages: tuple[Message, ...]) -> RenderedPrompt:
        """The rendered prompt of a chat; a chat the template refuses has an error instead of ids."""
        if messages not in self._prompts:
            try:
                text = self.chat.text(messages)
                ids = chat_template.encode(self.tokenizer, text)
                bare = text.removeprefix(self.tokenizer.bos_token or "")
                stops = next_question_stops(bare) if self.chat.is_raw else ()
                opens = reasoning.opens_think(text, self._think_tags)
                self._prompts[messages] = RenderedPrompt(ids, opens, stops=stops)
            except EngineError as error:
                self._prompts[messages] = RenderedPrompt([], False, str(error))
        return self._prompts[messages]

    def forget(self) -> None:
        """Drop the rendered prompts: those of a segment do not come back once it is stored."""
        self._prompts.clear()

    def refusal(self, prompt: RenderedPrompt) -> Completion | None:
        """The completion that stands for a row whose prompt cannot be fed; null where it can."""
        if prompt.error is not None:
            return Completion(status="error", error=prompt.error, finish_reason="error")
        if self.context is not None and len(prompt.ids) > self.context - 1:
            return Completion(
                prompt_token_ids=prompt.ids,
                status="too_long",
                error=f"the prompt has {len(prompt.ids)} tokens, the model takes {self.context}",
                finish_reason="error",
                usage=Usage(len(prompt.ids), 0),
            )
        return None

    def limit(self, request: Request, sampling: Sampling) -> int:
        """The new tokens a row may have: what the recipe asks for, within the row's own limit and the context."""
        limits = [sampling.max_new_tokens]
        if request.max_new_tokens is not None:
            limits.append(request.max_new_tokens)
        if self.context is not None:
            limits.append(self.context - len(self.prompt(request.messages).ids))
        return min(limits)

    def option_ids(self, messages: tuple[Message, ...], option: str) -> list[int]:
        """The tokens an option has behind a chat that can be rendered.

        Raises:
            DataError: the option is empty.
        """
        if not option:
            raise DataError("an option to score is empty")
        found = self.chat.answered(messages, option)
        # A token that spans the border would make the prompt another one; then the option is encoded behind a line end.
        return ids_behind(self.tokenizer, option) if found.is_joined or not found.answer else found.answer

    def stops(self, sampling: Sampling, prompts: Iterable[RenderedPrompt] = ()) -> list[str]:
        """Strings that end a row: the recipe's, those of the template, and those of the row's own prompt."""
        own = [stop for prompt in prompts for stop in prompt.stops]
        # An end of turn that is no token of this tokenizer is seen in the text only.
        ends = [self._end.text] if self._end.is_written and len(self._end.ids) > 1 else []
        plain = chat_template.PLAIN_STOP if self.chat.is_plain else ()
        return list(dict.fromkeys([*sampling.stop, *plain, *ends, *own]))

    def completion(self, prompt: RenderedPrompt, ids: list[int], sampling: Sampling, *, stopped: bool) -> Completion:
        """A row's answer from its generated ids; `stopped` is false where a limit cut it."""
        raw = chat_template.decode(self.tokenizer, ids, self._hidden)
        cuts = [raw.find(stop) for stop in self.stops(sampling, [prompt]) if stop in raw]
        if cuts:
            raw = raw[: min(cuts)]
        parts = reasoning.split_reasoning(raw, self._think_tags, prompt.opens_think)
        return Completion(
            raw=raw,
            reasoning=parts.reasoning,
            completion=parts.completion,
            prompt_token_ids=prompt.ids,
            completion_token_ids=ids,
            status="ok" if stopped and parts.closed else "truncated",
            finish_reason="stop" if stopped else "length",
            usage=Usage(len(prompt.ids), len(ids)),
        )
