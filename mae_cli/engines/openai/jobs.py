"""The pieces that the pool works with: jobs, their outcomes, servers, and counts."""

from __future__ import annotations

from typing import Any

import msgspec

from mae_cli.engines.openai.limit import Limiter
from mae_cli.errors import MaeError


class Done(msgspec.Struct, frozen=True):
    """The job is answered, perhaps by a refusal of this job alone."""

    value: Any
    work: int = 1


class Again(msgspec.Struct, frozen=True):
    """The job must be asked again at once, in another form."""


class Busy(msgspec.Struct, frozen=True):
    """Too many requests; `after` is the time in seconds the server told to wait."""

    reason: str
    after: float | None = None


class Trouble(msgspec.Struct, frozen=True):
    """The server or the way to it broke: nothing about the job itself."""

    reason: str
    is_unreachable: bool = False
    is_slow: bool = False


class Fatal(msgspec.Struct, frozen=True):
    """No job can succeed until the user does something."""

    error: MaeError


RequestOutcome = Done | Again | Busy | Trouble | Fatal


class Query:
    """One request and its history so far."""

    __slots__ = (
        *("ask", "value", "error", "due", "barred", "barred_until"),
        *("tries", "faults", "slow", "failed_at", "told"),
    )

    def __init__(self, ask: Any) -> None:
        self.ask = ask
        self.value: Any = None
        self.error: str | None = None
        """Why it was given up, where it was."""
        self.tries = 0
        self.faults = 0
        """Tries that broke, or were refused without a time to wait: what pauses grow with."""
        self.slow = 0
        self.due = 0.0
        self.failed_at: float | None = None
        """When its first try broke."""
        self.told = 0.0
        """Seconds it was told to wait; they are no part of its time."""
        self.barred: Server | None = None
        """The server that told it to wait, until `barred_until`."""
        self.barred_until = 0.0

    def __lt__(self, other: Query) -> bool:
        return self.due < other.due


class Server:
    """One address and what is known of it.

    Attributes:
        lanes: idle connections. One client each: a pool of one connection has nothing to search.
        is_greeted: checked, and holding what this engine needs there (an adapter).
    """

    def __init__(self, url: str, limiter: Limiter) -> None:
        self.url, self.limiter = url, limiter
        self.lanes: list[Any] = []
        self.in_flight = 0
        self.is_up, self.is_greeted, self.was_reached = False, False, False
        self.streak = self.busy_streak = self.checks = 0
        self.held_until = 0.0
        self.notice = ""
        """What was said of it last, so that nothing is said twice."""

    def has_room(self, now: float) -> bool:
        """Whether it may be sent another request now."""
        return self.is_up and self.in_flight < self.limiter.limit and self.held_until <= now


class Counts(msgspec.Struct):
    """Counts of requests, waits and faults, for one line to the user."""

    requests: int = 0
    busy: int = 0
    broken: int = 0
    given_up: int = 0
    lowest: int = 10**9
    highest: int = 0
