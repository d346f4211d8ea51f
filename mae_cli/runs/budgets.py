"""Budgets of `mae run`: how much it may spend before it stops, to go on with the same command (exit 6).

Place in the flow: `Supervision` asks after each stored segment and before each step. Contract: a budget is met
between two segments or steps, never inside one, so it is overshot by at most one of them, and what was stored stays.
Hours are those of this start, from the start of the process on, imports and loading included; tokens (generated and
trained), disk and rounds count over all starts of the run. The time of day of `--until` is one on the wall.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from mae_cli.errors import BudgetError, ConfigError
from mae_cli.recipe.sections import Recipe
from mae_cli.records.lock_owner import age_of_this_process

_TIME_OF_DAY = re.compile(r"(\d{1,2}):(\d{2})", re.ASCII)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmgt])(i?)b?|b)?", re.ASCII | re.IGNORECASE)
DISK_SECONDS = 30.0
"""Between two measurements of the run folder."""


def is_time_of_day(text: str) -> bool:
    """Whether a value of --until is a time and not the name of a step."""
    return ":" in text


def parse_until(text: str, now: float | None = None) -> float:
    """Return when the clock on the wall shows this time next, as Unix seconds.

    A time that the change to summer time leaves out is met at the moment of the change; of one that comes twice the
    first that is still ahead counts.

    Raises:
        ConfigError: no time of a day.
    """
    match = _TIME_OF_DAY.fullmatch(text.strip())
    hour, minute = (int(match[1]), int(match[2])) if match else (99, 99)
    if (hour, minute) == (24, 0):
        hour = 0
    if hour > 23 or minute > 59:
        raise ConfigError(f"--until {text}: expected a time of day such as 07:00, or the name of a step")
    start = time.time() if now is None else now
    today = datetime.fromtimestamp(start).date()
    found = []
    for day in (today, today + timedelta(days=1)):
        naive = datetime(day.year, day.month, day.day, hour, minute)
        found += [naive.replace(fold=fold).timestamp() for fold in (0, 1)]
        if not _is_on_the_wall(naive):
            # Both folds of a time that is left out lie on wrong sides of the change; the change is between them.
            found[-2:] = [_change_between(min(found[-2:]), max(found[-2:]))]
    return min(moment for moment in found if moment > start)


def _is_on_the_wall(naive: datetime) -> bool:
    return datetime.fromtimestamp(naive.timestamp()) == naive


def _change_between(low: float, high: float) -> float:
    """Return the second in which the offset of the local time changes."""
    first = datetime.fromtimestamp(low).astimezone().utcoffset()
    while high - low > 1:
        middle = (low + high) // 2
        if datetime.fromtimestamp(middle).astimezone().utcoffset() == first:
            low = middle
        else:
            high = middle
    return high


def parse_size(text: str, key: str) -> int:
    """Return the bytes that `500MB`, `20 GiB` or `1.5T` stand for; 0 is no limit.

    Raises:
        ConfigError: another text.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f'{key}: "{text}"; expected a size such as 500MB, 20GiB or 1.5T')
    power = "kmgt".index(match[2].lower()) + 1 if match[2] else 0
    return int(float(match[1]) * (1024 if match[3] else 1000) ** power)


def size_text(size: float) -> str:
    """Return a number of bytes for people, in decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.4g} TB"


def folder_size(folder: Path) -> int:
    """Return the bytes of all files below a folder, links not followed; what vanishes meanwhile counts nothing."""
    total = 0
    for path in folder.rglob("*"):
        try:
            if not path.is_symlink() and path.is_file():
                total += path.stat().st_size
        except OSError:
            continue
    return total


class Spent(msgspec.Struct, frozen=True):
    """Used so far: hours of this start, the rest of all starts."""

    tokens: int
    rounds: int


class Budgets:
    """The limits of one start of a run; a limit of 0 is none."""

    def __init__(
        self, recipe: Recipe, run_dir: Path, *, until: str | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.max_tokens, self.max_rounds, self.max_hours = recipe.max_tokens, recipe.max_rounds, recipe.max_hours
        self.max_disk = parse_size(recipe.max_disk, "max_disk") if recipe.max_disk else 0
        self.until = parse_until(until) if until else None
        self._until_text = until
        self._run_dir, self._clock = run_dir, clock
        self._start = clock() - age_of_this_process()
        self._disk_at: float | None = None
        self._disk = 0

    @property
    def hours(self) -> float:
        """Hours since the process began."""
        return (self._clock() - self._start) / 3600

    def disk(self, *, fresh: bool) -> int:
        """Bytes of the run folder, measured now or, unless `fresh`, a short while ago."""
        now = self._clock()
        if fresh or self._disk_at is None or now - self._disk_at > DISK_SECONDS:
            self._disk, self._disk_at = folder_size(self._run_dir), now
        return self._disk

    def check(self, spent: Spent, *, fresh: bool = False) -> None:
        """Stop where a budget is used up.

        Raises:
            BudgetError: names the budget and what was used of it.
        """
        if self.max_tokens and spent.tokens >= self.max_tokens:
            _stop("--max-tokens", f"{spent.tokens:,} of {self.max_tokens:,} tokens", "over all starts")
        if self.max_hours and self.hours >= self.max_hours:
            _stop("--max-hours", f"{self.hours:.3g} of {self.max_hours:g} hours", "of this start")
        if self.until is not None and time.time() >= self.until:
            _stop("--until", f"it is {self._until_text}", "")
        if self.max_disk and self.disk(fresh=fresh) >= self.max_disk:
            _stop("--max-disk", f"{size_text(self._disk)} of {size_text(self.max_disk)}", "in the run folder")

    def check_round(self, rounds: int) -> None:
        """Stop before a round where enough of them are finished.

        Raises:
            BudgetError: see `check`.
        """
        if self.max_rounds and rounds >= self.max_rounds:
            _stop("--max-rounds", f"{rounds} of {self.max_rounds} rounds", "over all starts")


def _stop(flag: str, used: str, scope: str) -> None:
    is_of_start = flag in ("--max-hours", "--until")
    again = "the same command goes on from here" if is_of_start else "with a higher one the same command goes on"
    raise BudgetError(f"budget reached ({flag}: {used}{f' {scope}' if scope else ''}); {again}")
