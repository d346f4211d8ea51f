"""Memory by formula from a model's config alone: weights, keys and values, LoRA with its optimizer, activations.

Contract: no weights are needed or read. The class is built on the meta device, so parameters and layers are counted,
not estimated; activations are an estimate and say so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from mae_cli.errors import EngineError, one_line
from mae_cli.recipe.sections import Recipe
from mae_cli.recipe.steps import recipe_of_step, steps_of

MICRO_BATCH_TOKENS = {"cpu": 4096, "cuda": 16384}
"""Tokens of one forward pass of training where the recipe says 0 (`finetune.micro_batch_tokens`)."""
AUTO_ROWS = 64
"""Rows decoded at a time with `batch_size: auto`, as reckoned here."""
TRAINED_BYTES = 16
"""Bytes per trained parameter: weight, gradient and Adam's two moments in float32 (arXiv:1910.02054, section 3.1)."""


class MemoryPlan(msgspec.Struct, kw_only=True):
    """Bytes that a model needs for a recipe."""

    model: str
    parameters: int
    trained_parameters: int
    dtype: str
    weight_bytes: int
    kv_bytes_per_token: int
    """Of one row."""
    longest_row: int
    """Tokens of the longest row, prompt and completion, that the recipe's steps can make."""
    rows_at_a_time: int
    kv_bytes: int
    """Of all rows at a time at full length."""
    generation_bytes: int
    training_bytes: int
    """Weights, trained parameters with their optimizer, activations and logits of one forward pass."""
    optimizer_bytes: int
    activation_bytes: int
    """An estimate."""
    logits_bytes: int


def config_folder(name: str, revision: str | None) -> Path:
    """The folder of a model's config.json: a folder, an embedded model, or the hub cache; nothing is downloaded.

    Raises:
        EngineError: there is none.
    """
    from mae_cli.models.locate import HUB_ID, resolve_model

    folder = Path(name).expanduser()
    if (folder / "config.json").is_file():
        return folder
    if HUB_ID.fullmatch(name) and not folder.exists():
        import huggingface_hub

        found = huggingface_hub.try_to_load_from_cache(name, "config.json", revision=revision)
        if isinstance(found, str):
            return Path(found).parent
        raise EngineError(f"{name}: its config.json is not in the hub cache; give a folder with it")
    found = resolve_model(name)
    assert isinstance(found, Path)
    return found


def memory_of(recipe: Recipe) -> MemoryPlan:
    """Return the memory of a recipe's model by its config.

    Raises:
        EngineError: no config, or one that transformers does not know.
    """
    from mae_cli.models.load import context_length, resolve_device, resolve_dtype

    model = _empty(config_folder(recipe.model, recipe.revision))
    config = model.config.get_text_config(decoder=True)
    device = resolve_device(recipe.device)
    dtype = resolve_dtype(recipe.dtype, device)
    parameters = sum(one.numel() for one in model.parameters())
    trained = parameters if recipe.finetune.full else lora_parameters(model, recipe.finetune.lora_r)
    size = dtype.itemsize
    weight_bytes = parameters // 2 if recipe.load_in_4bit else parameters * size
    per_token = kv_bytes_per_token(config, size)
    longest = min(_longest_row(recipe), context_length(model) or 1 << 30)
    rows = AUTO_ROWS if recipe.batch_size == "auto" else recipe.batch_size
    tokens = recipe.finetune.micro_batch_tokens or MICRO_BATCH_TOKENS.get(device.type, 4096)
    activations = activation_bytes(config, tokens, size, checkpointed=recipe.finetune.gradient_checkpointing)
    logits = 2 * 4 * tokens * config.vocab_size  # float32, and their gradient
    optimizer = trained * TRAINED_BYTES
    held = 0 if recipe.finetune.full else weight_bytes
    return MemoryPlan(
        model=recipe.model,
        parameters=parameters,
        trained_parameters=trained,
        dtype=str(dtype).removeprefix("torch."),
        weight_bytes=weight_bytes,
        kv_bytes_per_token=per_token,
        longest_row=longest,
        rows_at_a_time=rows,
        kv_bytes=per_token * longest * rows,
        generation_bytes=weight_bytes + per_token * longest * rows,
        training_bytes=held + optimizer + activations + logits,
        optimizer_bytes=optimizer,
        activation_bytes=activations,
        logits_bytes=logits,
    )


def kv_bytes_per_token(config: Any, size: int) -> int:
    """Bytes of keys and values of one token: 2 x layers x key-value heads x head width x bytes of a number.

    Source: Pope et al. 2022, arXiv:2211.05102, section 3.3; with grouped queries heads are shared (arXiv:2305.13245).
    A sliding window makes it less, which is left out.
    """
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * int(config.num_hidden_layers) * int(heads) * int(width) * size


def lora_parameters(model: Any, rank: int) -> int:
    """Parameters of a LoRA of that rank on all linear layers but the output: r x (inputs + outputs) for each.

    Source: Hu et al. 2021, arXiv:2106.09685, section 4.1.
    """
    import torch

    output = model.get_output_embeddings()
    return sum(
        rank * (module.in_features + module.out_features)
        for module in model.modules()
        if isinstance(module, torch.nn.Linear) and module is not output
    )


def activation_bytes(config: Any, tokens: int, size: int, *, checkpointed: bool) -> int:
    """Bytes of activations kept for the backward pass of so many tokens.

    Per layer 34 x tokens x width at 16 bits without the attention scores, which fused attention does not keep; with
    checkpointing 2 x tokens x width for each layer's input, and one layer as a whole.
    Source: Korthikanti et al. 2022, arXiv:2205.05198, equation 2 and section 5.
    """
    layer = 34 * tokens * int(config.hidden_size) * size // 2
    layers = int(config.num_hidden_layers)
    return layers * tokens * int(config.hidden_size) * size + layer if checkpointed else layers * layer


def _longest_row(recipe: Recipe) -> int:
    """Tokens of the longest completion of any step, and as many again for its prompt, at least 512."""
    longest = 0
    for step in steps_of(recipe):
        new = getattr(getattr(recipe_of_step(recipe, step), step.stage), "max_new_tokens", 0)
        longest = max(longest, new)
    return longest + max(512, longest)


def _empty(folder: Path) -> Any:
    import torch
    import transformers
    from transformers import AutoConfig, AutoModelForCausalLM

    transformers.utils.logging.set_verbosity_error()
    try:
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:
        raise EngineError(f"{folder}: transformers cannot build it from config.json: {one_line(error)}") from error
