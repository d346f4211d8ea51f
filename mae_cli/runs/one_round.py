"""One round: its steps, one after another, on the files of its folder.

Place in the flow: the loop calls it once per round; every step is an ordinary resumable output, so a round that was
interrupted is gone through again and only what is missing is done. Contract: which steps run and what they read
follows from the recipe and the round's number; a step plays with the last adapter trained in this round, else with
the one the round starts from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec

from mae_cli.errors import GateError
from mae_cli.models.lineage import trained_rows
from mae_cli.recipe.files import find_file
from mae_cli.recipe.steps import WRITES_ROWS, RoundStep, Step, recipe_of_step, steps_of_round
from mae_cli.records import Row
from mae_cli.records.atomic import write_json
from mae_cli.records.read import iterate_rows
from mae_cli.reports.role_figures import role_figures, role_table
from mae_cli.runs.events import Events
from mae_cli.runs.gate import Sets
from mae_cli.runs.layout import Round
from mae_cli.runs.supervision import Supervision
from mae_cli.stages.calibrate import run_calibrate
from mae_cli.stages.eval import attach, evaluate
from mae_cli.stages.filter import run_filter
from mae_cli.stages.finetune import run_finetune
from mae_cli.stages.generation.job import Job
from mae_cli.stages.generation.summary import StageSummary
from mae_cli.stages.judge import run_judge
from mae_cli.stages.propose import run_propose
from mae_cli.stages.solve import run_solve


class RoundOutcome(msgspec.Struct, frozen=True):
    """Result of working through a round."""

    is_trained: bool
    is_stopped: bool = False
    """It was left after the step where the caller wanted to stop."""


class RoundWork:
    """Goes through the steps of rounds.

    Attributes:
        seconds, tokens: spent in all steps so far.
    """

    def __init__(
        self,
        job: Job,
        events: Events,
        sets: Mapping[str, Sets],
        recipe_path: Path | None,
        supervision: Supervision | None = None,
    ) -> None:
        self._job, self._events, self._sets, self._recipe_path = job, events, sets, recipe_path
        self._supervision = supervision
        self.seconds, self.tokens = 0.0, 0

    def go(self, current: Round, start: Path | None, until: str | None = None) -> RoundOutcome:
        """Work until the round's last step, or until a named one.

        Args:
            current: its files.
            start: the adapter it starts from; null: the base.
            until: name of the step after which to stop.

        Raises:
            GateError: a gate failed or no row was kept, and the recipe says to stop.
        """
        attach(self._job, start)
        if self._job.recipe.calibrate.bars:
            # The judge is the policy, which the round before has changed.
            job = self._job.of_step(None, round_number=current.number)
            self.play(current, job, lambda: run_calibrate(job, self._calibration_problems(), current.calibration))
        empty: set[str] = set()
        playing = start
        steps = steps_of_round(self._job.recipe, current.steps, current.number)
        for round_step in steps:
            step = round_step.step
            if step.stage != "eval" or playing != start:  # else there is nothing new to evaluate
                self._step(current, round_step, playing, empty)
            # Only what this pass has come to: a round that is gone through again has its later adapters already.
            if step.stage == "finetune" and current.output(step).exists():
                playing = current.output(step)
            if step.name == until:
                return RoundOutcome(bool(current.adapters), is_stopped=True)
            if _is_last_training(steps, step):
                self._say_roles(current, steps)
        return RoundOutcome(bool(current.adapters))

    def play(self, current: Round, job: Job, work: Callable[[], StageSummary]) -> StageSummary:
        """Do one step's work, with its event, its line and its costs."""
        self._begin(current, job)
        summary = work()
        self._events.add_stage(current.label, summary, job.step)
        self.seconds += summary.seconds
        self.tokens += summary.tokens
        named = f" ({job.step})" if job.draw_key else ""
        job.progress.say(f"{current.label}{named} {summary.line()}")
        if self._supervision is not None:
            self._supervision.end_step()
        return summary

    def _begin(self, current: Round, job: Job) -> None:
        if self._supervision is None:
            return
        step = next((one for one in current.steps if one.name == job.step), None)
        stem = current.stem(step) if step is not None else current.calibration.stem
        self._supervision.begin_step(current, job.step or "calibrate", stem, save_every=job.recipe.finetune.save_every)

    def _step(self, current: Round, round_step: RoundStep, playing: Path | None, empty: set[str]) -> None:
        step = round_step.step
        if round_step.reads and all(other.name in empty for other in round_step.reads):
            empty.add(step.name)  # nothing was kept for it; that has been said
            return
        job = self._job.of_step(step, round_number=current.number)
        try:
            self._work(current, round_step, job, playing)
        except GateError as error:
            if step.stage not in ("filter", "finetune") or job.recipe.on_empty == "stop":
                raise
            empty.add(step.name)
            place = f" ({step.name})" if step.is_named else ""
            self._events.add(current.label, "not trained", str(error))
            job.progress.say(f"{current.label}{place}: not trained: {error}")

    def _work(self, current: Round, round_step: RoundStep, job: Job, playing: Path | None) -> None:
        step, out = round_step.step, current.output(round_step.step)
        inputs = [current.output(other) for other in round_step.reads]
        if step.stage == "eval":
            self.evaluate(current, step, playing)
            return
        if step.stage in ("propose", "solve", "judge"):
            attach(job, playing)
        work: dict[str, Callable[[], StageSummary]] = {
            "propose": lambda: run_propose(job, current.questions, out),
            "solve": lambda: run_solve(job, inputs, out, pool_path=current.questions),
            "judge": lambda: run_judge(job, inputs, out, pool_path=current.pairs),
            "filter": lambda: run_filter(job, inputs, out, dropped_path=current.dropped(step)),
            "finetune": lambda: run_finetune(job, inputs, out, start_adapter=playing),
        }
        self.play(current, job, work[step.stage])

    def evaluate(self, current: Round, step: Step, adapter: Path | None) -> None:
        """Answer the reported and the gate items of one eval step; without an adapter with the base."""
        job, sets = self._job.of_step(step, round_number=current.number), self._sets[step.name]
        for benchmarks, path in ((sets.reported, current.output(step)), (sets.gate, current.gate(step))):
            if benchmarks:
                work = partial(evaluate, job, benchmarks, path, adapter=adapter, with_base=adapter is None)
                self.play(current, job, work)

    def _calibration_problems(self) -> Path | None:
        name = self._job.recipe.calibrate.problems
        return find_file(name, beside=self._recipe_path.parent if self._recipe_path else None) if name else None

    def _say_roles(self, current: Round, steps: Sequence[RoundStep]) -> None:
        trained = [line for folder in current.adapters for line in trained_rows(folder).values()]
        figures = role_figures(final_rows(current, steps), trained)
        write_json(current.roles, msgspec.to_builtins(figures))
        self._job.progress.say(role_table(figures))


def _is_last_training(steps: Sequence[RoundStep], step: Step) -> bool:
    """Whether all that trains in this round is over with this step: then its rows have their last word."""
    stages = [one.step.stage for one in steps]
    if "finetune" in stages:
        return [one.step for one in steps if one.step.stage == "finetune"][-1] is step
    writers = [one.step for one in steps if one.step.stage in WRITES_ROWS]
    return bool(writers) and writers[-1] is step


def final_rows(current: Round, steps: Sequence[RoundStep]) -> list[Row]:
    """Return the rows of a round as the last steps left them: each once, dropped ones too."""
    read = {other.name for one in steps if one.step.stage in WRITES_ROWS for other in one.reads}
    found: dict[str, Row] = {}
    for one in steps:
        step = one.step
        if step.stage not in WRITES_ROWS or step.name in read:
            continue
        paths = [current.output(step), *([current.dropped(step)] if step.stage == "filter" else [])]
        found |= {row.id: row for path in paths if path.exists() for row in iterate_rows(path)}
    return list(found.values())


def decides(step: Step, steps: Sequence[Step]) -> bool:
    """Whether a step's gate decides about promotion: that of the last eval step."""
    last = [other for other in steps if other.stage == "eval"]
    return bool(last) and last[-1] is step


def eval_recipe(job: Job, step: Step, steps: Sequence[Step]) -> Job:
    """Return the job of an eval step; one that does not decide has no gate."""
    found = job.of_step(step)
    if decides(step, steps):
        return found
    section = msgspec.structs.replace(recipe_of_step(job.recipe, step).eval, gate=None)
    return found.with_recipe(msgspec.structs.replace(found.recipe, eval=section))
