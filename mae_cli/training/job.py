"""A training as it is asked for (`TrainingTask`), and ready for a model (`TrainingJob`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from mae_cli.plugins.contracts import Objective, Unit
from mae_cli.recipe.sections import FinetuneSection
from mae_cli.records import Row
from mae_cli.training.batches import steps
from mae_cli.training.examples import TrainingExample
from mae_cli.training.logs import DataNote


class TrainingTask(msgspec.Struct, frozen=True):
    """What is to be learned, and how."""

    rows: Sequence[Row]
    """Already picked."""
    section: FinetuneSection
    """The recipe's `finetune`."""
    objective: Objective
    """Built from `section.objective`."""
    seed: int
    """Of the run; LoRA initialisation, order and dropout derive from it."""


class TrainingJob(msgspec.Struct, frozen=True):
    """Examples, the units they form, and everything that decides how they are trained."""

    examples: list[TrainingExample]
    units: list[Unit]
    section: FinetuneSection
    objective: Objective
    seed: int
    fingerprint: dict[str, Any]
    data: DataNote

    def steps(self, start: int = 0) -> list[tuple[int, int, list[int]]]:
        """(step, epoch, indices of its units) after step `start`."""
        planned = steps(
            self.examples,
            self.units,
            seed=self.seed,
            batch_size=self.section.batch_size,
            epochs=self.section.epochs,
            max_steps=self.section.max_steps,
            start=start,
        )
        return list(planned)

    def tokens(self, unit: Unit) -> int:
        """Trained tokens of a unit."""
        return sum(len(self.examples[row].completion) for row in unit.rows)

    def mismatched(self, indices: list[int]) -> list[TrainingExample]:
        """Each prompt of a step with the completion of the row before it, cyclically, that has another prompt.

        Rows that share one prompt with all others give none.
        """
        rows = list(dict.fromkeys(row for index in indices for row in self.units[index].rows))
        found = []
        for place, row in enumerate(rows):
            own = self.examples[row]
            before = (self.examples[rows[place - distance]] for distance in range(1, len(rows)))
            partner = next((other for other in before if other.prompt != own.prompt), None)
            if partner is not None:
                name = f"{own.id}+{partner.id}"
                found.append(TrainingExample(name, own.role, own.group, None, own.prompt, partner.completion))
        return found
