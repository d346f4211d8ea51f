"""Many requests in flight to one or several servers, each retried until it is answered; knows nothing of chats.

`Pool.run` takes jobs lazily and yields them finished, in completion order. The event loop (`event_loop.py`) runs only
while the caller waits for the next one; at most `WINDOW` jobs are held at a time, so memory does not grow with their
number. A job that is told to wait takes no room of those in flight.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from typing import Any

from mae_cli.engines.openai.event_loop import Turns
from mae_cli.engines.openai.jobs import Again, Busy, Counts, Done, Fatal, Query, RequestOutcome, Server, Trouble
from mae_cli.engines.openai.limit import Limiter
from mae_cli.errors import EngineError, TemporaryError

WINDOW = 2048
"""Jobs taken and not yet handed back, those that wait for another try included."""
FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 30.0
ALIVE_PAUSE_SECONDS = 2.0
STREAK = 8
"""Failures in a row after which a server counts as down, and gets no job until a check finds it up."""
BUSY_STREAK = 16
"""Refusals for load in a row after which a server is left alone for the time it told."""
SLOW_TRIES = 2
LAST_JOBS = 8
"""So few left may all be at fault themselves: nobody else is there to show that the server lives, so it is probed."""


class Pool:
    """Spreads jobs over servers; see the module.

    Args:
        urls: addresses.
        send: asks one server for one job over a lane.
        greet: checks a server, and brings it what it must hold.
        probe: has a server answer something that cannot be at fault, asked like the job at hand.
        open_lane: makes a client for one connection.
        max_concurrent: requests in flight over all servers; found by trying where it is none.
        retry_seconds: how long one job, and the whole pool, may go without an answer before it is given up.
        say: told when a server goes and comes.
    """

    def __init__(
        self,
        urls: Iterable[str],
        *,
        send: Callable[[Any, Server, Any], Awaitable[RequestOutcome]],
        greet: Callable[[Server, Any], Awaitable[RequestOutcome]],
        probe: Callable[[Any, Server, Any], Awaitable[RequestOutcome]],
        open_lane: Callable[[], Any],
        max_concurrent: int | None,
        retry_seconds: float,
        say: Callable[[str], None],
    ) -> None:
        self._turns = Turns()
        addresses = list(urls)
        share = None if max_concurrent is None else max(1, -(-max_concurrent // len(addresses)))
        self.max_concurrent = max_concurrent
        self.servers = [Server(url, Limiter(share, self._turns.time())) for url in addresses]
        self._send, self._greet, self._probe, self._open_lane, self._say = send, greet, probe, open_lane, say
        self._retry_seconds = retry_seconds
        self.counts = Counts()
        self._waiting: list[Query] = []
        self._done: deque[Query] = deque()
        self._source: Iterator[Query] = iter(())
        self._more: deque[Query] = deque()
        self._is_dry = True
        self._silent_since: float | None = None
        self._last_answer = float("-inf")
        self._patience = 0.0
        # Pauses only: no text depends on it.
        self._rng = random.Random()

    # ---- for the caller

    def run(self, jobs: Iterable[Query]) -> Iterator[Query]:
        """The jobs, finished, in completion order; `add` may bring more while it runs.

        Raises:
            EngineError: no server could ever be reached, or a server refuses this user.
            TemporaryError: no answer for `retry_seconds`.
        """
        self._source, self._is_dry, self._turns.failure = iter(jobs), False, None
        self._silent_since, self._patience = None, 0.0
        try:
            self.greet()
            while True:
                if not self._done:
                    self._turn()
                while self._done:
                    yield self._done.popleft()
                if self._turns.failure is not None:
                    raise self._turns.failure
                if self._is_idle():
                    return
        finally:
            self._abandon()

    def add(self, job: Query) -> None:
        """Add a job to the run that is going on."""
        self._more.append(job)
        self._is_dry = False

    def greet(self) -> None:
        """Check the servers not checked yet; those that are down are checked again while others work.

        Raises:
            EngineError: none can be reached, or one refuses this user.
        """
        strangers = [server for server in self.servers if not server.is_greeted]
        if not strangers:
            return
        reasons = self._turns.complete([self._check(server) for server in strangers])
        if self._turns.failure:
            raise self._turns.failure
        if not any(server.was_reached for server in self.servers):
            known = "; ".join(f"{server.url}: {reason}" for server, reason in zip(strangers, reasons, strict=True))
            raise EngineError(f"no server can be reached: {known}; is it running, and is --base-url right?")
        for server, reason in zip(strangers, reasons, strict=True):
            if not server.is_up:
                self._tell(server, f"{reason}; left alone until it answers")
                self._recheck(server)

    def forget(self) -> None:
        """Check every server again before the next job, because it must hold another adapter now."""
        for server in self.servers:
            server.is_greeted = False

    def close(self, *, before: Callable[[Server, Any], Coroutine[Any, Any, None]] | None = None) -> None:
        """Close every connection; `before` takes leave of each server that is up."""
        if self._turns.is_closed:
            return
        self._abandon()
        if before is not None:
            self._turns.complete([before(one, one.lanes[0]) for one in self.servers if one.is_up and one.lanes])
        self._turns.complete([lane.aclose() for server in self.servers for lane in server.lanes])
        self._turns.close()

    # ---- the turn of the loop

    def _turn(self) -> None:
        """Run the loop until a job is finished, a failure stands, or nothing is left."""
        self._pump()
        if self._done or self._turns.failure is not None or self._is_idle():
            return
        self._turns.run()

    def _is_idle(self) -> bool:
        return self._is_dry and not (self._waiting or self._done or any(s.in_flight for s in self.servers))

    def _pump(self) -> None:
        """Start whatever may be started now, and see to it that this is called again in time."""
        if self._turns.failure is not None:
            return
        now = self._turns.time()
        try:
            while self._free_server(now) is not None and (job := self._next_job(now)) is not None:
                server = self._free_server(now, job)
                if server is None:
                    job.due = job.barred_until
                    heapq.heappush(self._waiting, job)
                else:
                    self._start(job, server)
        except Exception as error:  # noqa: BLE001 - the source of jobs is the caller's: raised there
            self._turns.fail(error)
            return
        self._arm(now)
        if self._is_idle():
            self._turns.stop()

    def _free_server(self, now: float, job: Query | None = None) -> Server | None:
        """The least loaded server with room that has not told this job to wait."""
        if self.max_concurrent is not None and sum(s.in_flight for s in self.servers) >= self.max_concurrent:
            return None
        free = [server for server in self.servers if server.has_room(now)]
        if job is not None and job.barred_until > now:
            free = [server for server in free if server is not job.barred]
        return min(free, key=lambda server: server.in_flight / server.limiter.limit) if free else None

    def _next_job(self, now: float) -> Query | None:
        if self._waiting and self._waiting[0].due <= now:
            return heapq.heappop(self._waiting)
        if self._more:
            return self._more.popleft()
        held = len(self._waiting) + len(self._done) + sum(server.in_flight for server in self.servers)
        if self._is_dry or held >= WINDOW:
            return None
        job = next(self._source, None)
        self._is_dry = job is None
        return job

    def _arm(self, now: float) -> None:
        moments = [job.due for job in self._waiting[:1]] + [s.held_until for s in self.servers if s.held_until > now]
        # A job that is due and finds no room is started when one of those in flight ends.
        self._turns.call_at(min((moment for moment in moments if moment > now), default=None), self._pump)

    # ---- one job

    def _start(self, job: Query, server: Server) -> None:
        server.in_flight += 1
        self.counts.requests += 1
        self.counts.highest = max(self.counts.highest, server.in_flight)
        self._turns.keep(self._attempt(job, server, server.limiter.epoch))

    async def _attempt(self, job: Query, server: Server, epoch: int) -> None:
        lane = server.lanes.pop() if server.lanes else self._open_lane()
        try:
            outcome = await self._send(job.ask, server, lane)
            is_its_fault = False
            if isinstance(outcome, Trouble) and self._is_doubtful(job, outcome):
                is_its_fault = isinstance(await self._probe(job.ask, server, lane), Done)
        finally:
            server.lanes.append(lane)
            server.in_flight -= 1
        self._settle(job, server, epoch, outcome, is_its_fault=is_its_fault)
        self._pump()

    def _settle(self, job: Query, server: Server, epoch: int, outcome: RequestOutcome, *, is_its_fault: bool) -> None:
        now = self._turns.time()
        match outcome:
            case Done():
                server.limiter.succeeded(epoch, outcome.work, now)
                self._is_alive(server, now)
                job.value = outcome.value
                self._finish(job)
            case Again():
                self._is_alive(server, now)
                self._more.append(job)
            case Fatal():
                self._turns.fail(outcome.error)
            case Busy():
                self.counts.busy += 1
                self._lower(server, epoch, now)
                self._on_busy(job, server, outcome, now)
            case Trouble():
                self.counts.broken += 1
                self._lower(server, epoch, now)
                self._on_trouble(job, server, outcome, now, is_its_fault=is_its_fault)

    def _is_alive(self, server: Server, now: float) -> None:
        server.streak = server.busy_streak = server.checks = 0
        self._last_answer, self._silent_since = now, None

    def _lower(self, server: Server, epoch: int, now: float) -> None:
        server.limiter.refused(epoch, now)
        self.counts.lowest = min(self.counts.lowest, server.limiter.limit)

    def _finish(self, job: Query) -> None:
        self._done.append(job)
        self._turns.stop()

    def _on_busy(self, job: Query, server: Server, outcome: Busy, now: float) -> None:
        server.busy_streak += 1
        told = outcome.after or 0.0
        if told > self._retry_seconds and not self._others(server):
            self._turns.fail(TemporaryError(f"{server.url}: {outcome.reason}: the server asks to wait {told:,.0f} s"))
            return
        # Spread, so that those told the same time do not all come back in one moment.
        pause = told * self._rng.uniform(1.0, 1.1) if outcome.after is not None else self._pause(job)
        job.barred, job.barred_until = server, now + pause
        if server.busy_streak >= BUSY_STREAK:
            server.held_until = max(server.held_until, now + pause)
        if self._others(server):
            pause = self._rng.uniform(0.0, 0.05)
        else:
            job.told += told
            self._patience = max(self._patience, now + told)
        self._again(job, pause, now, outcome.reason)

    def _on_trouble(self, job: Query, server: Server, outcome: Trouble, now: float, *, is_its_fault: bool) -> None:
        server.streak = 0 if is_its_fault else server.streak + 1
        job.slow += outcome.is_slow
        if (outcome.is_unreachable or server.streak >= STREAK) and server.is_up:
            server.is_up = False
            self._tell(server, f"{outcome.reason}; left alone until it answers")
            self._recheck(server)
        pause = self._rng.uniform(0.0, 0.05) if self._others(server) else self._pause(job)
        if is_its_fault:
            self._silent_since = None
        if is_its_fault and self._is_time_over(job, now):
            job.error = f"{outcome.reason}, {job.tries + 1} times; the server answers other requests"
            self.counts.given_up += 1
            self._finish(job)
        else:
            self._again(job, pause, now, outcome.reason)

    def _others(self, server: Server) -> bool:
        return any(other.is_up for other in self.servers if other is not server)

    def _pause(self, job: Query) -> float:
        job.faults += 1
        # A server that answers other rows has recovered from whatever it was.
        is_alive = job.failed_at is not None and self._last_answer > job.failed_at
        bound = ALIVE_PAUSE_SECONDS if is_alive else LONGEST_PAUSE_SECONDS
        longest = min(bound, FIRST_PAUSE_SECONDS * 2.0 ** min(job.faults - 1, 20))
        return self._rng.uniform(longest / 2, longest)

    def _again(self, job: Query, pause: float, now: float, reason: str) -> None:
        """Queue a job for another try, unless everybody's time is over."""
        job.tries += 1
        job.failed_at = now if job.failed_at is None else job.failed_at
        if not self._is_over(now, reason):
            job.due = now + pause
            heapq.heappush(self._waiting, job)

    def _is_doubtful(self, job: Query, outcome: Trouble) -> bool:
        """Whether a job that has just failed may be at fault itself, so that the server must show whether it lives.

        Those answered before prove nothing: a server may have died since.
        """
        if outcome.is_unreachable:
            return False
        now, left = self._turns.time(), len(self._waiting) + len(self._more) + sum(s.in_flight for s in self.servers)
        is_time_over = self._is_time_over(job, now, outcome)
        if self._is_dry and left <= LAST_JOBS:
            return is_time_over or self._is_silent(now)
        return is_time_over and job.failed_at is not None and self._last_answer > job.failed_at

    def _is_time_over(self, job: Query, now: float, outcome: Trouble | None = None) -> bool:
        """Whether a job has been tried for long enough; `outcome` is one that is not counted yet."""
        slow = job.slow + (outcome is not None and outcome.is_slow)
        spent = 0.0 if job.failed_at is None else now - job.failed_at - job.told
        return spent > self._retry_seconds or slow >= SLOW_TRIES

    def _is_silent(self, now: float) -> bool:
        """Whether nobody has been answered for as long as is waited."""
        since = self._silent_since
        return since is not None and now > max(since + self._retry_seconds, self._patience)

    def _is_over(self, now: float, reason: str) -> bool:
        """Whether nobody has answered for so long that the command had better end; what is done is kept."""
        self._silent_since = now if self._silent_since is None else self._silent_since
        if not self._is_silent(now):
            return False
        self._turns.fail(
            TemporaryError(
                f"no answer from {', '.join(server.url for server in self.servers)} for "
                f"{now - self._silent_since:,.0f} s: {reason}; what is done is kept"
            )
        )
        return True

    # ---- health

    def _tell(self, server: Server, what: str) -> None:
        if what != server.notice:
            server.notice = what
            self._say(f"{server.url}: {what}")

    async def _check(self, server: Server) -> str:
        """Greet a server; the reason why it is not up, or nothing."""
        lane = server.lanes.pop() if server.lanes else self._open_lane()
        try:
            outcome = await self._greet(server, lane)
        finally:
            server.lanes.append(lane)
        if isinstance(outcome, Fatal):
            self._turns.fail(outcome.error)
            return str(outcome.error)
        server.was_reached = server.was_reached or not (isinstance(outcome, Trouble) and outcome.is_unreachable)
        if isinstance(outcome, Trouble):
            return outcome.reason
        server.is_up = server.is_greeted = True
        return ""

    def _recheck(self, server: Server) -> None:
        self._turns.keep(self._watch(server))

    async def _watch(self, server: Server) -> None:
        """Check a server that is down until it answers."""
        while not server.is_up:
            pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(server.checks, 20))
            server.checks += 1
            await asyncio.sleep(self._rng.uniform(pause / 2, pause))
            reason = await self._check(server)
            if self._turns.failure is not None:
                return
            if reason and not any(other.is_up for other in self.servers) and self._is_over(self._turns.time(), reason):
                return
        server.streak = STREAK // 2
        self._tell(server, "answers again")
        self._pump()

    def _abandon(self) -> None:
        """Drop what is in flight; the servers see their connections close."""
        self._turns.abandon()
        self._source, self._is_dry = iter(()), True
        self._waiting.clear()
        self._done.clear()
        self._more.clear()
        for server in self.servers:
            # Its watch has gone with the other tasks; the next run begins with a check.
            server.is_greeted = server.is_greeted and server.is_up
