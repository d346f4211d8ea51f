"""Loading a causal language model, its tokenizer and its type: safetensors only, never code from the model's folder.

Place in the flow: the `hf` engine, training and `export` load here. Left out: finding the folder (`models.locate`) and
LoRA adapters (`models.adapters`).
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer

from mae_cli.errors import ConfigError, EngineError, MissingDependencyError, one_line
from mae_cli.models.launcher import is_sharded, local_rank, num_processes
from mae_cli.models.sharded import sharding_options

# Special tokens that end a turn in one family or another; one that stands in the chat template ends a row.
TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "<|end_of_text|>", "<|endoftext|>", "</s>")


def resolve_device(name: str) -> torch.device:
    """The torch device for auto, cpu, cuda, cuda:N or mps; each of several processes gets its own.

    Raises:
        EngineError: torch does not see that device.
    """
    if name in ("auto", "cuda") and num_processes() > 1 and torch.cuda.is_available():
        name = f"cuda:{local_rank()}"
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps") if torch.backends.mps.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f'device "{name}" is unknown; expected auto, cpu, cuda, cuda:N or mps') from error
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise EngineError(f'device "{name}" is not there: torch {torch.__version__} sees {count} CUDA devices')
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise EngineError('device "mps" is not there: torch does not see it')
    return device


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """The type of the weights; auto is bfloat16 on CUDA, else float32."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def load_tokenizer(folder: Path) -> Any:
    """The folder's tokenizer.

    Raises:
        EngineError: no usable tokenizer there.
    """
    try:
        return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise EngineError(f"{folder}: no usable tokenizer: {one_line(error)}") from error


def load_model(folder: Path, *, device: torch.device, dtype: torch.dtype, load_in_4bit: bool = False) -> Any:
    """The folder's causal LM in eval mode, attention by scaled_dot_product_attention.

    With `load_in_4bit` its linear layers are stored in four bits (NF4 with nested constants; Dettmers et al. 2023,
    QLoRA, section 3) and computed in `dtype`. Under FSDP the model is this process's part, see `models.sharded`.

    Raises:
        MissingDependencyError: four bits without the package bitsandbytes.
        EngineError: not a causal LM with safetensors weights that this version of transformers knows.
    """
    # Its progress bar goes to stderr for every load, and mae says what it loads itself.
    transformers.utils.logging.disable_progress_bar()
    if is_sharded():
        placed = sharding_options(folder, device=device, load_in_4bit=load_in_4bit)
    else:
        placed = _four_bits(device, dtype) if load_in_4bit else {}
    try:
        model = AutoModelForCausalLM.from_pretrained(
            str(folder),
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            attn_implementation="sdpa",
            **placed,
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise EngineError(f"{folder}: cannot be loaded as a causal language model: {one_line(error)}") from error
    # A quantised model, or a part of one, is put on its device while it is loaded, and refuses to be moved.
    return model.eval() if placed else model.to(device).eval()


def _four_bits(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingDependencyError("load_in_4bit needs the package bitsandbytes: pip install bitsandbytes")
    if device.type not in ("cpu", "cuda"):
        raise EngineError(f"load_in_4bit: bitsandbytes has no four-bit layers for {device.type}; use cpu or cuda")
    config = transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    return {"quantization_config": config, "device_map": {"": device}}


def context_length(model: Any) -> int | None:
    """The most tokens, prompt and completion, the model takes; none when its config does not say."""
    config = model.config.get_text_config(decoder=True)
    length = getattr(config, "max_position_embeddings", None)
    return int(length) if length else None


def end_token_ids(model: Any, tokenizer: Any, template: str) -> frozenset[int]:
    """Every id that ends a row: those of generation_config, config and tokenizer, and turn ends of the template."""
    found: set[int] = set()
    for source in (getattr(model, "generation_config", None), model.config, tokenizer):
        value = getattr(source, "eos_token_id", None)
        if value is not None:
            found.update([value] if isinstance(value, int) else value)
    special = {token.content: token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special}
    found.update(special[name] for name in TURN_ENDS if name in special and name in template)
    return frozenset(found)


def pad_token_id(model: Any, tokenizer: Any, end_ids: frozenset[int]) -> int:
    """A token id to fill masked places with."""
    for source in (getattr(model, "generation_config", None), tokenizer):
        value = getattr(source, "pad_token_id", None)
        if isinstance(value, int):
            return value
    return min(end_ids, default=0)


def detach_adapter(peft_model: Any) -> Any:
    """The pristine base under a PEFT model."""
    return peft_model.unload()
