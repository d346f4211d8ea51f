"""The held-out items of a recipe, for the steps that must not train on them.

Place in the flow: `filter` and `finetune` ask here when they run alone; in a run the loop hands them the items it
measures with. Contract: the items of every eval step's benchmarks and of its gate; a set that cannot be read is said,
for then nothing was compared with it. Left out: comparing (`data.held_out`).
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from mae_cli.data.held_out import Items
from mae_cli.errors import MaeError
from mae_cli.recipe.sections import Spec
from mae_cli.recipe.steps import recipe_of_step, steps_of
from mae_cli.records import Problem
from mae_cli.stages.evaluation.benchmarks import items_of
from mae_cli.stages.generation.job import Job

HELD_OUT = "held_out"
"""Name of the count of rows that were not trained for asking a held-out item."""


def held_out_of(job: Job) -> Items | None:
    """Return the items that a job's rows must not ask; null where there are none or the recipe wants no comparison."""
    if not job.recipe.filter.decontaminate or not job.sees_dress:
        return None
    if job.held_out is not None:
        return job.held_out if len(job.held_out) else None
    problems: list[Problem] = []
    for spec in dict.fromkeys(map(_hashable, _specs(job))):
        try:
            problems += items_of(spec)
        except MaeError as error:
            job.progress.say(f"WARNING: not compared with held-out items: {error}")
    return Items.of(problems) if problems else None


def _specs(job: Job) -> Iterator[Spec]:
    sections = [job.recipe.eval]
    sections += [recipe_of_step(job.recipe, step).eval for step in steps_of(job.recipe) if step.stage == "eval"]
    for section in sections:
        if section.via == "mae":
            yield from section.benchmarks
            if section.gate is not None and section.gate != "split":
                yield section.gate


def _hashable(spec: Spec) -> str:
    return spec if isinstance(spec, str) else msgspec.json.encode(spec).decode()
