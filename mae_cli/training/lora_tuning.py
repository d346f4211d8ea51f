"""A LoRA adapter put on a base model for one training and taken off again, and the folder it is saved to.

`LoraTuning` is one of the two ways of training a policy, see `tuning.py`; the other is in `full_tuning.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

from mae_cli.errors import ConfigError
from mae_cli.models.adapters import CONFIG, add_adapter, load_adapter, strip_adapter
from mae_cli.models.digests import adapter_digest
from mae_cli.recipe.sections import FinetuneSection
from mae_cli.records.atomic import write_atomically
from mae_cli.training.tuning import Origin, training_mode


class LoraTuning:
    """A LoRA adapter is trained, a fresh one or one that is continued; the base stays as it is.

    Args:
        section: rank, scale, targets and variant.
        start: the adapter to continue.
    """

    noun = "adapter"
    compute_dtype: torch.dtype | None = None

    def __init__(self, section: FinetuneSection, start: Path | None = None) -> None:
        self.section, self.start = section, start

    def origin(self) -> Origin:
        """Digest of the adapter it starts from."""
        return Origin(adapter_digest(self.start) if self.start else None)

    def attached(self, model: Any, *, seed: int) -> AbstractContextManager[Any]:
        """The model with the adapter on it; see `attached`."""
        return attached(model, self.section, seed=seed, start_adapter=self.start)

    def reference(self, policy: Any, reference: str) -> AbstractContextManager[None]:
        """See `reference_policy`."""
        return reference_policy(policy, reference)

    def settings(self, policy: Any) -> dict[str, Any]:
        """See `lora_settings`."""
        return lora_settings(policy)

    def save(self, policy: Any, folder: Path, *, base_name: str) -> None:
        """See `save_adapter`."""
        save_adapter(policy, folder, base_name=base_name)


@contextmanager
def attached(model: Any, section: FinetuneSection, *, seed: int, start_adapter: Path | None) -> Iterator[Any]:
    """The model with a trainable adapter, in training mode; afterwards the base is as it was.

    A fresh adapter is a pure function of the seed. The global random state is put back at the end.

    Raises:
        ConfigError: target_modules names nothing in this model.
        EngineError: start_adapter is missing, broken or made for another base.
    """
    flags = {name: (parameter.requires_grad, parameter.dtype) for name, parameter in model.named_parameters()}
    with training_mode(model, section, seed=seed):
        try:
            if getattr(model, "is_loaded_in_4bit", False):
                # Norms and embeddings to float32 (Dettmers et al. 2023, QLoRA).
                prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
            policy = (
                _fresh(model, section) if start_adapter is None else load_adapter(model, start_adapter, trainable=True)
            )
            policy.train()
            yield policy
        finally:
            strip_adapter(model)
            for name, parameter in model.named_parameters():
                wanted, dtype = flags[name]
                parameter.requires_grad_(wanted)
                if parameter.dtype != dtype:
                    parameter.data = parameter.data.to(dtype)  # back from float32, exactly


@contextmanager
def reference_policy(policy: Any, reference: str) -> Iterator[None]:
    """The policy turned into its reference: "start" as it is, "base" with the adapter off, or another adapter.

    Raises:
        EngineError: the other adapter is missing, broken or made for another base.
    """
    if reference == "start":
        yield
    elif reference == "base":
        with policy.disable_adapter():
            yield
    else:
        add_adapter(policy, Path(reference), "reference")
        try:
            policy.set_adapter("reference")
            yield
        finally:
            policy.set_adapter("default")
            policy.delete_adapter("reference")


def _fresh(model: Any, section: FinetuneSection) -> Any:
    names = section.target_modules
    config = LoraConfig(
        r=section.lora_r,
        lora_alpha=section.lora_alpha,
        lora_dropout=section.lora_dropout,
        target_modules=names if names == "all-linear" else [name.strip() for name in names.split(",")],
        use_rslora=section.rslora,
        use_dora=section.dora,
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise ConfigError(f'finetune.target_modules "{names}": {" ".join(str(error).split())[:300]}') from error


def lora_settings(policy: Any) -> dict[str, Any]:
    """Rank, scale and targets of the adapter in use; a continued one brings its own."""
    config = policy.peft_config["default"]
    targets = config.target_modules
    return {
        "lora_r": config.r,
        "lora_alpha": config.lora_alpha,
        "target_modules": targets if isinstance(targets, str) else sorted(targets or []),
        **{name: True for name in ("use_rslora", "use_dora") if getattr(config, name)},
        # It was trained beside rounded weights.
        **({"load_in_4bit": True} if getattr(policy, "is_loaded_in_4bit", False) else {}),
    }


def save_adapter(policy: Any, folder: Path, *, base_name: str) -> None:
    """Weights and config of the adapter as PEFT reads them; equal adapters give equal bytes."""
    policy.peft_config["default"].base_model_name_or_path = base_name
    # Embeddings are not trained; "auto" would ask the hub about them.
    policy.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
    path = folder / CONFIG
    config = json.loads(path.read_text("utf-8"))
    for key, value in config.items():
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            # PEFT keeps module names in a set, whose order changes from process to process.
            config[key] = sorted(value)
    write_atomically(path, json.dumps(config, indent=2, sort_keys=True).encode() + b"\n")
