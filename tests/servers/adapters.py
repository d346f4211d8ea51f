"""Adapters of the embedded model that change what it says, made without training."""

from __future__ import annotations

from pathlib import Path

from mae_cli.models.embedded import model_dir


def make_embedded_adapter(folder: Path, *, seed: int, rank: int = 8) -> Path:
    """A LoRA adapter with random weights, large enough to part most greedy rows from the base's."""
    import torch
    from peft import LoraConfig, get_peft_model

    from mae_cli.models.load import load_model

    model = load_model(model_dir("smollm2-135m"), device=torch.device("cpu"), dtype=torch.float32)
    layers = ["q_proj", "v_proj", "down_proj"]
    tuned = get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=layers))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.02)
    tuned.save_pretrained(str(folder))
    return folder
