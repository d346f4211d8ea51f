"""A LoRA adapter put on a base model for one training and taken off again, and the folder it is saved to.

`LoraTuning` is one of the two ways of training a policy, see `tuning.py`; the other is in `full_tuning.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from peft.tuners.lora import LoraLayer

from mae_cli.errors import ConfigError, one_line
from mae_cli.models.adapters import CONFIG, add_adapter, load_adapter, strip_adapter
from mae_cli.models.digests import adapter_digest
from mae_cli.recipe.sections import FinetuneSection
from mae_cli.records.atomic import write_atomically
from mae_cli.training.lora_targets import choose_targets
from mae_cli.training.tuning import Origin, training_mode


class LoraTuning:
    """A LoRA adapter is trained, a fresh one or one that is continued; the base stays as it is.

    Args:
        section: rank, scale, targets and variant.
        start: the adapter to continue.
        say: for notices.

    Attributes:
        left_on: why the adapter could not be taken off afterwards; the model must not be used then.
    """

    noun = "adapter"
    compute_dtype: torch.dtype | None = None

    def __init__(
        self, section: FinetuneSection, start: Path | None = None, say: Callable[[str], None] | None = None
    ) -> None:
        self.section, self.start = section, start
        self.say = say or (lambda _: None)
        self.left_on: str | None = None

    def origin(self) -> Origin:
        """Digest of the adapter it starts from."""
        return Origin(adapter_digest(self.start) if self.start else None)

    @contextmanager
    def attached(self, model: Any, *, seed: int) -> Iterator[Any]:
        """The model with a trainable adapter, in training mode; afterwards the base is as it was.

        A fresh adapter is a pure function of the seed. The global random state is put back at the end. An adapter that
        cannot be taken off is no loss of what was trained: it is told, and `left_on` says so.

        Raises:
            ConfigError: target_modules names nothing in this model, or what PEFT cannot adapt.
            EngineError: the adapter to continue is missing, broken or made for another base.
        """
        states = [(parameter, parameter.requires_grad, parameter.dtype) for parameter in model.parameters()]
        with training_mode(model, self.section, seed=seed):
            try:
                if getattr(model, "is_loaded_in_4bit", False):
                    # Norms and embeddings to float32 (Dettmers et al. 2023, QLoRA).
                    prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
                policy = self._fresh(model) if self.start is None else self._continued(model, self.start)
                policy.train()
                yield policy
            finally:
                self._take_off(model, states)

    def _fresh(self, model: Any) -> Any:
        section = self.section
        targets = choose_targets(model, section.target_modules)
        if targets.left_out:
            self.say(
                f"no LoRA on {', '.join(targets.left_out)}: stacked experts, routers and layers that PEFT cannot adapt "
                "are left out (experts can be named in finetune.target_modules)"
            )
        config = LoraConfig(
            r=section.lora_r,
            lora_alpha=section.lora_alpha,
            lora_dropout=section.lora_dropout,
            target_modules=targets.modules,
            target_parameters=targets.parameters,
            use_rslora=section.rslora,
            use_dora=section.dora,
            task_type="CAUSAL_LM",
        )
        try:
            return get_peft_model(model, config)
        except (ValueError, NotImplementedError, TypeError, RuntimeError) as error:
            raise ConfigError(f'finetune.target_modules "{section.target_modules}": {one_line(error)}') from error

    def _continued(self, model: Any, folder: Path) -> Any:
        """The adapter to continue, with this training's dropout: that of its file belongs to another training."""
        policy = load_adapter(model, folder, trainable=True)
        wanted, config = self.section.lora_dropout, policy.peft_config["default"]
        if config.lora_dropout != wanted:
            self.say(
                f"{folder}: made with a LoRA dropout of {config.lora_dropout:g}; it goes on with "
                f"finetune.lora_dropout {wanted:g}"
            )
            config.lora_dropout = wanted
            for layer in policy.modules():
                if isinstance(layer, LoraLayer) and "default" in layer.lora_dropout:
                    layer.lora_dropout["default"] = torch.nn.Dropout(wanted) if wanted else torch.nn.Identity()
        return policy

    def _take_off(self, model: Any, states: list[tuple[torch.nn.Parameter, bool, torch.dtype]]) -> None:
        try:
            strip_adapter(model)
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:  # it is on disk already
            self.left_on = one_line(error) or type(error).__name__
            self.say(f"the adapter could not be taken off the model again ({self.left_on}); the model is read anew")
        for parameter, wanted, dtype in states:
            parameter.requires_grad_(wanted)
            if parameter.dtype != dtype:
                parameter.data = parameter.data.to(dtype)  # back from float32, exactly

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


def lora_settings(policy: Any) -> dict[str, Any]:
    """Rank, scale and targets of the adapter in use; a continued one brings its own."""
    config = policy.peft_config["default"]
    targets = config.target_modules
    return {
        "lora_r": config.r,
        "lora_alpha": config.lora_alpha,
        "target_modules": targets if isinstance(targets, str) else sorted(targets or []),
        **({"target_parameters": sorted(config.target_parameters)} if config.target_parameters else {}),
        **({"modules_to_save": sorted(config.modules_to_save)} if config.modules_to_save else {}),
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
