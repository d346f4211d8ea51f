"""The names of files that stand beside an output, and the rule that no file is replaced by accident.

Place in the flow: commands and `resumable_file` derive the names of `.meta.json`, `.partial`, `.lock` and summary files
here. Contract: only paths are made; the one question put to the disk is whether a file is there.
"""

from __future__ import annotations

import glob
from pathlib import Path

from mae_cli.errors import ConfigError, DataError


def refuse_existing(paths: list[Path], replace: bool) -> None:
    """Refuse to write over files unless that was asked for.

    Raises:
        ConfigError: one of them exists.
    """
    for path in paths:
        if path.exists() and not replace:
            raise ConfigError(f"{path}: exists; use --overwrite to replace it")


STDIO = Path("-")


def beside(path: Path, suffix: str) -> Path:
    """A file that belongs to an output: its name with a suffix behind.

    Raises:
        DataError: the path is empty or names no file (".").
    """
    if not path.name:
        raise DataError(f'"{path}": not a file name')
    return path.with_name(path.name + suffix)


def summary_path(path: Path) -> Path:
    """Return the file for the figures about a row file: `eval.summary.json` beside `eval.jsonl`."""
    name = path.name.removesuffix(".gz").removesuffix(".jsonl")
    return path.with_name(name + ".summary.json")


def _meta_of(path: Path) -> Path:
    return beside(path, ".meta.json")


def _free_number(path: Path) -> int:
    number = 1
    while any(path.parent.glob(f"{glob.escape(path.name)}.old-{number}*")):
        number += 1
    return number


def _is_same_file(written: Path, source: Path) -> bool:
    if STDIO in (written, source) or not (written.exists() and source.exists()):
        return False
    return source.samefile(written)
