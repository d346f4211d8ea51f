"""The rows that `finetune` would train, without a model: for `mae plan`."""

from __future__ import annotations

from collections.abc import Sequence

from mae_cli.plugins import registry
from mae_cli.recipe.roles import fixed_roles
from mae_cli.records import Row
from mae_cli.stages.generation.job import Job
from mae_cli.training.eligible_rows import own_rows, trainable


def rows_to_train(job: Job, rows: Sequence[Row]) -> list[Row]:
    """Return the rows that purposes, filters, unknown rewards and roles of other models leave."""
    section = job.recipe.finetune
    chosen, _ = trainable(list(rows), section.purposes, registry.build("objectives", section.objective))
    return own_rows(chosen, None, [] if section.other_models else fixed_roles(job.recipe))[0]
