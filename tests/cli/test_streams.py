"""Standard streams that are closed, full, left by their reader or no UTF-8: the work is done, or one line says why not.

Kinds from public reports: pixelb/crudini#82, streamlink/streamlink#6197, notatallshaw/nab#990, tqdm/tqdm#1248,
meta-pytorch/torchx#418.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.support import child_environment, command, read_json_lines, write_sums

SOLVE = ("solve", "q.jsonl", "--engine", "scripted", "--rollouts-per-problem", 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_sums(tmp_path / "q.jsonl", 2)
    return tmp_path


def shell(folder: Path, redirection: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """The command as a shell starts it, with a redirection such as `>&-`."""
    line = f"exec {shlex.join(command(arguments))} {redirection}"
    return subprocess.run(
        ["bash", "-c", line], cwd=folder, env=child_environment(**environment), capture_output=True, check=False
    )


def is_one_line(text: bytes) -> bool:
    return text.startswith(b"mae: ") and text.count(b"\n") == 1


@pytest.mark.parametrize(
    "redirection", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", "2>/dev/full", "<&- 2>&-", ">&- 2>&-", "2> >(true)"]
)
def test_work_that_needs_no_stream_is_done_without_it(folder: Path, redirection: str) -> None:
    done = shell(folder, redirection, *SOLVE, "-o", "r.jsonl")

    assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr
    assert len(read_json_lines(folder / "r.jsonl")) == 2
    # A closed stream's number must not go to a file that is opened later: messages would be written into it.
    assert json.loads((folder / "r.jsonl.meta.json").read_bytes())["complete"] is True


@pytest.mark.parametrize("arguments", [("--version",), ("--help",), ("list", "verifiers"), ("solve", "--help")])
def test_what_is_only_printed_is_no_failure_where_nobody_reads(folder: Path, arguments: tuple[str, ...]) -> None:
    assert shell(folder, ">&- 2>&-", *arguments).returncode == 0


def test_a_json_summary_without_a_standard_output_leaves_the_work_done(folder: Path) -> None:
    done = shell(folder, ">&-", *SOLVE, "-o", "r.jsonl", "--json")

    assert (done.returncode, len(read_json_lines(folder / "r.jsonl"))) == (0, 2)


@pytest.mark.parametrize(
    ("redirection", "arguments", "said"),
    [
        ("<&-", ("solve", "-", "-o", "r.jsonl", "--engine", "scripted"), b"standard input is closed"),
        ("<&-", ("judge", "-", "-o", "r.jsonl", "--engine", "scripted"), b"standard input is closed"),
        ("<&-", ("filter", "-", "-o", "r.jsonl"), b"standard input is closed"),
        (">&-", (*SOLVE, "-o", "-"), b"standard output is closed"),
        (">&-", ("propose", "-o", "-", "--engine", "scripted"), b"standard output is closed"),
        ("</dev/null", ("solve", "-", "-o", "r.jsonl", "--engine", "scripted"), b"empty"),
    ],
)
def test_a_stream_that_is_needed_and_not_there_is_one_line_and_exit_2(
    folder: Path, redirection: str, arguments: tuple[object, ...], said: bytes
) -> None:
    done = shell(folder, redirection, *arguments)

    assert done.returncode == 2, done.stderr
    assert is_one_line(done.stderr)
    assert said in done.stderr


@pytest.mark.parametrize("arguments", [(*SOLVE, "-o", "-"), ("list", "keys"), (*SOLVE, "-o", "r.jsonl", "--json")])
def test_a_full_standard_output_is_named_and_ends_on_75(folder: Path, arguments: tuple[object, ...]) -> None:
    done = shell(folder, ">/dev/full", *arguments)

    assert done.returncode == 75
    assert b"standard output: No space left on device" in done.stderr.splitlines()[-1]
    assert b"Traceback" not in done.stderr


def test_a_reader_of_messages_that_leaves_stops_no_work(folder: Path) -> None:
    line = f"{shlex.join(command([*SOLVE, '-o', 'r.jsonl']))} 2>&1 >/dev/null | true"
    subprocess.run(["bash", "-c", line], cwd=folder, env=child_environment(), capture_output=True, check=False)

    assert len(read_json_lines(folder / "r.jsonl")) == 2


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "latin-1", "TERM": "dumb", "COLUMNS": "1", "NO_COLOR": "1"},
        {"COLUMNS": "many", "FORCE_COLOR": "1"},
    ],
)
def test_output_in_any_encoding_and_terminal_is_whole(folder: Path, environment: dict[str, str]) -> None:
    (folder / "ä.jsonl").write_text('{"question": "Où est 3 + 4 → ?", "answer": "7"}\n', "utf-8")

    done = shell(folder, "", "solve", "ä.jsonl", "-o", "é.jsonl", "--engine", "scripted", "--json", **environment)
    streamed = shell(folder, "", "solve", "ä.jsonl", "-o", "-", "--engine", "scripted", "--quiet", **environment)

    assert (done.returncode, done.stderr.count(b"\n")) == (0, 1), done.stderr
    assert os.fsencode(json.loads(done.stdout)["path"]) == "é.jsonl".encode()
    # Rows are UTF-8 whatever a terminal takes.
    assert "Où est 3 + 4 → ?" in streamed.stdout.decode("utf-8")


@pytest.mark.parametrize(
    "arguments", [("list", "recipes"), ("list", "suites"), ("solve", "--help"), ("trace", "--help")]
)
def test_text_for_people_is_printed_in_any_encoding(folder: Path, arguments: tuple[str, ...]) -> None:
    done = shell(folder, "", *arguments, PYTHONIOENCODING="ascii", COLUMNS="1")

    assert (done.returncode, done.stderr) == (0, b"")


def test_a_name_that_is_no_text_is_read_and_written(folder: Path) -> None:
    name = os.fsdecode(b"q\xff.jsonl")
    write_sums(folder / name, 2)

    done = shell(folder, "", "solve", name, "-o", os.fsdecode(b"r\xff.jsonl"), "--engine", "scripted")

    assert done.returncode == 0, done.stderr
    assert (folder / os.fsdecode(b"r\xff.jsonl")).exists()
