"""The `vllm` engine: vLLM in this process, one GPU or several by tensor parallelism, LoRA adapters per request.

Prompts go in as token ids that `prompts.chat_template` renders, and texts are decoded from the ids that come out, so
training ids equal generation ids. A row's seed is its request's seed; vLLM does not promise equal text for other
batches, so `deterministic` is false. Seen with 0.32 on a CPU (`make vllm`); everyday tests use a stand-in of the part
of its interface that is used: `LLM.generate` with `TokensPrompt`, `SamplingParams`, `LoRARequest`, `prompt_logprobs`.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from mae_cli.engines.token_texts import RenderedPrompt, TokenTexts
from mae_cli.engines.vllm_setup import (
    Options,
    constraint,
    engine_arguments,
    engine_failure,
    import_part,
    import_vllm,
    is_cpu,
    model_facts,
    rank_limit,
    rank_of,
    set_up_cpu,
)
from mae_cli.errors import ConfigError, EngineError, TemporaryError, one_line
from mae_cli.models.digests import adapter_digest
from mae_cli.models.locate import local_model
from mae_cli.plugins.contracts import EngineFacts
from mae_cli.plugins.registry import engine_options
from mae_cli.recipe.sections import Recipe
from mae_cli.records import Completion, Message, Request, Sampling, Usage

SEGMENT_BATCHES = 4
"""Micro-batches per segment: vLLM fills its own batches, and every segment ends with a few slow rows."""


class VllmEngine:
    """Generates with vLLM in this process; see `Engine` in `plugins/contracts.py`."""

    def __init__(self, recipe: Recipe, options: Options) -> None:
        # vLLM forks its engine process unless it knows that CUDA is in use here, and asking torch for a GPU is enough
        # to make a fork of this process useless.
        os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
        self._vllm = import_vllm()
        self._is_cpu = is_cpu()
        self.folder = local_model(recipe.model, recipe.revision)
        # Above the check for vllm, a machine without it would load torch only to be told so.
        from mae_cli.models.load import context_length, end_token_ids, load_tokenizer

        self.tokenizer = load_tokenizer(self.folder)
        self.texts = TokenTexts(recipe, self.folder, self.tokenizer)
        self.chat = self.texts.chat
        self.policy = self.texts.policy
        facts = model_facts(self.folder)
        self._end_ids = sorted(end_token_ids(facts, self.tokenizer, self.chat.template))
        self.texts.context = options.max_model_len or context_length(facts)
        if self._is_cpu:
            set_up_cpu(options)
        self._lora: Any = None
        self._numbers: dict[str, int] = {}
        self._max_rank = rank_limit(recipe)
        self._options = options
        self.facts = EngineFacts(
            deterministic=False,
            attaches=True,
            scores=True,
            constrains=True,
            schemas=True,
            numerics=numerics(recipe, options),
            notices=tuple(self.chat.notices),
        )
        self._llm: Any = self._open(recipe)
        if recipe.adapter:
            self.attach(Path(recipe.adapter))

    def _open(self, recipe: Recipe) -> Any:
        arguments: dict[str, Any] = {
            "model": str(self.folder),
            "dtype": weights_dtype(recipe),
            "gpu_memory_utilization": self._options.gpu_memory_utilization,
            "tensor_parallel_size": self._options.tensor_parallel_size,
            "seed": 0,
            "trust_remote_code": False,
        }
        arguments |= engine_arguments(self._options, is_cpu=self._is_cpu, context=self.texts.context)
        if self._options.lora:
            arguments |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": self._max_rank}
        try:
            return self._vllm.LLM(**arguments)
        except (OSError, ValueError, RuntimeError) as error:
            raise EngineError(f"{self.folder}: vllm cannot load it: {one_line(error)}") from error

    def attach(self, adapter: Path | None) -> None:
        """Use an adapter for the requests to come, or none.

        Raises:
            EngineError: the adapter is missing, broken, or of a higher rank than was provided for.
        """
        self._lora = None
        self.policy = msgspec.structs.replace(self.policy, adapter=None)
        if adapter is None:
            return
        if not self._options.lora:
            raise ConfigError(f"{adapter}: engine vllm:lora=false cannot use an adapter")
        name, rank = adapter_digest(adapter), rank_of(adapter)
        if rank > self._max_rank:
            raise EngineError(
                f"{adapter}: rank {rank}, vllm was started for up to {self._max_rank}; set finetune.lora_r to {rank}"
            )
        # vLLM tells adapters apart by this number, counted from 1, and keeps what it loaded under it.
        number = self._numbers.setdefault(name, len(self._numbers) + 1)
        requests = import_part("vllm.lora.request")
        self._lora = requests.LoRARequest(lora_name=name, lora_int_id=number, lora_path=str(adapter.resolve()))
        self.policy = msgspec.structs.replace(self.policy, adapter=name)

    def adapter_digest(self, adapter: Path) -> str:
        """Digest of the adapter's files."""
        return adapter_digest(adapter)

    def plan(self, requests: Sequence[Request], batch_size: int) -> list[list[int]]:
        """Segments of four micro-batches, equal prompts side by side, so that vLLM's prefix cache meets them."""
        groups: dict[tuple[Message, ...], list[int]] = {}
        for index, request in enumerate(requests):
            groups.setdefault(request.messages, []).append(index)
        order = [index for members in groups.values() for index in members]
        size = batch_size * SEGMENT_BATCHES
        return [order[start : start + size] for start in range(0, len(order), size)]

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """Answer one segment, order kept; a request that vLLM refuses is an error of its own."""
        prompts = [self.texts.prompt(request.messages) for request in requests]
        answers: dict[int, Completion] = {}
        for index, prompt in enumerate(prompts):
            if refusal := self.texts.refusal(prompt):
                answers[index] = refusal
        ready = [index for index in range(len(requests)) if index not in answers]
        params = [self._params(requests[index], sampling) for index in ready]
        outputs = self._run([prompts[index].ids for index in ready], params)
        for index, output in zip(ready, outputs, strict=True):
            answers[index] = (
                Completion(status="error", error=output, finish_reason="error")
                if isinstance(output, str)
                else self._completion(prompts[index], output.outputs[0], sampling)
            )
        return [answers[index] for index in range(len(requests))]

    def score(self, requests: Sequence[Request], options: Sequence[Sequence[str]]) -> list[list[float | None]]:
        """Natural log-probability of each option as the continuation of its prompt so far; null where it cannot be fed.

        Raises:
            DataError: an empty option.
        """
        found: list[list[float | None]] = [[None] * len(choices) for choices in options]
        places, whole = [], []
        for row, (request, choices) in enumerate(zip(requests, options, strict=True)):
            prompt = self.texts.prompt(request.messages)
            for column, option in enumerate(choices if prompt.error is None else ()):
                ids = self.texts.option_ids(request.messages, option)
                # One token is always generated behind the prompt, so it must have room too.
                if self.texts.context is None or len(prompt.ids) + len(ids) < self.texts.context:
                    places.append((row, column, len(prompt.ids)))
                    whole.append([*prompt.ids, *ids])
        params = [
            self._vllm.SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False) for _ in whole
        ]
        if self._is_cpu and self._options.lora:
            # vLLM 0.32 on a CPU dies of two prompts scored in one batch where it was started for adapters.
            outputs = [self._run([ids], [one])[0] for ids, one in zip(whole, params, strict=True)]
        else:
            outputs = self._run(whole, params)
        for (row, column, start), ids, output in zip(places, whole, outputs, strict=True):
            if not isinstance(output, str):
                told = output.prompt_logprobs
                # Position i tells the log-probability of token i given those before it.
                found[row][column] = sum(told[place][ids[place]].logprob for place in range(start, len(ids)))
        return found

    def close(self) -> None:
        """Free the model."""
        self._llm = None
        gc.collect()

    def _params(self, request: Request, sampling: Sampling) -> Any:
        # Nothing but an allowed reply can be written then, so no stop string may cut it.
        stops = [] if sampling.choices else self.texts.stops(sampling, [self.texts.prompt(request.messages)])
        limit = self.texts.limit(request, sampling)
        if sampling.choices:
            # A reply must not be cut by a limit that was chosen for free text: a token holds at least one byte.
            limit = max(limit, *(len(text.encode()) + 1 for text in sampling.choices))
        return self._vllm.SamplingParams(
            n=1,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            seed=request.seed,
            max_tokens=limit,
            stop=stops or None,
            stop_token_ids=self._end_ids,
            # Its own text is only needed to see stop strings; ours is decoded from the ids.
            detokenize=bool(stops),
            **constraint(sampling),
        )

    def _run(self, prompts: Sequence[list[int]], params: Sequence[Any]) -> list[Any]:
        """One output per prompt, or the words of a refusal."""
        if not prompts:
            return []
        try:
            return list(self._call(prompts, params))
        except ValueError as error:
            # One request that it refuses stops the whole call, so each is tried alone.
            if len(prompts) == 1:
                return [f"vllm: {one_line(error)}"]
        answers = [self._run([prompt], [one])[0] for prompt, one in zip(prompts, params, strict=True)]
        if all(isinstance(answer, str) for answer in answers):
            # Written down as rows, they would never be asked again.
            raise EngineError(f"vllm refused each of {len(answers)} requests, last with {answers[-1]}")
        return answers

    def _call(self, prompts: Sequence[list[int]], params: Sequence[Any]) -> Any:
        inputs = import_part("vllm.inputs")
        try:
            return self._llm.generate(
                [inputs.TokensPrompt(prompt_token_ids=ids) for ids in prompts],
                list(params),
                use_tqdm=False,
                lora_request=self._lora,
            )
        except TypeError as error:
            raise EngineError(f"this version of vllm is called in another way: {one_line(error)}") from error
        except (RuntimeError, engine_failure()) as error:
            # Out of memory, or its engine process died: neither is a fault of a row.
            raise TemporaryError(f"vllm failed: {one_line(error)}; what is done is kept") from error

    def _completion(self, prompt: RenderedPrompt, output: Any, sampling: Sampling) -> Completion:
        ids = list(output.token_ids)
        if output.finish_reason not in ("stop", "length"):
            return Completion(
                prompt_token_ids=prompt.ids,
                status="error",
                error=f"vllm ended the row with {output.finish_reason}",
                finish_reason="error",
                usage=Usage(len(prompt.ids), len(ids)),
            )
        if sampling.choices:
            sampling = msgspec.structs.replace(sampling, stop=())
        return self.texts.completion(prompt, ids, sampling, stopped=output.finish_reason == "stop")


def weights_dtype(recipe: Recipe) -> str:
    """The type of the weights by the rule of all engines; vLLM's own auto would take float16 for float32 weights."""
    return "bfloat16" if recipe.dtype == "auto" else recipe.dtype


def numerics(recipe: Recipe, options: Options) -> str:
    """Settings that change a text besides the policy: the type of the weights, and where texts are cut."""
    return weights_dtype(recipe) + (f" max_model_len {options.max_model_len}" if options.max_model_len else "")


def open_engine(recipe: Recipe, argument: str) -> VllmEngine:
    """The library vLLM in this process, with the recipe's model and adapter.

    Raises:
        ConfigError: an unknown option, a value out of range, or adapters wanted in float32.
        MissingDependencyError: vllm is not installed.
        EngineError: the model or adapter cannot be found or loaded.
    """
    options = engine_options("vllm", argument, Options)
    if options.lora and weights_dtype(recipe) == "float32" and not is_cpu():
        raise ConfigError(
            "vllm has no LoRA kernels for float32 on CUDA, and dies of it: set --dtype bfloat16, or "
            "--engine vllm:lora=false for a model without adapters"
        )
    return VllmEngine(recipe, options)
