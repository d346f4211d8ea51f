"""Writing files so that nothing is lost and nothing is done twice.

`Output` is the one writer of a stage's file: a lock beside it, finished rows in `<out>.partial` as they come, the
canonical file written once, fsynced and renamed, and `<out>.meta.json` with `complete: true` last. The same command
run again after a kill at any moment gives the same bytes.
"""

from __future__ import annotations

import gzip
import io
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import msgspec

from mae_cli.errors import ConfigError
from mae_cli.records.atomic import sync, write_atomically, write_json
from mae_cli.records.file_names import STDIO, _free_number, _is_same_file, _meta_of, beside, check_place, followed
from mae_cli.records.fingerprint import compare_fingerprints, plain
from mae_cli.records.lock import Lock
from mae_cli.records.read import decode_row, iterate_rows, read_json
from mae_cli.records.row import SCHEMA_VERSION, Row
from mae_cli.records.schema_1 import as_schema_1
from mae_cli.records.shards import Shard, name_of, shard_in
from mae_cli.records.streams import require_output, write_output
from mae_cli.records.worker_files import rows_elsewhere, work_folder

_ENCODER = msgspec.json.Encoder()


def encode_rows(rows: Iterable[msgspec.Struct]) -> bytes:
    """Return the rows as JSON lines, each in the schema it says it has."""
    return b"".join(_ENCODER.encode(_as_written(row)) + b"\n" for row in rows)


def _as_written(row: msgspec.Struct) -> Any:
    return as_schema_1(row) if isinstance(row, Row) and row.schema == 1 else row


ROWS_PER_WRITE = 512


def _canonical(path: Path, rows: Sequence[msgspec.Struct]) -> Iterable[bytes]:
    """The file's content in parts: whole, it would be in memory a second time beside its rows."""
    parts = (encode_rows(rows[start : start + ROWS_PER_WRITE]) for start in range(0, len(rows), ROWS_PER_WRITE))
    if path.suffix != ".gz":
        return parts
    buffer = io.BytesIO()
    # No name and no time in the header, so that equal rows give equal bytes.
    with gzip.GzipFile(filename="", fileobj=buffer, mode="wb", mtime=0) as file:
        for part in parts:
            file.write(part)
    return [buffer.getvalue()]


def replace_aside(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file unless it already reads the same; one that differs is moved aside, never deleted."""
    fresh = beside(path, ".new")
    write(fresh)
    if path.exists() and path.read_bytes() != fresh.read_bytes():
        os.replace(path, beside(path, f".old-{_free_number(path)}"))
    os.replace(fresh, path)


class Output:
    """The one writer of a stage's file; use as a context manager.

    Attributes:
        companion: a second file written with the first (the dropped rows); none but ours is ever replaced.
        known: rows of an earlier finished run of the same command, by id.
        partial: rows an interrupted run had finished, by id, in the order they were finished.
        elsewhere: rows that worker processes of this command finished, by id.
        notices: what a person should know about the recovery.
        schema: of the rows in the file: that of an earlier, unfinished try, or else the one asked for.
        place: where the rows of a shard stand in the whole output; for the meta file.
        figures: counts about the rows that a later stage asks for; for the meta file, where they are not 0.
    """

    def __init__(
        self,
        path: Path,
        *,
        stage: str,
        fingerprint: Mapping[str, Any],
        defaults: Mapping[str, Any] | None = None,
        inputs: Sequence[Path] = (),
        companion: Path | None = None,
        overwrite: bool = False,
        shard: Shard | None = None,
        schema: int = SCHEMA_VERSION,
    ) -> None:
        self.path = followed(path)
        self.schema = schema
        self.companion = companion and followed(companion)
        self.shard = shard
        self.place: dict[str, Any] = {}
        self.figures: dict[str, int] = {}
        self.stage = stage
        self.fingerprint = plain(fingerprint)
        self._defaults = defaults
        self.overwrite = overwrite
        self.known: dict[str, Row] = {}
        self.elsewhere: dict[str, Row] = {}
        self.partial: dict[str, Row] = {}
        self.notices: list[str] = []
        self.was_complete = False
        self._is_settled = False
        self._file: BinaryIO | None = None
        self._lock: Lock | None = None
        for source in inputs:
            for written, flag in ((path, "-o"), (companion, "--dropped")):
                if written is not None and _is_same_file(written, source):
                    raise ConfigError(f"{written}: input and output are the same file; give another {flag}")
        for written in (path, companion):
            if written is not None and written != STDIO:
                check_place(written)
        if companion is not None and self.companion == self.path:
            raise ConfigError(f"{path}: both outputs are the same file; give another -o or --dropped")

    @property
    def is_stream(self) -> bool:
        """Whether rows go to standard output, which cannot be resumed."""
        return self.path == STDIO

    def __enter__(self) -> Self:
        if self.is_stream:
            if self.companion is not None and self.companion.exists():
                raise ConfigError(f"{self.companion}: exists; give another --dropped")
            require_output()
            return self
        self._lock = Lock(self.path)
        self._lock.__enter__()
        try:
            self._recover()
        except BaseException:
            self._lock.__exit__()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._is_settled and not self.is_stream:
            # The workers' rows stand in the file now.
            shutil.rmtree(work_folder(self.path), ignore_errors=True)
        if self._lock is not None:
            self._lock.__exit__()

    @property
    def _meta_path(self) -> Path:
        return _meta_of(self.path)

    @property
    def _partial_path(self) -> Path:
        return beside(self.path, ".partial")

    def _recover(self) -> None:
        if self.overwrite:
            self._move_aside()
        if self._meta_path.exists():
            meta = read_json(self._meta_path)
            if meta.get("stage") != self.stage:
                raise ConfigError(f"{self.path}: made by {meta.get('stage')}, not {self.stage}; give another -o")
            compare_fingerprints(meta.get("fingerprint", {}), self.fingerprint, str(self.path), defaults=self._defaults)
            if (held := shard_in(meta)) != self.shard:
                raise ConfigError(f"{self.path}: holds {name_of(held)}, not {name_of(self.shard)}; give another -o")
            self.schema = meta.get("schema", 1)
            self.was_complete = bool(meta.get("complete")) and self.path.exists()
        else:
            # Without a meta nobody knows the settings of what stands there, an interrupted run's rows included.
            for found in (self.path, self._partial_path, self.companion):
                if found is not None and found.exists():
                    raise ConfigError(f"{found}: exists and has no meta file; use --overwrite (moves it aside)")
        if self.path.exists():
            self.known = {row.id: row for row in iterate_rows(self.path)}
        if self.was_complete:
            # Killed between the completion marker and this.
            self._partial_path.unlink(missing_ok=True)
        self.look_elsewhere()
        if self._partial_path.exists():
            self.partial = {row.id: row for row in self._read_partial()}
            self.notices.append(f"resuming {self.path}: {len(self.partial)} rows were finished")

    def look_elsewhere(self) -> None:
        """Take note of what the workers of this command have finished."""
        if not self.is_stream:
            self.elsewhere = rows_elsewhere(self.path, stage=self.stage, fingerprint=self.fingerprint)

    def _read_partial(self) -> Iterator[Row]:
        data = self._partial_path.read_bytes()
        end = data.rfind(b"\n") + 1
        if end < len(data):
            self.notices.append(f"{self._partial_path}: a torn last line of {len(data) - end} bytes was cut off")
        for number, line in enumerate(data[:end].splitlines(), 1):
            yield decode_row(self._partial_path, number, line)

    def _move_aside(self) -> None:
        number = _free_number(self.path)
        old = beside(self.path, f".old-{number}")
        if self.path.exists():
            self.notices.append(f"{self.path}: the old file is now {old.name}")
        moves = [
            (work_folder(self.path), work_folder(old)),
            (self._partial_path, beside(old, ".partial")),
            (self.path, old),
            (self._meta_path, _meta_of(old)),
        ]
        if self.companion is not None:
            moves.insert(0, (self.companion, beside(self.companion, f".old-{number}")))
        # The meta goes last: killed in between, what is left is still known for what it is.
        for source, target in moves:
            if source.exists():
                os.replace(source, target)

    def is_current(self, rows: Sequence[Row]) -> bool:
        """Whether the finished file holds exactly these rows already, so that there is nothing to write."""
        self._put_schema(rows)
        is_same = self.was_complete and list(self.known.values()) == list(rows)
        self._is_settled = self._is_settled or is_same
        return is_same

    def _put_schema(self, rows: Iterable[Row]) -> None:
        """A file has rows of one schema: the one it was begun with."""
        for row in rows:
            row.schema = self.schema

    def begin(self, keep: Iterable[str]) -> None:
        """Start writing: mark the output incomplete and keep only these rows of an interrupted run.

        Rows of a segment that broke are redone, since a row's segment may show in its last float bits.
        """
        if self.is_stream:
            return
        kept = [self.partial[identity] for identity in keep]
        self.partial = {row.id: row for row in kept}
        # Also where the rows come out as they were: they are written once more, or the file would stay marked.
        self.was_complete = False
        self._write_meta(complete=False)
        write_atomically(self._partial_path, encode_rows(kept))
        self._file = self._partial_path.open("ab", buffering=0)

    def append(self, rows: Sequence[Row]) -> None:
        """Store finished rows at once, whole lines."""
        if self._file is None:
            return
        self._put_schema(rows)
        data = memoryview(encode_rows(rows))
        while data:
            data = data[os.write(self._file.fileno(), data) :]

    def finish(
        self, rows: Sequence[Row], *, dropped: Sequence[Row] | None = None, dropped_path: Path | None = None
    ) -> None:
        """Write the canonical file (and the dropped rows before it), then the completion marker."""
        self._put_schema(rows)
        self._put_schema(dropped or ())
        if dropped is not None and dropped_path is not None:
            write_atomically(dropped_path, _canonical(dropped_path, dropped))
        if self.is_stream:
            write_output(encode_rows(rows))
            return
        if self._file is not None:
            sync(self._file.fileno())
            self._file.close()
            self._file = None
        write_atomically(self.path, _canonical(self.path, rows))
        self._write_meta(complete=True, rows=len(rows))
        self._partial_path.unlink(missing_ok=True)
        self._is_settled = True

    def _write_meta(self, *, complete: bool, rows: int | None = None) -> None:
        meta: dict[str, Any] = {
            "schema": self.schema,
            "stage": self.stage,
            "complete": complete,
            "rows": rows,
            "fingerprint": self.fingerprint,
        }
        if figures := {name: count for name, count in self.figures.items() if count}:
            meta["figures"] = figures
        if self.shard is not None:
            meta["shard"] = {"index": self.shard.index, "count": self.shard.count, **self.place}
        write_json(self._meta_path, meta)
