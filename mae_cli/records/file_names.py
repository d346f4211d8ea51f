"""The names of files that stand beside an output, and the rule that no file is replaced by accident.

Place in the flow: commands and `resumable_file` derive the names of `.meta.json`, `.partial`, `.lock` and summary files
here. Contract: only paths are made; the disk is asked only whether a file or a link is there. A link is followed: what
belongs to a file stands beside the file itself, under whatever name it was given.
"""

from __future__ import annotations

import glob
import os
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


def followed(path: Path) -> Path:
    """The file that a link leads to, there or not; any other path as it is.

    Raises:
        ConfigError: a link that leads to itself.
    """
    if not path.is_symlink():
        return path
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise ConfigError(f"{path}: a link that leads to itself")
    return target


def check_place(path: Path, *, is_folder: bool = False) -> None:
    """Refuse an output that is a device, a pipe, or a folder where a file is wanted.

    Raises:
        ConfigError: it is one.
    """
    absolute = os.path.abspath(path) if path.is_absolute() else ""
    is_system = absolute.startswith(("/dev/", "/proc/")) and not absolute.startswith("/dev/shm/")
    if is_system or (path.exists() and not path.is_file() and not path.is_dir()):
        advice = "" if is_folder else ", or - for standard output"
        raise ConfigError(f"{path}: no regular file; give a {'folder' if is_folder else 'file'}{advice}")
    if path.name and path.is_dir() and not is_folder:
        raise ConfigError(f"{path}: a folder; name a file in it")


def beside(path: Path, suffix: str) -> Path:
    """A file that belongs to an output: its name with a suffix behind.

    Raises:
        DataError: the path is empty or names no file (".").
    """
    if not path.name:
        raise DataError(f'"{path}": not a file name')
    path = followed(path)
    return path.with_name(path.name + suffix)


def summary_path(path: Path) -> Path:
    """Return the file for the figures about a row file: `eval.summary.json` beside `eval.jsonl`."""
    path = followed(path)
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
