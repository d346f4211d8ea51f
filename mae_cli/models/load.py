"""Loading a causal language model, its tokenizer and its type: safetensors only, never code from the model's folder.

Attention is torch's `scaled_dot_product_attention` where the family has it, else the family's own; which way of
decoding is then right for the model is found out by the `hf` engine (`engines/hf/probe.py`).

Place in the flow: the `hf` engine, training and `export` load here. Left out: finding the folder (`models.locate`) and
LoRA adapters (`models.adapters`).
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, TypeGuard

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from mae_cli.errors import ConfigError, EngineError, MissingDependencyError, one_line
from mae_cli.models.launcher import is_sharded, local_rank, num_processes
from mae_cli.models.sharded import sharding_options
from mae_cli.models.weights import check_folder, check_names, embedding_rows
from mae_cli.prompts.chat_template import end_of_turn

# Special tokens that end a turn in one family or another; one that stands in a chat template that takes no chat with an
# answer, from which the end could be read, ends a row.
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


def load_model(
    folder: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    load_in_4bit: bool = False,
    notices: list[str] | None = None,
) -> Any:
    """The folder's causal LM in eval mode, with the fastest attention that its class has.

    With `load_in_4bit` its linear layers are stored in four bits (NF4 with nested constants; Dettmers et al. 2023,
    QLoRA, section 3) and computed in `dtype`. Under FSDP the model is this process's part, see `models.sharded`. What
    was left out of the files is added to `notices`.

    Raises:
        MissingDependencyError: four bits without the package bitsandbytes.
        EngineError: not a causal LM with safetensors weights that this version of transformers knows, or one whose
            weights do not fit its config, tensor for tensor.
    """
    # Its progress bar goes to stderr for every load, and mae says what it loads itself.
    transformers.utils.logging.disable_progress_bar()
    check_folder(folder)
    if is_sharded():
        placed = sharding_options(folder, device=device, load_in_4bit=load_in_4bit)
    else:
        placed = _four_bits(device, dtype) if load_in_4bit else {}
    try:
        model, info = _from_pretrained(folder, {"config": _config(folder), "dtype": dtype, **placed})
    except _LOAD_ERRORS as error:
        raise EngineError(f"{folder}: cannot be loaded as a causal language model: {one_line(error)}") from error
    told = check_names(folder, model, info)
    if notices is not None:
        notices += told
    # A quantised model, or a part of one, is put on its device while it is loaded, and refuses to be moved.
    return model.eval() if placed else model.to(device).eval()


_LOAD_ERRORS = (
    *(OSError, ValueError, KeyError, RuntimeError, ImportError, TypeError, AttributeError, IndexError),
    *(AssertionError, SafetensorError, StrictDataclassError),
)
"""Errors of the library on a folder it cannot load: configs with impossible numbers end in the later ones."""


def _config(folder: Path) -> Any:
    """The folder's config; a padding id outside the vocabulary is none, for the embedding cannot be built with it."""
    config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    text = config.get_text_config(decoder=True)
    padding, size = getattr(text, "pad_token_id", None), getattr(text, "vocab_size", None)
    if isinstance(padding, int) and isinstance(size, int) and padding >= size:
        text.pad_token_id = None
    return config


def _from_pretrained(folder: Path, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The model and the library's report on loading it.

    A class refuses an attention it has not while it is built, before weights are read, so asking twice costs little.
    """
    for attention in ("sdpa", "eager", None):
        try:
            loaded: tuple[Any, dict[str, Any]] = AutoModelForCausalLM.from_pretrained(
                str(folder),
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                # A shape that differs is named by `check_names`; without this the library ends in a page of text.
                ignore_mismatched_sizes=True,
                **({} if attention is None else {"attn_implementation": attention}),
                **options,
            )
        except (ValueError, ImportError) as error:
            if attention is None or not _is_about_attention(error):
                raise
        else:
            return loaded
    raise AssertionError("unreachable")


def _is_about_attention(error: Exception) -> bool:
    return any(word in str(error) for word in ("scaled_dot_product_attention", "attn_implementation", "attention impl"))


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
    """The most tokens, prompt and completion, the model takes; none when neither config nor weights set an end."""
    config = model.config.get_text_config(decoder=True)
    names = ("max_position_embeddings", "n_positions", "max_seq_len", "max_target_positions")
    told = [getattr(config, name, None) for name in names]
    lengths = [int(length) for length in told if isinstance(length, int | float) and length > 0][:1]
    # An engine without weights here has the config alone.
    modules = model.named_modules() if hasattr(model, "named_modules") else ()
    lengths += [_table_length(name, module) for name, module in modules if name.endswith(_TABLES)]
    return min((length for length in lengths if length > 0), default=None)


_TABLES = ("position_embeddings", "embed_positions", "wpe", "position_embedding", "pos_embed")


def _table_length(name: str, module: Any) -> int:
    """Positions in a learned table; some families leave its first rows unused (OPT two, RoBERTa the padding's)."""
    if not isinstance(module, torch.nn.Embedding) or any(part in name for part in ("vision", "visual", "audio")):
        return 0
    padding = module.padding_idx
    unused = getattr(module, "offset", None)
    return int(module.num_embeddings) - int(unused if unused is not None else 0 if padding is None else padding + 1)


def end_token_ids(model: Any, tokenizer: Any, template: str) -> frozenset[int]:
    """Every id that ends a row: those of generation_config, config and tokenizer, and the template's end of turn."""
    found: set[int] = set()
    for source in (getattr(model, "generation_config", None), model.config, tokenizer):
        value = getattr(source, "eos_token_id", None)
        found.update(
            token_id for token_id in (value if isinstance(value, list | tuple) else [value]) if _is_id(token_id)
        )
    end = end_of_turn(tokenizer, template, frozenset(found))
    if end.is_written and len(end.ids) == 1:
        return frozenset([*found, *end.ids])
    special = {token.content: token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special}
    found.update(special[name] for name in TURN_ENDS if name in special and name in template)
    return frozenset(found)


def _is_id(value: Any) -> TypeGuard[int]:
    """Whether a config's value is a token id; some files say -1 for none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def pad_token_id(model: Any, tokenizer: Any, end_ids: frozenset[int]) -> int:
    """A token id to fill masked places with: any that the model has an embedding for."""
    rows = embedding_rows(model)
    for source in (getattr(model, "generation_config", None), tokenizer):
        value = getattr(source, "pad_token_id", None)
        if _is_id(value) and value < rows:
            return value
    return min((token_id for token_id in end_ids if token_id < rows), default=0)


def detach_adapter(peft_model: Any) -> Any:
    """The pristine base under a PEFT model."""
    return peft_model.unload()
