"""Files of the worker processes of one command: `<out>.shards/I-of-N.jsonl`, each an ordinary output of a shard.

The command that owns `<out>` takes over what its workers finished, also workers of an earlier try with another number
of them, and a worker takes over what the owner or such workers finished. So nothing is made twice when a command goes
on with more devices, with fewer, or with none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mae_cli.errors import ConfigError
from mae_cli.records.file_names import STDIO, beside
from mae_cli.records.fingerprint import compare_fingerprints
from mae_cli.records.read import decode_row, read_json
from mae_cli.records.row import Row
from mae_cli.records.shards import Shard

SUFFIX = ".shards"


def work_folder(path: Path) -> Path:
    """Return the folder for the files of the workers of the command that writes `path`."""
    return beside(path, SUFFIX)


def worker_file(path: Path, shard: Shard) -> Path:
    """The output of one worker."""
    return work_folder(path) / f"{shard.index}-of-{shard.count}.jsonl"


def is_worker_file(path: Path) -> bool:
    """Whether an output is a worker's."""
    return path.parent.name.endswith(SUFFIX)


def rows_elsewhere(path: Path, *, stage: str, fingerprint: Mapping[str, Any]) -> dict[str, Row]:
    """Rows of the same command that other processes finished, by id; a torn last line is left out.

    Raises:
        ConfigError: those processes worked with other settings.
    """
    found: dict[str, Row] = {}
    for other in _others(path):
        meta_path = beside(other, ".meta.json")
        if not meta_path.exists():
            continue
        meta = read_json(meta_path)
        if meta.get("stage") != stage:
            raise ConfigError(f"{other}: made by {meta.get('stage')}, not {stage}; give another -o")
        compare_fingerprints(meta.get("fingerprint", {}), fingerprint, str(other))
        for file in (other, beside(other, ".partial")):
            found.update((row.id, row) for row in _whole_rows(file))
    return found


def _others(path: Path) -> list[Path]:
    if path == STDIO:
        return []
    if not is_worker_file(path):
        return _worker_files(work_folder(path))
    owner = path.parent.with_name(path.parent.name.removesuffix(SUFFIX))
    # Those of the same number are at work now, on rows that are not this worker's.
    return [owner, *(file for file in _worker_files(path.parent) if _count(file) != _count(path))]


def _worker_files(folder: Path) -> list[Path]:
    """Also those of which only the `.partial` is there yet: the meta file comes first."""
    metas = sorted(folder.glob("*-of-*.jsonl.meta.json")) if folder.is_dir() else []
    return [meta.with_name(meta.name.removesuffix(".meta.json")) for meta in metas]


def _count(file: Path) -> str:
    return file.stem.rpartition("-of-")[2]


def _whole_rows(path: Path) -> Iterator[Row]:
    if path.suffix == ".gz" or not path.exists():
        return
    data = path.read_bytes()
    for number, line in enumerate(data[: data.rfind(b"\n") + 1].splitlines(), 1):
        yield decode_row(path, number, line)
