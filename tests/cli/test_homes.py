"""Users without a home, temporary folders that are missing, a working directory that was deleted: one line, or done.

Kinds from public reports: dottxt-ai/outlines#1425 (docker run -u), and containers whose HOME cannot be written.
"""

from __future__ import annotations

import os
import pwd
import shlex
import subprocess
from pathlib import Path

import pytest

from mae_cli.errors import ConfigError
from mae_cli.records.cache import cache_dir, notes_dir
from tests.support import child_environment, command, mae, write_sums


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """No HOME, and no entry in passwd."""

    def unknown(_: int) -> None:
        raise KeyError("uid not found")

    for name in ("HOME", "MAE_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.mark.usefixtures("nobody")
def test_without_a_home_the_cache_has_to_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="set MAE_CACHE"):
        cache_dir()
    assert notes_dir().is_absolute()

    monkeypatch.setenv("MAE_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path


def test_a_tilde_in_the_caches_name_is_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MAE_CACHE", "~/models")

    assert cache_dir() == tmp_path / "models"


@pytest.mark.parametrize(
    "environment",
    [
        {"HOME": "/nonexistent"},
        {"HOME": "", "XDG_CACHE_HOME": "relative"},
        {"HOME": "/proc", "TMPDIR": "/missing"},
    ],
)
def test_a_command_that_needs_no_model_needs_no_home(tmp_path: Path, environment: dict[str, str]) -> None:
    write_sums(tmp_path / "q.jsonl", 2)

    done = mae("solve", "q.jsonl", "-o", "r.jsonl", "--engine", "scripted", cwd=tmp_path, **environment)
    listed = mae("models", "list", cwd=tmp_path, **environment)

    assert (done.returncode, listed.returncode) == (0, 0), done.stderr + listed.stderr
    assert not (tmp_path / "~").exists()


def test_a_deleted_working_directory_is_told(tmp_path: Path) -> None:
    write_sums(tmp_path / "q.jsonl", 2)
    arguments = ["solve", tmp_path / "q.jsonl", "-o", "r.jsonl", "--engine", "scripted"]
    line = f"mkdir gone && cd gone && rmdir ../gone && exec {shlex.join(command(arguments))}"

    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=child_environment(), capture_output=True, check=False)

    assert (done.returncode, b"Traceback" in done.stderr) == (2, False), done.stderr
    assert b"the working directory does not exist any more" in done.stderr
    assert os.listdir(tmp_path) == ["q.jsonl"]
