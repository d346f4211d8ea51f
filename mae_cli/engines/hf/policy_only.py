"""The policy of `hf` or `vllm` without its weights, for the process that plans and stores.

With `--devices` the worker processes generate; the parent needs only the ids of the rows, and so the digests.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import torch

from mae_cli.engines import vllm
from mae_cli.engines.hf.engine import HfEngine
from mae_cli.engines.token_texts import TokenTexts
from mae_cli.errors import EngineError
from mae_cli.models.digests import adapter_digest
from mae_cli.models.load import load_tokenizer, resolve_dtype
from mae_cli.models.locate import local_model
from mae_cli.plugins.registry import engine_options
from mae_cli.recipe.sections import Recipe
from mae_cli.records import Completion, Request, Sampling


class _Weights(NamedTuple):
    dtype: torch.dtype


class PolicyEngine:
    """An engine with the policy of `hf` or `vllm` that generates nothing."""

    def __init__(self, recipe: Recipe, device_type: str) -> None:
        folder = local_model(recipe.model, recipe.revision)
        texts = TokenTexts(recipe, folder, load_tokenizer(folder))
        self.deterministic = is_hf = recipe.engine.partition(":")[0] == "hf"
        self.constrains = is_hf and HfEngine.constrains
        self.paged = recipe.engine == "hf:paged"
        self.model = _Weights(resolve_dtype(recipe.dtype, torch.device(device_type))) if is_hf else None
        if not is_hf:
            # vllm keeps its model to itself.
            options = engine_options("vllm", recipe.engine.partition(":")[2], vllm.Options)
            self.numerics = vllm.numerics(recipe, options)
        self.notices: list[str] = list(texts.chat.notices)
        self.policy = texts.policy
        if recipe.adapter:
            self.attach(Path(recipe.adapter))

    def attach(self, adapter: Path | None) -> None:
        """Name an adapter in the policy, or none."""
        digest = adapter_digest(adapter) if adapter is not None else None
        self.policy = msgspec.structs.replace(self.policy, adapter=digest)

    def plan(self, requests: Sequence[Request], batch_size: int) -> list[list[int]]:
        """Refused; see `generate`."""
        raise EngineError("the workers generate, not their parent")

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """Refused: the workers do it."""
        raise EngineError("the workers generate, not their parent")

    def score(self, requests: Sequence[Request], options: Sequence[Sequence[str]]) -> list[list[float | None]]:
        """Refused; see `generate`."""
        raise EngineError("the workers generate, not their parent")

    def close(self) -> None:
        """Nothing to free."""
