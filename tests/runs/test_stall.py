"""The stall watchdog: what counts as standing still."""

from __future__ import annotations

import pytest

from mae_cli.runs.stall import RESTARTS, StallWatch


class Watched:
    """A watch of one minute with a clock that is set by hand, looked at every three seconds."""

    def __init__(self) -> None:
        self.now, self.said = 0.0, []  # type: ignore[var-annotated]
        self.watch = StallWatch(
            1.0,
            restart=lambda reason: self.said.append(("restart", reason)),
            give_up=lambda reason: self.said.append(("give up", reason)),
            clock=lambda: self.now,
        )
        self.watch.enter()

    def wait(self, seconds: float, step: float = 3.0) -> None:
        for _ in range(round(seconds / step)):
            self.now += step
            self.watch.look()

    @property
    def actions(self) -> list[str]:
        return [action for action, _ in self.said]


def test_nothing_for_as_long_as_the_limit_starts_the_run_anew() -> None:
    watched = Watched()

    watched.wait(57)
    assert watched.actions == []
    watched.wait(3)
    assert watched.said == [("restart", "nothing moved for 1 min (--stall-minutes 1): starting anew")]


def test_progress_begins_the_count_again() -> None:
    watched = Watched()

    for _ in range(10):
        watched.wait(57)
        watched.watch.progressed()

    assert watched.actions == []


@pytest.mark.parametrize("gap", [120.0, 3600.0, 86_400.0])
def test_a_process_that_was_stopped_or_asleep_has_not_stalled(gap: float) -> None:
    watched = Watched()
    watched.wait(30)

    watched.now += gap  # SIGSTOP and SIGCONT, a closed lid
    watched.watch.look()

    assert watched.actions == []
    watched.wait(57)
    assert watched.actions == ["restart"]


def test_a_second_stall_in_a_row_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RESTARTS, "1")
    watched = Watched()

    watched.wait(60)

    assert watched.actions == ["give up"]
    assert "also after a new start" in watched.said[0][1]


def test_a_stall_after_progress_is_a_first_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RESTARTS, "1")
    watched = Watched()

    watched.watch.enter()  # work that begins is none
    assert watched.watch._tries == 1
    watched.watch.progressed()
    watched.wait(60)

    assert watched.actions == ["restart"]


def test_loading_may_take_four_times_as_long() -> None:
    watched = Watched()
    watched.watch.leave()

    watched.wait(237)
    assert watched.actions == []
    watched.wait(3)
    assert watched.said == [("restart", "nothing moved for 4 min (--stall-minutes 1): starting anew")]
