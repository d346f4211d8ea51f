"""`mae status`: where a run is, how fast it goes, what it used, how it ended, and what its next start will do.

Place in the flow: a view of one run folder, or of all runs in a folder; the command prints it. Contract: it reads
small files, file sizes and the ends of files, never whole row files, loads no model and takes no lock. Every figure
is one that the run wrote down; what is not known is null and shown as such, never guessed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from mae_cli.errors import ConfigError
from mae_cli.recipe.sections import Recipe
from mae_cli.records.lock_owner import Owner, read_owner, whereabouts
from mae_cli.runs.budgets import folder_size, parse_size
from mae_cli.runs.layout import ACCEPTED, BEST, EVENTS, MANIFEST, OWNER, RESOLVED_RECIPE, STATE
from mae_cli.runs.run_state import RunState, read_state
from mae_cli.runs.views.run_files import RunFiles, StepFile, read_run, recipe_in
from mae_cli.runs.views.run_times import step_seconds
from mae_cli.runs.views.scores import ScoreOfRound, score_of

Life = Literal["running", "running elsewhere", "finished", "stopped", "killed", "not begun"]


class Pace(msgspec.Struct, kw_only=True):
    """The step that is under way."""

    round: str
    step: str
    unit: str
    """`rows`, or `steps` of a training."""
    done: int
    total: int
    tokens_per_second: float | None
    units_per_second: float | None
    seconds_left: float | None
    """Of the step, by its rate so far."""


class BudgetUse(msgspec.Struct, kw_only=True):
    """One budget and what was used of it."""

    name: str
    used: float
    limit: float


class RunStatus(msgspec.Struct, kw_only=True):
    """Everything `mae status` knows about a run."""

    run_dir: str
    life: Life
    owner: Owner | None
    """Who works on it, or did when it was killed."""
    rounds_done: int
    rounds_wanted: int
    steps: list[StepFile]
    pace: Pace | None
    seconds_left: float | None
    """Of the run, from the times of finished rounds; null before one is finished."""
    accepted: ScoreOfRound | None
    best: ScoreOfRound | None
    tokens: int | None
    """Over all starts; null for a run of an older version."""
    seconds: float | None
    starts: int | None
    budgets: list[BudgetUse]
    disk: int
    last_sign: float | None
    """Unix seconds of the last thing it wrote."""
    ending: str | None
    """How the last start ended: finished, budget, temporary, ...; null where none has."""
    exit_code: int | None
    reason: str | None
    """Why it ended, where that was no success: the last error."""
    next_start: str
    """What the same command would do now, in one sentence."""


def status_of(run_dir: Path) -> RunStatus:
    """Return the status of a run folder.

    Raises:
        ConfigError: no folder, or one that is no run.
    """
    _check(run_dir)
    recipe, state = recipe_in(run_dir), read_state(run_dir)
    files = read_run(run_dir, recipe)
    owner = read_owner(run_dir / OWNER)
    life = _life(owner, state, files)
    pace = _pace(state, files, is_running=life.startswith("running"))
    return RunStatus(
        run_dir=str(run_dir),
        life=life,
        owner=owner,
        rounds_done=files.rounds_done,
        rounds_wanted=files.rounds_wanted,
        steps=files.steps,
        pace=pace,
        seconds_left=_seconds_left(run_dir, files, pace),
        accepted=score_of(run_dir, files.links.get(ACCEPTED)),
        best=score_of(run_dir, files.links.get(BEST)),
        tokens=state.tokens if state else None,
        seconds=state.seconds if state else None,
        starts=state.starts if state else None,
        budgets=_budgets(run_dir, recipe, state, files),
        disk=folder_size(run_dir),
        last_sign=_last_sign(run_dir, state),
        ending=state.state if state and state.state != "running" else None,
        exit_code=state.exit_code if state else None,
        reason=state.reason if state else None,
        next_start=_next_start(life, state, files),
    )


def runs_in(folder: Path) -> list[Path]:
    """Return the run folders in a folder, by name.

    Raises:
        ConfigError: there is none.
    """
    found = sorted(path for path in folder.iterdir() if path.is_dir() and is_run(path)) if folder.is_dir() else []
    if not found:
        raise ConfigError(f"{folder}: no run there, nor a folder of runs; expected a folder that mae run wrote")
    return found


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's."""
    is_marked = any((folder / name).is_file() for name in (MANIFEST, STATE, RESOLVED_RECIPE))
    return is_marked or any(path.is_dir() for path in folder.glob("round-[0-9]*"))


def _check(run_dir: Path) -> None:
    if not run_dir.exists():
        raise ConfigError(f"{run_dir}: no such folder; give the --run-dir of a mae run")
    if not run_dir.is_dir():
        raise ConfigError(f"{run_dir}: a file, not the folder of a run; give the --run-dir of a mae run")


def _life(owner: Owner | None, state: RunState | None, files: RunFiles) -> Life:
    if owner is not None:
        place = whereabouts(owner)
        if place in ("running", "this process"):
            return "running"
        if place == "elsewhere":
            return "running elsewhere"
        return "killed"
    if files.is_finished and files.rounds_wanted:
        return "finished"
    if state is not None:
        return "killed" if state.state == "running" else "stopped"
    return "stopped" if files.steps and any(step.state != "waiting" for step in files.steps) else "not begun"


def _pace(state: RunState | None, files: RunFiles, *, is_running: bool) -> Pace | None:
    """The rows of the step under way: as the run tells them, else as its file shows them."""
    step = state.step if state is not None else None
    if state is not None and step is not None and step.stage is not None and (is_running or step.done):
        seconds = step.seconds
        if is_running:
            seconds = max(seconds, 1e-3)
        rate = step.done / seconds if seconds and step.done else None
        left = (step.total - step.done) / rate if rate and is_running else None
        return Pace(
            round=step.round,
            step=step.step,
            unit="steps" if step.stage == "finetune" else "rows",
            done=step.done,
            total=step.total,
            tokens_per_second=round(step.tokens / seconds, 1) if seconds and step.tokens else None,
            units_per_second=round(rate, 3) if rate else None,
            seconds_left=round(left, 1) if left is not None else None,
        )
    begun = next((one for one in files.steps if one.state == "begun" and one.rows), None)
    if begun is None:
        return None
    is_known = step is not None and (step.round, step.step) == (begun.round, begun.step)
    planned = step.total if step is not None and is_known else _planned(files, begun)
    total = max(planned, begun.rows or 0) if planned else 0
    return Pace(
        round=begun.round,
        step=begun.step,
        unit="rows",
        done=begun.rows or 0,
        total=total,
        tokens_per_second=None,
        units_per_second=None,
        seconds_left=None,
    )


def _planned(files: RunFiles, begun: StepFile) -> int | None:
    """Rows that the same step wrote in the round before."""
    earlier = [one.rows for one in files.steps if one.step == begun.step and one.round < begun.round and one.rows]
    return earlier[-1] if earlier else None


def _seconds_left(run_dir: Path, files: RunFiles, pace: Pace | None) -> float | None:
    """What the steps that are left took in finished rounds, on average; the step under way by its own rate."""
    if files.is_finished:
        return 0.0
    known = step_seconds(run_dir / EVENTS)
    of_base = step_seconds(run_dir / EVENTS, base=True)
    waiting = [step for step in files.steps if step.state != "done" and step.round != "round-000"]
    listed = {step.round for step in files.steps}
    last = max(listed, default="round-000")
    in_last = [step for step in files.steps if step.round == last]
    rounds_beyond = files.rounds_wanted - int(last.removeprefix("round-"))
    total = 0.0
    for step in [*waiting, *(in_last * max(0, rounds_beyond))]:
        own = pace.seconds_left if pace and (pace.round, pace.step) == (step.round, step.step) else None
        # A step without a time in finished rounds had nothing to do there; the base is always evaluated.
        took = (
            own if own is not None else known.get(step.step, of_base.get(step.step, 0.0 if files.rounds_done else None))
        )
        if took is None:
            return None
        total += took
    return round(total, 1)


def _budgets(run_dir: Path, recipe: Recipe | None, state: RunState | None, files: RunFiles) -> list[BudgetUse]:
    if recipe is None or state is None:
        return []
    found = []
    if recipe.max_tokens:
        found.append(BudgetUse(name="max_tokens", used=state.tokens, limit=recipe.max_tokens))
    if recipe.max_hours:
        found.append(BudgetUse(name="max_hours", used=round(state.seconds_here / 3600, 3), limit=recipe.max_hours))
    if recipe.max_rounds:
        found.append(BudgetUse(name="max_rounds", used=files.rounds_done, limit=recipe.max_rounds))
    if recipe.max_disk:
        limit = parse_size(recipe.max_disk, "max_disk")
        found.append(BudgetUse(name="max_disk", used=folder_size(run_dir), limit=limit))
    return found


def _last_sign(run_dir: Path, state: RunState | None) -> float | None:
    """The newest of what it says and of the times of its files; a copy's times are those of the copying."""
    if state is not None and state.updated:
        return state.updated
    times = [path.stat().st_mtime for path in (run_dir / EVENTS, run_dir / MANIFEST) if path.exists()]
    return max(times, default=None)


def _next_start(life: Life, state: RunState | None, files: RunFiles) -> str:
    step = files.next_text
    if life == "not begun":
        return "begins the run"
    if life == "running":
        return "is refused while this one works (exit 5)"
    if life == "running elsewhere":
        return "is refused (exit 5): it is locked by another machine; where that is over, --take-over"
    if files.is_finished and files.rounds_wanted:
        return "has nothing left to do"
    if state is not None and state.state == "budget":
        return f"goes on with {step}, unless the budget is still used up"
    if state is not None and state.state in ("refused", "gate", "collapse"):
        return f"ends the same way unless that is mended; {step} is next"
    return f"goes on with {step}" if step else "cannot be told: its recipe is not known"


def silence(status: RunStatus, now: float | None = None) -> float | None:
    """Seconds since the last sign of life; null where there is none, or it lies ahead of this clock."""
    if status.last_sign is None:
        return None
    seconds = (time.time() if now is None else now) - status.last_sign
    return seconds if seconds >= 0 else None


def statuses(folder: Path) -> Sequence[RunStatus]:
    """Return the status of every run in a folder."""
    return [status_of(path) for path in runs_in(folder)]
