"""Full fine-tuning: every parameter of the model is trained, in place, in float32.

Half-precision weights are read again in float32 before the first step: an update of 1e-6 is below what bfloat16 can
tell from none. The forward pass keeps the type the model was loaded in. There is never a second model: another policy
is read by giving the same module other weights for a moment.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers

from mae_cli.errors import EngineError
from mae_cli.models.digests import model_digest
from mae_cli.models.load import load_model
from mae_cli.recipe.sections import FinetuneSection
from mae_cli.training.parts import is_part, local
from mae_cli.training.tuning import Origin, training_mode

HALF = (torch.bfloat16, torch.float16)


class ModelFolders(NamedTuple):
    """Folders that the weights of a full fine-tuning come from."""

    start: Path
    """The model that is trained, as it is now."""
    base: Path
    """The recipe's model: the reference "base"."""
    revision: str | None = None
    """Of the base."""


class FullTuning:
    """Every parameter is trained. The model is changed: whoever lent it has to drop it afterwards.

    Args:
        section: the recipe's `finetune`.
        source: where the model's weights, and those of the base, can be read again.
        dtype: of the model as it was loaded.
    """

    noun = "model"

    def __init__(self, section: FinetuneSection, source: ModelFolders, dtype: torch.dtype) -> None:
        self.section, self.source = section, source
        self.compute_dtype: torch.dtype | None = dtype if dtype in HALF else None

    def origin(self) -> Origin:
        """Digests of the base and, where the training goes on from another model, of that one."""
        base, start = model_digest(self.source.base), model_digest(self.source.start)
        return Origin(start if start != base else None, base, self.source.revision)

    @contextmanager
    def attached(self, model: Any, *, seed: int) -> Iterator[Any]:
        """The model itself with float32 weights, in training mode."""
        flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
        with training_mode(model, self.section, seed=seed):
            try:
                if model.dtype != torch.float32 and self.compute_dtype is not None:
                    put_weights(model, self.source.start, torch.float32)
                model.requires_grad_(requires_grad=True)
                model.train()
                yield model
            finally:
                model.zero_grad(set_to_none=True)
                for name, parameter in model.named_parameters():
                    parameter.requires_grad_(flags[name])

    @contextmanager
    def reference(self, policy: Any, reference: str) -> Iterator[None]:
        """Before the first step only: "start" as it is, else the weights of "base" or of a model in their place.

        Raises:
            EngineError: no model there, or one of another shape.
        """
        place = self.source.base if reference == "base" else self.source.start
        if reference not in ("start", "base"):
            place = Path(reference)
        if place == self.source.start:
            yield
            return
        dtype = next(policy.parameters()).dtype
        put_weights(policy, place, dtype)
        yield
        put_weights(policy, self.source.start, dtype)

    def settings(self, policy: Any) -> dict[str, Any]:
        """The number of trained parameters, for the lineage."""
        return {"trained": "all parameters", "parameters": sum(part.numel() for part in policy.parameters())}

    def save(self, policy: Any, folder: Path, *, base_name: str) -> None:
        """A model folder: weights in float32, config, generation config."""
        transformers.utils.logging.disable_progress_bar()
        policy.save_pretrained(str(folder), safe_serialization=True)


def put_weights(model: Any, folder: Path, dtype: torch.dtype) -> None:
    """Give a model the weights of a folder; its own are freed before the others are read.

    The parameters stay the same objects, so an optimizer or a tied layer goes on with them. A model whose weights could
    not be replaced has none left. Where the model is divided over processes, each replaces its part.

    Raises:
        EngineError: the folder's model has other parameters.
    """
    device = model.device
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        if not is_part(parameter):
            parameter.data = parameter.data.new_empty(0)
    loaded = dict(load_model(folder, device=device, dtype=dtype).named_parameters())
    found = {name: parameter.shape for name, parameter in loaded.items()}
    if found != shapes:
        odd = min({name for name in {**found, **shapes} if found.get(name) != shapes.get(name)})
        raise EngineError(f"{folder}: not a model of the same shape as the trained one: {odd} differs")
    for name, parameter in model.named_parameters():
        if is_part(parameter):
            # FSDP holds the memory of its part itself.
            local(parameter.detach()).copy_(local(loaded[name].detach()))
        else:
            parameter.data = loaded[name].data
