"""Stages that work on many segments at once: order, resume, signals, and what is never written down."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engines.openai.fault_server import Running, running
from tests.support import mae, read_json_lines, start, wait_until, write_sums

KEY = "sk-q7Zr9-never-written-down"
FAULTS = {"rate_limited": 0.6, "server_error": 0.03, "disconnect": 0.03, "truncate": 0.03, "latency": 0.002}


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    return write_sums(tmp_path / "problems.jsonl", 250)


def solve(problems: Path, output: Path, server: Running, *more: object) -> tuple[object, ...]:
    return (
        *("solve", problems, "-o", output, "--engine", "openai", "--base-url", server.url, "-m", "test-model"),
        *("--rollouts-per-problem", 8, *more),
    )


def wait_for_rows(partial: Path, number: int, process: subprocess.Popen[bytes]) -> None:
    wait_until(lambda: partial.exists() and partial.read_bytes().count(b"\n") >= number, process)


def titles_of(process: subprocess.Popen[bytes]) -> bytes:
    """Everything a listing of processes shows of one and its threads."""
    folder = Path(f"/proc/{process.pid}")
    names = [folder / "cmdline", folder / "comm", *folder.glob("task/*/comm"), *folder.glob("task/*/cmdline")]
    return b"\n".join(name.read_bytes() for name in names)


def everything_below(folder: Path) -> Iterator[tuple[Path, bytes]]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield path, path.read_bytes()


def assert_whole(rows: list[dict[str, Any]], problems: Path) -> None:
    questions = [problem["question"] for problem in read_json_lines(problems)]
    assert [(row["problem"]["question"], row["sample_index"]) for row in rows] == [
        (question, sample) for question in questions for sample in range(8)
    ]
    assert len({row["id"] for row in rows}) == len(rows)
    assert all(row["answer"] == row["problem"]["reference_answer"] for row in rows)


def test_two_thousand_rows_survive_a_server_that_fails_most_of_the_time_and_the_key_stays_secret(
    problems: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out" / "rollouts.jsonl"
    with running(**FAULTS, key=KEY, retry_after=["0.02", "0.05", "0.01"], seed=5) as server:
        process = start(solve(problems, output, server, "--json", "--api-key-env", "A_KEY"), A_KEY=KEY)
        wait_for_rows(output.with_name("rollouts.jsonl.partial"), 50, process)
        seen = titles_of(process)
        out, err = process.communicate()
        stats = server.stats()

    assert process.returncode == 0, err
    rows = read_json_lines(output)
    assert_whole(rows, problems)
    assert {row["status"] for row in rows} == {"ok"}
    assert stats["counts"]["ok"] == 2000, "no row was answered twice"
    assert stats["early"] == 0
    assert stats["keys"] == 1
    refused = stats["counts"]["429"] / stats["arrivals"]
    assert 0.55 < refused < 0.65
    assert b"were refused for load" in err
    for place, text in [("titles", seen), ("stdout", out), ("stderr", err), *everything_below(tmp_path)]:
        assert KEY.encode() not in text, place


def test_a_refused_key_is_in_no_error(problems: Path, tmp_path: Path) -> None:
    with running(key="another") as server:
        result = mae(*solve(problems, tmp_path / "r.jsonl", server), OPENAI_API_KEY=KEY)
        misused = mae(*solve(problems, tmp_path / "r.jsonl", server, "--api-key-env", KEY))

    assert (result.returncode, misused.returncode) == (2, 2)
    assert b"refuses the key: HTTP 401" in result.stderr
    assert result.stderr.count(b"\n") == misused.stderr.count(b"\n") == 1
    for text in (result.stderr, misused.stderr, *(data for _, data in everything_below(tmp_path))):
        assert KEY.encode() not in text


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_command_stopped_in_the_middle_goes_on_where_it_was(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    problems = write_sums(tmp_path / "problems.jsonl", 50)
    output = tmp_path / "r.jsonl"
    partial = tmp_path / "r.jsonl.partial"
    with running(latency=0.02, rate_limited=0.2, retry_after=["0.01"]) as server:
        arguments = solve(problems, output, server, "--max-concurrent", 16)
        process = start(arguments)
        wait_for_rows(partial, 60, process)
        os.kill(process.pid, number)
        _, err = process.communicate()
        kept = partial.read_bytes()
        again = mae(*arguments, "--json")
        answered = server.stats()["counts"]["ok"]

    assert process.returncode == code
    assert b"Traceback" not in err
    assert again.returncode == 0, again.stderr
    assert_whole(read_json_lines(output), problems)
    finished = set(output.read_bytes().splitlines())
    whole = kept[: kept.rfind(b"\n")].splitlines()
    assert len(whole) >= 60
    assert all(line in finished for line in whole), "a finished row was generated again"
    # At most those in flight were answered twice.
    assert 400 <= answered <= 400 + 16


def test_a_finished_output_needs_no_server(tmp_path: Path) -> None:
    problems = write_sums(tmp_path / "problems.jsonl", 3)
    with running() as server:
        first = mae(*solve(problems, tmp_path / "r.jsonl", server))
        before = (tmp_path / "r.jsonl").read_bytes()
    again = mae(*solve(problems, tmp_path / "r.jsonl", server))

    assert (first.returncode, again.returncode) == (0, 0), again.stderr
    assert (tmp_path / "r.jsonl").read_bytes() == before
    assert b"skipped 24 (done before)" in again.stderr


def test_another_replica_goes_on_with_the_same_file_and_another_model_does_not(tmp_path: Path) -> None:
    problems = write_sums(tmp_path / "problems.jsonl", 4)
    with running() as one, running(models=["test-model", "other"]) as two:
        first = mae(*solve(problems, tmp_path / "r.jsonl", one, "--limit", 2))
        second = mae(*solve(problems, tmp_path / "r.jsonl", two, "--max-concurrent", 3, "--timeout-seconds", 9))
        third = mae(*solve(problems, tmp_path / "r.jsonl", two, "-m", "other"))

    assert (first.returncode, second.returncode, third.returncode) == (0, 0, 2), second.stderr + third.stderr
    assert b"policy.model: 'test-model' there, 'other' now" in third.stderr


def test_an_unreachable_server_is_exit_2_and_one_that_dies_is_exit_75(tmp_path: Path) -> None:
    problems = write_sums(tmp_path / "problems.jsonl", 20)
    with running(die_after=30, latency=0.002) as server:
        lost = mae(*solve(problems, tmp_path / "r.jsonl", server, "--engine", "openai:retry_seconds=0.5"))
        never = mae(*solve(problems, tmp_path / "n.jsonl", server))
        dry = mae(*solve(problems, tmp_path / "n.jsonl", server, "--dry-run"))

    assert (lost.returncode, never.returncode, dry.returncode) == (75, 2, 2), lost.stderr
    assert 1 <= len(read_json_lines(tmp_path / "r.jsonl.partial")) <= 30
    assert b"no server can be reached" in never.stderr


def test_eval_compares_a_served_adapter_with_its_base(tmp_path: Path) -> None:
    problems = write_sums(tmp_path / "problems.jsonl", 5)
    with running(models=["test-model", "tuned"]) as server:
        result = mae(
            *("eval", problems, "-o", tmp_path / "e.jsonl", "--engine", "openai", "--base-url", server.url),
            *("-m", "test-model", "--adapter", "tuned"),
        )

    assert result.returncode == 0, result.stderr
    rows = read_json_lines(tmp_path / "e.jsonl")
    assert [row["completion"].split(",")[0] for row in rows] == ["By test-model"] * 5 + ["By tuned"] * 5
    assert len({row["policy"]["adapter"] for row in rows}) == 2


def test_a_model_on_a_server_cannot_be_trained_here(tmp_path: Path) -> None:
    problems = write_sums(tmp_path / "problems.jsonl", 2)
    with running() as server:
        mae(*solve(problems, tmp_path / "r.jsonl", server))
        result = mae("finetune", tmp_path / "r.jsonl", "-o", tmp_path / "a", "--engine", "openai")

    assert result.returncode == 2
    assert b'engine "openai" has no weights to train' in result.stderr
    assert b"keep engine: hf" in result.stderr


@pytest.mark.parametrize("read", ["sampled", "probability"])
def test_a_judge_on_a_server_grades_what_another_engine_wrote_or_says_why_not(read: str, tmp_path: Path) -> None:
    problems = write_sums(tmp_path / "problems.jsonl", 6)
    assert mae("solve", problems, "-o", tmp_path / "r.jsonl", "--engine", "scripted").returncode == 0
    with running() as server:
        result = mae(
            *("judge", tmp_path / "r.jsonl", "-o", tmp_path / "j.jsonl", "--engine", "scripted"),
            *("--set", f"roles.judge={{engine: openai, model: test-model, base_url: '{server.url}'}}"),
            *("--set", f"judge.judge={{name: rubric, read: {read}}}", "--set", "judge.max_unparsed=1"),
        )

    if read == "probability":  # this server tells how likely single tokens are, and a verdict is several
        assert result.returncode == 2
        assert b"use read: sampled" in result.stderr
        return
    assert result.returncode == 0, result.stderr
    grades = [row for row in read_json_lines(tmp_path / "j.jsonl") if row["role"] == "judge"]
    assert grades
    assert {row["policy"]["model"] for row in grades} == {"test-model"}
    # The server lists no token that reads like a verdict: unknown, not zero.
    assert {verdict["score"] for row in grades for verdict in row["verdicts"]} <= {None}
