"""Log-probabilities under policies that do not change during training.

The behaviour policy is the one before the first update, computed by the training's own forward pass (another engine
rounds otherwise, and the ratio would start away from 1). The reference policy is the same one, the base with the
adapter off, or another adapter or other weights swapped in for a moment. All rows are known before training, so both
are read once, before the first step, and no second model is ever in memory. After the first update the behaviour cannot
be computed again: it is kept beside the checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import torch

from mae_cli.training.checkpoints import load_frozen, save_frozen
from mae_cli.training.forward import Forward
from mae_cli.training.job import TrainingJob
from mae_cli.training.processes import World
from mae_cli.training.tuning import Tuning


class Frozen(msgspec.Struct):
    """By index of the example, (tokens,) each; empty where the policy's current values serve."""

    behaviour: dict[int, torch.Tensor] = {}
    reference: dict[int, torch.Tensor] = {}
    mismatched: dict[str, float] = {}
    """By id: summed reference log-probability of a prompt with another row's completion."""


def read_frozen(
    forward: Forward,
    job: TrainingJob,
    folder: Path | None,
    world: World,
    tuning: Tuning,
    *,
    resumed: bool,
    say: Callable[[str], None],
) -> Frozen:
    """The frozen log-probabilities that the job's objective needs, computed now or saved earlier by the same training.

    With a single step the policy has not moved when its rows are trained: the current values serve, and nothing is
    computed here for the behaviour or for a reference that is the same policy.
    """
    needs, at_start = job.objective.needs, job.section.reference == "start"
    several = job.data.steps > 1
    behaviour = needs.behaviour and several
    reference = needs.reference and (several or not at_start)
    mismatched = needs.mismatched and (several or not at_start)
    if not (behaviour or reference or mismatched):
        return Frozen()
    stored = load_frozen(folder, job.fingerprint) if folder else None
    if stored is not None:
        return Frozen(**stored)
    found = Frozen(behaviour={}, reference={}, mismatched={})
    if behaviour or (reference and at_start):
        values = _read_rows(forward, job, world)
        found.behaviour = values if behaviour else {}
        found.reference = values if reference and at_start else {}
    with tuning.reference(forward.policy, job.section.reference):
        if reference and not at_start:
            found.reference = _read_rows(forward, job, world)
        if mismatched:
            for _, _, indices in job.steps():
                found.mismatched.update(read_sums(forward, job, indices))
    if folder and world.is_main:
        save_frozen(folder, msgspec.structs.asdict(found), job.fingerprint)
    if resumed:
        say("the log-probabilities from before the first update were computed again")
    return found


def read_sums(forward: Forward, job: TrainingJob, indices: list[int]) -> dict[str, float]:
    """Summed log-probabilities, under the policy as it is, of the mismatched rows of a step by id."""
    examples = job.mismatched(indices)
    values = forward.read(examples, [(row,) for row in range(len(examples))]) if examples else {}
    return {examples[row].id: float(value.double().sum()) for row, value in values.items()}


def _read_rows(forward: Forward, job: TrainingJob, world: World) -> dict[int, torch.Tensor]:
    found: dict[int, torch.Tensor] = {}
    for _, epoch, indices in job.steps():
        if epoch == 1:
            # Cut like the step that trains them: in bfloat16 another shape rounds otherwise.
            found.update(forward.read(job.examples, [job.units[index].rows for index in world.share(indices)]))
    return {row: values for part in world.gather(found) for row, values in part.items()}
