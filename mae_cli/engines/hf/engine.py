"""The `hf` engine: transformers in this process, LoRA adapters attached and detached on one base.

It has its own decode loop (`decode.py`), so that a row's text is a function of the row: each row has its own noise,
prompts that begin alike share that beginning's cache (`prefill.py`), ended rows leave and waiting ones enter
(`slots.py`). Of the model's generation_config only the ids of ending and padding tokens are used; the recipe decides
the sampling.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import torch

from mae_cli.engines.hf.batch_size import DEFAULT, SIZES, best_size, fitting
from mae_cli.engines.hf.constraints import Masks
from mae_cli.engines.hf.decode import Decoded, RowRequest
from mae_cli.engines.hf.lengths import decode_by_length
from mae_cli.engines.hf.paged import decode_paged
from mae_cli.engines.hf.prefill import Prefiller, order_for_sharing
from mae_cli.engines.hf.probe import find_way
from mae_cli.engines.hf.sampling import draw_one
from mae_cli.engines.hf.score import score
from mae_cli.engines.hf.ways import Way, first_way, notice
from mae_cli.engines.token_texts import RenderedPrompt, TokenTexts
from mae_cli.errors import EngineError, TemporaryError
from mae_cli.models.adapters import load_adapter, strip_adapter
from mae_cli.models.digests import adapter_digest
from mae_cli.models.launcher import is_sharded
from mae_cli.models.load import (
    context_length,
    end_token_ids,
    load_model,
    load_tokenizer,
    pad_token_id,
    resolve_device,
    resolve_dtype,
)
from mae_cli.models.locate import local_model
from mae_cli.models.weights import check_token_ids, embedding_rows, known_token_ids
from mae_cli.plugins.contracts import EngineFacts
from mae_cli.prompts import chat_template
from mae_cli.recipe.sections import Recipe
from mae_cli.records import Completion, Message, Request, Sampling, Usage
from mae_cli.records.cache import notes_dir

log = logging.getLogger(__name__)
SEGMENT_BATCHES = 4
"""Micro-batches in one segment of a long job: rows enter a running batch within a segment only, because a segment is
redone as a whole after a kill and must then give the same bytes."""
SEGMENTS_AT_LEAST = 16
"""A job is cut into so many segments before they grow beyond one micro-batch: a kill costs a sixteenth at most."""
ROOM = 512
"""New tokens a row is expected to need when the memory of a batch is estimated."""


class HfEngine:
    """Generates with a transformers model in this process; see `Engine` in `plugins/contracts.py`."""

    def __init__(self, recipe: Recipe, *, paged: bool = False, captures: bool = True) -> None:
        self.paged, self._captures = paged, captures
        self.folder = local_model(recipe.model, recipe.revision)
        device = resolve_device(recipe.device)
        self.tokenizer = load_tokenizer(self.folder)
        self.texts = TokenTexts(recipe, self.folder, self.tokenizer)
        self.chat = self.texts.chat
        dtype = resolve_dtype(recipe.dtype, device)
        self._notices: list[str] = list(self.chat.notices)
        options: dict[str, Any] = {"load_in_4bit": recipe.load_in_4bit, "notices": self._notices}
        self.model = load_model(self.folder, device=device, dtype=dtype, **options)
        self._is_auto = recipe.batch_size == "auto"
        self.batch_size = DEFAULT if recipe.batch_size == "auto" else recipe.batch_size
        """Rows decoded at a time."""
        self._most = max(SIZES)
        self.batch_sizes_used: list[int] = []
        self._numerics = numerics(self.model.dtype, paged=paged, in_four_bits=recipe.load_in_4bit)
        self.policy = self.texts.policy
        self._base = self.model
        self.end_ids = end_token_ids(self.model, self.tokenizer, self.chat.template)
        self._pad_id = pad_token_id(self.model, self.tokenizer, self.end_ids)
        self.texts.context = context_length(self.model)
        self._notices += check_token_ids(self.folder, self.model, self.tokenizer, self.chat.template)
        self._known_ids = known_token_ids(self.model, self.tokenizer)
        self._embedded_ids = embedding_rows(self.model)
        if min(self.end_ids, default=self._embedded_ids) >= self._embedded_ids:
            self._notices.append("no token of this model ends a row: every row runs to its limit or to a stop string")
        self._way = self._find_way()
        for told in self._notices[len(self.chat.notices) :]:
            log.warning("%s", told)
        self.prefiller = self._new_prefiller()
        self._held: Masks | None = None
        if recipe.adapter:
            self.attach(Path(recipe.adapter))

    @property
    def facts(self) -> EngineFacts:
        """Everything an engine can do, on weights in this process."""
        return EngineFacts(
            deterministic=True,
            attaches=True,
            scores=True,
            trains=True,
            constrains=True,
            schemas=not self.paged,
            numerics=self._numerics,
            notices=tuple(self._notices),
        )

    def attach(self, adapter: Path | None) -> None:
        """Put an adapter on the base in place of the one attached, or take it off.

        Raises:
            EngineError: the adapter is missing, broken or for another base; the base is left without one.
        """
        if self.model is not self._base:
            strip_adapter(self._base)
            self.model = self._base
            self.policy = msgspec.structs.replace(self.policy, adapter=None)
        if adapter is not None:
            self.model = load_adapter(self._base, adapter)
            self.policy = msgspec.structs.replace(self.policy, adapter=adapter_digest(adapter))
        # Other weights, other keys and values.
        self.prefiller = self._new_prefiller()

    def adapter_digest(self, adapter: Path) -> str:
        """Digest of the adapter's files."""
        return adapter_digest(adapter)

    def _find_way(self) -> Way:
        """The fastest way of decoding that is right for this model; told where it is not the everyday one."""
        if is_sharded():
            # Its weights come when the processes meet, and a model in parts is trained only.
            return first_way(self.model.config)
        model, digest = self.model, self.policy.model
        try:
            way = find_way(model, self.tokenizer, self._pad_id, folder=notes_dir(), model_digest=digest).way
        except EngineError as error:
            raise EngineError(f"{self.folder}: {error}") from error
        told = notice(self.model.config.model_type, way, first_way(self.model.config))
        if told is not None:
            self._notices.append(told)
        if self.paged and way.rows not in ("slots", "batch"):
            raise EngineError(f"{self.folder}: {told}: use --engine hf, not hf:paged")
        return way

    def _new_prefiller(self) -> Prefiller:
        return Prefiller(self.model, self._pad_id, captures=self._captures, way=self._way)

    def _refusal(self, prompt: RenderedPrompt) -> Completion | None:
        """The completion that stands for a prompt that cannot be fed; null where it can."""
        refusal = self.texts.refusal(prompt)
        if refusal is None and max(prompt.ids, default=0) >= self._embedded_ids:
            odd = next(token_id for token_id in prompt.ids if token_id >= self._embedded_ids)
            name = self.tokenizer.convert_ids_to_tokens(odd)
            reason = f"the prompt holds token {odd} ({name}), the model has {self._embedded_ids} embeddings"
            return Completion(prompt_token_ids=prompt.ids, status="error", error=reason, finish_reason="error")
        return refusal

    def plan(self, requests: Sequence[Request], batch_size: int) -> list[list[int]]:
        """Segments of one to four micro-batches: equal prompts side by side, then those that begin alike.

        With `batch_size: auto` the micro-batch is what was measured on this machine and fits its memory.
        """
        groups: dict[tuple[Message, ...], list[int]] = {}
        for index, request in enumerate(requests):
            groups.setdefault(request.messages, []).append(index)
        members = list(groups.values())
        order = order_for_sharing([self.texts.prompt(messages).ids for messages in groups])
        flat = [index for place in order for index in members[place]]
        if self._is_auto:
            longest = max((len(self.texts.prompt(messages).ids) for messages in groups), default=0)
            batch_size = self.batch_size = self._auto_size(len(flat), longest)
        batches = len(flat) // (SEGMENTS_AT_LEAST * batch_size)
        size = batch_size * max(1, min(SEGMENT_BATCHES, batches))
        return [flat[start : start + size] for start in range(0, len(flat), size)]

    def _auto_size(self, rows: int, longest: int) -> int:
        """Rows at a time for a job of so many rows; a job that fits two default batches is not worth a measurement."""
        if not self.prefiller.shares:
            return DEFAULT
        size = DEFAULT if rows <= 2 * DEFAULT else best_size(self.prefiller, notes_dir(), self.policy.model)
        return fitting(min(size, self._most), longest + ROOM, self.model)

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """Answer the requests, order kept, at most `batch_size` of them at a time."""
        answers: dict[int, Completion] = {}
        ready: list[int] = []
        for index, request in enumerate(requests):
            refusal = self._refusal(self.texts.prompt(request.messages))
            if refusal is None:
                ready.append(index)
            else:
                answers[index] = refusal
        if sampling.choices:
            chosen = self._choose([requests[index] for index in ready], sampling)
            answers.update(zip(ready, chosen, strict=True))
        while len(answers) < len(requests):
            left = [index for index in ready if index not in answers]
            # Rows go together that end at the same strings: those of a prompt without a template are its own.
            ends = self.texts.prompt(requests[left[0]].messages)
            left = [index for index in left if self.texts.prompt(requests[index].messages).stops == ends.stops]
            stop = self._stop_check(sampling, ends)
            try:
                self._decode([requests[index] for index in left], left, sampling, stop, answers)
            except torch.cuda.OutOfMemoryError as error:
                if self.batch_size == 1:
                    raise TemporaryError(
                        "out of GPU memory with a single row: free the GPU or lower max_new_tokens; "
                        "what is done is kept"
                    ) from error
            else:
                continue
            # Outside the handler: inside it the traceback would keep the failed batch's memory.
            self.release_caches()
            self.batch_size = self._most = max(1, min(self.batch_size, len(left)) // 2)
            self._notices.append(f"out of GPU memory: micro-batch of generation halved to {self.batch_size}")
            log.warning("%s", self._notices[-1])
        # Prompts of a segment do not come back once it is stored.
        self.texts.forget()
        return [answers[index] for index in range(len(requests))]

    def score(self, requests: Sequence[Request], options: Sequence[Sequence[str]]) -> list[list[float | None]]:
        """Natural log-probability of each option as the text that follows its prompt, without an end token.

        An option's tokens are those it has behind the prompt's text. Null where the prompt cannot be fed.

        Raises:
            DataError: an empty option.
        """
        prompts, tails, places = [], [], []
        result: list[list[float | None]] = [[None] * len(choices) for choices in options]
        for place, (request, choices) in enumerate(zip(requests, options, strict=True)):
            prompt = self.texts.prompt(request.messages)
            if prompt.error is not None or max(prompt.ids, default=0) >= self._embedded_ids:
                continue
            encoded = [self.texts.option_ids(request.messages, choice) for choice in choices]
            longest = max((len(ids) for ids in encoded), default=0)
            context = self.texts.context
            if choices and (context is None or len(prompt.ids) + longest <= context):
                prompts.append(prompt.ids)
                tails.append(encoded)
                places.append(place)
        for place, scores in zip(places, self._score(prompts, tails), strict=True):
            result[place] = list(scores)
        self.texts.forget()
        return result

    def _score(self, prompts: list[list[int]], tails: list[list[list[int]]]) -> list[list[float]]:
        """`score.score`, tried again with half the tokens at a time when memory runs out."""
        while True:
            try:
                return score(self.prefiller, prompts, tails)
            except torch.cuda.OutOfMemoryError as error:
                if self.prefiller.tokens_at_once <= max(len(prompt) for prompt in prompts):
                    raise TemporaryError(
                        "out of GPU memory with the options of a single prompt: free the GPU; what is done is kept"
                    ) from error
            # Outside the handler, as in `generate`.
            self.prefiller.tokens_at_once //= 2
            self.release_caches()
            self._notices.append(f"out of GPU memory: {self.prefiller.tokens_at_once} tokens scored at a time")
            log.warning("%s", self._notices[-1])

    def _choose(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """One of the allowed texts each, drawn by how likely the model finds it as a whole."""
        prompts = [self.texts.prompt(request.messages).ids for request in requests]
        tails = [[self.texts.option_ids(request.messages, text) for text in sampling.choices] for request in requests]
        completions = []
        for request, prompt, ids, scores in zip(requests, prompts, tails, self._score(prompts, tails), strict=True):
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
        self.texts.forget()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

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
        order = order_for_sharing([self.texts.prompt(messages).ids for messages in distinct])
        prompts = [self.texts.prompt(distinct[place]).ids for place in order]
        asks, places = [], []
        for number, at in enumerate(order):
            for place in groups[distinct[at]]:
                asks.append(RowRequest(number, requests[place].seed, self.texts.limit(requests[place], sampling)))
                places.append(place)

        def done(row: int, decoded: Decoded) -> None:
            place = places[row]
            prompt = self.texts.prompt(requests[place].messages)
            answer = self.texts.completion(prompt, decoded.ids, sampling, stopped=decoded.stopped)
            if decoded.failed:
                reason = f"the model's logits are not numbers (NaN) behind {len(decoded.ids)} new tokens"
                answer = msgspec.structs.replace(answer, status="error", error=reason, finish_reason="error")
            answers[indices[place]] = answer

        run = (
            partial(decode_paged, self.model)
            if self.paged
            else partial(
                decode_by_length,
                self.prefiller,
                entered=self.batch_sizes_used.append,
                known_ids=self._known_ids,
                masks=self._masks(sampling),
            )
        )
        run(prompts, asks, sampling, slots=self.batch_size, end_ids=self.end_ids, hits_stop=stop, done=done)

    def _masks(self, sampling: Sampling) -> Masks | None:
        if not isinstance(sampling.schema, str):
            return None
        if self._held is None or self._held.schema != sampling.schema:
            self._held = Masks(sampling.schema, self.tokenizer, self.end_ids)
        return self._held

    def _stop_check(self, sampling: Sampling, prompt: RenderedPrompt) -> Callable[[list[int]], bool] | None:
        stops = self.texts.stops(sampling, [prompt])
        if not stops:
            return None
        # A token is at least one byte of text, so a tail this long always holds a whole stop string.
        window = max(len(stop.encode()) for stop in stops) + 8

        def hits_stop(ids: list[int]) -> bool:
            tail = chat_template.decode(self.tokenizer, ids[-window:], frozenset())
            return any(stop in tail for stop in stops)

        return hits_stop


def numerics(dtype: torch.dtype, *, paged: bool, in_four_bits: bool) -> str:
    """What else changes a text: the type of the weights, another decode loop's noise, weights in four bits."""
    return f"{dtype}{' paged' if paged else ''}{' 4bit' if in_four_bits else ''}"


def open_engine(recipe: Recipe, argument: str) -> HfEngine:
    """Transformers in this process, on a CPU or a GPU, with the recipe's model and adapter.

    Raises:
        EngineError: an unknown argument, or the model or adapter cannot be found or loaded.
    """
    if argument not in ("", "paged", "steps"):
        raise EngineError(
            f'engine hf takes "paged", "steps" or no argument, found "{argument}"; name the model with --model'
        )
    return HfEngine(recipe, paged=argument == "paged", captures=argument != "steps")
