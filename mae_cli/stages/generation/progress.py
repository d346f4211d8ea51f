"""Progress of a command: a bar on a terminal, a line every half minute elsewhere.

Everything goes to standard error. Off a terminal there is no colour and no carriage return; `--quiet` shows nothing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

SECONDS_BETWEEN_LINES = 30.0


class Watcher(Protocol):
    """Is told of all work of a process; it may stop the work by raising."""

    def begun(self, task: Task) -> None:
        """A piece of work is about to begin."""

    def advanced(self, task: Task, rows: int, tokens: int) -> None:
        """A part of it is stored."""


class Task:
    """One piece of work that counts rows and tokens."""

    def __init__(
        self,
        label: str,
        total: int,
        *,
        quiet: bool,
        bar: tuple[RichProgress, TaskID] | None,
        watcher: Watcher | None = None,
    ) -> None:
        self._watcher = watcher
        self.label, self.total, self.done, self.tokens = label, total, 0, 0
        self._quiet, self._bar = quiet, bar
        self._start = self._last = time.monotonic()

    def advance(self, rows: int, tokens: int = 0) -> None:
        """Count finished rows and generated (or trained) tokens."""
        self.done += rows
        self.tokens += tokens
        now = time.monotonic()
        speed = self.tokens / max(now - self._start, 1e-9)
        if self._bar is not None:
            bar, task = self._bar
            bar.update(task, total=self.total, advance=rows, speed=f"{speed:,.0f} tokens/s" if self.tokens else "")
        elif not self._quiet and now - self._last >= SECONDS_BETWEEN_LINES:
            self._last = now
            left = (now - self._start) / max(self.done, 1) * (self.total - self.done)
            print(
                f"{self.label}: {self.done}/{self.total} rows, {speed:,.0f} tokens/s, about {left:,.0f} s left",
                file=sys.stderr,
            )
        if self._watcher is not None:
            self._watcher.advanced(self, rows, tokens)


class Progress:
    """The progress display that stages report to; one for a whole process.

    Attributes:
        watcher: is told of the same; null: nobody.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.watcher: Watcher | None = None

    def say(self, text: str) -> None:
        """A notice for people, unless they asked for quiet."""
        if not self.quiet:
            print(text, file=sys.stderr)

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Task]:
        """Show one piece of work while it runs."""
        if self.quiet or not sys.stderr.isatty():
            yield self._watched(Task(label, total, quiet=self.quiet, bar=None, watcher=self.watcher))
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
        )
        with RichProgress(*columns, console=Console(stderr=True), transient=True) as bar:
            shown = (bar, bar.add_task(label, total=total, speed=""))
            yield self._watched(Task(label, total, quiet=False, bar=shown, watcher=self.watcher))

    def _watched(self, task: Task) -> Task:
        if self.watcher is not None:
            self.watcher.begun(task)
        return task
