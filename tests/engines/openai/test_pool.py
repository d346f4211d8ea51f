"""The pool alone, with made-up servers: when a failing job is given up, and when the servers are at fault."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from mae_cli.engines.openai.jobs import Busy, Done, Query, RequestOutcome, Server, Trouble
from mae_cli.engines.openai.pool import Pool
from mae_cli.errors import TemporaryError

DEAD = Trouble("HTTP 500: engine dead")
RETRY_SECONDS = 0.4


class Lane:
    async def aclose(self) -> None:
        """Nothing is open."""


@contextmanager
def pool(send: Callable[[Any], RequestOutcome], probe: Callable[[], RequestOutcome]) -> Iterator[Pool]:
    """A pool of one server whose list of models always comes, as vLLM's does when its engine has died."""

    async def ask(what: Any, _: Server, __: Lane) -> RequestOutcome:
        return send(what)

    async def greet(_: Server, __: Lane) -> RequestOutcome:
        return Done(None)

    async def check(_: Any, __: Server, ___: Lane) -> RequestOutcome:
        return probe()

    opened = Pool(
        ["http://a"],
        send=ask,
        greet=greet,
        probe=check,
        open_lane=Lane,
        max_concurrent=None,
        retry_seconds=RETRY_SECONDS,
        say=lambda _: None,
    )
    try:
        yield opened
    finally:
        opened.close()


def jobs(*asks: Any) -> Iterator[Query]:
    return (Query(ask) for ask in asks)


@pytest.mark.parametrize("trouble", [DEAD, Trouble("no answer within 0.1 s", is_slow=True)], ids=["500", "hangs"])
@pytest.mark.parametrize("number", [1, 5])
def test_a_server_that_dies_after_an_answered_stage_costs_no_row_of_the_next(trouble: Trouble, number: int) -> None:
    state: dict[str, RequestOutcome] = {"now": Done("answer")}
    with pool(lambda _: state["now"], lambda: state["now"]) as opened:
        assert len(list(opened.run(jobs(1, 2, 3)))) == 3
        state["now"] = trouble
        given_up: list[Query] = []
        with pytest.raises(TemporaryError, match="no answer from http://a"):
            given_up.extend(opened.run(jobs(*range(number))))

    assert given_up == []


def test_a_server_that_dies_in_the_middle_gives_up_no_row_that_had_failed_before() -> None:
    # 20 rows fail once while others are answered; then nothing is answered any more.
    seen: set[int] = set()

    def send(what: int) -> RequestOutcome:
        if what % 2 and what not in seen and len(seen) < 20:
            seen.add(what)
            return DEAD
        return Done("answer") if what < 40 and what % 2 == 0 else DEAD

    found: list[Query] = []
    with pool(send, lambda: DEAD) as opened, pytest.raises(TemporaryError):
        found.extend(opened.run(jobs(*range(60))))

    assert [job.error for job in found] == [None] * 20


def test_the_last_rows_are_given_up_where_the_server_answers_something_else() -> None:
    with pool(lambda what: DEAD if what >= 3 else Done("answer"), lambda: Done("yes")) as opened:
        found = {job.ask: job.error for job in opened.run(jobs(*range(6)))}

    assert [found[what] for what in range(3)] == [None] * 3
    assert all("engine dead" in (found[what] or "") for what in range(3, 6))


def test_rows_left_over_from_a_killed_command_are_given_up_too() -> None:
    with pool(lambda _: DEAD, lambda: Done("yes")) as opened:
        (job,) = opened.run(jobs(1))

    assert "engine dead" in (job.error or "")


def test_many_rows_without_one_answer_are_the_servers_fault_whatever_else_it_answers() -> None:
    with pool(lambda _: DEAD, lambda: Done("yes")) as opened, pytest.raises(TemporaryError):
        list(opened.run(jobs(*range(40))))


@pytest.mark.parametrize("told", [0.01, 0.05, 0.2])
def test_a_wait_that_a_server_tells_is_kept_and_at_most_a_tenth_is_added(told: float) -> None:
    refused: set[int] = set()

    def send(what: int) -> RequestOutcome:
        if what in refused:
            return Done("answer")
        refused.add(what)
        return Busy("slow down", told)

    with pool(send, lambda: Done("yes")) as opened:
        found = list(opened.run(jobs(*range(8))))

    assert len(found) == 8
    for job in found:
        assert job.failed_at is not None
        assert told <= job.due - job.failed_at + 1e-9
        assert job.due - job.failed_at <= 1.1 * told + 1e-9
