"""Who holds a lock, and whether that process can still be running."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from mae_cli.records.lock import Lock
from mae_cli.records.lock_owner import (
    Owner,
    duration,
    holder_of,
    read_owner,
    shares_kernel,
    start_of,
    this_owner,
    whereabouts,
    write_owner,
)

HERE = Owner(pid=10, host="a", since=0.0, started=1, boot="b1", machine="m1", namespace="pid:[1]")


def changed(**changes: object) -> Owner:
    return msgspec.structs.replace(HERE, **changes)


@pytest.fixture
def child() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)


def owner_of(child: subprocess.Popen[bytes]) -> Owner:
    return msgspec.structs.replace(this_owner(), pid=child.pid, started=start_of(child.pid))


def test_an_owner_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = write_owner(tmp_path / "o.json")

    assert read_owner(tmp_path / "o.json") == written
    assert written.pid == os.getpid()
    assert whereabouts(written) == "this process"


@pytest.mark.parametrize("content", [b"", b"{", b"4711", b'{"pid": "x"}', b"\xff\xfe", b'{"pid": 1}'])
def test_a_file_that_names_no_owner_names_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "o.json").write_bytes(content)

    assert read_owner(tmp_path / "o.json") is None
    assert read_owner(tmp_path / "missing.json") is None


def test_a_living_process_runs_and_a_dead_one_is_dead(child: subprocess.Popen[bytes]) -> None:
    owner = owner_of(child)

    assert whereabouts(owner) == "running"
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, and not yet counted by its parent
    assert whereabouts(owner) == "dead"
    child.communicate()
    assert whereabouts(owner) == "dead"


def test_a_number_that_another_process_has_now_is_not_its_first_owner(child: subprocess.Popen[bytes]) -> None:
    owner = owner_of(child)
    assert owner.started is not None

    assert whereabouts(msgspec.structs.replace(owner, started=owner.started - 100)) == "dead"
    child.communicate(b"\n")


@pytest.mark.parametrize(
    ("owner", "expected"),
    [
        (changed(boot="b2"), "dead"),  # the machine was started anew
        (changed(boot="b2", pid=os.getpid()), "dead"),  # whoever has its number now
        (changed(host="b", boot="b2", machine="m2"), "elsewhere"),
        (changed(boot="b2", machine="m2"), "elsewhere"),  # two machines called alike
        (changed(host="b", boot="b2"), "elsewhere"),  # two containers of one image
        (changed(boot=None, host="b"), "elsewhere"),
        (changed(namespace="pid:[2]"), "elsewhere"),  # a container on this machine counts on its own
        (changed(pid=2**22 + 1), "dead"),  # beyond every number there is
        (changed(boot=None, pid=2**22 + 1), "dead"),  # a system that does not say when it was started
    ],
)
def test_only_what_is_proven_is_called_dead(owner: Owner, expected: str) -> None:
    assert whereabouts(owner, HERE) == expected


def test_containers_of_one_machine_share_its_kernel() -> None:
    assert shares_kernel(changed(host="pod-2", namespace="pid:[2]", machine=None), HERE)
    assert not shares_kernel(changed(boot="b2"), HERE)
    assert not shares_kernel(changed(boot=None), msgspec.structs.replace(HERE, boot=None))


def test_the_system_names_the_holder_of_a_lock(tmp_path: Path) -> None:
    with Lock(tmp_path / "out.jsonl") as lock:
        holder = holder_of(lock.path)
    if holder is None:
        pytest.skip("this file system's locks are not listed by the device of their files")

    assert holder.pid == os.getpid()
    assert "python" in holder.command or "pytest" in holder.command
    assert holder_of(lock.path) is None


def test_an_owner_is_told_with_process_machine_age_and_command() -> None:
    owner = changed(since=time.time() - 3 * 3600 - 301, command="mae run r.yaml --run-dir x")

    assert owner.told() == "process 10 on a, begun 3 h 05 min ago: mae run r.yaml --run-dir x"
    assert "still to come" in changed(since=time.time() + 3600).told()
    assert len(changed(command="x" * 5000).told()) < 300


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0 s"), (59.9, "59 s"), (60, "1 min"), (3599, "59 min"), (3600, "1 h 00 min"), (90061, "1 d 1 h")],
)
def test_durations_have_two_units_at_most(seconds: float, text: str) -> None:
    assert duration(seconds) == text
