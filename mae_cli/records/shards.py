"""A shard: the part of a command's work that one of N processes does.

The whole work is planned by every shard alike; whole units of it (a problem with everything planned about it, or a
proposal) go round the shards in the order of the plan. So ids, groups, votes and pairs are those of the one-process
command, and `mae data merge` only has to put rows back where they stand.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from mae_cli.errors import ConfigError, DataError
from mae_cli.records.ids import digest
from mae_cli.records.row import Row


class Shard(msgspec.Struct, frozen=True):
    """Part `index` of `count`, counted from 1."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def parse_shard(text: str) -> Shard:
    """The shard in `I/N`.

    Raises:
        ConfigError: not two numbers, or I is not one of 1 to N.
    """
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text.strip())
    if match is None:
        raise ConfigError(f'--shard {text}: expected I/N, e.g. "2/8"')
    shard = Shard(int(match[1]), int(match[2]))
    if not 1 <= shard.index <= shard.count:
        raise ConfigError(f"--shard {text}: expected I from 1 to {shard.count or 'N'}")
    return shard


def name_of(shard: Shard | None) -> str:
    """A shard, or the whole, in words."""
    return "the whole output" if shard is None else f"shard {shard}"


def shard_in(meta: Mapping[str, Any]) -> Shard | None:
    """The shard a meta file names."""
    found = meta.get("shard")
    return Shard(found["index"], found["count"]) if found else None


class Part(msgspec.Struct):
    """The rows of one shard, or all rows."""

    passed: list[Row]
    """Its input rows that pass through."""
    ids: set[str]
    """Of its planned rows."""
    passed_at: list[int]
    planned_at: dict[str, int]
    """Where its rows stand in the whole output: passed rows first, then the planned ones."""
    plan: str
    """Digest of all rows of the whole, in order; equal for all shards of one command."""

    def place(self, rows: Iterable[Row], *, total: int, limit: int | None) -> dict[str, Any]:
        """Return the place of a shard's finished rows for the meta file; `total` rows are in the whole output."""
        positions = [*self.passed_at, *(self.planned_at[row.id] for row in rows)]
        return {"plan": self.plan, "limit": limit, "total": total, "positions": write_ranges(positions)}


def part_of(shard: Shard | None, passed: Sequence[Row], planned: Sequence[Row]) -> Part:
    """The shard's part of the work; a pure function of the plan. Call it before anything is generated."""
    if shard is None:
        return Part(list(passed), {row.id for row in planned}, [], {}, "")
    order: dict[str, int] = {}
    # Planned rows first, so that units without work do not leave one shard with less of it.
    for row in (*planned, *passed):
        order.setdefault(_unit(row), len(order))

    def is_ours(row: Row) -> bool:
        return order[_unit(row)] % shard.count == shard.index - 1

    passed_at = [place for place, row in enumerate(passed) if is_ours(row)]
    planned_at = {row.id: place for place, row in enumerate(planned, len(passed)) if is_ours(row)}
    plan = digest([row.id for row in passed], [row.id for row in planned])
    return Part([passed[place] for place in passed_at], set(planned_at), passed_at, planned_at, plan)


def _unit(row: Row) -> str:
    return row.problem.id if row.problem is not None else row.id


def write_ranges(numbers: Sequence[int]) -> str:
    """Rising whole numbers as "0-3,8"; a shard's rows stand in runs."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def read_ranges(text: str) -> list[int]:
    """The numbers behind `write_ranges`.

    Raises:
        DataError: not such a text.
    """
    numbers: list[int] = []
    for part in filter(None, text.split(",")):
        match = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", part)
        if match is None:
            raise DataError(f'"{part}": expected a range such as 0-3')
        numbers += range(int(match[1]), int(match[2] or match[1]) + 1)
    return numbers
