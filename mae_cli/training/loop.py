"""Optimizer steps over prepared examples: forward, objective, backward, clip, update, log, checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import msgspec
import torch

from mae_cli.config import FinetuneSection
from mae_cli.errors import EngineError
from mae_cli.records import seed_from
from mae_cli.registry import Objective, ObjectiveBatch
from mae_cli.training.adapters import trainable
from mae_cli.training.batches import (
    MICRO_BATCH_TOKENS,
    PASS_COST,
    Example,
    MicroBatch,
    collate,
    micro_batches,
    shared_prefix,
    steps,
)
from mae_cli.training.checkpoints import Checkpoint, load_behaviour, load_checkpoint, save_behaviour, save_checkpoint
from mae_cli.training.logprobs import can_share_prefix, completion_logprobs
from mae_cli.training.logs import DataNote, StepNote, line, role_notes


class Job(msgspec.Struct, frozen=True):
    """What is trained, ready for a model."""

    examples: list[Example]
    advantages: list[float]
    section: FinetuneSection
    objective: Objective
    seed: int
    fingerprint: dict[str, Any]
    data: DataNote

    def steps(self, start: int = 0) -> list[tuple[int, int, list[int]]]:
        """(step, epoch, indices of its rows) after step `start`."""
        planned = steps(
            self.examples,
            seed=self.seed,
            batch_size=self.section.batch_size,
            epochs=self.section.epochs,
            max_steps=self.section.max_steps,
            start=start,
        )
        return list(planned)


class StepSums(msgspec.Struct):
    """Loss and metrics of one optimizer step, per trained token."""

    loss: float = 0.0
    metrics: dict[str, float] = {}


class Loop:
    """One training of one policy; `step` is the last optimizer step that was done.

    Attributes:
        resumed_from: the step of the checkpoint it was taken up at, or 0.
        notes: the steps as log lines, those before a resume included.
        collapse: why the training stopped early, or null.
        micro_batch_tokens: in use now; memory may have forced it below the recipe's.
    """

    def __init__(self, policy: Any, job: Job, checkpoint_dir: Path | None, say: Callable[[str], None]) -> None:
        self.policy = policy
        self.job = job
        self.folder = checkpoint_dir if job.section.save_every else None
        self.say = say
        self.device: torch.device = policy.device
        self.parameters = trainable(policy)
        self.optimizer = torch.optim.AdamW(
            [parameter for _, parameter in self.parameters],
            lr=job.section.learning_rate,
            weight_decay=job.section.weight_decay,
        )
        kind = "cpu" if self.device.type == "cpu" else "cuda"
        self.pass_cost = PASS_COST[kind]
        self.micro_batch_tokens = job.section.micro_batch_tokens or MICRO_BATCH_TOKENS[kind]
        # Recomputing activations excludes a cache of keys and values.
        self.share_prefix = can_share_prefix(policy) and not job.section.gradient_checkpointing
        self.step = self.resumed_from = 0
        self.notes: list[str] = []
        self.collapse: str | None = None
        self.behaviour: dict[int, torch.Tensor] = {}

    def run(self, on_step: Callable[[StepNote, int], None] | None) -> None:
        """Train to the end, to the last good step, or from where the checkpoint stands."""
        checkpoint = load_checkpoint(self.folder, self.job.fingerprint) if self.folder else None
        if self.job.objective.needs_behaviour and self.job.data.steps > 1:
            # With a single step the policy has not moved yet, and the current values serve.
            self._find_behaviour(resumed=checkpoint is not None)
        if checkpoint is not None:
            self._resume(checkpoint)
        for step, epoch, indices in self.job.steps(start=self.step):
            note = self._train_step(step, epoch, indices)
            if self.collapse is not None:
                return
            self.step = step
            self.notes.append(line(note))
            if self.folder and step % self.job.section.save_every == 0:
                self._save(self.folder)
            if on_step is not None:
                on_step(note, self.job.data.steps)

    def _train_step(self, step: int, epoch: int, indices: list[int]) -> StepNote:
        examples = [self.job.examples[index] for index in indices]
        sums = self._fitting(lambda: self._accumulate(step, indices))
        parameters = [parameter for _, parameter in self.parameters]
        grad_norm = float(torch.nn.utils.clip_grad_norm_(parameters, self.job.section.max_grad_norm))
        rate = learning_rate(self.job.section, step, self.job.data.steps)
        if math.isfinite(sums.loss) and math.isfinite(grad_norm):
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.step()
        else:
            name = "loss" if not math.isfinite(sums.loss) else "gradient"
            self.collapse = f"the {name} of step {step} is not finite"
        self.optimizer.zero_grad(set_to_none=True)
        return StepNote(
            step=step,
            epoch=epoch,
            loss=sums.loss,
            learning_rate=rate,
            grad_norm=grad_norm,
            rows=len(indices),
            tokens=sum(len(example.completion) for example in examples),
            roles=role_notes(examples, [self.job.advantages[index] for index in indices]),
            metrics=sums.metrics,
        )

    def _accumulate(self, step: int, indices: list[int]) -> StepSums:
        """Gradients of one optimizer step, over all its micro-batches."""
        # Dropout is a function of seed and step, so a resumed step draws the same masks.
        torch.manual_seed(seed_from(self.job.seed, "dropout", step))
        examples, objective = self.job.examples, self.job.objective
        tokens = sum(len(examples[index].completion) for index in indices)
        sums = StepSums(metrics={})
        for batch in self._batches(indices):
            with self._precision():
                current = completion_logprobs(self.policy, batch, entropy=objective.needs_entropy)
            output = objective.loss(
                ObjectiveBatch(
                    logprobs=current.logprobs,
                    behaviour_logprobs=self._behaviour_of(batch, current.logprobs),
                    mask=batch.mask.to(current.logprobs.dtype),
                    advantages=torch.tensor(
                        [self.job.advantages[index] for index in batch.indices], device=self.device
                    ),
                    entropy=current.entropy,
                )
            )
            sums.loss += float(output.loss_sum.detach()) / tokens
            for name, value in output.metrics.items():
                sums.metrics[name] = sums.metrics.get(name, 0.0) + float(value) / tokens
            if not math.isfinite(sums.loss):
                break
            # Divided afterwards: a loss of the size of one token keeps float16 gradients above their smallest number.
            output.loss_sum.backward()  # type: ignore[no-untyped-call]
        for _, parameter in self.parameters:
            if parameter.grad is not None:
                parameter.grad /= tokens
        return sums

    def _behaviour_of(self, batch: MicroBatch, current: torch.Tensor) -> torch.Tensor:
        """(B, T) log-probabilities before the first update."""
        if not self.behaviour:
            return current.detach()
        flat = torch.cat([self.behaviour[index] for index in batch.indices]).to(self.device)
        return torch.zeros_like(current).masked_scatter(batch.mask, flat)

    def _find_behaviour(self, *, resumed: bool) -> None:
        """Log-probabilities of all rows under the policy as it is before the first update, or as saved."""
        stored = load_behaviour(self.folder, self.job.fingerprint) if self.folder else None
        if stored is None:
            self.policy.eval()
            with torch.no_grad():
                for _, epoch, indices in self.job.steps():
                    if epoch == 1:
                        # Cut like the step that trains them: in bfloat16 another shape rounds otherwise.
                        self._fitting(lambda indices=indices: self._read_behaviour(indices))  # type: ignore[misc]
            self.policy.train()
            if self.folder:
                save_behaviour(self.folder, self.behaviour, self.job.fingerprint)
        else:
            self.behaviour = stored
        if resumed and stored is None:
            self.say("the log-probabilities from before the first update were computed again")

    def _batches(self, indices: list[int]) -> Iterator[MicroBatch]:
        """The micro-batches of an optimizer step."""
        examples = self.job.examples
        for group in micro_batches(examples, indices, max_tokens=self.micro_batch_tokens, pass_cost=self.pass_cost):
            chosen = [examples[index] for index in group]
            shared = shared_prefix(chosen, self.pass_cost) if self.share_prefix else 0
            yield collate(examples, group, device=self.device, shared=shared)

    def _read_behaviour(self, indices: list[int]) -> None:
        for batch in self._batches(indices):
            with self._precision():
                logprobs = completion_logprobs(self.policy, batch).logprobs
            for number, index in enumerate(batch.indices):
                self.behaviour[index] = logprobs[number, : len(self.job.examples[index].completion)].cpu()

    def _fitting(self, work: Callable[[], Any]) -> Any:
        """The result of work that is tried again with half the micro-batch when memory runs out.

        Raises:
            EngineError: not even the longest row alone fits.
        """
        while True:
            try:
                return work()
            except torch.OutOfMemoryError as error:
                longest = max(example.length for example in self.job.examples)
                if self.micro_batch_tokens <= longest // 2:
                    raise EngineError(
                        f"out of memory with one row of up to {longest} tokens: lower finetune.max_length, or set "
                        "finetune.gradient_checkpointing=true"
                    ) from error
                self.micro_batch_tokens //= 2
            # Outside the handler, where the failed graph is no longer referenced.
            self.optimizer.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
            self.say(f"out of memory: going on with micro-batches of {self.micro_batch_tokens} tokens")

    def _precision(self) -> AbstractContextManager[Any]:
        """Half-precision weights compute in their own type, with the float32 adapter; float32 stays exact."""
        dtype: torch.dtype = self.policy.dtype
        if dtype in (torch.bfloat16, torch.float16):
            return torch.autocast(self.device.type, dtype=dtype)
        return nullcontext()

    def _save(self, folder: Path) -> None:
        save_checkpoint(
            folder,
            Checkpoint(
                fingerprint=self.job.fingerprint,
                step=self.step,
                micro_batch_tokens=self.micro_batch_tokens,
                adapter={name: parameter.detach().cpu() for name, parameter in self.parameters},
                optimizer=self.optimizer.state_dict(),
                log=self.notes,
            ),
        )

    def _resume(self, checkpoint: Checkpoint) -> None:
        with torch.no_grad():
            for name, parameter in self.parameters:
                parameter.copy_(checkpoint.adapter[name])
        self.optimizer.load_state_dict(checkpoint.optimizer)
        self.micro_batch_tokens = checkpoint.micro_batch_tokens
        self.notes = list(checkpoint.log)
        self.step = self.resumed_from = checkpoint.step
        self.say(f"going on from the checkpoint after step {self.step} of {self.job.data.steps}")


def learning_rate(section: FinetuneSection, step: int, total: int) -> float:
    """The rate of optimizer step `step` (from 1): linear warm-up to the peak, then the schedule, never quite to 0."""
    if step <= section.warmup_steps:
        return section.learning_rate * step / section.warmup_steps
    if section.schedule == "constant":
        return section.learning_rate
    # The first step after the warm-up has the peak rate, and a step after the last would have 0.
    share = (step - 1 - section.warmup_steps) / max(1, total - section.warmup_steps)
    factor = 1.0 - share if section.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * share))
    return section.learning_rate * factor
