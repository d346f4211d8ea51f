"""Threads, pools and event loops for an interpreter that has one thread and no sockets.

Place in the flow: `program` and `tests` call `make_room` before they run a text. Contract: only what the text names is
touched. A thread runs to its end when it is started; a pool runs each job when it is handed in; an event loop has no
sockets, and its sleeps cost no time. A program whose threads wait for each other runs into the time limit.
"""

from __future__ import annotations

import sys
from typing import Any


def make_room(source: str) -> None:
    """Replace what would need a second thread or a socket, as far as a text names it."""
    if "asyncio" in source or "async def" in source or "concurrent" in source:
        _use_quiet_loop()
    if "thread" in source or "concurrent" in source or "asyncio" in source:
        _run_threads_at_once()
    if "concurrent" in source or "to_thread" in source or "run_in_executor" in source:
        _run_jobs_at_once()


def _run_threads_at_once() -> None:
    import threading

    class Thread(threading.Thread):
        """A thread that has ended when `start` returns."""

        def start(self) -> None:
            if self._started.is_set():  # type: ignore[attr-defined]
                raise RuntimeError("threads can only be started once")
            self._started.set()  # type: ignore[attr-defined]
            try:
                self.run()
            except SystemExit:
                return
            except BaseException:
                sys.excepthook(*sys.exc_info())

        def join(self, timeout: float | None = None) -> None:
            if not self._started.is_set():  # type: ignore[attr-defined]
                raise RuntimeError("cannot join thread before it is started")

        def is_alive(self) -> bool:
            return False

    for name in ("start", "join", "is_alive"):
        setattr(threading.Thread, name, Thread.__dict__[name])
    threading.stack_size = lambda size=0: 0


def _run_jobs_at_once() -> None:
    from concurrent import futures
    from concurrent.futures import thread

    def submit(self: Any, function: Any, /, *arguments: Any, **options: Any) -> futures.Future[Any]:
        future: futures.Future[Any] = futures.Future()
        try:
            future.set_result(function(*arguments, **options))
        except BaseException as error:
            future.set_exception(error)
        return future

    thread.ThreadPoolExecutor.submit = submit  # type: ignore[method-assign]
    futures.ProcessPoolExecutor = thread.ThreadPoolExecutor  # type: ignore[assignment, misc]


def _use_quiet_loop() -> None:
    import asyncio

    class Selector:
        """Waits for nothing: there are no sockets; the clock of the loop is moved on instead."""

        def __init__(self, loop: QuietLoop) -> None:
            self._loop = loop

        def select(self, timeout: float | None = None) -> list[Any]:
            if timeout is None:
                raise RuntimeError("every task waits for another one")
            self._loop.skipped += max(timeout, 0.0)
            return []

        def close(self) -> None:
            return

    class QuietLoop(asyncio.BaseEventLoop):
        """An event loop without sockets."""

        def __init__(self) -> None:
            super().__init__()
            self.skipped = 0.0
            self._selector = Selector(self)

        def time(self) -> float:
            return super().time() + self.skipped

        def _process_events(self, events: list[Any]) -> None:
            return

        def _write_to_self(self) -> None:
            return

    class Policy:
        def new_event_loop(self) -> QuietLoop:
            return QuietLoop()

    loop_maker = Policy().new_event_loop
    getters = {"new_event_loop": loop_maker, "get_event_loop": _loop_getter(asyncio, loop_maker)}
    for module in (asyncio, asyncio.events):
        vars(module).update(getters)


def _loop_getter(asyncio: Any, make: Any) -> Any:
    kept: list[Any] = []

    def get_event_loop() -> Any:
        running = asyncio.events._get_running_loop()
        if running is None and (not kept or kept[0].is_closed()):
            kept[:] = [make()]
        return running or kept[0]

    return get_event_loop
