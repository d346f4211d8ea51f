"""`mae data merge`: the shards of one command back into its one output, row for row where the one process had it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from mae_cli.errors import ConfigError, DataError
from mae_cli.records.file_names import beside
from mae_cli.records.fingerprint import compare_fingerprints
from mae_cli.records.read import read_json, read_rows
from mae_cli.records.resumable_file import Output
from mae_cli.records.row import Row
from mae_cli.records.shards import Shard, read_ranges, shard_in


class Merged(msgspec.Struct, frozen=True):
    """Result of a merge."""

    stage: str
    shards: int
    rows: int
    is_new: bool


def merge_shards(paths: Sequence[Path], out: Path, *, overwrite: bool = False) -> Merged:
    """Write the whole output that these finished shards are the parts of, with the meta file it has without shards.

    Raises:
        ConfigError: the files are no shards, not of one command, or not all of its shards, each once.
        DataError: a shard is incomplete, or does not hold the rows that its meta file says.
    """
    metas = [_meta(path) for path in paths]
    _check_one_command(paths, metas)
    _check_all_there(paths, [_shard(path, meta) for path, meta in zip(paths, metas, strict=True)])
    rows = _in_order(paths, metas)
    first = metas[0]
    with Output(
        out, stage=first["stage"], fingerprint=first["fingerprint"], inputs=paths, overwrite=overwrite
    ) as output:
        is_new = not output.is_current(rows)
        if is_new:
            # Marked as begun: killed between the rows and their meta file, the same command goes on.
            output.begin([])
            output.finish(rows)
    return Merged(first["stage"], len(paths), len(rows), is_new)


def _meta(path: Path) -> dict[str, Any]:
    place = beside(path, ".meta.json")
    if not path.exists() and not place.exists():
        raise DataError(f"{path}: no such file")
    if not place.exists():
        raise ConfigError(f"{path}: no {place.name} beside it; expected the output of a command with --shard")
    meta: dict[str, Any] = read_json(place)
    shard = _shard(path, meta)
    if not meta.get("complete") or not path.exists():
        raise DataError(f"{path}: shard {shard} is incomplete; run its command again")
    return meta


def _shard(path: Path, meta: dict[str, Any]) -> Shard:
    shard = shard_in(meta)
    if shard is None:
        raise ConfigError(f"{path}: not a shard; expected the output of a command with --shard")
    return shard


def _check_one_command(paths: Sequence[Path], metas: Sequence[dict[str, Any]]) -> None:
    first = metas[0]
    for path, meta in zip(paths[1:], metas[1:], strict=True):
        if meta["stage"] != first["stage"]:
            raise ConfigError(f"{path}: made by {meta['stage']}, {paths[0]} by {first['stage']}; merge one stage")
        compare_fingerprints(
            meta["fingerprint"], first["fingerprint"], str(path), f'"now" is {paths[0]}; shards of one command agree'
        )
        if meta["shard"]["count"] != first["shard"]["count"]:
            raise ConfigError(
                f"{path}: shard {shard_in(meta)}, but {paths[0]} is shard {shard_in(first)}; expected one N"
            )
        if (meta["shard"]["plan"], meta["shard"]["limit"]) != (first["shard"]["plan"], first["shard"]["limit"]):
            raise ConfigError(
                f"{path}: made from other input rows, or with another --limit, than {paths[0]}; make it again"
            )


def _check_all_there(paths: Sequence[Path], shards: Sequence[Shard]) -> None:
    held: dict[int, Path] = {}
    for path, shard in zip(paths, shards, strict=True):
        if shard.index in held:
            raise ConfigError(f"{path}: shard {shard} as well as {held[shard.index]}; give each shard once")
        held[shard.index] = path
    count = shards[0].count
    missing = [str(Shard(index, count)) for index in range(1, count + 1) if index not in held]
    if missing:
        named = ", ".join(missing[:8]) + (f" and {len(missing) - 8} more" if len(missing) > 8 else "")
        raise ConfigError(f"missing: shard {named}; all shards of a command are merged at once")


def _in_order(paths: Sequence[Path], metas: Sequence[dict[str, Any]]) -> list[Row]:
    placed: dict[int, Row] = {}
    for path, meta in zip(paths, metas, strict=True):
        rows, positions = read_rows(path), read_ranges(meta["shard"]["positions"])
        if len(rows) != len(positions):
            raise DataError(f"{path}: holds {len(rows)} rows, its meta file says {len(positions)}; make it again")
        both = placed.keys() & set(positions)
        if both:
            raise DataError(f"{path}: overlaps another shard at row {min(both)} of the whole; make it again")
        placed.update(zip(positions, rows, strict=True))
    total = metas[0]["shard"]["total"]
    if len(placed) < total:
        raise DataError(f"the shards hold {len(placed)} of {total} rows; make them again")
    return [placed[position] for position in sorted(placed)]
