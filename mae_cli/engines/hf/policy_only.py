"""The policy of `hf` or `vllm` without its weights, for the process that plans and stores.

With `--devices` the worker processes generate; the parent needs only the ids of the rows, and so the digests.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import torch

from mae_cli.engines import vllm, vllm_setup
from mae_cli.engines.hf import engine as hf
from mae_cli.engines.token_texts import TokenTexts
from mae_cli.errors import EngineError
from mae_cli.models.digests import adapter_digest
from mae_cli.models.load import load_tokenizer, resolve_dtype
from mae_cli.models.locate import local_model
from mae_cli.plugins.contracts import EngineFacts
from mae_cli.plugins.registry import engine_options
from mae_cli.recipe.sections import Recipe
from mae_cli.records import Completion, Request, Sampling


class PolicyEngine:
    """An engine with the policy of `hf` or `vllm` that generates nothing."""

    def __init__(self, recipe: Recipe, device_type: str) -> None:
        folder = local_model(recipe.model, recipe.revision)
        texts = TokenTexts(recipe, folder, load_tokenizer(folder))
        name, _, argument = recipe.engine.partition(":")
        is_hf = name == "hf"
        self.facts = EngineFacts(
            deterministic=is_hf,
            attaches=True,
            scores=True,
            constrains=True,
            schemas=argument != "paged",
            numerics=(
                hf.numerics(
                    resolve_dtype(recipe.dtype, torch.device(device_type)),
                    paged=argument == "paged",
                    in_four_bits=recipe.load_in_4bit,
                )
                if is_hf
                else vllm.numerics(recipe, engine_options("vllm", argument, vllm_setup.Options))
            ),
            notices=tuple(texts.chat.notices),
        )
        self.policy = texts.policy
        if recipe.adapter:
            self.attach(Path(recipe.adapter))

    def attach(self, adapter: Path | None) -> None:
        """Name an adapter in the policy, or none."""
        digest = adapter_digest(adapter) if adapter is not None else None
        self.policy = msgspec.structs.replace(self.policy, adapter=digest)

    def adapter_digest(self, adapter: Path) -> str:
        """Digest of the adapter's files."""
        return adapter_digest(adapter)

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
