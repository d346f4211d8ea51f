from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mae_cli.checking.killable import Workers, shared
from mae_cli.errors import MissingDependencyError
from tests.support import PATIENT_SECONDS, slowness, wait_until

TARGET = "tests.checking.functions:act"


@pytest.fixture
def workers() -> Iterator[Workers]:
    made = Workers(TARGET, memory_mib=256)
    yield made
    made.close()


def soon() -> float:
    """A limit for batches with items that must run into it."""
    return 0.4 * slowness()


def statuses(workers: Workers, *items: tuple[str, object], seconds: float = PATIENT_SECONDS) -> list[str]:
    return [outcome.status for outcome in workers.call(items, seconds)]


def test_one_bad_item_never_loses_the_others_and_order_is_kept(workers: Workers) -> None:
    items = [("echo", 1), ("sleep", 60), ("echo", 2), ("die", 0), ("echo", 3), ("fail", "x"), ("hoard", 2000),
             ("recurse", 0), ("echo", 4)]  # fmt: skip

    found = workers.call(items, soon())

    assert [outcome.status for outcome in found] == [
        "ok", "timeout", "ok", "crashed", "ok", "error", "memory", "error", "ok",
    ]  # fmt: skip
    assert [outcome.value for outcome in found if outcome.status == "ok"] == [1, 2, 3, 4]
    assert found[5].message == "ValueError: x"


def test_the_workers_of_a_function_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    monkeypatch.setattr(Workers, "__init__", lambda self, target, memory_mib: made.append(target))
    monkeypatch.setattr("mae_cli.checking.killable._SHARED", {})

    assert len({id(shared(TARGET, memory_mib=size)) for size in (64, 64, 128, 64)}) == 2
    assert made == [TARGET] * 2


def test_a_worker_is_used_again_and_a_killed_one_is_replaced_by_another_fork_of_the_same_helper(
    workers: Workers,
) -> None:
    (first,), (again,) = workers.call([("pid", 0)], PATIENT_SECONDS), workers.call([("pid", 0)], PATIENT_SECONDS)
    assert first.value == again.value
    helper, worker = workers.pids()
    assert worker == first.value

    assert statuses(workers, ("sleep", 10**6), ("echo", 1), seconds=soon()) == ["timeout", "ok"]

    assert not Path(f"/proc/{first.value}").exists(), "killed and waited for"
    (other,) = workers.call([("pid", 0)], PATIENT_SECONDS)
    assert other.value != first.value
    assert workers.pids() == [helper, other.value], "nothing was imported a second time"


def test_a_worker_that_has_grown_is_replaced(workers: Workers) -> None:
    before, _, after = workers.call([("pid", 0), ("keep", 210), ("pid", 0)], PATIENT_SECONDS)

    assert before.value != after.value


def test_threads_have_workers_of_their_own(workers: Workers, tmp_path: Path) -> None:
    found: list[str] = []
    # Each item waits for the other two: one after the other, none would ever end.
    meet = ("meet", [str(tmp_path), 3])
    threads = [threading.Thread(target=lambda: found.extend(statuses(workers, meet))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == ["ok"] * 3
    assert len(list(tmp_path.iterdir())) == 3


def test_more_items_than_a_batch_come_back_in_order(workers: Workers) -> None:
    assert [outcome.value for outcome in workers.call([("echo", n) for n in range(200)], PATIENT_SECONDS)] == list(
        range(200)
    )
    assert workers.call([], 5) == []


def test_nothing_is_left_after_closing_and_the_next_call_starts_again(workers: Workers) -> None:
    workers.call([("echo", 1)], PATIENT_SECONDS)
    pids = workers.pids()

    workers.close()

    assert len(pids) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert statuses(workers, ("echo", 1)) == ["ok"]


def test_a_helper_that_was_killed_is_replaced(workers: Workers) -> None:
    workers.call([("echo", 1)], PATIENT_SECONDS)
    helper, worker = workers.pids()
    os.kill(helper, 9)
    wait_until(lambda: not Path(f"/proc/{worker}").exists())  # a worker dies with its helper

    assert statuses(workers, ("echo", 1)) == ["ok"]


def test_a_missing_package_is_named_with_the_command_that_installs_it() -> None:
    with pytest.raises(MissingDependencyError, match="needs the package no_such_package"):
        Workers("no_such_package.x:y").call([("a",)], 5)
