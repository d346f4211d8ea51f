"""A small first round, really made by the stages in a folder of its own, with what each step took.

Place in the flow: `predict` scales what is measured here. Contract: the same functions as in `mae run`, on fewer rows;
nothing outside the given folder is written. A step's first rows are those of the real round, so a step that is small
enough is made as it will be.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from mae_cli.data import pools
from mae_cli.data.held_out import Items
from mae_cli.errors import DataError, GateError
from mae_cli.recipe.steps import RoundStep, Step, recipe_of_step, steps_of, steps_of_round
from mae_cli.records import Problem, Row
from mae_cli.records.read import read_rows
from mae_cli.records.resumable_file import encode_rows
from mae_cli.runs.gate import Sets, read_sets
from mae_cli.runs.layout import Round, round_label
from mae_cli.runs.one_round import eval_recipe
from mae_cli.runs.round_pools import SELF_SEED_FACTOR, file_seeds
from mae_cli.stages.eval import attach, evaluate
from mae_cli.stages.filter import run_filter
from mae_cli.stages.finetune import run_finetune
from mae_cli.stages.generation.job import Job
from mae_cli.stages.generation.summary import StageSummary
from mae_cli.stages.judge import run_judge
from mae_cli.stages.propose import run_propose
from mae_cli.stages.solve import run_solve
from mae_cli.stages.tuning.planned_rows import rows_to_train

FEWEST_ROWS = 8
"""Rows that a training is measured on at least, kept ones or not."""


class Measured(msgspec.Struct):
    """What one step took in the small round."""

    rows: list[Row] = []
    """The rows it made; of finetune and eval none are kept here."""
    count: int = 0
    """Rows it made, or trained."""
    seconds: float = 0.0
    fixed_seconds: float = 0.0
    """Of `seconds` those that do not grow with the rows: a training's loading and saving."""
    tokens: int = 0
    """Generated, or trained."""
    prompt_tokens: int = 0
    file_bytes: int = 0
    """Size of its file, or of its folder."""
    failure: str = ""
    """Why it could not be measured; empty where it was."""


@dataclass
class SmallRound:
    """The small round."""

    sets: dict[str, Sets] = field(default_factory=dict)
    """The items of each eval step."""
    seeds: list[Problem] = field(default_factory=list)
    load_seconds: float = 0.0
    seconds: float = 0.0
    steps: dict[str, Measured] = field(default_factory=dict)
    base: dict[str, Measured] = field(default_factory=dict)
    """Eval steps with what the run starts from."""
    self_seeds: Measured | None = None
    outputs: dict[str, list[Row]] = field(default_factory=dict)
    """All rows in the file of each step that writes rows."""
    is_forced: set[str] = field(default_factory=set)
    """Trainings measured on rows that the filters would have dropped."""


class Sampler:
    """Makes the small round."""

    def __init__(self, job: Job, recipe_path: Path | None, rows: int, folder: Path) -> None:
        self._job, self._path, self._rows, self._folder = job, recipe_path, rows, folder
        self._steps = steps_of(job.recipe)
        self._round = Round(folder / round_label(1), 1, self._steps)
        self._round.folder.mkdir(parents=True)
        self.sample = SmallRound()

    def make(self) -> SmallRound:
        """Measure every step of the first round, and the exam of the base."""
        started = time.monotonic()
        for step in self._steps:
            if step.stage == "eval":
                self.sample.sets[step.name] = read_sets(eval_recipe(self._job, step, self._steps).recipe.eval)
        everything = [one for sets in self.sample.sets.values() for one in (*sets.reported, *sets.gate)]
        self._job = replace(self._job, held_out=Items.of(p for one in everything for p in one.problems))
        start = Path(self._job.recipe.adapter) if self._job.recipe.adapter else None
        attach(self._job, start)
        self.sample.load_seconds = time.monotonic() - started
        for step in self._steps:
            if step.stage == "eval":
                self.sample.base[step.name] = self._exam(step, start, "base")
        self._pools()
        playing = start
        for one in steps_of_round(self._job.recipe, self._steps, 1):
            playing = self._step(one, playing)
        self.sample.seconds = time.monotonic() - started
        return self.sample

    def _pools(self) -> None:
        recipe = self._job.recipe
        seeds = file_seeds(recipe, self._path)
        proposing = self._round.of_stage("propose")
        if recipe.self_seeds and proposing:
            job = self._job.of_step(proposing[0], round_number=0)
            count = min(recipe.self_seeds * SELF_SEED_FACTOR, self._rows)
            section = msgspec.structs.replace(job.recipe.propose, num_problems=count, proposer="zero")
            path = self._folder / "self_seeds.jsonl"
            found = self._timed(
                path, lambda: run_propose(_with(job, "propose", section), None, path), lambda: self._rows_of(path)
            )
            self.sample.self_seeds = found
            seeds += list({row.problem.id: row.problem for row in found.rows if row.problem}.values())
        self.sample.seeds = seeds
        pools.write_questions(self._round.questions, seeds)
        pools.write_pairs(self._round.pairs, pools.seed_pairs(seeds) if recipe.seed_pairs else [])

    # ---- steps

    def _step(self, one: RoundStep, playing: Path | None) -> Path | None:
        step, out = one.step, self._round.output(one.step)
        job = self._job.of_step(step, round_number=1)
        inputs = [self._round.output(other) for other in one.reads]
        if step.stage in ("propose", "solve", "judge"):
            attach(job, playing)
        if step.stage == "finetune":
            return self._train(step, job, inputs, playing)
        if step.stage == "eval":
            self.sample.steps[step.name] = self._exam(step, playing, "trained")
            return playing
        work = {"propose": self._propose, "solve": self._solve, "judge": self._judge, "filter": self._filter}
        found = work[step.stage](job, inputs, out)
        known = known_ids(row for path in inputs for row in self._rows_of(path))
        self.sample.outputs[step.name] = found.rows
        found.rows = [row for row in found.rows if row.id not in known]
        found.count = len(found.rows)
        self.sample.steps[step.name] = found
        return playing

    def _propose(self, job: Job, inputs: Sequence[Path], out: Path) -> Measured:
        section = job.recipe.propose
        count = min(section.num_problems, self._rows)
        smaller = _with(job, "propose", msgspec.structs.replace(section, num_problems=count))
        return self._timed(out, lambda: run_propose(smaller, self._round.questions, out), lambda: self._rows_of(out))

    def _solve(self, job: Job, inputs: Sequence[Path], out: Path) -> Measured:
        """As many problems as give the wanted rows: of the pool and of the proposals, in the recipe's proportion."""
        section = job.recipe.solve
        rows = [row for path in inputs for row in self._rows_of(path)]
        proposed = [row for row in rows if row.is_proposal]
        drawn = min(section.num_problems, len(self.sample.seeds))
        each = section.rollouts_per_problem * section.train_on_proposals + section.difficulty_samples
        total = drawn * section.rollouts_per_problem + len(proposed) * each
        share = min(1.0, self._rows / max(total, 1))
        if total:
            section = msgspec.structs.replace(section, num_problems=-int(-drawn * share // 1))
        left = {row.id for row in proposed[: max(1, round(len(proposed) * share))]} if each else known_ids(proposed)
        part = self._part(out, [row for row in rows if not row.is_proposal or row.id in left])
        smaller = _with(job, "solve", section)
        return self._timed(
            out,
            lambda: run_solve(smaller, [part] if inputs else [], out, pool_path=self._round.questions),
            lambda: self._rows_of(out),
        )

    def _judge(self, job: Job, inputs: Sequence[Path], out: Path) -> Measured:
        section = job.recipe.judge
        rows = [row for path in inputs for row in self._rows_of(path)]
        most = max(2, self._rows // max(section.votes, 1))
        asked = {row.id for row in [row for row in rows if row.is_proposal][:most]}
        few = msgspec.structs.replace(
            section,
            num_pairs=min(section.num_pairs, self._rows),
            num_own_pairs=min(section.num_own_pairs, self._rows),
        )
        kept = rows if section.votes == 0 else [row for row in rows if not row.is_proposal or row.id in asked]
        part = self._part(out, kept)
        smaller = _with(job, "judge", few)
        return self._timed(
            out, lambda: run_judge(smaller, [part], out, pool_path=self._round.pairs), lambda: self._rows_of(out)
        )

    def _filter(self, job: Job, inputs: Sequence[Path], out: Path) -> Measured:
        dropped = self._folder / "dropped.jsonl"
        return self._timed(out, lambda: run_filter(job, inputs, out, dropped_path=dropped), lambda: self._rows_of(out))

    def _train(self, step: Step, job: Job, inputs: Sequence[Path], playing: Path | None) -> Path | None:
        """Train on what was kept; where that is too little to measure, on other training rows as well."""
        section, out = job.recipe.finetune, self._round.output(step)
        rows = [row for path in inputs for row in self._rows_of(path)]
        kept = rows_to_train(job, rows)
        wanted = max(FEWEST_ROWS, 2 * section.batch_size)
        if len(kept) < wanted:
            self.sample.is_forced.add(step.name)
            kept = [*kept, *self._others(kept, section.purposes)][: max(wanted, len(kept))]
        for row in kept:
            row.kept = True
        part = self._part(out, kept)
        found = self._timed(out, lambda: run_finetune(job, [part], out, start_adapter=playing), list)
        self.sample.steps[step.name] = found
        return out if out.is_dir() and not found.failure else playing

    def _others(self, kept: Sequence[Row], purposes: Sequence[str]) -> list[Row]:
        """Rows of every step that might have been trained, those that are rewarded and whole first."""
        known = known_ids(kept)
        found: dict[str, Row] = {}
        for rows in self.sample.outputs.values():
            found |= {row.id: row for row in rows if row.purpose in purposes and row.completion}
        others = [row for row in found.values() if row.id not in known and row.completion_token_ids]
        return sorted(others, key=lambda row: (row.reward is None, row.status != "ok"))

    def _exam(self, step: Step, adapter: Path | None, label: str) -> Measured:
        job = self._job.of_step(step, round_number=1)
        sets = self.sample.sets[step.name]
        few = []
        left = max(1, self._rows // job.recipe.eval.samples)
        for benchmark in (*sets.reported, *sets.gate):
            few.append(msgspec.structs.replace(benchmark, problems=benchmark.problems[:left]))
            left = max(0, left - len(benchmark.problems))
        few = [benchmark for benchmark in few if benchmark.problems]
        out = self._folder / f"{step.name}_{label}.jsonl"
        if not few:
            return Measured(failure="no benchmark")
        attach(job, adapter)
        found = self._timed(
            out,
            lambda: evaluate(job, few, out, adapter=adapter, with_base=adapter is None),
            lambda: self._rows_of(out),
        )
        found.count = len(found.rows)
        return found

    # ---- parts

    def _timed(self, path: Path, work: Callable[[], StageSummary], rows: Callable[[], list[Row]]) -> Measured:
        """Do one step's work; a gate that it fails does not end the plan."""
        started = time.monotonic()
        found = Measured()
        summary: StageSummary | None = None
        try:
            summary = work()
        except GateError as error:
            found.failure = str(error)
        except DataError as error:
            if path.suffix:  # what a training finds nothing to learn in is no fault of a file
                raise
            found.failure = str(error)
        found.seconds = time.monotonic() - started
        found.rows = rows()
        found.count = len(found.rows) or (summary.written if summary else 0)
        found.tokens = summary.tokens if summary is not None else sum(map(tokens_of, found.rows))
        found.prompt_tokens = sum(row.usage.prompt_tokens for row in found.rows if row.usage)
        found.file_bytes = _size(path)
        if summary is not None and summary.stage == "finetune" and summary.tokens_per_second:
            found.fixed_seconds = max(0.0, found.seconds - summary.tokens / summary.tokens_per_second)
        return found

    def _rows_of(self, path: Path) -> list[Row]:
        return read_rows(path) if path.exists() else []

    def _part(self, out: Path, rows: Sequence[Row]) -> Path:
        path = self._folder / f"{out.stem}.part.jsonl"
        path.write_bytes(encode_rows(rows))
        return path


def known_ids(rows: Iterable[Row]) -> set[str]:
    """The ids of rows."""
    return {row.id for row in rows}


def tokens_of(row: Row) -> int:
    """Generated tokens of a row."""
    return row.usage.completion_tokens if row.usage else 0


def _with(job: Job, stage: str, section: Any) -> Job:
    return job.with_recipe(msgspec.structs.replace(job.recipe, **{stage: section}))


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(one.stat().st_size for one in path.rglob("*") if one.is_file())
    return path.stat().st_size if path.exists() else 0


def section_of(job: Job, step: Step) -> Any:
    """The keys of a step's section as they hold for it."""
    return getattr(recipe_of_step(job.recipe, step), step.stage)
