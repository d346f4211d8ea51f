"""The `hf` engine: transformers in this process, LoRA adapters attached and detached on one base.

Its decode loop is its own (`hf_decode.py`) so that a row's text is a function of the row: each row has its own noise,
prompts that begin alike share that beginning's cache (`hf_prefill.py`), ended rows leave and waiting ones enter
(`hf_cache.py`). Of the model's generation_config only the ids of ending and padding tokens are used; sampling is the
recipe's.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import torch

from mae_cli.config import Recipe, cache_dir
from mae_cli.engines import chat as chats
from mae_cli.engines.hf_batch import DEFAULT, SIZES, best_size, fitting
from mae_cli.engines.hf_decode import Ask, Decoded, decode
from mae_cli.engines.hf_model import (
    context_length,
    detach_adapter,
    end_token_ids,
    load_model,
    load_tokenizer,
    pad_token_id,
    resolve_device,
    resolve_dtype,
)
from mae_cli.engines.hf_paged import decode_paged
from mae_cli.engines.hf_prefill import Prefiller, order_for_sharing
from mae_cli.engines.hf_sampling import draw_one
from mae_cli.engines.hf_score import score
from mae_cli.errors import DataError, EngineError, TemporaryError
from mae_cli.lora import load_adapter
from mae_cli.models import adapter_digest, local_model, model_digest
from mae_cli.records import Completion, Message, Policy, Request, Sampling, Usage

log = logging.getLogger(__name__)

SEGMENT_BATCHES = 4
"""Micro-batches in one segment of a long job: rows enter a running batch within a segment only, because a segment is
redone as a whole after a kill and must then give the same bytes."""
SEGMENTS_AT_LEAST = 16
"""A job is cut into so many segments before they grow beyond one micro-batch: a kill costs a sixteenth at most."""


ROOM = 512
"""New tokens a row is expected to need when the memory of a batch is estimated."""


class Prompt(msgspec.Struct, frozen=True):
    """A rendered chat, or why it could not be rendered."""

    ids: list[int]
    opens_think: bool
    error: str | None = None


class HfEngine:
    """Generates with a transformers model in this process; see the Protocol in registry.py."""

    deterministic = True
    constrains = True

    def __init__(self, recipe: Recipe, *, paged: bool = False) -> None:
        self.paged = paged
        self.folder = local_model(recipe.model, recipe.revision)
        device = resolve_device(recipe.device)
        self.tokenizer = load_tokenizer(self.folder)
        template = chats.read_template(recipe.chat_template) if recipe.chat_template else None
        self.chat = chats.open_chat(self.tokenizer, recipe.chat_template_kwargs, template)
        dtype = resolve_dtype(recipe.dtype, device)
        self.model = load_model(self.folder, device=device, dtype=dtype, load_in_4bit=recipe.load_in_4bit)
        self._is_auto = recipe.batch_size == "auto"
        self.batch_size = DEFAULT if recipe.batch_size == "auto" else recipe.batch_size
        """Rows decoded at a time."""
        self._most = max(SIZES)
        self.batch_sizes_used: list[int] = []
        self.notices: list[str] = list(self.chat.notices)
        self.policy = Policy(
            model=model_digest(self.folder), revision=recipe.revision, adapter=None, template=self.chat.digest
        )
        self._base = self.model
        self._think_tags = recipe.think_tags
        self._hidden = chats.hidden_token_ids(self.tokenizer, self._think_tags)
        self.end_ids = end_token_ids(self.model, self.tokenizer, self.chat.template)
        self._pad_id = pad_token_id(self.model, self.tokenizer, self.end_ids)
        self._context = context_length(self.model)
        self._prompts: dict[tuple[Message, ...], Prompt] = {}
        self.prefiller = Prefiller(self.model, self._pad_id)
        if recipe.adapter:
            self.attach(Path(recipe.adapter))

    def attach(self, adapter: Path | None) -> None:
        """Put an adapter on the base in place of the one attached, or take it off.

        Raises:
            EngineError: the adapter is missing, broken or for another base; the base is left without one.
        """
        if self.model is not self._base:
            self._base = self.model = detach_adapter(self.model)
            self.policy = msgspec.structs.replace(self.policy, adapter=None)
        if adapter is not None:
            self.model = load_adapter(self._base, adapter)
            self.policy = msgspec.structs.replace(self.policy, adapter=adapter_digest(adapter))
        # Other weights, other keys and values.
        self.prefiller = Prefiller(self.model, self._pad_id)

    def plan(self, requests: Sequence[Request], batch_size: int) -> list[list[int]]:
        """Segments of one to four micro-batches: equal prompts side by side, then those that begin alike.

        With `batch_size: auto` the micro-batch is what was measured on this machine and fits its memory.
        """
        groups: dict[tuple[Message, ...], list[int]] = {}
        for index, request in enumerate(requests):
            groups.setdefault(request.messages, []).append(index)
        members = list(groups.values())
        order = order_for_sharing([self.prompt(messages).ids for messages in groups])
        flat = [index for place in order for index in members[place]]
        if self._is_auto:
            longest = max((len(self.prompt(messages).ids) for messages in groups), default=0)
            batch_size = self.batch_size = self._auto_size(len(flat), longest)
        batches = len(flat) // (SEGMENTS_AT_LEAST * batch_size)
        size = batch_size * max(1, min(SEGMENT_BATCHES, batches))
        return [flat[start : start + size] for start in range(0, len(flat), size)]

    def _auto_size(self, rows: int, longest: int) -> int:
        """Rows at a time for a job of so many rows; a job that fits two default batches is not worth a measurement."""
        if not self.prefiller.shares:
            return DEFAULT
        size = DEFAULT if rows <= 2 * DEFAULT else best_size(self.prefiller, cache_dir(), self.policy.model)
        return fitting(min(size, self._most), longest + ROOM, self.model)

    def prompt(self, messages: tuple[Message, ...]) -> Prompt:
        """The rendered prompt of a chat; a chat the template refuses has an error instead of ids."""
        if messages not in self._prompts:
            try:
                text = self.chat.text(messages)
                ids = chats.encode(self.tokenizer, text)
                self._prompts[messages] = Prompt(ids, chats.opens_think(text, self._think_tags))
            except EngineError as error:
                self._prompts[messages] = Prompt([], False, str(error))
        return self._prompts[messages]

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """Answer the requests, order kept, at most `batch_size` of them at a time."""
        answers: dict[int, Completion] = {}
        ready: list[int] = []
        for index, request in enumerate(requests):
            refusal = self._refusal(self.prompt(request.messages))
            if refusal is None:
                ready.append(index)
            else:
                answers[index] = refusal
        if sampling.choices:
            chosen = self._choose([requests[index] for index in ready], sampling)
            answers.update(zip(ready, chosen, strict=True))
        stop = self._stop_check(sampling)
        while len(answers) < len(requests):
            left = [index for index in ready if index not in answers]
            try:
                self._decode([requests[index] for index in left], left, sampling, stop, answers)
            except torch.cuda.OutOfMemoryError as error:
                if self.batch_size == 1:
                    raise TemporaryError(
                        "out of GPU memory with a single row: free the GPU or lower max_new_tokens; "
                        "what is done is kept"
                    ) from error
            else:
                break
            # Outside the handler: inside it the traceback would keep the failed batch's memory.
            self.release_caches()
            self.batch_size = self._most = max(1, min(self.batch_size, len(left)) // 2)
            self.notices.append(f"out of GPU memory: micro-batch of generation halved to {self.batch_size}")
            log.warning("%s", self.notices[-1])
        # Prompts of a segment do not come back once it is stored.
        self._prompts.clear()
        return [answers[index] for index in range(len(requests))]

    def score(self, requests: Sequence[Request], options: Sequence[Sequence[str]]) -> list[list[float | None]]:
        """Natural log-probability of each option as the whole continuation so far of its prompt, without an end token.

        An option's tokens are those it has behind the prompt's text. Null where the prompt cannot be fed.

        Raises:
            DataError: an empty option.
        """
        prompts, tails, places = [], [], []
        result: list[list[float | None]] = [[None] * len(choices) for choices in options]
        for place, (request, choices) in enumerate(zip(requests, options, strict=True)):
            prompt = self.prompt(request.messages)
            encoded = [self._option_ids(request.messages, prompt, choice) for choice in choices]
            longest = max((len(ids) for ids in encoded), default=0)
            room = self._context is None or len(prompt.ids) + longest <= self._context
            if choices and prompt.error is None and room:
                prompts.append(prompt.ids)
                tails.append(encoded)
                places.append(place)
        for place, scores in zip(places, score(self.prefiller, prompts, tails), strict=True):
            result[place] = list(scores)
        self._prompts.clear()
        return result

    def _option_ids(self, messages: tuple[Message, ...], prompt: Prompt, option: str) -> list[int]:
        if not option:
            raise DataError("an option to score is empty")
        if prompt.error is not None:
            return []
        whole = chats.encode(self.tokenizer, self.chat.text(messages) + option)
        # A token that spans the border would make the prompt another one; then the option is encoded by itself.
        if whole[: len(prompt.ids)] == prompt.ids and len(whole) > len(prompt.ids):
            return whole[len(prompt.ids) :]
        return chats.encode(self.tokenizer, option)

    def _choose(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """One of the allowed texts each, drawn by how likely the model finds it as a whole."""
        prompts = [self.prompt(request.messages).ids for request in requests]
        tails = [
            [self._option_ids(request.messages, self.prompt(request.messages), text) for text in sampling.choices]
            for request in requests
        ]
        completions = []
        for request, prompt, ids, scores in zip(
            requests, prompts, tails, score(self.prefiller, prompts, tails), strict=True
        ):
            place = draw_one(scores, request.seed, sampling.temperature)
            text = sampling.choices[place]
            completions.append(
                Completion(
                    raw=text,
                    completion=text,
                    prompt_token_ids=prompt,
                    completion_token_ids=ids[place],
                    finish_reason="stop",
                    usage=Usage(len(prompt), len(ids[place])),
                )
            )
        return completions

    def release_caches(self) -> None:
        """Give memory back: kept prefixes, and what torch keeps for later."""
        self.prefiller.forget()
        gc.collect()
        if self._base.device.type == "cuda":
            torch.cuda.empty_cache()

    def close(self) -> None:
        """Free the model."""
        self.prefiller.forget()
        self.model = self._base = self.prefiller.model = None
        self._prompts.clear()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _refusal(self, prompt: Prompt) -> Completion | None:
        if prompt.error is not None:
            return Completion(status="error", error=prompt.error, finish_reason="error")
        if self._context is not None and len(prompt.ids) > self._context - 1:
            return Completion(
                prompt_token_ids=prompt.ids,
                status="too_long",
                error=f"the prompt has {len(prompt.ids)} tokens, the model takes {self._context}",
                finish_reason="error",
                usage=Usage(len(prompt.ids), 0),
            )
        return None

    def _limit(self, request: Request, sampling: Sampling) -> int:
        """New tokens a row may have; its own limit and the context cap what the recipe asks for."""
        limits = [sampling.max_new_tokens]
        if request.max_new_tokens is not None:
            limits.append(request.max_new_tokens)
        if self._context is not None:
            limits.append(self._context - len(self.prompt(request.messages).ids))
        return min(limits)

    def _decode(
        self,
        requests: Sequence[Request],
        indices: Sequence[int],
        sampling: Sampling,
        stop: Callable[[list[int]], bool] | None,
        answers: dict[int, Completion],
    ) -> None:
        """Decode the requests; each finished one is put into `answers` under its index."""
        groups: dict[tuple[Message, ...], list[int]] = {}
        for place, request in enumerate(requests):
            groups.setdefault(request.messages, []).append(place)
        distinct = list(groups)
        order = order_for_sharing([self.prompt(messages).ids for messages in distinct])
        prompts = [self.prompt(distinct[place]).ids for place in order]
        asks, places = [], []
        for number, at in enumerate(order):
            for place in groups[distinct[at]]:
                asks.append(Ask(number, requests[place].seed, self._limit(requests[place], sampling)))
                places.append(place)

        def done(row: int, decoded: Decoded) -> None:
            place = places[row]
            answers[indices[place]] = self._completion(requests[place], decoded, sampling)

        if self.paged:
            decode_paged(
                self.model,
                prompts,
                asks,
                sampling,
                slots=self.batch_size,
                end_ids=self.end_ids,
                hits_stop=stop,
                done=done,
            )
            return
        decode(
            self.prefiller,
            prompts,
            asks,
            sampling,
            slots=self.batch_size,
            end_ids=self.end_ids,
            hits_stop=stop,
            done=done,
            entered=self.batch_sizes_used.append,
        )

    def _stop_strings(self, sampling: Sampling) -> tuple[str, ...]:
        return (*sampling.stop, *chats.PLAIN_STOP) if self.chat.is_plain else sampling.stop

    def _stop_check(self, sampling: Sampling) -> Callable[[list[int]], bool] | None:
        stops = self._stop_strings(sampling)
        if not stops:
            return None
        # A token is at least one byte of text, so a tail this long always holds a whole stop string.
        window = max(len(stop.encode()) for stop in stops) + 8

        def hits_stop(ids: list[int]) -> bool:
            tail = chats.decode(self.tokenizer, ids[-window:], frozenset())
            return any(stop in tail for stop in stops)

        return hits_stop

    def _completion(self, request: Request, decoded: Decoded, sampling: Sampling) -> Completion:
        prompt = self.prompt(request.messages)
        raw = chats.decode(self.tokenizer, decoded.ids, self._hidden)
        cuts = [raw.find(stop) for stop in self._stop_strings(sampling) if stop in raw]
        if cuts:
            raw = raw[: min(cuts)]
        parts = chats.split_reasoning(raw, self._think_tags, prompt.opens_think)
        whole = decoded.stopped and parts.closed
        return Completion(
            raw=raw,
            reasoning=parts.reasoning,
            completion=parts.completion,
            prompt_token_ids=prompt.ids,
            completion_token_ids=decoded.ids,
            status="ok" if whole else "truncated",
            finish_reason="stop" if decoded.stopped else "length",
            usage=Usage(len(prompt.ids), len(decoded.ids)),
        )


def open_engine(recipe: Recipe, argument: str) -> HfEngine:
    """Load the recipe's model and adapter.

    Raises:
        EngineError: another argument than "paged", or the model or adapter cannot be found or loaded.
    """
    if argument not in ("", "paged"):
        raise EngineError(f'engine hf takes "paged" or no argument, found "{argument}"; name the model with --model')
    return HfEngine(recipe, paged=argument == "paged")
