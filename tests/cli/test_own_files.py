"""Files of the user's in the working directory that are called like modules: nothing runs them.

Kinds from public reports: pypa/setuptools#3316, numpy/numpy#16198, python/cpython#74007, google/deepvariant#32.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import child_environment, mae, read_json_lines, write_sums

NAMES = (
    *(
        "queue",
        "random",
        "typing",
        "json",
        "socket",
        "struct",
        "select",
        "signal",
        "copy",
        "string",
        "token",
        "inspect",
    ),
    *("torch", "numpy", "yaml", "msgspec", "typer", "click", "rich", "filelock", "jinja2", "regex", "math_verify"),
    *(
        "conftest",
        "test",
        "statistics",
        "logging",
        "tempfile",
        "threading",
        "subprocess",
        "hashlib",
        "secrets",
        "email",
    ),
)
"""`types`, `enum` and the like are read by `python -m` before any line of ours; the command `mae` is not struck."""
FOLDERS = ("datasets", "transformers", "peft", "tokenizers", "wandb", "mae_cli", "tests", "asyncio", "concurrent")


@pytest.fixture
def crowded(tmp_path: Path) -> Path:
    """A folder with such files, each of which leaves a mark when it is run."""
    write_sums(tmp_path / "q.jsonl", 2)
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r} + ' ')\n")
    for name in FOLDERS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes.txt").write_text("mine\n")
    (tmp_path / ".env").write_text("MAE_CACHE=/nowhere\nOMP_NUM_THREADS=many\n")
    return tmp_path


def ran(folder: Path) -> str:
    mark = folder / "ran"
    return mark.read_text() if mark.exists() else ""


def test_a_command_and_its_workers_run_none_of_them(crowded: Path) -> None:
    arguments = ("solve", "q.jsonl", "-o", "r.jsonl", "--engine", "scripted", "--devices", "cpu:2")

    done = mae(*arguments, cwd=crowded)

    assert (done.returncode, ran(crowded)) == (0, ""), done.stderr
    assert len(read_json_lines(crowded / "r.jsonl")) == 16


def test_the_installed_command_runs_none_of_them_either(crowded: Path) -> None:
    (crowded / "types.py").write_text("raise SystemExit('mine')\n")
    script = crowded.parent / f"{crowded.name}-bin" / "mae"
    script.parent.mkdir()
    script.write_text(f"#!{sys.executable}\nimport sys\nfrom mae_cli.cli import main\nsys.exit(main())\n")
    script.chmod(0o755)
    arguments = ("solve", "q.jsonl", "-o", "r.jsonl", "--engine", "scripted", "--devices", "cpu:2")

    done = subprocess.run([script, *arguments], cwd=crowded, env=child_environment(), capture_output=True, check=False)

    assert (done.returncode, ran(crowded)) == (0, ""), done.stderr


def test_a_program_check_and_its_helper_run_none_of_them(crowded: Path) -> None:
    (crowded / "r.jsonl").write_bytes(b"")
    code = """
import json, sys
from mae_cli.checking.killable import Workers
print(Workers("json:loads").call([["[1]"]], 60.0)[0].value)
"""
    (crowded / "json.py").unlink()
    (crowded / "types.py").write_text("raise SystemExit('mine')\n")

    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=crowded, env=child_environment(), capture_output=True, check=False
    )

    assert (done.stdout.strip(), ran(crowded)) == (b"[1]", ""), done.stderr


def test_a_plugin_in_the_working_directory_is_found(tmp_path: Path) -> None:
    write_sums(tmp_path / "q.jsonl", 2)
    (tmp_path / "my_checks.py").write_text(
        "import msgspec\nfrom mae_cli.plugins.contracts import Selection\n\n\n"
        "class All(msgspec.Struct):\n    def select(self, rows):\n"
        "        return [Selection(r.id, 'kept') for r in rows]\n"
    )

    done = mae("list", "steps", "--recipe", "quickstart", cwd=tmp_path)
    dry = mae("filter", "q.jsonl", "-o", "f.jsonl", "--filters", "my_checks:All", "--dry-run", cwd=tmp_path)

    assert done.returncode == 0
    assert b"no module" not in dry.stderr


@pytest.mark.parametrize("environment", [{"PYTHONSAFEPATH": "1"}, {"PYTHONOPTIMIZE": "2"}, {"PYTHONWARNINGS": "error"}])
def test_workers_start_under_any_setting_of_the_interpreter(tmp_path: Path, environment: dict[str, str]) -> None:
    write_sums(tmp_path / "q.jsonl", 2)

    done = mae(
        *("solve", "q.jsonl", "-o", "r.jsonl", "--engine", "scripted", "--devices", "cpu:2", "--json"),
        cwd=tmp_path,
        **environment,
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["written"] == 16


def test_help_and_lists_are_the_same_without_docstrings(tmp_path: Path) -> None:
    for arguments in (("--help",), ("solve", "--help"), ("list", "verifiers")):
        usual, stripped = (mae(*arguments, cwd=tmp_path, **more) for more in ({}, {"PYTHONOPTIMIZE": "2"}))

        assert (stripped.stdout, stripped.returncode) == (usual.stdout, 0)
