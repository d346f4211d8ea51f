"""`mae run`: the rounds of a recipe in one process, each step resumable.

The loop only calls the stages on the files of a run folder and keeps the model loaded between them; every file can be
made by the stage commands alone. Whatever is finished is skipped, so the same command goes on after any interruption.
After each round the gate decides, on items reported nowhere, which adapter the next round starts from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
from msgspec import UNSET

from mae_cli.data.held_out import Items
from mae_cli.errors import CollapseError, ConfigError
from mae_cli.plugins.check import check_plugins
from mae_cli.recipe.load import check_keys_are_names
from mae_cli.recipe.roles import serving_roles
from mae_cli.recipe.steps import Step, recipe_of_step, runs_in, steps_of
from mae_cli.records import Problem
from mae_cli.records.atomic import write_json
from mae_cli.runs.budgets import is_time_of_day
from mae_cli.runs.events import Events
from mae_cli.runs.gate import Sets, keep_sets, read_sets, say_sets
from mae_cli.runs.layout import BENCHMARKS, PROMOTION, Round, round_label
from mae_cli.runs.manifest import open_run, schema_of_run, sees_dress
from mae_cli.runs.one_round import RoundWork, decides, eval_recipe
from mae_cli.runs.promotion import NOT_EVALUATED, NOT_TRAINED, Promotion, decide, promotion_line
from mae_cli.runs.retention import is_closed, retire, set_links
from mae_cli.runs.round_pools import file_seeds, say_overlap, self_seeds, snapshot
from mae_cli.runs.run_lock import RunLock
from mae_cli.runs.run_state import RunOutcome
from mae_cli.runs.supervision import Supervision
from mae_cli.runs.views.summary import RunResult, finish
from mae_cli.stages.calibrate import check_calibration
from mae_cli.stages.eval import contamination_of, load_eval
from mae_cli.stages.evaluation.benchmarks import load_benchmarks
from mae_cli.stages.finetune import check_tuning
from mae_cli.stages.generation.job import Job
from mae_cli.stages.tuning.served_policies import check_trains


@dataclass
class States:
    """The rounds that a run stands on; the base at first."""

    accepted: Round
    best: Round
    verified: Round

    def take(self, current: Round, decision: Promotion) -> None:
        """Move on by one decision; where harm is shown the next round starts from the last verified one."""
        if decision.accepted:
            self.accepted = current
            if decision.verified is not False:
                self.verified = current
        elif decision.reason != NOT_TRAINED:
            self.accepted = self.verified
        if decision.best:
            self.best = current


class Run:
    """One run folder and the work on it."""

    def __init__(
        self,
        job: Job,
        run_dir: Path,
        recipe_path: Path | None,
        *,
        until: str | None = None,
        take_over: bool = False,
        announce: Callable[[RunOutcome], None] | None = None,
    ) -> None:
        """Take the job of a whole run.

        Args:
            job: of the recipe.
            run_dir: the run's folder.
            recipe_path: the recipe's file; seeds may stand beside it.
            until: the step to stop after, or a time of day.
            take_over: also go on where the lock names a process of another machine.
            announce: see `Supervision`.

        Raises:
            ConfigError: no such step, no such time, or a budget that is none.
        """
        at = until if until is not None and is_time_of_day(until) else None
        until = None if at else until
        self.run_dir, self.recipe_path, self.until = run_dir, recipe_path, until
        self._take_over = take_over
        self.recipe, self.steps = job.recipe, steps_of(job.recipe)
        self.job = replace(job, schema=schema_of_run(run_dir), sees_dress=sees_dress(run_dir))
        self.events = Events(run_dir)
        self.supervision = Supervision(run_dir, job.recipe, job.progress, self.events, until=at, announce=announce)
        names = [step.name for step in self.steps]
        if until is not None and until not in names:
            raise ConfigError(
                f"--until {until}: no such step; the steps of a round are {', '.join(names)}; a time of day is 07:00"
            )

    def go(self) -> RunResult | None:
        """Work until all rounds are done, or until the step of `--until` in the first round that is not; then null.

        Raises:
            ConfigError: the folder holds a run of another recipe.
            GateError: a gate failed or no row was kept, and the recipe says to stop.
            CollapseError: the gate set shows harm, and the recipe says to stop.
            BudgetError: a budget is used up; the same call goes on.
            LockedError: another process works on the run.
        """
        check_keys_are_names(self.recipe)
        self._check()
        with RunLock(self.run_dir, take_over=self._take_over, say=self.job.progress.say), self.supervision as watch:
            result = self._go(watch)
            watch.finish(is_stopped=result is None)
            return result

    def _go(self, watch: Supervision) -> RunResult | None:
        watch.check_memory()
        open_run(self.job, self.run_dir, self.recipe_path)
        watch.begin()
        sets = self._sets()
        for step in self._evals():
            job = eval_recipe(self.job, step, self.steps)
            say_sets(job, sets[step.name], self._name_of(step), decides=decides(step, self.steps))
        measured = [benchmark for one in sets.values() for benchmark in (*one.reported, *one.gate)]
        held_out = Items.of(problem for benchmark in measured for problem in benchmark.problems)
        self.job = replace(self.job, held_out=held_out)
        work = RoundWork(self.job, self.events, sets, self.recipe_path, watch)
        self._check_servers()
        base = self._files(0)
        start = Path(self.recipe.adapter) if self.recipe.adapter else None
        for step in self._evals():
            work.evaluate(base, step, start)
        seeds = file_seeds(self.recipe, self.recipe_path)
        seeds += self_seeds(work, self.job, base) if self.recipe.self_seeds else []
        overlap = say_overlap(self.job, seeds, measured)
        return self._rounds(work, base, seeds, sets, overlap)

    def check_inputs(self) -> None:
        """Read the seeds, the benchmarks and what the judges are tested with, for a dry run."""
        self._check()
        self._check_servers()
        file_seeds(self.recipe, self.recipe_path)
        for step in self._evals():
            section = recipe_of_step(self.recipe, step).eval
            load_benchmarks(section.benchmarks, section)

    def _check(self) -> None:
        check_plugins(self.recipe)
        for step in self.steps:
            check_tuning(recipe_of_step(self.recipe, step))
        names = [step.name for step in self.steps]
        played = self.steps[: names.index(self.until) + 1] if self.until is not None else self.steps
        if any(step.stage == "finetune" for step in played):
            check_trains(self.recipe)
        check_calibration(self.recipe)
        draws = any(
            recipe_of_step(self.recipe, step).solve.num_problems for step in self.steps if step.stage == "solve"
        )
        if draws and not (self.recipe.seeds or self.recipe.self_seeds):
            raise ConfigError("no seeds: the solver draws its problems from them; give --set seeds=FILE")

    def _check_servers(self) -> None:
        """Compare the servers that shall play the trained policy with it, before anything is generated."""
        for role in serving_roles(self.recipe):
            self.job.engines.of(role)

    def _evals(self) -> list[Step]:
        return [step for step in self.steps if step.stage == "eval"]

    def _name_of(self, step: Step) -> str:
        return f" ({step.name})" if step.is_named else ""

    def _sets(self) -> dict[str, Sets]:
        found = {}
        for step in self._evals():
            folder = self.run_dir / BENCHMARKS
            folder = folder if decides(step, self.steps) else folder / step.name
            found[step.name] = keep_sets(read_sets(eval_recipe(self.job, step, self.steps).recipe.eval), folder)
        return found

    def _files(self, number: int) -> Round:
        return Round(self.run_dir / round_label(number), number, self.steps)

    def _start_of(self, accepted: Round) -> Path | None:
        if accepted.number:
            return accepted.adapters[-1]
        return Path(self.recipe.adapter) if self.recipe.adapter else None

    def _rounds(
        self, work: RoundWork, base: Round, seeds: Sequence[Problem], sets: dict[str, Sets], overlap: dict[str, int]
    ) -> RunResult | None:
        done: list[Round] = [base]
        decisions: list[Promotion] = []
        states = States(base, base, base)
        for number in range(1, self.recipe.rounds + 1):
            current = self._files(number)
            is_trained = bool(current.adapters)
            if not is_closed(current, self.recipe.keep_adapters):
                if not current.promotion.exists():
                    self.supervision.begin_round(number)
                snapshot(self.recipe, current, done[-1] if done[-1].number else None, seeds)
                outcome = work.go(current, self._start_of(states.accepted), self._stop_in(current))
                if outcome.is_stopped:
                    self.job.progress.say(f"{current.label}: stopped after {self.until} (--until)")
                    return None
                is_trained = outcome.is_trained
            done.append(current)
            decision = self._decide(current, states, sets, is_trained=is_trained)
            decisions.append(decision)
            states.take(current, decision)
            has_unseen = any(step.every > 1 or step.when for step in self._evals())
            set_links(
                self.run_dir,
                latest=current if is_trained else None,
                accepted=states.accepted,
                best=states.best,
                verified=states.verified if has_unseen else None,
            )
            retire(
                done, {states.accepted.number, states.best.number, states.verified.number}, self.recipe.keep_adapters
            )
            if is_trained and not decision.accepted and self.recipe.on_harm == "stop":
                result = self._finish(done, decisions, work, sets, overlap)
                self.job.progress.say(result.shown_table)
                raise CollapseError(f"{promotion_line(decision)}; stopped, accepted: {states.accepted.name}")
        return self._finish(done, decisions, work, sets, overlap)

    def _last_adapter(self, rounds: Sequence[Round]) -> Path | None:
        """The adapter that was trained last, which has been trained on all its predecessors were."""
        return next((one.adapters[-1] for one in reversed(rounds) if one.adapters), None)

    def _stop_in(self, current: Round) -> str | None:
        """The step to stop after: in the first round that was not finished before."""
        return self.until if self.until is not None and not current.promotion.exists() else None

    def _decide(self, current: Round, states: States, sets: dict[str, Sets], *, is_trained: bool) -> Promotion:
        deciding = self._evals()[-1] if self._evals() else None
        if not is_trained:
            decision = Promotion(current.label, accepted=False, best=False, reason=NOT_TRAINED)
        elif deciding is None or not sets[deciding.name].gate:
            decision = Promotion(current.label, accepted=True, best=False, reason="no gate set")
        elif not runs_in(deciding, current.number):
            decision = Promotion(current.label, accepted=True, best=False, reason=NOT_EVALUATED, verified=False)
        else:
            section = recipe_of_step(self.recipe, deciding).eval
            candidate, parent, leader = (
                (one.name, load_eval(one.gate(deciding))) for one in (current, states.verified, states.best)
            )
            decision = decide(
                candidate,
                parent,
                leader,
                decision=sum(runs_in(deciding, number) for number in range(1, current.number + 1)),
                harm_alpha=section.harm_alpha,
                best_alpha=section.best_alpha,
            )
        if not current.promotion.exists():
            self.events.add(current.label, PROMOTION.removesuffix(".json"), msgspec.to_builtins(decision))
        write_json(current.promotion, msgspec.to_builtins(decision))
        self.job.progress.say(promotion_line(decision))
        return decision

    def _finish(
        self,
        rounds: Sequence[Round],
        decisions: Sequence[Promotion],
        work: RoundWork,
        sets: dict[str, Sets],
        overlap: dict[str, int],
    ) -> RunResult:
        measured = [benchmark for one in sets.values() for benchmark in (*one.reported, *one.gate)]
        result = RunResult(
            rounds=self.recipe.rounds,
            run_dir=str(self.run_dir),
            accepted=next((d.round for d in reversed(decisions) if d.accepted), None),
            best=next((d.round for d in reversed(decisions) if d.best), None),
            promotion=list(decisions),
            held_out_among_seeds=overlap,
            contamination=contamination_of(self._last_adapter(rounds), measured) or UNSET,
            seconds=round(work.seconds, 1),
            tokens=work.tokens,
        )
        deciding = self._evals()[-1] if self._evals() else None
        has_gate = deciding is not None and bool(sets[deciding.name].gate)
        return finish(self.job, self.run_dir, rounds, result, deciding, has_gate=has_gate)
