"""The writer of an output that is a folder: an adapter, a model or an export.

Place in the flow: `finetune` and `export` use it as stages use `resumable_file.Output`. Contract: one writer at a time;
the folder is made in `<out>.partial/`, renamed when it is whole, and marked complete last. A folder made with other
settings is refused, or moved aside with `--overwrite`; nothing is deleted.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from mae_cli.errors import ConfigError
from mae_cli.records.atomic import sync, write_json
from mae_cli.records.file_names import _free_number, _is_same_file, _meta_of, beside, check_place, followed
from mae_cli.records.fingerprint import compare_fingerprints, plain
from mae_cli.records.lock import Lock
from mae_cli.records.read import read_json
from mae_cli.records.row import SCHEMA_VERSION


class FolderOutput:
    """The one writer of a folder (an adapter): made in `<out>.partial/`, renamed when whole, marked complete last.

    Attributes:
        is_done: the folder and its marker stand; nothing is left to do.
        work_dir: where it is made; checkpoints there survive an interruption.
    """

    def __init__(
        self, path: Path, *, stage: str, fingerprint: Mapping[str, Any], overwrite: bool, inputs: Sequence[Path] = ()
    ) -> None:
        check_place(path, is_folder=True)
        self.path, self.stage, self.overwrite = followed(path), stage, overwrite
        if any(_is_same_file(path, source) for source in inputs):
            raise ConfigError(f"{path}: input and output are the same file; give another -o")
        self.fingerprint = plain(fingerprint)
        self.work_dir = beside(path, ".partial")
        self.is_done = False
        self._meta_path = _meta_of(path)
        self._lock = Lock(path)

    def __enter__(self) -> Self:
        self._lock.__enter__()
        try:
            self._recover()
        except BaseException:
            self._lock.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.__exit__()

    def _recover(self) -> None:
        if self.overwrite:
            self._move_aside()
        if not self._meta_path.exists():
            if self.path.exists():
                raise ConfigError(f"{self.path}: exists and has no meta file; use --overwrite (moves it aside)")
            shutil.rmtree(self.work_dir, ignore_errors=True)
            self._write_meta(complete=False)
            return
        meta = read_json(self._meta_path)
        if meta.get("stage") != self.stage:
            raise ConfigError(f"{self.path}: made by {meta.get('stage')}, not {self.stage}; give another -o")
        compare_fingerprints(meta.get("fingerprint", {}), self.fingerprint, str(self.path))
        # The folder is renamed only when it is whole: killed between that and its marker, only the marker is missing.
        if self.path.exists():
            self._finish_marker()
            self.is_done = True

    def _move_aside(self) -> None:
        # Checkpoints of other settings must never meet the new ones, wherever this is killed.
        shutil.rmtree(self.work_dir, ignore_errors=True)
        old = beside(self.path, f".old-{_free_number(self.path)}")
        for source, target in ((self.path, old), (self._meta_path, _meta_of(old))):
            if source.exists():
                os.replace(source, target)

    def finish(self, made: Path) -> None:
        """Move the finished folder into place, then mark it complete."""
        for file in sorted(made.rglob("*")):
            if file.is_file():
                with file.open("rb") as handle:
                    sync(handle.fileno())
        os.replace(made, self.path)
        self._finish_marker()

    def _finish_marker(self) -> None:
        self._write_meta(complete=True)
        shutil.rmtree(self.work_dir, ignore_errors=True)

    def _write_meta(self, *, complete: bool) -> None:
        meta = {"schema": SCHEMA_VERSION, "stage": self.stage, "complete": complete, "fingerprint": self.fingerprint}
        write_json(self._meta_path, meta)
