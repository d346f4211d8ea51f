"""Description of a trained adapter or model in its own folder: `lineage.json` for programs, README.md for hubs.

No times, hosts or absolute paths, so equal trainings write equal bytes.
"""

from __future__ import annotations

from pathlib import Path

from mae_cli.models.cards import write_card
from mae_cli.models.digests import trained_digest
from mae_cli.models.lineage import LINEAGE, Lineage
from mae_cli.records import Policy
from mae_cli.records.atomic import write_json
from mae_cli.training.job import TrainingTask
from mae_cli.training.trainer import TrainedFacts


def describe(
    folder: Path,
    facts: TrainedFacts,
    task: TrainingTask,
    *,
    base_name: str,
    policy: Policy | None = None,
    round_number: int | None = None,
) -> None:
    """Write `lineage.json` and the card beside the weights.

    Args:
        folder: with the weights, whose digest is the name of the adapter.
        facts: what the trainer did.
        task: what it was asked to do.
        base_name: what the adapter calls its base.
        policy: the model and template that were trained; null is unknown.
        round_number: of the run.
    """
    lineage = Lineage(
        adapter=trained_digest(folder),
        kind="full" if task.section.full else "lora",
        parent=facts.parent,
        base=base_name,
        base_digest=facts.base_digest or (policy.model if policy else None),
        base_revision=facts.base_revision or (policy.revision if policy else None),
        template=policy.template if policy else None,
        round=round_number,
        data=facts.data,
        rows=facts.rows,
        roles=facts.roles,
        trained_tokens=facts.trained_tokens,
        seed=task.seed,
        objective=type(task.objective).__name__,
        steps=facts.steps,
        learning_rate=task.section.learning_rate,
        settings=facts.settings,
        stopped=facts.stopped,
    )
    write_json(folder / LINEAGE, lineage)
    write_card(folder, lineage)
