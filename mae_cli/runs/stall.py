"""Stall watchdog: a run in which nothing moves is started anew once, then ends on 75.

Place in the flow: `Supervision` starts it with `--stall-minutes` and tells it of each stored segment, optimizer step
and finished step. Contract: it counts the time in which this process could have worked, by a clock that nobody can
set; time in which it was stopped (SIGSTOP, a sleeping laptop) does not count. A call that hangs cannot be ended from
inside, so the process becomes a new one (`exec`) of the same number and the same command, which goes on from what is
stored. If nothing moves there either, it ends on 75. Any progress makes the count begin anew.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable

from mae_cli.records.lock_owner import duration

RESTARTS = "MAE_STALL_RESTARTS"
"""Environment variable: how often this process was started anew without progress since."""
PATIENCE = 4.0
"""So many times the limit is allowed outside of counted work: a large model takes its time to load."""
LOOKS = 20
"""Looks within the limit."""


class StallWatch:
    """Watches from a thread of its own."""

    def __init__(
        self,
        minutes: float,
        *,
        restart: Callable[[str], None],
        give_up: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args.

        Args:
            minutes: without progress.
            restart: called with the reason at the first stall; does not return.
            give_up: called with the reason where the process was started anew and stalled again; does not return.
            clock: seconds that never go back.
        """
        self._limit, self._restart, self._give_up, self._clock = 60 * minutes, restart, give_up, clock
        self._idle, self._last, self._is_counted = 0.0, clock(), False
        self._tries = int(os.environ.get(RESTARTS, "0") or 0)
        self._end = threading.Event()
        self._look_seconds = self._limit / LOOKS
        self._thread = threading.Thread(target=self._watch, daemon=True, name="stall-watch")

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Watch no longer."""
        self._end.set()

    def beat(self) -> None:
        """Take note of progress."""
        self._idle = 0.0

    def enter(self) -> None:
        """Work begins in which rows or steps are counted."""
        self._is_counted = True
        self.beat()

    def leave(self) -> None:
        """It is over; what comes next shows no progress of its own."""
        self._is_counted = False
        self.beat()

    def progressed(self) -> None:
        """Take note of something stored: a later stall may be met with a new start again."""
        self._tries = 0
        self.beat()

    def look(self) -> None:
        """Count the time since the last look, at most twice what lies between two, and act on a stall."""
        now = self._clock()
        # More has passed where this process was stopped, and then it could not have worked.
        self._idle += min(now - self._last, 2 * self._look_seconds)
        self._last = now
        limit = self._limit * (1.0 if self._is_counted else PATIENCE)
        if self._idle < limit:
            return
        self._idle = 0.0
        what = f"nothing moved for {duration(limit)} (--stall-minutes {self._limit / 60:g})"
        if self._tries:
            self._give_up(f"{what}, also after a new start; the same command may go on later")
        else:
            self._restart(f"{what}: starting anew")

    def _watch(self) -> None:
        while not self._end.wait(self._look_seconds):
            self.look()


def become_new() -> None:
    """Replace this process by a new one of the same command, whatever its threads are waiting for; does not return."""
    sys.stdout.flush()
    sys.stderr.flush()
    tries = int(os.environ.get(RESTARTS, "0") or 0) + 1
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, RESTARTS: str(tries)})
