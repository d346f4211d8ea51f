"""Disks, locks, links and folders as they are elsewhere: the work is done, or one line says what is in the way.

Kinds from public reports: tox-dev/filelock#67 and #289 (no flock), huggingface/datasets#2618 (ENOLCK),
imbue-ai/mngr#1238 and datarobot-oss/cli#817 (links), NousResearch/hermes-agent#36653 (EXDEV), mattbaya/ITEGA#32 (EBUSY
of a mounted file).
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mae_cli.errors import ConfigError, LockedError
from mae_cli.records import atomic
from mae_cli.records.file_names import beside, followed, summary_path
from mae_cli.records.lock import Lock
from tests.support import here, read_json_lines, write_sums

SOLVE = ("--engine", "scripted", "--rollouts-per-problem", 1)


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    return write_sums(tmp_path / "q.jsonl", 2)


def solve(problems: Path, output: Path, *more: object) -> int:
    return here("solve", problems, "-o", output, *SOLVE, *more)


def failing(code: int) -> Callable[..., Any]:
    def call(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return call


def said(capsys: pytest.CaptureFixture[str]) -> str:
    text = capsys.readouterr().err
    assert "Traceback" not in text
    return text.splitlines()[-1]


# ---- locks


@pytest.mark.parametrize(
    "code", [errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EBADF]
)
def test_a_disk_without_locks_gets_a_lock_file_and_says_so(
    problems: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(fcntl, "flock", failing(code))

    assert solve(problems, tmp_path / "r.jsonl") == 0
    assert len(read_json_lines(tmp_path / "r.jsonl")) == 2
    assert solve(problems, tmp_path / "r.jsonl") == 0


def test_a_lock_file_of_a_living_writer_locks_others_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", failing(errno.ENOLCK))

    with Lock(tmp_path / "r.jsonl"), pytest.raises(LockedError, match=r"r\.jsonl: another process is writing it"):
        Lock(tmp_path / "r.jsonl").__enter__()


def test_a_lock_file_of_a_dead_writer_locks_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", failing(errno.ENOLCK))
    child = os.fork()
    if child == 0:
        Lock(tmp_path / "r.jsonl").__enter__()
        os._exit(0)
    os.waitpid(child, 0)
    for file in tmp_path.glob("*.lock*"):
        os.utime(file, (0, 0))

    with Lock(tmp_path / "r.jsonl"):
        pass


@pytest.mark.parametrize("name", ["", "a b", "ünï", "x" * 64, "host\nname", "10.0.0.1"])
def test_any_host_name_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(fcntl, "flock", failing(errno.ENOLCK))
    monkeypatch.setattr(socket, "gethostname", lambda: name)

    with Lock(tmp_path / "r.jsonl"):
        pass


# ---- writing


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_a_disk_that_cannot_fsync_is_written_all_the_same(
    problems: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(os, "fsync", failing(code))

    assert solve(problems, tmp_path / "r.jsonl") == 0


@pytest.mark.parametrize(
    ("code", "exit_code", "advice"),
    [
        (errno.ENOSPC, 75, "free some space"),
        (errno.EDQUOT, 75, "free some space"),
        (errno.EIO, 75, "look after the disk"),
        (errno.ESTALE, 75, "network disk"),
        (errno.EBUSY, 2, "mount its folder"),
        (errno.EXDEV, 2, "on the disk where its folder lies"),
        (errno.EROFS, 2, "Read-only"),
        (errno.EACCES, 2, "denied"),
        (errno.EFBIG, 2, "of this size"),
    ],
)
def test_a_file_that_cannot_be_put_in_place_is_named_and_its_rows_are_kept(
    problems: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    code: int,
    exit_code: int,
    advice: str,
) -> None:
    replace = os.replace

    def refuse(source: Path, target: Path) -> None:
        if Path(target).name == "r.jsonl":
            raise OSError(code, os.strerror(code), str(source), None, str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    assert solve(problems, tmp_path / "r.jsonl") == exit_code
    line = said(capsys)
    monkeypatch.setattr(os, "replace", replace)

    assert "r.jsonl" in line
    assert advice in line
    assert solve(problems, tmp_path / "r.jsonl") == 0
    assert "2 kept" in said(capsys) or len(read_json_lines(tmp_path / "r.jsonl")) == 2


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN])
def test_a_machine_without_room_ends_on_75(
    problems: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: int
) -> None:
    monkeypatch.setattr(atomic, "write_atomically", failing(code))
    monkeypatch.setattr("mae_cli.records.resumable_file.write_atomically", failing(code))

    assert solve(problems, tmp_path / "r.jsonl") == 75
    assert said(capsys).startswith("mae: ")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("a" * 250, "too long"),
        ("q.jsonl/r.jsonl", ""),
        ("/dev/null", "no regular file"),
        ("/dev/full", "no regular file"),
        ("/dev/stdout", "no regular file"),
        ("/dev/fd/1", "no regular file"),
        ("/proc/r.jsonl", ""),
        ("loop", "leads to itself"),
        ("pipe", "no regular file"),
        ("folder", "a folder"),
        (".", "file name"),
    ],
)
def test_an_output_that_is_no_place_for_rows_is_one_line_and_exit_2(
    problems: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    why: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    os.symlink("loop2", "loop")
    os.symlink("loop", "loop2")
    os.mkfifo("pipe")
    Path("folder").mkdir()

    for more in ((), ("--overwrite",)):
        assert solve(problems, Path(name), *more) == 2
        assert why in said(capsys)
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize(("name", "why"), [("folder", "Is a directory"), ("loop", ""), ("no/such", "no such file")])
def test_an_input_that_cannot_be_read_is_one_line_and_exit_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    os.symlink("loop", "loop")
    Path("folder").mkdir()

    assert solve(Path(name), Path("r.jsonl")) == 2
    assert why in said(capsys)


def test_outputs_have_the_rights_that_the_umask_gives(problems: Path, tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        assert solve(problems, tmp_path / "new" / "r.jsonl") == 0
    finally:
        os.umask(old)

    assert (tmp_path / "new" / "r.jsonl").stat().st_mode & 0o777 == 0o600


# ---- links


@pytest.fixture
def link(tmp_path: Path) -> Path:
    (tmp_path / "disk").mkdir()
    os.symlink("disk/rollouts.jsonl", tmp_path / "r.jsonl")
    return tmp_path / "r.jsonl"


def test_an_output_that_is_a_link_stays_one_and_its_files_stand_beside_the_target(
    problems: Path, link: Path, tmp_path: Path
) -> None:
    assert solve(problems, link) == 0

    assert os.readlink(link) == "disk/rollouts.jsonl"
    assert len(read_json_lines(tmp_path / "disk" / "rollouts.jsonl")) == 2
    assert (tmp_path / "disk" / "rollouts.jsonl.meta.json").exists()
    assert not (tmp_path / "r.jsonl.meta.json").exists()


def test_a_linked_output_is_resumed_read_and_finished_under_either_name(
    problems: Path, link: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert solve(problems, tmp_path / "disk" / "rollouts.jsonl") == 0
    before = link.read_bytes()

    assert solve(problems, link) == 0
    assert link.read_bytes() == before
    assert here("judge", link, "-o", tmp_path / "j.jsonl", "--engine", "scripted", "--judge", "none") == 0
    meta = tmp_path / "disk" / "rollouts.jsonl.meta.json"
    meta.write_text(meta.read_text().replace('"complete": true', '"complete": false'))
    assert here("judge", link, "-o", tmp_path / "k.jsonl", "--engine", "scripted", "--judge", "none") == 2
    assert "incomplete" in said(capsys)


def test_overwrite_moves_the_target_of_a_link_aside(problems: Path, link: Path, tmp_path: Path) -> None:
    assert solve(problems, link) == 0
    assert solve(problems, link, "--overwrite", "--set", "seed=1") == 0

    assert link.is_symlink()
    assert (tmp_path / "disk" / "rollouts.jsonl.old-1").exists()


def test_a_link_to_a_folder_and_a_chain_of_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    os.symlink("there", tmp_path / "one")
    os.symlink("one", tmp_path / "two")

    assert followed(tmp_path / "two") == tmp_path / "there"
    assert beside(tmp_path / "two", ".meta.json") == tmp_path / "there.meta.json"
    assert summary_path(tmp_path / "plain.jsonl") == tmp_path / "plain.summary.json"


def test_a_link_into_a_missing_folder_makes_the_folder(problems: Path, tmp_path: Path) -> None:
    os.symlink("later/r.jsonl", tmp_path / "r.jsonl")

    assert solve(problems, tmp_path / "r.jsonl") == 0
    assert (tmp_path / "later" / "r.jsonl").is_file()
    assert (tmp_path / "r.jsonl").is_symlink()


def test_input_and_output_are_known_as_one_file_through_links(problems: Path, tmp_path: Path) -> None:
    os.symlink(problems, tmp_path / "l.jsonl")
    os.link(problems, tmp_path / "h.jsonl")

    assert solve(problems, tmp_path / "l.jsonl", "--overwrite") == 2
    assert solve(problems, tmp_path / "h.jsonl", "--overwrite") == 2


def test_a_file_written_as_a_whole_keeps_a_link(tmp_path: Path) -> None:
    os.symlink("target.json", tmp_path / "link.json")

    atomic.write_json(tmp_path / "link.json", {"a": 1})

    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "target.json").exists()


def test_a_link_that_leads_to_itself_is_refused(tmp_path: Path) -> None:
    os.symlink("a", tmp_path / "a")

    with pytest.raises(ConfigError, match="leads to itself"):
        followed(tmp_path / "a")
