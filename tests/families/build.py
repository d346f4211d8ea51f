"""Tiny random models of every family of causal language models that the library can build from a config alone.

A family's own defaults are kept but for sizes: whatever of `SIZES` its config knows is made small, then what stands
for the family in `FAMILIES`. Nothing is downloaded.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from tests.conftest import build_tokenizer

SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "dim", "attention_hidden_size", "word_embed_proj_dim"), 64),
    **dict.fromkeys(("intermediate_size", "n_inner", "ffn_dim", "dff", "ffn_hidden_size", "dim_feedforward"), 128),
    **dict.fromkeys(("intermediate_size_mlp", "feed_forward_hidden_size", "shared_intermediate_size"), 128),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), 2),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx", "context_length"), 512),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "top_k_experts", "moe_k", "moe_top_k", "moe_topk"), 2),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "expert_ffn_hidden_size"), 64),
    **dict.fromkeys(
        ("n_group", "topk_group", "mamba_n_groups", "n_groups", "num_shared_experts", "n_shared_experts"), 1
    ),
    **dict.fromkeys(("sliding_window", "attention_window_size"), 16),
    **dict.fromkeys(
        ("mamba_d_state", "state_size", "ssm_state_size", "mamba_headdim", "mamba_d_head", "kv_channels"), 16
    ),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 32),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "head_dim", "rotary_dim"), 16),
    "first_k_dense_replace": 1,
    "layer_types": None,
    "pad_token_id": 0,
}
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
LINEAR = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "num_hidden_layers": 4,
}
LONGROPE = {
    "original_max_position_embeddings": 64,
    "rope_parameters": {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0] * 8,
        "long_factor": [4.0] * 8,
        "original_max_position_embeddings": 64,
    },
}
MLA = {"num_key_value_heads": 4}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_expand": 2}
ENCODER = {"is_decoder": True}
PLAIN = """
llama mistral mixtral qwen2 qwen3 gemma gemma2 gpt2 gpt_neox gptj opt bloom mpt falcon phi phi3 stablelm starcoder2
granite olmo olmo2 olmo3 cohere cohere2 smollm3 mamba falcon_mamba rwkv gpt_oss qwen2_moe qwen3_moe gemma3_text
llama4_text apertus arcee bitnet biogpt codegen ctrl cwm diffllama doge dots1 ernie4_5 ernie4_5_moe exaone4 flex_olmo
glm glm4 glm4_moe gpt_bigcode granitemoe granitemoeshared helium hunyuan_v1_dense hunyuan_v1_moe jetmoe minimax
minimax_m2 ministral ministral3 nanochat nemotron olmoe openai-gpt persimmon phimoe seed_oss vaultgemma xglm xlstm
mimo_v2_flash afmoe modernbert-decoder exaone_moe solar_open internlm3 jais2 lfm3 hy_v3 laguna
"""
"""Families that need nothing besides the sizes."""
# Families, with the settings that their config needs besides the sizes; a name with a slash is a variant.
FAMILIES: dict[str, dict[str, Any]] = {
    **{name: {} for name in PLAIN.split()},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 16},
    "mamba2": {"num_heads": 8, "head_dim": 16, "hidden_size": 64, "expand": 2},
    "falcon_h1": {"mamba_d_ssm": 128, "mamba_n_heads": 8, "mamba_d_head": 16},
    "bamba": {**MAMBA, "attn_layer_indices": [1]},
    "jamba": {"attn_layer_offset": 1, "attn_layer_period": 2, "expert_layer_period": 2, "expert_layer_offset": 1},
    "granitemoehybrid": {**MAMBA, "layer_types": ["mamba", "attention"]},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "qwen3_next": {**LINEAR},
    "qwen3_5_text": {**LINEAR},
    "olmo_hybrid": {**LINEAR},
    "recurrent_gemma": {"num_hidden_layers": 3, "lru_width": 64},
    "nemotron_h": {"mamba_num_heads": 8, "mamba_head_dim": 16},
    "deepseek_v2": {**MLA, "topk_method": "greedy"},
    "deepseek_v3": {**MLA},
    # Its logits are divided by hidden_size / dim_model_base; the default of 256 makes them too sharp to sample.
    "minicpm3": {**MLA, "dim_model_base": 32},
    "youtu": {**MLA},
    "longcat_flash": {**MLA, "expert_ffn_hidden_size": 64, "moe_topk": 2, "zero_expert_num": 2},
    "kimi_linear": {
        **MLA,
        "layer_types": ["linear_attention", "full_attention"],
        "linear_head_dim": 16,
        "linear_num_heads": 4,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
    },
    "falcon/alibi": {"alibi": True, "new_decoder_architecture": False, "multi_query": False, "num_kv_heads": 4},
    "phi3/longrope": {**LONGROPE, "sliding_window": None},
    "mistral/full": {"sliding_window": None},
    "phi3/full": {"sliding_window": None, "pad_token_id": 0},
    "llama/dynamic": {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}},
    "bert/decoder": ENCODER,
    "roberta/decoder": ENCODER,
    "bert": {},
    "roberta": {},
    "xlnet": {},
}


def config_of(family: str, **changes: Any) -> Any:
    """A small config of a family."""
    from transformers import AutoConfig

    kind = family.partition("/")[0]
    known = AutoConfig.for_model(kind).to_dict()
    sizes = {name: value for name, value in SIZES.items() if name in known}
    return AutoConfig.for_model(kind, **copy.deepcopy({**sizes, **FAMILIES.get(family, {}), **changes}))


def build(family: str, folder: Path, *, seed: int = 0, **changes: Any) -> Any:
    """Write a tiny model of a family with its tokenizer into a folder; returns the model in eval mode."""
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer = build_tokenizer()
    ids = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config_of(family, **ids, **changes))
        # Weights large enough that rows disagree, whatever start the family has for itself.
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim >= 2 and not any(part in name for part in ("A_log", "conv1d", "time_", "norm")):
                    parameter.normal_(std=0.2)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id]
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return model.eval()
