"""What tests of files and commands share: a finished row, JSONL in and out, the command here or in a process.

No test asserts a duration (`make bench` does). What a test may do with a clock: wait for a condition (`wait_until`),
hold a process at an append (`paused`), and give limits: `PATIENT_SECONDS` to what must never run into one, a short one
times `slowness()` where one limit holds for right and endless work alike.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mae_cli.cli.app import run_app
from mae_cli.records import (
    Message,
    Policy,
    Problem,
    Purpose,
    Role,
    Row,
    Sampling,
    Usage,
    Verdict,
    VerdictStatus,
    new_row,
    problem_id,
)
from mae_cli.records.resumable_file import encode_rows

ROOT = Path(__file__).parent.parent
POLICY = Policy(model="test")
SAMPLING = Sampling(max_new_tokens=16)
PATIENT_SECONDS = 120.0
"""A limit that right work never runs into, on however busy a machine."""
QUIET_SECONDS = 0.006
"""What `_work` takes on a quiet machine of the kind these tests were written on."""
PAUSE = """
import json, os, time
from pathlib import Path
told, counts, write = json.loads(os.environ["MAE_TEST_PAUSE"]), {}, os.write

def paused_write(descriptor, data):
    path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
    if path.name.endswith(told["suffix"]):
        counts[path] = counts.get(path, 0) + 1
        mark = Path(told["folder"], f"{path.name}.paused")
        if counts[path] == told["appends"] + 1 and not mark.exists():
            mark.touch()
            while not Path(told["folder"], "go").exists():
                time.sleep(0.01)
    return write(descriptor, data)

os.write = paused_write
"""
SUMS = [(3, 4), (10, 5), (7, 8), (12, 9), (20, 30), (41, 1), (6, 6), (15, 17), (8, 1), (90, 9), (33, 22), (5, 14)]


def a_problem(question: str = "What is 3 + 4?", answer: str | None = "7", **meta: Any) -> Problem:
    return Problem(id=problem_id(question), question=question, reference_answer=answer, meta=meta)


def a_row(
    role: Role = "solver",
    purpose: Purpose = "train",
    *,
    problem: Problem | None = None,
    index: int = 0,
    prompt: str = "p",
    **changes: Any,
) -> Row:
    """A row as an engine has just answered it, with any field changed."""
    stage = {"proposer": "propose", "solver": "solve", "judge": "judge"}[role]
    row = new_row(
        stage,
        role=role,
        purpose=purpose,
        round_number=1,
        run_seed=0,
        messages=[Message("user", prompt)],
        sampling=SAMPLING,
        policy=POLICY,
        problem=problem,
        sample_index=index,
    )
    told = {"raw": "text", "completion": "text", "finish_reason": "stop", "usage": Usage(3, 1), **changes}
    for name, value in told.items():
        setattr(row, name, value)
    return row


def write_rows(path: Path, rows: Iterable[Row]) -> Path:
    path.write_bytes(encode_rows(rows))
    return path


def write_json_lines(path: Path, values: Iterable[Any]) -> Path:
    path.write_bytes(b"".join(msgspec.json.encode(value) + b"\n" for value in values))
    return path


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]


def write_sums(path: Path, count: int = 6) -> Path:
    """A problem file of small sums, which the scripted engine can solve."""
    return write_json_lines(
        path, ({"question": f"What is {a} + {b}?", "answer": str(a + b)} for a, b in (_sum(i) for i in range(count)))
    )


def _sum(index: int) -> tuple[int, int]:
    return SUMS[index] if index < len(SUMS) else (index, 2 * index + 1)


def here(*arguments: object) -> int:
    """The command in this process: its exit code."""
    return run_app([str(argument) for argument in arguments])


def child_environment(**more: str) -> dict[str, str]:
    # Bytecode is written, as it is for a user: compiling the modules each time doubles what a start costs.
    ours = ("PYTHONUNBUFFERED", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
    kept = {key: value for key, value in os.environ.items() if key not in ours}
    # This checkout's package, wherever the command runs and whichever copy is installed.
    return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **more}


def command(arguments: Sequence[object]) -> list[str]:
    return [sys.executable, "-m", "mae_cli.cli", *map(str, arguments)]


def paused(folder: Path, appends: int, suffix: str = ".partial") -> dict[str, str]:
    """The environment of a command that stops before append `appends` + 1 to a file with this end, once per file.

    `folder / "<name of the file>.paused"` stands from then on; the command goes on when `folder / "go"` does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(PAUSE)
    told = {"folder": str(folder), "appends": appends, "suffix": suffix}
    return {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "MAE_TEST_PAUSE": json.dumps(told)}


def wait_until(holds: Callable[[], object], process: subprocess.Popen[bytes] | None = None) -> None:
    """Until it holds; fails where it never does, or where the process that should bring it about has ended."""
    until = time.monotonic() + PATIENT_SECONDS
    while not holds():
        if process is not None and process.poll() is not None and not holds():
            raise AssertionError(f"ended on {process.returncode}: {process.stderr.read() if process.stderr else b''!r}")
        assert time.monotonic() < until, "it never came to that"
        time.sleep(0.01)


@functools.cache
def slowness() -> float:
    """How many times longer work takes now than on a quiet machine, at least 1; measured once per test process."""
    longest = 0.0
    for _ in range(8):
        start = time.monotonic()
        _work()
        longest = max(longest, time.monotonic() - start)
    return min(max(1.0, longest / QUIET_SECONDS), 20.0)


def _work() -> int:
    total = 0
    for number in range(100_000):
        total += number * number % 7
    return total


def benchmark_items(name: str) -> list[dict[str, Any]]:
    """A public benchmark's items, for tests that stand outside CI (`make long`)."""
    folder = os.environ.get("MAE_BENCHMARKS")
    if not folder:
        pytest.fail(f"set MAE_BENCHMARKS to the folder with {name}.jsonl")
    return [msgspec.json.decode(line) for line in (Path(folder) / f"{name}.jsonl").read_bytes().splitlines()]


def start(arguments: Sequence[object], *, cwd: Path | None = None, **environment: str) -> subprocess.Popen[bytes]:
    """The real command in the background, its output in pipes."""
    return subprocess.Popen(
        command(arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=child_environment(**environment),
        cwd=cwd,
        # A job started in the background inherits an ignored SIGINT, which Python then leaves ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def mae(
    *arguments: object, cwd: Path | None = None, stdin: bytes = b"", **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """The command as a process of its own."""
    return subprocess.run(
        command(arguments),
        cwd=cwd,
        input=stdin,
        capture_output=True,
        env=child_environment(**environment),
        timeout=5 * PATIENT_SECONDS,
        check=False,
    )


def eval_rows(outcomes: Sequence[float | Sequence[float | None] | None], **meta: Any) -> list[Row]:
    """Evaluated rows: per item the score of its one sample, or the scores of several; null is a failed checker."""
    rows = []
    for number, outcome in enumerate(outcomes):
        question = f"item {number}"
        problem = Problem(id=problem_id(question), question=question, reference_answer="1", meta=dict(meta))
        for index, score in enumerate([outcome] if outcome is None or isinstance(outcome, float) else outcome):
            row = new_row(
                "eval",
                role="solver",
                purpose="eval",
                round_number=0,
                run_seed=0,
                messages=[Message("user", question)],
                sampling=SAMPLING,
                policy=POLICY,
                problem=problem,
                sample_index=index,
            )
            status: VerdictStatus = "ok" if score is not None else "error"
            row.answer, row.completion = ("1" if score else "2"), "text"
            row.verdicts = [
                Verdict(f"numeric/{reading}", "verifier", "answer", score=score, status=status, reading=reading)
                for reading in ("strict", "flexible")
            ]
            rows.append(row)
    return rows
