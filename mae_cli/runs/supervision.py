"""Supervision of a run under way: its state file, its budgets, room on the disk, and the stall watchdog.

Place in the flow: `Run.go` holds one inside its lock; steps tell it when they begin and end, and the progress display
of every stage tells it of each stored segment or optimizer step. Contract: it stops a run only between two of these,
by raising, so that what is stored is whole; a run that has nothing left to do is never stopped. It changes no row.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mae_cli.errors import TemporaryError
from mae_cli.recipe.sections import Recipe
from mae_cli.runs.budgets import Budgets, Spent, parse_size
from mae_cli.runs.events import Events
from mae_cli.runs.layout import MANIFEST, Round
from mae_cli.runs.preflight import check_disk, check_memory
from mae_cli.runs.run_state import RunOutcome, RunState, StepState, ending_of, read_state, write_state
from mae_cli.runs.stall import StallWatch, become_new
from mae_cli.runs.views.run_files import read_run
from mae_cli.stages.generation.progress import Progress, Task

SECONDS_BETWEEN_WRITES = 2.0


class Supervision:
    """Watches over one start of a run; use as a context manager inside the run's lock."""

    def __init__(
        self,
        run_dir: Path,
        recipe: Recipe,
        progress: Progress,
        events: Events,
        *,
        until: str | None = None,
        announce: Callable[[RunOutcome], None] | None = None,
    ) -> None:
        """Read the limits.

        Args:
            run_dir: of the run.
            recipe: with the budgets.
            progress: tells of stored segments.
            events: where a stop is noted.
            until: a time of day.
            announce: called with the outcome where the process ends without coming back from `Run.go`.

        Raises:
            ConfigError: a budget is not what was expected.
        """
        self.budgets = Budgets(recipe, run_dir, until=until)
        parse_size(recipe.min_free_disk, "min_free_disk")
        self.outcome: RunOutcome | None = None
        self._run_dir, self._recipe, self._progress, self._events = run_dir, recipe, progress, events
        self._announce = announce
        self._state = RunState()
        self._start = self._step_start = self._written = time.monotonic()
        self._before = (0, 0.0)
        self._save_every = 1
        self._is_begun = False
        self._current: tuple[str, str] | None = None
        self._watch = (
            StallWatch(recipe.stall_minutes, restart=self._restart, give_up=self._give_up)
            if recipe.stall_minutes
            else None
        )

    def __enter__(self) -> Self:
        old = read_state(self._run_dir) or RunState()
        self._before = (old.tokens, old.seconds)
        self._state = RunState(
            starts=old.starts + 1, started=time.time(), tokens=old.tokens, seconds=old.seconds, restarts=old.restarts
        )
        self._progress.watcher = self
        if self._watch is not None:
            self._watch.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.watcher = None
        if self._watch is not None:
            self._watch.stop()
        if error is not None:
            self._end(error)

    def check_memory(self) -> None:
        """See whether the model fits into what is free, before it is loaded.

        Raises:
            TemporaryError: it does not now.
        """
        check_memory(self._recipe)

    def begin(self) -> None:
        """The folder is this recipe's run: from now on its state is ours to write."""
        self._is_begun = True
        self._write()

    # ---- what steps and stages tell

    def begin_round(self, number: int) -> None:
        """A round that is not finished is about to begin.

        Raises:
            BudgetError: enough rounds are finished.
        """
        self._state.step = StepState(round=f"round-{number:03d}", step="")
        self.budgets.check_round(number - 1)

    def begin_step(self, current: Round, name: str, stem: str, *, save_every: int) -> None:
        """A step begins, or is looked at again; whether it has work to do shows with its first task."""
        self._current = (current.label, stem)
        self._save_every = save_every
        self._step_start = time.monotonic()
        self._state.step = StepState(round=current.label, step=name)
        if self._watch is not None:
            self._watch.leave()

    def end_step(self) -> None:
        """A step is over."""
        if self._watch is not None:
            self._watch.leave()
        self._write()

    def begun(self, task: Task) -> None:
        """A stage has work to do: its rows, or steps, are about to be made.

        Raises:
            BudgetError: a budget is used up.
            TemporaryError: the disk has no room for it.
        """
        if not task.total and task.label != "finetune":
            return
        if self._watch is not None:
            self._watch.enter()
        self._note(task)
        self._write()
        self.budgets.check(self._spent(), fresh=True)
        if self._current is not None:
            check_disk(self._run_dir, self._recipe, label=self._current[0], stem=self._current[1])

    def advanced(self, task: Task, rows: int, tokens: int) -> None:
        """Rows, or an optimizer step, were stored.

        Raises:
            BudgetError: a budget is used up, and this is a place to stop at.
        """
        if not rows and not tokens:
            return
        if self._watch is not None:
            self._watch.progressed()
        self._state.tokens_here += tokens
        self._note(task)
        if time.monotonic() - self._written >= SECONDS_BETWEEN_WRITES:
            self._write()
        if task.done < task.total and self._may_stop(task):
            self.budgets.check(self._spent())

    def _may_stop(self, task: Task) -> bool:
        """Between segments; in a training only where its checkpoint was just written, or its steps would be lost."""
        return task.label != "finetune" or bool(self._save_every and task.done % self._save_every == 0)

    def _note(self, task: Task) -> None:
        step = self._state.step or StepState(round="", step=task.label)
        step.stage, step.done, step.total, step.tokens = task.label, task.done, task.total, task.tokens
        step.seconds = round(time.monotonic() - self._step_start, 3)
        self._state.step = step

    def _spent(self) -> Spent:
        return Spent(tokens=self._before[0] + self._state.tokens_here, rounds=0)

    # ---- the state file, and how a start ends

    def _write(self) -> None:
        state = self._state
        self._written = time.monotonic()
        state.updated = time.time()
        state.seconds_here = round(self._written - self._start, 1)
        state.tokens = self._before[0] + state.tokens_here
        state.seconds = round(self._before[1] + state.seconds_here, 1)
        if self._is_begun:
            write_state(self._run_dir, state)

    def finish(self, *, is_stopped: bool = False) -> None:
        """The start came to its end: all rounds are done, or it stopped after the step it was told."""
        self._state.step = None
        self._settle("stopped" if is_stopped else "finished", 0, None)

    def _end(self, error: BaseException) -> None:
        name, code = ending_of(error)
        reason = " ".join(str(error).split()) or type(error).__name__
        # A machine that is full before the run was opened is told too; who was refused changed nothing.
        self._is_begun = self._is_begun or (code == TemporaryError.exit_code and (self._run_dir / MANIFEST).exists())
        if self._is_begun and code not in (2, 130, 141, 143):
            where = self._state.step.round if self._state.step else ""
            self._note_event(where, name, {"exit_code": code, "reason": reason})
        self._settle(name, code, reason)

    def _note_event(self, where: str, what: str, details: Any) -> None:
        with contextlib.suppress(OSError):  # a full disk may be why it ends
            self._events.add(where, what, details)

    def _settle(self, name: Any, code: int, reason: str | None) -> None:
        state = self._state
        state.state, state.exit_code, state.reason = name, code, reason
        self._write()
        files = read_run(self._run_dir, self._recipe)
        self.outcome = RunOutcome(
            state=state.state,
            exit_code=code,
            reason=reason,
            rounds_done=files.rounds_done,
            rounds_wanted=files.rounds_wanted,
            next_step=files.next_text,
            best=files.links.get("best"),
            accepted=files.links.get("accepted"),
            tokens=state.tokens_here,
            seconds=state.seconds_here,
            tokens_of_run=state.tokens,
            run_dir=str(self._run_dir),
        )

    def _restart(self, reason: str) -> None:
        self._state.restarts += 1
        self._write()
        self._note_event(self._state.step.round if self._state.step else "", "stalled", reason)
        sys.stderr.write(f"mae: {reason}\n")
        become_new()

    def _give_up(self, reason: str) -> None:
        error = TemporaryError(reason)
        self._end(error)
        sys.stderr.write(f"mae: {reason}\n")
        sys.stderr.flush()
        if self._announce is not None and self.outcome is not None:
            self._announce(self.outcome)
        os._exit(error.exit_code)
