"""Budgets of a run: what their texts mean, and when they stop."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mae_cli.errors import BudgetError, ConfigError
from mae_cli.recipe.sections import Recipe
from mae_cli.runs.budgets import Budgets, Spent, folder_size, parse_size, parse_until, size_text

NOTHING = Spent(tokens=0, rounds=0)


def utc(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Central Europe: summer time begins on 2026-03-29 at 01:00 UTC and ends on 2026-10-25 at 01:00 UTC."""
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("zone")
@pytest.mark.parametrize(
    ("now", "text", "expected"),
    [
        ("2026-07-10T20:00", "07:00", "2026-07-11T05:00"),  # in the evening: tomorrow, summer time is 2 h ahead
        ("2026-01-10T20:00", "07:00", "2026-01-11T06:00"),  # winter
        ("2026-07-10T03:00", "07:00", "2026-07-10T05:00"),  # in the night: today
        ("2026-07-10T03:00", "7:00", "2026-07-10T05:00"),
        ("2026-07-10T05:00", "07:00", "2026-07-11T05:00"),  # at that very minute: a day later
        ("2026-07-10T21:59", "00:00", "2026-07-10T22:00"),  # midnight
        ("2026-07-10T21:59", "24:00", "2026-07-10T22:00"),
        ("2026-12-31T22:30", "23:59", "2026-12-31T22:59"),
        ("2026-12-31T22:59:30", "23:59", "2027-01-01T22:59"),  # over the new year
        ("2026-03-28T20:00", "07:00", "2026-03-29T05:00"),  # the night is an hour shorter
        ("2026-10-24T20:00", "07:00", "2026-10-25T06:00"),  # and longer
        ("2026-03-29T00:00", "02:30", "2026-03-29T01:00"),  # left out: at the change
        ("2026-10-24T23:00", "02:30", "2026-10-25T00:30"),  # comes twice: the first
        ("2026-10-25T00:45", "02:30", "2026-10-25T01:30"),  # the first is over: the second
        ("2026-10-25T01:45", "02:30", "2026-10-26T01:30"),  # both are
    ],
)
def test_until_is_the_next_time_the_clock_on_the_wall_shows_it(now: str, text: str, expected: str) -> None:
    assert parse_until(text, utc(now)) == utc(expected)


@pytest.mark.parametrize("text", ["25:00", "07:60", "7", ":", "7:5", "07:00:00", "-1:00", "24:01", "7h:00", "07:00 pm"])
def test_what_is_no_time_of_day_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected a time of day such as 07:00"):
        parse_until(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0), ("512", 512), ("1kB", 1000), ("500MB", 500_000_000), ("500mb", 500_000_000), ("20G", 20_000_000_000),
        ("20GiB", 21_474_836_480), ("1.5T", 1_500_000_000_000), (" 2 MiB ", 2_097_152), ("7B", 7),
    ],
)  # fmt: skip
def test_sizes_are_decimal_unless_they_say_binary(text: str, size: int) -> None:
    assert parse_size(text, "max_disk") == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "1PB", "1,5GB", "1 G B", "1e9", "10%", "٣GB"])
def test_what_is_no_size_is_refused_with_its_key(text: str) -> None:
    with pytest.raises(ConfigError, match=r"max_disk: .*expected a size such as"):
        parse_size(text, "max_disk")


def test_sizes_are_told_in_three_digits() -> None:
    assert [size_text(size) for size in (0, 999, 1000, 12_345_678, 5e9, 2.5e12)] == [
        *("0 B", "999 B", "1 kB", "12.3 MB", "5 GB", "2.5 TB"),
    ]


def budgets(folder: Path, clock: list[float] | None = None, until: str | None = None, **limits: object) -> Budgets:
    told = clock or [0.0]
    return Budgets(Recipe(**limits), folder, until=until, clock=lambda: told[0])  # type: ignore[arg-type]


def test_without_limits_nothing_stops(tmp_path: Path) -> None:
    found = budgets(tmp_path)

    found.check(Spent(tokens=10**12, rounds=10**6))
    found.check_round(10**6)


def test_tokens_stop_where_they_are_used_up(tmp_path: Path) -> None:
    found = budgets(tmp_path, max_tokens=100)

    found.check(Spent(tokens=99, rounds=0))
    with pytest.raises(BudgetError, match=r"--max-tokens: 100 of 100 tokens over all starts\); with a higher one"):
        found.check(Spent(tokens=100, rounds=0))


def test_hours_count_from_the_start_of_the_process_and_not_by_the_clock_on_the_wall(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mae_cli.runs.budgets.age_of_this_process", lambda: 600.0)  # ten minutes of loading
    clock = [1000.0]
    found = budgets(tmp_path, clock, max_hours=0.5)
    monkeypatch.setattr(time, "time", lambda: 10**10)  # somebody set the clock

    clock[0] = 1000.0 + 1199
    found.check(NOTHING)
    clock[0] = 1000.0 + 1200
    with pytest.raises(BudgetError, match=r"--max-hours: 0.5 of 0.5 hours of this start\); the same command goes on"):
        found.check(NOTHING)


def test_a_time_of_day_stops_when_it_has_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = budgets(tmp_path, until="07:00")
    assert found.until is not None

    found.check(NOTHING)
    monkeypatch.setattr(time, "time", lambda: found.until)
    with pytest.raises(BudgetError, match="it is 07:00"):
        found.check(NOTHING)


def test_disk_is_measured_now_and_then_and_at_every_step(tmp_path: Path) -> None:
    clock = [0.0]
    found = budgets(tmp_path, clock, max_disk="1kB")
    found.check(NOTHING)
    (tmp_path / "rows").write_bytes(b"x" * 1000)
    (tmp_path / "link").symlink_to(tmp_path / "rows")

    assert folder_size(tmp_path) == 1000
    clock[0] = 20.0
    found.check(NOTHING)  # measured a short while ago
    with pytest.raises(BudgetError, match="--max-disk: 1 kB of 1 kB in the run folder"):
        found.check(NOTHING, fresh=True)


def test_rounds_are_those_of_all_starts(tmp_path: Path) -> None:
    found = budgets(tmp_path, max_rounds=2)

    found.check_round(1)
    with pytest.raises(BudgetError, match="--max-rounds: 2 of 2 rounds over all starts"):
        found.check_round(2)
