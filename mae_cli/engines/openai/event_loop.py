"""An event loop that runs only while its caller waits, in the caller's thread: nothing to lock, nothing left running.

Place in the flow: `pool.py` keeps its tasks here and waits for them turn by turn. Contract: a turn ends when
`stop` or `fail` is called, or when a signal comes, whose handler runs after the loop has been left.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Turns:
    """One event loop with its tasks, one timer and the first failure among them."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(self._on_loop_error)
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self.failure: BaseException | None = None

    def time(self) -> float:
        """The loop's clock, in seconds."""
        return self._loop.time()

    def run(self) -> None:
        """One turn."""
        with _signals_end_the_turn(self._loop):
            self._loop.run_forever()

    def complete(self, works: list[Coroutine[Any, Any, Any]]) -> list[Any]:
        """Run the loop until these have ended; their results in order."""
        tasks = [self._loop.create_task(work) for work in works]
        self._tasks.update(tasks)
        try:
            for task in tasks:
                while not task.done():
                    task.add_done_callback(lambda _: self._loop.stop())
                    self.run()
            return [task.result() for task in tasks]
        finally:
            self._tasks.difference_update(tasks)

    def keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Start a task that runs whenever the loop does; an exception in it is a failure."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def stop(self) -> None:
        """End the turn."""
        self._loop.stop()

    def fail(self, error: BaseException) -> None:
        """End the turn with a failure; the first one stands."""
        self.failure = self.failure or error
        self.stop()

    def call_at(self, moment: float | None, call: Callable[[], None]) -> None:
        """Call at this moment of the clock, in place of any moment given before; none cancels the call."""
        self._disarm()
        if moment is not None:
            self._timer = self._loop.call_at(moment, call)

    def abandon(self) -> None:
        """Cancel every task and the timer, and wait until they have ended."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            self.complete([asyncio.wait(tasks)])
        self._disarm()

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._loop.is_closed()

    def close(self) -> None:
        """Give the loop back; nothing may be asked of it afterwards."""
        self._loop.close()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.fail(error)

    def _on_loop_error(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if context.get("exception") is not None:
            self.fail(context["exception"])


@contextmanager
def _signals_end_the_turn(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the loop's turn first and reach their handlers then.

    An exception that a handler raises inside a callback would be swallowed by the event loop.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        caught.append(number)
        loop.call_soon_threadsafe(loop.stop)

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    ours = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in ours:
        signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)
    for name in caught:
        signal.raise_signal(name)
