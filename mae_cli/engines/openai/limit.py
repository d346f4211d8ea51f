"""The number of requests that one server gets at once: found by trying, lowered when it refuses, raised with care."""

from __future__ import annotations

FIRST = 8
"""In flight at the beginning where the recipe names no number; doubled while throughput grows."""
MOST = 512
"""Never more in flight per server, unless the recipe says so."""
FLOOR = 4
"""A server that refuses some requests whatever the load must not bring the work to a stand."""
GAIN = 1.15
"""Growth of throughput that a doubling must bring to be kept."""
DROP = 0.7
CLIMB = 1.25
WINDOWS_BETWEEN_TRIES = 8
SHORTEST_WINDOW_SECONDS = 0.25


class Limiter:
    """The number of requests in flight to one server.

    A window is `limit` answers, and at least a quarter of a second, of requests that were sent after the limit last
    changed. While probing, each window with at least `GAIN` times the throughput of the best before doubles the
    limit; otherwise it goes back to the best one and tries again much later. A refusal ends the probing and lowers
    the limit, once per window; each window without one raises it by a quarter.

    Attributes:
        limit: requests that may be in flight, at least 1.
        epoch: changes whenever the limit does; a request remembers the one it was sent in.
    """

    def __init__(self, fixed: int | None, now: float) -> None:
        self.ceiling = fixed or MOST
        self.limit = fixed or FIRST
        self._probing = fixed is None
        self._fixed = fixed is not None
        self._best_limit, self._best_rate = self.limit, 0.0
        self._windows = 0
        self.epoch = 0
        self._begin(self.limit, now)

    def _begin(self, limit: int, now: float) -> None:
        """Start a window with this limit, at least the floor and at most the ceiling."""
        self.limit = max(min(limit, self.ceiling), min(FLOOR, self.ceiling))
        self.epoch += 1
        self._since, self._answers, self._work = now, 0, 0

    def succeeded(self, epoch: int, work: int, now: float) -> None:
        """Count an answer; `work` is its tokens."""
        if epoch != self.epoch:
            return
        self._answers += 1
        self._work += work
        if self._answers >= self.limit and now - self._since >= SHORTEST_WINDOW_SECONDS:
            self._judge(self._work / max(now - self._since, 1e-6), now)

    def refused(self, epoch: int, now: float) -> None:
        """The server is too busy, or broke. Answers to one burst are one refusal."""
        if epoch != self.epoch:
            return
        self._probing, self._windows = False, 0
        self._best_rate = 0.0
        self._begin(int(self.limit * DROP), now)

    def _judge(self, rate: float, now: float) -> None:
        if self._probing and rate > self._best_rate * GAIN:
            self._best_limit, self._best_rate = self.limit, rate
            self._probing = self.limit < self.ceiling
            self._begin(self.limit * 2, now)
        elif self._probing:
            self._probing, self._windows = False, 0
            self._begin(self._best_limit, now)
        elif self._best_rate and not self._fixed:
            self._settled(rate, now)
        else:
            self._begin(max(int(self.limit * CLIMB), self.limit + 1), now)

    def _settled(self, rate: float, now: float) -> None:
        self._windows += 1
        if self._windows >= WINDOWS_BETWEEN_TRIES and self.limit < self.ceiling:
            # Measured anew: rows get longer and shorter in the course of a file.
            self._best_limit, self._best_rate, self._probing = self.limit, rate, True
            self._begin(self.limit * 2, now)
        else:
            self._begin(self.limit, now)
