"""Tiny random models of other families than Llama, for training: dropout, experts, sliding windows, no template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.conftest import build_tokenizer

BASE = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
}
OPT = {"hidden_size": 64, "ffn_dim": 128, "word_embed_proj_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "decoder_sparse_step": 1}
MAMBA = {"hidden_size": 64, "num_hidden_layers": 2, "state_size": 8, "expand": 2}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", BASE),
    "without template": ("llama", BASE),
    "gpt2": ("gpt2", {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128}),
    "opt": ("opt", {**OPT, "max_position_embeddings": 128, "layerdrop": 0.2}),
    "mistral": ("mistral", {**BASE, "sliding_window": 8, "head_dim": 16}),
    "mixtral": ("mixtral", {**BASE, "num_local_experts": 4, "num_experts_per_tok": 2, "router_jitter_noise": 0.1}),
    "qwen3_moe": ("qwen3_moe", {**BASE, **EXPERTS, "head_dim": 16}),
    "qwen2_moe": ("qwen2_moe", {**BASE, **EXPERTS, "shared_expert_intermediate_size": 32}),
    "dense and sparse": ("qwen3_moe", {**BASE, **EXPERTS, "head_dim": 16, "mlp_only_layers": [0]}),
    "llama4": (
        "llama4_text",
        {
            **BASE,
            "head_dim": 16,
            "intermediate_size_mlp": 128,
            "num_local_experts": 4,
            "num_experts_per_tok": 1,
            "attention_chunk_size": 16,
        },
    ),
    "mamba": ("mamba", MAMBA),
    "granite": ("granite", {**BASE, "logits_scaling": 4.0, "embedding_multiplier": 3.0, "residual_multiplier": 0.5}),
    "cohere": ("cohere", {**BASE, "logit_scale": 0.25, "tie_word_embeddings": True}),
}


def save_family(name: str, folder: Path, *, seed: int = 0, **changes: Any) -> Path:
    """A random model of the family with its tokenizer; its weights are large enough to disagree."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    kind, settings = FAMILIES[name]
    tokenizer = build_tokenizer(**({"chat_template": None} if name == "without template" else {}))
    ids = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**ids, **settings, **changes}))
        with torch.no_grad():
            for path, parameter in model.named_parameters():
                if parameter.ndim >= 2 and "A_log" not in path and "conv1d" not in path:
                    parameter.normal_(std=0.15)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id]
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder
