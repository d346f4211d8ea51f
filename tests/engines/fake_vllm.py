"""A stand-in for the part of vLLM's documented offline interface that the engine uses, on a transformers model.

Unknown keywords are a TypeError, as they are there; what vLLM validates is validated. It decodes greedily, whatever the
temperature: what sampling does to a text is not the engine's business, that its parameters arrive is.
"""

from __future__ import annotations

import sys
import types
from dataclasses import dataclass, field
from typing import Any

import pytest


@dataclass
class SamplingParams:
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop: list[str] | None = None
    stop_token_ids: list[int] | None = None
    max_tokens: int | None = 16
    prompt_logprobs: int | None = None
    detokenize: bool = True
    skip_special_tokens: bool = True
    structured_outputs: Any = None

    def __post_init__(self) -> None:
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, got {self.max_tokens}.")
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.top_k < -1:
            raise ValueError("a sampling parameter is out of range")
        if self.stop and not self.detokenize:
            raise ValueError("stop strings are only supported when detokenize is True.")


@dataclass(frozen=True)
class LoRARequest:
    lora_name: str
    lora_int_id: int
    lora_path: str

    def __post_init__(self) -> None:
        if self.lora_int_id < 1:
            raise ValueError(f"id must be > 0, got {self.lora_int_id}")


@dataclass
class Logprob:
    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


@dataclass
class CompletionOutput:
    index: int
    text: str
    token_ids: list[int]
    finish_reason: str | None
    stop_reason: int | str | None = None


@dataclass
class RequestOutput:
    prompt_token_ids: list[int]
    prompt_logprobs: list[dict[int, Logprob] | None] | None
    outputs: list[CompletionOutput]


def tokens_prompt(*, prompt_token_ids: list[int]) -> dict[str, Any]:
    return {"prompt_token_ids": prompt_token_ids}


class EngineDeadError(Exception):
    pass


class EngineGenerateError(Exception):
    pass


@dataclass
class Calls:
    """What the stand-in was asked, and what it shall do."""

    engines: list[dict[str, Any]] = field(default_factory=list)
    generates: list[dict[str, Any]] = field(default_factory=list)
    refused: set[int] = field(default_factory=set)
    """Lengths of prompts that make the whole call raise ValueError."""
    dies: bool = False
    misfits: bool = False
    """Whether `generate` does not know a keyword, as that of another version."""
    finish: str | None = None
    is_cpu: bool = False


@dataclass
class StructuredOutputsParams:
    choice: list[str] | None = None


def install(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls = Calls()

    class LLM:
        def __init__(
            self,
            model: str,
            *,
            dtype: str = "auto",
            seed: int | None = None,
            gpu_memory_utilization: float = 0.9,
            tensor_parallel_size: int = 1,
            trust_remote_code: bool = False,
            max_model_len: int | None = None,
            enable_lora: bool = False,
            max_loras: int = 1,
            max_lora_rank: int = 16,
            enforce_eager: bool = False,
            enable_chunked_prefill: bool | None = None,
            max_num_batched_tokens: int | None = None,
        ) -> None:
            import torch
            from transformers import AutoModelForCausalLM, AutoTokenizer

            if max_lora_rank not in (8, 16, 32, 64, 128, 256, 320, 512):
                raise ValueError(f"max_lora_rank ({max_lora_rank}) must be one of ...")
            calls.engines.append({k: v for k, v in locals().items() if k not in ("self", "torch") and k[0].islower()})
            self.enable_lora = enable_lora
            self.tokenizer = AutoTokenizer.from_pretrained(model)
            self.base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()

        def generate(
            self,
            prompts: list[Any],
            sampling_params: list[SamplingParams] | None = None,
            *,
            use_tqdm: bool = True,
            lora_request: LoRARequest | None = None,
        ) -> list[RequestOutput]:
            if calls.misfits:
                raise TypeError("LLM.generate() got an unexpected keyword argument 'lora_request'")
            if calls.dies:
                raise EngineDeadError("EngineCore encountered an issue.")
            assert sampling_params is not None
            assert len(prompts) == len(sampling_params)
            assert lora_request is None or self.enable_lora
            scores = any(params.prompt_logprobs is not None for params in sampling_params)
            if calls.is_cpu and self.enable_lora and scores and len(prompts) > 1:
                # What 0.32 on a CPU does where it was started for adapters.
                raise EngineDeadError("EngineCore encountered an issue.")
            lengths = [len(prompt["prompt_token_ids"]) for prompt in prompts]
            if calls.refused & set(lengths):
                raise ValueError("The decoder prompt is refused")
            calls.generates.append({"params": sampling_params, "lora": lora_request, "count": len(prompts)})
            model = self.base
            if lora_request is not None:
                from mae_cli.models.adapters import load_adapter

                model = load_adapter(self.base, __import__("pathlib").Path(lora_request.lora_path))
            outputs = [
                self._one(model, prompt["prompt_token_ids"], params)
                for prompt, params in zip(prompts, sampling_params, strict=True)
            ]
            if lora_request is not None:
                from mae_cli.models.adapters import strip_adapter

                strip_adapter(self.base)
            return outputs

        def _one(self, model: Any, prompt: list[int], params: SamplingParams) -> RequestOutput:
            import torch

            if params.structured_outputs is not None:
                reply = self.tokenizer.encode(params.structured_outputs.choice[-1], add_special_tokens=False)
                return RequestOutput(prompt, None, [CompletionOutput(0, "", reply[: params.max_tokens], "stop")])
            ids, reason = list(prompt), "length"
            with torch.no_grad():
                logits = model(torch.tensor([ids])).logits[0]
                told = None
                if params.prompt_logprobs is not None:
                    logprobs = torch.log_softmax(logits.float(), -1)
                    told = [None] + [
                        {token: Logprob(float(logprobs[place, token]))} for place, token in enumerate(prompt[1:])
                    ]
                while len(ids) - len(prompt) < (params.max_tokens or 10**9):
                    ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
                    text = self.tokenizer.decode(ids[len(prompt) :])
                    ended = ids[-1] in (params.stop_token_ids or [])
                    if ended or any(stop in text for stop in params.stop or []):
                        reason = "stop"
                        break
            output = CompletionOutput(0, "", ids[len(prompt) :], calls.finish or reason)
            return RequestOutput(prompt, told, [output])

    modules = {
        "vllm": {"LLM": LLM, "SamplingParams": SamplingParams},
        "vllm.platforms": {"current_platform": types.SimpleNamespace(is_cpu=lambda: calls.is_cpu)},
        "vllm.sampling_params": {"StructuredOutputsParams": StructuredOutputsParams},
        "vllm.inputs": {"TokensPrompt": tokens_prompt},
        "vllm.lora": {},
        "vllm.lora.request": {"LoRARequest": LoRARequest},
        "vllm.v1": {},
        "vllm.v1.engine": {},
        "vllm.v1.engine.exceptions": {"EngineDeadError": EngineDeadError, "EngineGenerateError": EngineGenerateError},
    }
    for name, members in modules.items():
        module = types.ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    return calls
