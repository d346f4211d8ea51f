"""The whole run from a small round: rows step by step as the recipe has them, then time, tokens, bytes in proportion.

Rows follow from the recipe's numbers and from shares of the small round (proposals with a question, answers kept). The
questions of a judge and the choice of the filters are not computed from shares: the small round's rows are repeated to
full size, and the judge's plan and the recipe's own filters are applied to them, so limits such as `best_of_k` hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count as counting

import msgspec

from mae_cli.data import pools
from mae_cli.plugins import registry
from mae_cli.recipe.steps import RoundStep, Step, steps_of, steps_of_round
from mae_cli.records import Message, Row, draw
from mae_cli.runs.planning.sample import Measured, SmallRound, section_of, tokens_of
from mae_cli.runs.round_pools import SELF_SEED_FACTOR
from mae_cli.stages.evaluation.held_out import held_out_of
from mae_cli.stages.filter import select_rows
from mae_cli.stages.generation.job import Job
from mae_cli.stages.judging.panel import Panel
from mae_cli.stages.judging.questions import _plan as plan_questions
from mae_cli.stages.solve import proposals
from mae_cli.stages.tuning.planned_rows import rows_to_train


class PlannedStep(msgspec.Struct, kw_only=True):
    """One step of one round, as predicted."""

    round: int
    step: str
    stage: str
    rows: int
    """Rows it makes; of finetune rows it trains, of filter rows it keeps for training."""
    tokens: int = 0
    """Generated, or trained over all passes."""
    prompt_tokens: int = 0
    seconds: float = 0.0
    file_bytes: int = 0


def predict(job: Job, sample: SmallRound) -> list[PlannedStep]:
    """Return every step of every round, round 0 first."""
    return list(_Prediction(job, sample).steps())


class _Prediction:
    def __init__(self, job: Job, sample: SmallRound) -> None:
        self._job, self._round = job, sample
        self._pipeline = steps_of(job.recipe)
        self._pool, self._pairs = len(sample.seeds), 0
        self._full: dict[str, list[Row]] = {}
        self._slower = _slower_with_adapter(sample, self._pipeline)

    def steps(self) -> Iterable[PlannedStep]:
        yield from self._base()
        has_adapter = self._job.recipe.adapter is not None
        slow_from_start = has_adapter  # then all was measured with one
        for number in range(1, self._job.recipe.rounds + 1):
            trained = False
            for one in steps_of_round(self._job.recipe, self._pipeline, number):
                if one.step.stage == "eval" and not trained:
                    continue
                planned = self._step(one, number)
                if has_adapter and not slow_from_start and one.step.stage in ("propose", "solve", "judge"):
                    planned.seconds *= self._slower
                if one.step.stage == "finetune" and planned.rows:
                    trained = has_adapter = True
                yield planned
            self._grow()

    def _base(self) -> Iterable[PlannedStep]:
        for step in self._pipeline:
            if step.stage == "eval":
                yield self._scaled(0, step, self._items(step), self._round.base[step.name])
        wanted, found = self._job.recipe.self_seeds, self._round.self_seeds
        proposing = next((step for step in self._pipeline if step.stage == "propose"), None)
        if wanted and found is not None and proposing is not None:
            yield self._scaled(0, proposing, wanted * SELF_SEED_FACTOR, found)
            judging = next((step for step in self._pipeline if step.stage == "judge"), None)
            if judging is not None and (measured := self._round.steps.get(judging.name)) is not None:
                valid = sum(row.problem is not None for row in found.rows) / max(found.count, 1)
                votes = section_of(self._job, judging).votes
                yield self._scaled(0, judging, round(wanted * SELF_SEED_FACTOR * valid * votes), measured)
            self._pool = min(self._pool, wanted)

    def _step(self, one: RoundStep, number: int) -> PlannedStep:
        step = one.step
        given = list({row.id: row for other in one.reads for row in self._full.get(other.name, [])}.values())
        measured = self._round.steps.get(step.name, Measured(failure="not run in round 1"))
        job = self._job.of_step(step, round_number=number)
        if step.stage == "propose":
            made = repeated(measured.rows, job.recipe.propose.num_problems)
            rows = job.recipe.propose.num_problems
        elif step.stage == "solve":
            rows = self._rollouts(job, given)
            made = repeated(measured.rows, rows)
        elif step.stage == "judge":
            rows = self._questions(job, given, number)
            self._full[step.name] = self._judged(step, given, rows)
            return self._scaled(number, step, rows, measured)
        elif step.stage == "filter":
            self._full[step.name] = self._selected(job, given)
            kept = sum(row.kept is True for row in given)
            return PlannedStep(round=number, step=step.name, stage=step.stage, rows=kept, seconds=measured.seconds)
        elif step.stage == "finetune":
            return self._training(number, step, given, measured)
        else:
            return self._scaled(number, step, self._items(step), measured)
        self._full[step.name] = [*given, *made]
        return self._scaled(number, step, rows, measured)

    # ---- rows

    def _items(self, step: Step) -> int:
        sets = self._round.sets[step.name]
        items = sum(len(one.problems) for one in (*sets.reported, *sets.gate))
        return items * int(section_of(self._job, step).samples)

    def _rollouts(self, job: Job, given: Sequence[Row]) -> int:
        section = job.recipe.solve
        proposed, _ = proposals(given, checked_only=section.checked_only)
        drawn = draw(self._round.seeds, section.num_problems, job.recipe.seed, "solve", job.round_number, *job.draw_key)
        more = max(0, min(section.num_problems, self._pool) - len(drawn))
        trained = {problem.id for problem in drawn}  # a proposal may repeat one of them, and is then solved once
        trained |= {problem.id for problem in proposed} if section.train_on_proposals else set()
        return (len(trained) + more) * section.rollouts_per_problem + len(proposed) * section.difficulty_samples

    def _questions(self, job: Job, given: Sequence[Row], number: int) -> int:
        section = job.recipe.judge
        panel = Panel(job)
        if not panel.judges:
            return 0
        seeds = pools.seed_pairs(self._round.seeds) if job.recipe.seed_pairs else []
        drawn = draw(seeds, section.num_pairs, job.recipe.seed, "judge", job.round_number) if number == 1 else []
        grown = min(section.num_pairs, self._pairs + len(seeds)) if number > 1 else 0
        return len(plan_questions(job, panel, given, drawn)) + grown

    def _judged(self, step: Step, given: Sequence[Row], questions: int) -> list[Row]:
        """The judge's output at full size: rows with verdicts as in the small round, each kind in its full number."""
        wanted: dict[tuple[str, str, str], int] = {}
        for row in given:
            wanted[_kind(row)] = wanted.get(_kind(row), 0) + 1
        rows: list[Row] = []
        known = self._round.outputs.get(step.name, [])
        made = {row.id for row in self._round.steps.get(step.name, Measured()).rows}
        for kind in dict.fromkeys(_kind(row) for row in known):
            of_kind = [row for row in known if _kind(row) == kind]
            share = questions / max(len(made), 1)
            full = round(len(of_kind) * share) if of_kind[0].id in made else wanted.get(kind, 0)
            rows += repeated(of_kind, full)
        return rows

    def _selected(self, job: Job, given: list[Row]) -> list[Row]:
        specs = job.recipe.filter.filters
        built = [(registry.spec_name(spec), registry.build("filters", spec)) for spec in specs]
        select_rows(given, built, held_out_of(job))
        return [row for row in given if row.kept is not False or row.stored]

    def _training(self, number: int, step: Step, given: Sequence[Row], measured: Measured) -> PlannedStep:
        section = section_of(self._job, step)
        rows = len(rows_to_train(self._job.of_step(step, round_number=number), given))
        if section.max_steps:
            rows = min(rows, section.max_steps * section.batch_size)
        planned = PlannedStep(round=number, step=step.name, stage=step.stage, rows=rows)
        if rows and measured.count:
            share = rows / measured.count
            planned.tokens = round(measured.tokens * share)
            planned.seconds = measured.fixed_seconds + (measured.seconds - measured.fixed_seconds) * share
            planned.file_bytes = measured.file_bytes
        return planned

    def _scaled(self, number: int, step: Step, rows: int, measured: Measured) -> PlannedStep:
        share = rows / measured.count if measured.count else 0.0
        return PlannedStep(
            round=number,
            step=step.name,
            stage=step.stage,
            rows=rows,
            tokens=round(measured.tokens * share),
            prompt_tokens=round(measured.prompt_tokens * share),
            seconds=measured.seconds * share if rows else 0.0,
            file_bytes=round(measured.file_bytes * share),
        )

    def _grow(self) -> None:
        """Let the pools have what the filters of this round stored."""
        limit = self._job.recipe.pool_limit
        for step in self._pipeline:
            if step.stage == "filter":
                rows = self._full.get(step.name, [])
                self._pool += sum(row.is_proposal and bool(row.stored) for row in rows)
                self._pairs += sum(row.is_answer and bool(row.stored) for row in rows)
        self._pool = min(self._pool, limit) if limit else self._pool


def repeated(rows: Sequence[Row], number: int) -> list[Row]:
    """Return so many rows: the given ones, then copies of them with ids, groups and questions of their own.

    Group by group, so that what belongs together stays together; the last group may be cut.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.group_id, []).append(row)
    found: list[Row] = []
    for copy in counting():
        for group in groups.values():
            found += [_copy(row, copy) for row in group[: number - len(found)]]
            if len(found) >= number:
                return found
        if not groups:
            return found
    return found


def _copy(row: Row, copy: int) -> Row:
    if copy == 0:
        return msgspec.structs.replace(row)
    mark = f" [{copy}]"
    problem = row.problem
    if problem is not None:
        problem = msgspec.structs.replace(problem, id=f"{problem.id}-{copy}", question=problem.question + mark)
    messages = [Message(one.role, one.content + mark) for one in row.messages]
    group = row.group_id if row.is_proposal else f"{row.group_id}-{copy}"
    return msgspec.structs.replace(row, id=f"{row.id}-{copy}", problem=problem, messages=messages, group_id=group)


def _kind(row: Row) -> tuple[str, str, str]:
    return (row.stage, row.role, row.purpose)


def _slower_with_adapter(sample: SmallRound, steps: Sequence[Step]) -> float:
    """Seconds a row with an adapter on, divided by those without, by the two exams; 1 where there were not two."""
    for step in steps:
        base, other = sample.base.get(step.name), sample.steps.get(step.name)
        if step.stage == "eval" and base and other and base.tokens and other.tokens:
            return max(1.0, (other.seconds / other.tokens) / (base.seconds / base.tokens))
    return 1.0


def mean_tokens(rows: Sequence[Row]) -> float:
    """Mean of the generated tokens."""
    return sum(map(tokens_of, rows)) / max(len(rows), 1)
