"""The two ways of training a policy, as the trainer sees them: a LoRA adapter on a base, or every parameter.

`lora_tuning.LoraTuning` and `full_tuning.FullTuning` fulfil the contract; nothing else here knows which one it is.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import msgspec
import torch
from msgspec import UNSET, UnsetType

from mae_cli.recipe.sections import FinetuneSection
from mae_cli.records import seed_from
from mae_cli.training.examples import Renderer


class Origin(msgspec.Struct, frozen=True):
    """What a training starts from, by digests; unset fields are in no fingerprint."""

    adapter: str | None
    """The adapter, or the trained model, that is continued."""
    base: str | UnsetType = UNSET
    """Of a full fine-tuning."""
    base_revision: str | UnsetType | None = UNSET


class Tuning(Protocol):
    """A way of training a policy: what is trained, and how it is saved.

    Attributes:
        noun: what the result is called: adapter or model.
        compute_dtype: type of the forward pass; null is that of the model's weights.
    """

    noun: str
    compute_dtype: torch.dtype | None

    def origin(self) -> Origin:
        """Digests of the starting point; `adapter` is the parent."""

    def attached(self, model: Any, *, seed: int) -> AbstractContextManager[Any]:
        """The trainable policy, in training mode; each kind decides in which state it leaves the model afterwards."""

    def reference(self, policy: Any, reference: str) -> AbstractContextManager[None]:
        """The policy turned into another one for a moment, without a second model: `finetune.reference`."""

    def settings(self, policy: Any) -> dict[str, Any]:
        """Settings for the lineage."""

    def save(self, policy: Any, folder: Path, *, base_name: str) -> None:
        """Weights and config; equal trainings give equal bytes."""


@contextmanager
def training_mode(model: Any, section: FinetuneSection, *, seed: int) -> Iterator[None]:
    """Random state, gradient checkpointing and mode of a training, put back at the end."""
    was_training = model.training
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed_from(seed, "lora"))
        try:
            if section.gradient_checkpointing:
                # Reentrant recomputation needs inputs with gradients, which a frozen embedding does not give.
                model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            yield
        finally:
            if section.gradient_checkpointing:
                model.gradient_checkpointing_disable()
            model.train(was_training)


def trainable(policy: Any) -> list[tuple[str, torch.nn.Parameter]]:
    """The trained parameters by name, in the order of the model; tied ones once."""
    return [(name, parameter) for name, parameter in policy.named_parameters() if parameter.requires_grad]


def save_tokenizer(chat: Renderer, folder: Path) -> None:
    """The tokenizer with the template it was trained with."""
    tokenizer = copy.copy(chat.tokenizer)
    tokenizer.chat_template = chat.template
    tokenizer.save_pretrained(str(folder))
