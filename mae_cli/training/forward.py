"""Forward passes of one policy: micro-batches that fit into memory, precision, log-probabilities without gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from mae_cli.errors import EngineError
from mae_cli.recipe.sections import FinetuneSection
from mae_cli.training.base_noise import same_modes_afterwards
from mae_cli.training.batches import MICRO_BATCH_TOKENS, PASS_COST, MicroBatch, collate, micro_batches, shared_prefix
from mae_cli.training.examples import TrainingExample
from mae_cli.training.logprobs import can_share_prefix, completion_logprobs

Rows = tuple[int, ...]
"""Indices of the examples of one unit."""


class Forward:
    """A policy with the micro-batch it is read in.

    Attributes:
        micro_batch_tokens: in use now; memory may have forced it below the recipe's.
    """

    def __init__(
        self,
        policy: Any,
        section: FinetuneSection,
        say: Callable[[str], None],
        compute_dtype: torch.dtype | None = None,
    ) -> None:
        self.policy = policy
        self.compute_dtype = compute_dtype
        self.device: torch.device = policy.device
        self.say = say
        kind = "cpu" if self.device.type == "cpu" else "cuda"
        self.pass_cost = PASS_COST[kind]
        self.micro_batch_tokens = section.micro_batch_tokens or MICRO_BATCH_TOKENS[kind]
        # Recomputing activations excludes a cache of keys and values.
        self.share_prefix = can_share_prefix(policy) and not section.gradient_checkpointing

    def batches(
        self, examples: Sequence[TrainingExample], units: Sequence[Rows]
    ) -> Iterator[tuple[list[int], MicroBatch]]:
        """Indices into the units, and the tensors of their rows; every unit once."""
        for group in micro_batches(examples, units, max_tokens=self.micro_batch_tokens, pass_cost=self.pass_cost):
            rows = [row for index in group for row in units[index]]
            shared = shared_prefix([examples[row] for row in rows], self.pass_cost) if self.share_prefix else 0
            yield group, collate(examples, rows, device=self.device, shared=shared)

    def read(self, examples: Sequence[TrainingExample], units: Sequence[Rows]) -> dict[int, torch.Tensor]:
        """Log-probabilities of the completion tokens of every row, on the CPU, in evaluation mode."""
        found: dict[int, torch.Tensor] = {}

        def work() -> None:
            for _, batch in self.batches(examples, units):
                with self.precision():
                    logprobs = completion_logprobs(self.policy, batch).logprobs
                for number, row in enumerate(batch.indices):
                    found[row] = logprobs[number, : len(examples[row].completion)].cpu()

        with same_modes_afterwards(self.policy), torch.no_grad():
            self.policy.eval()
            self.fitting(work, examples)
        return found

    def fitting(self, work: Callable[[], Any], examples: Sequence[TrainingExample]) -> Any:
        """The result of work that is tried again with half the micro-batch when memory runs out.

        Raises:
            EngineError: not even the longest row alone fits.
        """
        while True:
            try:
                return work()
            except torch.OutOfMemoryError as error:
                longest = max(example.length for example in examples)
                if self.micro_batch_tokens <= longest // 2:
                    raise EngineError(
                        f"out of memory with one row of up to {longest} tokens: lower finetune.max_length, or set "
                        "finetune.gradient_checkpointing=true"
                    ) from error
                self.micro_batch_tokens //= 2
            # Outside the handler, where the failed graph is no longer referenced.
            self.policy.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
            self.say(f"out of memory: going on with micro-batches of {self.micro_batch_tokens} tokens")

    def precision(self) -> AbstractContextManager[Any]:
        """Half-precision weights compute in their own type, with what is trained in float32; float32 stays exact."""
        # A base in four bits has float32 norms while it is trained, and computes in a type of its own.
        quantised = getattr(self.policy.config, "quantization_config", None)
        own = self.compute_dtype or getattr(quantised, "bnb_4bit_compute_dtype", None)
        dtype: torch.dtype = own or self.policy.dtype
        if dtype in (torch.bfloat16, torch.float16):
            return torch.autocast(self.device.type, dtype=dtype)
        return nullcontext()


def padded(values: Mapping[int, torch.Tensor], batch: MicroBatch, like: torch.Tensor) -> torch.Tensor:
    """(B, T) of a batch from values by row, 0 where masked."""
    flat = torch.cat([values[row] for row in batch.indices]).to(like)
    return torch.zeros_like(like).masked_scatter(batch.mask, flat)
