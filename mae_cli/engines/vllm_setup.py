"""How vLLM is found, started and asked to hold texts to a form: options, settings of its CPU build, LoRA ranks."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from mae_cli.errors import ConfigError, EngineError, MissingDependencyError, one_line
from mae_cli.recipe.sections import Recipe
from mae_cli.records import Sampling
from mae_cli.records.text_schema import text_schema

LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM takes as `max_lora_rank`."""
CPU_CACHE_GIB = 4
CPU_BATCHED_TOKENS = 4096
FEW_CORES = 4


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options after the colon, as in `vllm:gpu_memory_utilization=0.6,tensor_parallel_size=2`."""

    gpu_memory_utilization: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.9
    """Share of the GPU's memory for weights and cache; less where a model is trained beside it."""
    tensor_parallel_size: Annotated[int, Meta(ge=1)] = 1
    """GPUs that hold one copy of the model together."""
    max_model_len: Annotated[int, Meta(ge=0)] = 0
    """Longest prompt and completion, in tokens; 0 is the model's own limit."""
    lora: bool = True
    """Whether adapters can be used; models that vLLM has no LoRA layers for need false."""
    enforce_eager: bool | None = None
    """No compilation, no CUDA graphs: it starts minutes earlier, and a GPU generates slower. Default: on a CPU."""
    enable_chunked_prefill: bool | None = None
    """Whether a long prompt is read in parts. Default: vLLM's; false on a CPU, where seeded rows end it then."""
    max_num_batched_tokens: Annotated[int, Meta(ge=0)] = 0
    """Tokens of one step of all rows; 0 is vLLM's own, on a CPU the longest prompt or 4096."""
    kv_cache_gib: Annotated[int, Meta(ge=0)] = 0
    """Memory for keys and values on a CPU, in GiB; 0 is VLLM_CPU_KVCACHE_SPACE where it is set, else 4."""


def import_part(name: str) -> Any:
    """A module of vLLM.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f'engine vllm needs the package {error.name}: pip install "mae-cli[vllm]" on a machine with a GPU'
        ) from error


def import_vllm() -> Any:
    """The library; its log goes to standard error, since standard output is for rows."""
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
    return import_part("vllm")


def is_cpu() -> bool:
    """Whether the installed vLLM is its build for CPUs."""
    import_vllm()
    return bool(import_part("vllm.platforms").current_platform.is_cpu())


def set_up_cpu(options: Options) -> None:
    """Settings that the CPU build reads from the environment when the engine starts."""
    if options.kv_cache_gib:
        os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(options.kv_cache_gib)
    # Unset, it takes nearly all of the machine's free memory.
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(CPU_CACHE_GIB))
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) <= FEW_CORES:
        # Its own choice leaves one core unused, of two that is half of the speed.
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", ",".join(map(str, cores)))


def engine_arguments(options: Options, *, is_cpu: bool, context: int | None) -> dict[str, Any]:
    """Arguments of `LLM` that the options say, and on a CPU those without which it dies or takes minutes to start."""
    told = {
        "max_model_len": options.max_model_len or None,
        "enforce_eager": options.enforce_eager,
        "enable_chunked_prefill": options.enable_chunked_prefill,
        "max_num_batched_tokens": options.max_num_batched_tokens or None,
    }
    if is_cpu:
        own = {
            "enforce_eager": True,
            "enable_chunked_prefill": False,
            # Without chunks a step must hold the longest prompt.
            "max_num_batched_tokens": max(CPU_BATCHED_TOKENS, context or 0),
        }
        told |= {name: value for name, value in own.items() if told[name] is None}
    return {name: value for name, value in told.items() if value is not None}


def constraint(sampling: Sampling) -> dict[str, Any]:
    """The parameter that holds texts to a schema or to allowed replies, under the name this version of vLLM has for it.

    Raises:
        EngineError: this version has none.
    """
    if sampling.choices:
        told: dict[str, Any] = {"choice": list(sampling.choices)}
    elif isinstance(sampling.schema, str):
        schema = text_schema(sampling.schema)
        told = {"choice" if schema.kind == "choices" else schema.kind: schema.value}
    else:
        return {}
    params = import_part("vllm.sampling_params")
    for key, name in (("structured_outputs", "StructuredOutputsParams"), ("guided_decoding", "GuidedDecodingParams")):
        if hasattr(params, name):
            return {key: getattr(params, name)(**told)}
    raise EngineError("this version of vllm cannot hold texts to a form (constrain, schema): install 0.12")


def engine_failure() -> type[Exception]:
    """The exception vLLM raises when the process that holds the model has died; it is none of Python's own."""
    failure: type[Exception] = import_part("vllm.v1.engine.exceptions").EngineDeadError
    return failure


def model_facts(folder: Path) -> Any:
    """The config and generation config of a model, where a loaded model would have them."""
    from transformers import AutoConfig, GenerationConfig

    try:
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise EngineError(f"{folder}: no usable config: {one_line(error)}") from error
    has_own = (folder / "generation_config.json").is_file()
    generation = GenerationConfig.from_pretrained(str(folder)) if has_own else None
    return SimpleNamespace(config=config, generation_config=generation)


def rank_of(adapter: Path) -> int:
    """The rank of an adapter folder.

    Raises:
        EngineError: no adapter there.
    """
    try:
        return int(json.loads((adapter / "adapter_config.json").read_text("utf-8"))["r"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EngineError(f"{adapter}: no adapter there: {one_line(error)}") from error


def rank_limit(recipe: Recipe) -> int:
    """The smallest rank vLLM takes that holds the recipe's adapters, those still to be trained included."""
    needed = max(recipe.finetune.lora_r, rank_of(Path(recipe.adapter)) if recipe.adapter else 1)
    rank = next((rank for rank in LORA_RANKS if rank >= needed), None)
    if rank is None:
        raise ConfigError(f"LoRA rank {needed}: vllm takes up to {LORA_RANKS[-1]}")
    return rank
