"""Optimizer steps over prepared units: forward, objective, backward, clip, update, log, checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import torch

from mae_cli.plugins.contracts import ObjectiveBatch, ObjectiveOutput
from mae_cli.recipe.sections import FinetuneSection
from mae_cli.records import seed_from
from mae_cli.training.batches import MicroBatch
from mae_cli.training.checkpoints import Checkpoint, load_checkpoint, note_smaller, noted_smaller, save_checkpoint
from mae_cli.training.collapse_guard import Guard
from mae_cli.training.forward import Forward, padded
from mae_cli.training.frozen_policies import Frozen, read_frozen, read_sums
from mae_cli.training.job import TrainingJob
from mae_cli.training.logprobs import completion_logprobs
from mae_cli.training.logs import StepNote, line, role_notes, row_values
from mae_cli.training.lora_tuning import LoraTuning
from mae_cli.training.parts import divided, is_part, local, part_of, whole
from mae_cli.training.processes import World
from mae_cli.training.sharding import ShardedForward, ShardedTuning
from mae_cli.training.tuning import Tuning, trainable


class StepSums(msgspec.Struct):
    """Sums over the micro-batches of one optimizer step."""

    loss: float = 0.0
    nll: float = 0.0
    """Negative log-probability of all trained tokens, in nats."""
    metrics: dict[str, tuple[float, float]] = {}
    """Name to (sum, count)."""

    def add(self, output: ObjectiveOutput) -> None:
        """Sums of one micro-batch."""
        for name, (total, count) in output.metrics.items():
            before = self.metrics.get(name, (0.0, 0.0))
            self.metrics[name] = (before[0] + float(total), before[1] + float(count))

    def join(self, others: list[StepSums]) -> StepSums:
        """The sums of several processes."""
        total = StepSums(math.fsum(s.loss for s in others), math.fsum(s.nll for s in others), {})
        for other in others:
            for name, (value, count) in other.metrics.items():
                before = total.metrics.get(name, (0.0, 0.0))
                total.metrics[name] = (before[0] + value, before[1] + count)
        return total

    def means(self) -> dict[str, float]:
        """Every metric that anything was counted for."""
        return {name: total / count for name, (total, count) in self.metrics.items() if count}


class Loop:
    """One training of one policy; `step` is the last optimizer step whose result counts.

    Attributes:
        resumed_from: the step of the checkpoint it was taken up at, or 0.
        notes: the steps as log lines, those before a resume included.
        collapse: why the training stopped early, or null.
    """

    def __init__(
        self,
        policy: Any,
        job: TrainingJob,
        checkpoint_dir: Path | None,
        say: Callable[[str], None],
        world: World | None = None,
        tuning: Tuning | None = None,
    ) -> None:
        self.policy = policy
        self.world = world or World()
        self.tuning = tuning or LoraTuning(job.section)
        self.job = job
        self.folder = checkpoint_dir if job.section.save_every else None
        self.say = say
        self._noted = self.world.from_main(noted_smaller(self.folder)) if self.folder and self.world.shards else None
        """A micro-batch that memory allowed an earlier try."""
        self.forward = self._forward()
        self.parameters = trainable(policy)
        self.optimizer = torch.optim.AdamW(
            [parameter for _, parameter in self.parameters],
            lr=job.section.learning_rate,
            weight_decay=job.section.weight_decay,
        )
        self.guard = Guard(job.section.max_nll_jump)
        self.step = self.resumed_from = 0
        self.notes: list[str] = []
        self.collapse: str | None = None
        self.frozen = Frozen()
        self._before: dict[str, torch.Tensor] | None = None

    def _forward(self) -> Forward:
        job, dtype = self.job, self.tuning.compute_dtype
        if not self.world.shards:
            return Forward(self.policy, job.section, self.say, dtype)
        forward = ShardedForward(
            self.policy,
            job.section,
            self.say,
            dtype,
            world=self.world,
            filler=job.examples[0],
            note=partial(note_smaller, self.folder) if self.folder else None,
        )
        forward.micro_batch_tokens = min(forward.micro_batch_tokens, self._noted or forward.micro_batch_tokens)
        return forward

    def run(self, on_step: Callable[[StepNote, int], None] | None) -> None:
        """Train to the end, to the last good step, or from where the checkpoint stands."""
        self._run(on_step)
        if isinstance(self.tuning, ShardedTuning):
            # Only the weights are wanted from here.
            self.optimizer.state.clear()
            self._before = None
            self.tuning.collect(self.policy, self.world)

    def _run(self, on_step: Callable[[StepNote, int], None] | None) -> None:
        for text in self.world.notices:
            self.say(text)
        checkpoint = None
        if self.folder:
            checkpoint = load_checkpoint(self.folder, self.job.fingerprint, mapped=self.world.shards)
        self.frozen = read_frozen(
            self.forward,
            self.job,
            self.folder,
            self.world,
            self.tuning,
            resumed=checkpoint is not None,
            say=self.say,
        )
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
        self._check_last_update()

    def _check_last_update(self) -> None:
        """Take back an update that left weights that are no numbers: no later loss shows what the last one did."""
        finite = all(bool(torch.isfinite(value.detach()).all()) for _, value in self.parameters)
        if all(self.world.gather(finite)):
            return
        self.collapse = f"the weights after step {self.step} are not finite"
        self._take_back()

    def _train_step(self, step: int, epoch: int, indices: list[int]) -> StepNote:
        units = [self.job.units[index] for index in indices]
        tokens = sum(self.job.tokens(unit) for unit in units)
        sums = self.forward.fitting(lambda: self._accumulate(step, indices), self.job.examples)
        parameters = [parameter for _, parameter in self.parameters]
        if self.world.size > 1:
            self.world.sum_gradients(parameters)
            sums = sums.join(self.world.gather(sums))
        nll = sums.nll / tokens
        grad_norm = float(whole(torch.nn.utils.clip_grad_norm_(parameters, self.job.section.max_grad_norm)))
        rate = learning_rate(self.job.section, step, self.job.data.steps)
        self.collapse = self._collapse(step, sums.loss, nll, grad_norm)
        if self.collapse is None:
            self._keep()
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        rows = list(dict.fromkeys(row for unit in units for row in unit.rows))
        values = row_values(units)
        return StepNote(
            step=step,
            epoch=epoch,
            loss=sums.loss,
            nll=nll,
            learning_rate=rate,
            grad_norm=grad_norm,
            units=len(units),
            rows=len(rows),
            tokens=tokens,
            roles=role_notes([self.job.examples[row] for row in rows], [values[row] for row in rows]),
            metrics=sums.means(),
        )

    def _keep(self) -> None:
        """Copy what is trained; into main memory where that is the whole model."""
        if self._before is None:
            place = "cpu" if self.job.section.full else self.policy.device
            self._before = {
                name: torch.empty_like(local(value.detach()), device=place) for name, value in self.parameters
            }
        for name, parameter in self.parameters:
            self._before[name].copy_(local(parameter.detach()))

    def _collapse(self, step: int, loss: float, nll: float, grad_norm: float) -> str | None:
        """Why this step must not be taken; a bad loss also takes back the update before it, which led there."""
        if math.isfinite(loss) and not math.isfinite(grad_norm):
            return f"the gradient of step {step} is not finite"
        reason = self.guard.check(nll) if math.isfinite(loss) else "is not finite"
        if reason is None:
            return None
        self._take_back()
        return f"the loss of step {step} {reason}"

    def _take_back(self) -> None:
        """The weights as they were before the last update."""
        if self._before is not None:
            with torch.no_grad():
                for name, parameter in self.parameters:
                    local(parameter).copy_(self._before[name])
            self.step -= 1

    def _accumulate(self, step: int, indices: list[int]) -> StepSums:
        """Gradients of one optimizer step, over all its micro-batches."""
        # Dropout is a function of seed and step, so a resumed step draws the same masks.
        torch.manual_seed(seed_from(self.job.seed, "dropout", step, *([self.world.rank] if self.world.rank else [])))
        job = self.job
        units = [job.units[index] for index in indices]
        counts = [job.tokens(unit) for unit in units]
        scales = job.objective.scales(units, counts)
        tokens = sum(counts)
        divergence = self._divergence(indices) if job.objective.needs.mismatched else None
        sums = StepSums(metrics={})
        for part in sorted({unit.part for unit in units}):
            own = self.world.share([place for place, unit in enumerate(units) if unit.part == part])
            for group, batch in self.forward.batches(job.examples, [units[place].rows for place in own]):
                if not group:
                    self._idle(batch)
                    continue
                places = [own[index] for index in group]
                output = self._loss(batch, [units[place].value for place in places], part, divergence, sums)
                weights = output.losses.new_tensor([scales[place] * tokens for place in places])
                loss = (output.losses * weights).sum()
                sums.loss += float(loss.detach()) / tokens
                sums.add(output)
                if not math.isfinite(sums.loss) and not self.world.shards:
                    return sums
                # Divided afterwards: a loss of the size of a token keeps float16 gradients over their smallest number.
                loss.backward()  # type: ignore[no-untyped-call]
        for _, parameter in self.parameters:
            if parameter.grad is not None:
                parameter.grad /= tokens
        return sums

    def _idle(self, batch: MicroBatch) -> None:
        """A pass that adds nothing: other processes need this one's part of the weights."""
        with self.forward.precision():
            current = completion_logprobs(self.policy, batch)
        (current.logprobs * 0.0).sum().backward()  # type: ignore[no-untyped-call]

    def _loss(
        self, batch: MicroBatch, values: list[float], part: int, divergence: float | None, sums: StepSums
    ) -> ObjectiveOutput:
        needs = self.job.objective.needs
        with self.forward.precision():
            current = completion_logprobs(self.policy, batch, entropy=needs.entropy)
        sums.nll -= float(current.logprobs.detach().sum())
        return self.job.objective.loss(
            ObjectiveBatch(
                logprobs=current.logprobs,
                mask=batch.mask.to(current.logprobs.dtype),
                values=current.logprobs.new_tensor(values),
                behaviour_logprobs=self._frozen_values(self.frozen.behaviour, batch, current.logprobs)
                if needs.behaviour
                else None,
                reference_logprobs=self._frozen_values(self.frozen.reference, batch, current.logprobs)
                if needs.reference
                else None,
                entropy=current.entropy,
                divergence=None if divergence is None else current.logprobs.new_tensor(divergence),
                part=part,
            )
        )

    def _frozen_values(self, values: dict[int, torch.Tensor], batch: MicroBatch, current: torch.Tensor) -> torch.Tensor:
        """(B, T) under a frozen policy; the current ones where the policy has not moved yet."""
        return padded(values, batch, current.detach()) if values else current.detach()

    def _divergence(self, indices: list[int]) -> float:
        """Mean log-ratio to the reference on mismatched rows, in nats; 0 where the policy has not moved yet."""
        reference = self.frozen.mismatched
        sums = read_sums(self.forward, self.job, indices) if reference else {}
        return math.fsum(sums[name] - reference[name] for name in sums) / len(sums) if sums else 0.0

    def _save(self, folder: Path) -> None:
        """A checkpoint, by the first process; gathered from all where the weights are divided."""
        if not self.world.is_main and not self.world.shards:
            return
        parameters = dict(self.parameters)
        before = self._before and {name: divided(kept, parameters[name]) for name, kept in self._before.items()}
        checkpoint = Checkpoint(
            fingerprint=self.job.fingerprint,
            step=self.step,
            micro_batch_tokens=self.forward.micro_batch_tokens,
            weights={name: _on_cpu(parameter.detach()) for name, parameter in self.parameters},
            optimizer=self.optimizer.state_dict(),
            log=self.notes,
            before=before and {name: _on_cpu(tensor) for name, tensor in before.items()},
        )
        save_checkpoint(folder, checkpoint, is_main=self.world.is_main)

    def _resume(self, checkpoint: Checkpoint) -> None:
        with torch.no_grad():
            for name, parameter in self.parameters:
                local(parameter).copy_(part_of(checkpoint.weights[name], parameter))
        if checkpoint.before is not None:
            self._keep()
            for name, parameter in self.parameters:
                (self._before or {})[name].copy_(part_of(checkpoint.before[name], parameter))
        self.optimizer.load_state_dict(self._own_part(checkpoint.optimizer))
        self.forward.micro_batch_tokens = min(
            checkpoint.micro_batch_tokens, self._noted or checkpoint.micro_batch_tokens
        )
        self.notes = list(checkpoint.log)
        self.guard.history = [msgspec.json.decode(text)["nll"] for text in self.notes]
        self.step = self.resumed_from = checkpoint.step
        self.say(f"going on from the checkpoint after step {self.step} of {self.job.data.steps}")

    def _own_part(self, optimizer: dict[str, Any]) -> dict[str, Any]:
        """The optimizer's state, of divided parameters this process's part."""
        state = dict(optimizer["state"])
        for place, (_, parameter) in enumerate(self.parameters):
            if is_part(parameter) and place in state:
                state[place] = {
                    name: divided(part_of(value, parameter).clone(), parameter)
                    if isinstance(value, torch.Tensor) and value.shape == parameter.shape
                    else value
                    for name, value in state[place].items()
                }
        return {**optimizer, "state": state}


def _on_cpu(tensor: torch.Tensor) -> torch.Tensor:
    """A copy in main memory; a part stays where it is until it is gathered."""
    return tensor if is_part(tensor) else tensor.cpu()


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
