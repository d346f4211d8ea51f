"""Job: one command or one step of a round, as a stage is told it.

Place in the flow: the command line makes one for its command, `mae run` one for every step; a stage reads its input and
opens its output through it. Contract: it never changes; what changes in a process is in its parts (`engines`, the
models that are loaded; `progress`, what is shown).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mae_cli.data.held_out import Items
from mae_cli.errors import ConfigError
from mae_cli.recipe.roles import check_role
from mae_cli.recipe.sections import Recipe
from mae_cli.recipe.steps import STAGES, Step, recipe_of_step
from mae_cli.records import SCHEMA_VERSION
from mae_cli.records.read import Input, read_input
from mae_cli.records.resumable_file import Output
from mae_cli.records.shards import Shard
from mae_cli.stages.generation.engines import Engines
from mae_cli.stages.generation.fingerprint_defaults import defaults_of
from mae_cli.stages.generation.progress import Progress
from mae_cli.stages.generation.workers import Crew

AUTO_BATCH_SIZE = 64
"""Micro-batch of `batch_size: auto`; more gains little on a CPU and fits every GPU for small models."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One command or step: its recipe, its round, and what it may use."""

    recipe: Recipe
    """As this step sees it: its own keys stand in its stage's section."""
    engines: Engines
    progress: Progress
    step: str | None = None
    """Name of the pipeline's step; null: the stage alone."""
    round_number: int = 1
    limit: int | None = None
    """Work on the first input rows only."""
    shard: Shard | None = None
    overwrite: bool = False
    allow_incomplete: bool = False
    retry_failed: bool = False
    """Ask again for rows that ended in an error."""
    schema: int = SCHEMA_VERSION
    """Of the rows it writes: a run goes on in the schema it was begun with."""
    held_out: Items | None = None
    """Items of the run's benchmarks and gate; null: the recipe's are read where they are needed."""
    sees_dress: bool = True
    """False in a run that was begun before questions were compared in any dress; it goes on as it began."""

    def of_step(self, step: Step | None, *, round_number: int | None = None) -> Job:
        """Return the job of one step of the recipe's pipeline."""
        number = self.round_number if round_number is None else round_number
        if step is None:
            return replace(self, step=None, round_number=number)
        return replace(self, recipe=recipe_of_step(self.recipe, step), step=step.name, round_number=number)

    def with_recipe(self, recipe: Recipe) -> Job:
        """Return the same job with other keys in its sections; its engines stay those of the first recipe."""
        return replace(self, recipe=recipe)

    @property
    def draw_key(self) -> tuple[str, ...]:
        """Part of the seed of draws from pools, beside stage and round: the step's name where it has one of its own."""
        return () if self.step is None or self.step in STAGES else (self.step,)

    @property
    def batch_size(self) -> int:
        """The micro-batch that segments are cut by; not part of the fingerprint."""
        size = self.recipe.batch_size
        if size == "auto":
            return AUTO_BATCH_SIZE
        if size < 1:
            raise ConfigError(f"batch_size: {size}; expected at least 1, or auto")
        return size

    def read(self, *paths: Path) -> Input:
        """Read a stage's input, with its notices said; of a row in several files the last file's version counts.

        Raises:
            DataError: see `read_input`; or a row of a role that the recipe does not declare.
            ConfigError: records in one file and plain problems in another.
        """
        found = [read_input(path, allow_incomplete=self.allow_incomplete) for path in paths]
        for data in found:
            for notice in data.notices:
                self.progress.say(notice)
        merged = _merged(paths, found)
        for row in merged.rows:
            check_role(self.recipe, row.role, f"{paths[0]}: row {row.id}")
        return merged

    def output(
        self, stage: str, path: Path, options: Mapping[str, Any], *inputs: Path, companion: Path | None = None
    ) -> Output:
        """Return the stage's output; the fingerprint holds what determines its rows: policy, seed, round, options."""
        named = {"step": self.draw_key[0]} if self.draw_key else {}
        fingerprint = {"seed": self.recipe.seed, "round": self.round_number, **named, **options}
        return Output(
            path,
            stage=stage,
            fingerprint=fingerprint,
            defaults=defaults_of(fingerprint),
            inputs=inputs,
            companion=companion,
            overwrite=self.overwrite,
            shard=self.shard,
            schema=self.schema,
        )


def _merged(paths: Sequence[Path], found: Sequence[Input]) -> Input:
    if len(found) == 1:
        return found[0]
    if any(data.rows for data in found) and any(data.problems for data in found):
        raise ConfigError(f"{', '.join(map(str, paths))}: records and plain problems; give files of one kind")
    rows = {row.id: row for data in found for row in data.rows}
    problems = {problem.id: problem for data in found for problem in data.problems}
    return Input(rows=list(rows.values()), problems=list(problems.values()))


def open_job(recipe: Recipe, *, progress: Progress | None = None, crew: Crew | None = None, **more: Any) -> Job:
    """Return the job of a process that has none yet: engines to be opened, progress shown on standard error."""
    shown = progress or Progress()
    return Job(recipe=recipe, engines=Engines(recipe, shown, crew), progress=shown, **more)
