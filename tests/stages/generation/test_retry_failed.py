"""`--retry-failed` against a real server on loopback: only failed rows are asked again, the others keep their bytes."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support import (
    a_problem,
    a_row,
    mae,
    paused,
    read_json_lines,
    start,
    wait_until,
    write_json_lines,
    write_rows,
)

ANSWER = "<question>What is 2 + 2?</question> <score>8</score> The answer is \\boxed{4}."
QUESTIONS = [f"What is 2 + 2, item {number}?" for number in range(8)]


class FaultyServer(ThreadingHTTPServer):
    """A chat server that refuses requests with a word in them, as often as told."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.refused: dict[str, int] = {}
        """Word in a request: the status it is answered with; empty: nothing is refused."""
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: FaultyServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._send(200, {"object": "list", "data": [{"id": "m", "object": "model"}]})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.asked.append(body)
        status = next((status for word, status in self.server.refused.items() if word in body), 200)
        if status != 200:
            self._send(status, {"error": {"message": "no", "type": "test", "code": "test"}})
            return
        choice = {"index": 0, "message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 3, "completion_tokens": 5}
        self._send(200, {"id": "x", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage})

    def _send(self, status: int, tree: dict[str, Any]) -> None:
        data = json.dumps(tree).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    pytest.importorskip("httpx2")
    made = FaultyServer()
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def flags(server: FaultyServer) -> list[object]:
    return [
        "-m",
        "m",
        "--engine",
        "openai:retry_seconds=0.5",
        "--base-url",
        server.url,
        "--max-concurrent",
        2,
        "--json",
    ]


def told(done: subprocess.CompletedProcess[bytes]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr.decode()
    summary: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return summary


def failed_in(path: Path) -> set[str]:
    return {row["id"] for row in read_json_lines(path) if row["status"] == "error"}


def problems(tmp_path: Path) -> Path:
    return write_json_lines(tmp_path / "p.jsonl", [{"question": question, "answer": "4"} for question in QUESTIONS])


def rollouts(tmp_path: Path) -> Path:
    rows = [a_row(problem=a_problem(question, "4"), completion="4", answer="4") for question in QUESTIONS]
    return write_rows(tmp_path / "r.jsonl", rows)


def commands(name: str, tmp_path: Path) -> list[object]:
    out = tmp_path / "out.jsonl"
    return {
        "propose": ["propose", problems(tmp_path), "-o", out, "--num-problems", 30, "--proposer", "reference"],
        "solve": ["solve", problems(tmp_path), "-o", out, "--rollouts-per-problem", 1],
        "judge": ["judge", rollouts(tmp_path), "-o", out, "--max-unparsed", 1.0],
        "eval": ["eval", problems(tmp_path), "-o", out],
    }[name]


@pytest.mark.parametrize(
    ("name", "status"),
    [("propose", 400), ("solve", 400), ("solve", 422), ("solve", 500), ("judge", 400), ("eval", 400)],
)
def test_only_failed_rows_are_asked_again_and_the_others_keep_their_bytes(
    name: str, status: int, tmp_path: Path, server: FaultyServer
) -> None:
    command, out = commands(name, tmp_path), tmp_path / "out.jsonl"
    server.refused = {"item 1?": status, "item 4?": status, "item 6?": status}
    first = mae(*command, *flags(server))
    assert first.returncode == 0, first.stderr.decode()
    failed, before = failed_in(out), out.read_bytes().splitlines()
    assert failed
    server.refused, server.asked = {"item 4?": status}, []

    summary = told(mae(*command, *flags(server), "--retry-failed"))

    still = failed_in(out)
    assert still < failed
    assert (summary["retried"], summary["mended"], summary["still_failing"]) == (
        len(failed),
        len(failed) - len(still),
        len(still),
    )
    assert all(any(f"item {number}?" in body for number in (1, 4, 6)) for body in server.asked if "item" in body)
    after = out.read_bytes().splitlines()
    rows = read_json_lines(out)
    # A judge's mended verdict changes the row it is about, as it should.
    touched = failed | {parent for row in rows if row["id"] in failed for parent in row["parents"]}
    assert [row["id"] for row in rows] == [json.loads(line)["id"] for line in before]
    assert [
        old for old, new in zip(before, after, strict=True) if json.loads(old)["id"] not in touched and old != new
    ] == []
    # The rest is mended in the next try, and then there is nothing left to do.
    server.refused = {}
    assert told(mae(*command, *flags(server), "--retry-failed"))["still_failing"] == 0
    whole, server.asked = out.read_bytes(), []
    assert told(mae(*command, *flags(server), "--retry-failed"))["retried"] == 0
    assert (out.read_bytes(), [body for body in server.asked if "item" in body]) == (whole, [])


def test_without_the_flag_nothing_is_asked_again(tmp_path: Path, server: FaultyServer) -> None:
    command, out = commands("solve", tmp_path), tmp_path / "out.jsonl"
    server.refused = {"item 1?": 400}
    told(mae(*command, *flags(server)))
    before, server.refused, server.asked = out.read_bytes(), {}, []

    summary = told(mae(*command, *flags(server)))

    assert (out.read_bytes(), server.asked, summary["retried"]) == (before, [], None)


def test_rows_that_fail_again_leave_a_finished_file(tmp_path: Path, server: FaultyServer) -> None:
    command, out = commands("solve", tmp_path), tmp_path / "out.jsonl"
    server.refused = {"item 1?": 400}
    told(mae(*command, *flags(server)))
    before = out.read_bytes()

    done = mae(*command, *flags(server)[:-1], "--retry-failed")

    assert done.returncode == 0
    assert b"retried 1: 0 mended, 1 still failing" in done.stderr
    assert out.read_bytes() == before
    assert json.loads((tmp_path / "out.jsonl.meta.json").read_bytes())["complete"] is True


@pytest.mark.parametrize("goes_on_with_flag", [True, False], ids=["with the flag", "without"])
def test_a_retry_that_is_killed_midway_goes_on_and_the_result_is_whole(
    goes_on_with_flag: bool, tmp_path: Path, server: FaultyServer
) -> None:
    command, out = commands("solve", tmp_path), tmp_path / "out.jsonl"
    server.refused = {"item 1?": 400, "item 4?": 400, "item 6?": 400}
    told(mae(*command, *flags(server)))
    before = {row["id"]: row for row in read_json_lines(out)}
    failed, server.refused = failed_in(out), {}
    held = tmp_path / "held"
    process = start([*command, *flags(server), "--retry-failed"], **paused(held, 1))
    wait_until((held / "out.jsonl.partial.paused").exists, process)
    process.kill()
    process.wait()
    process.communicate()
    partial = read_json_lines(tmp_path / "out.jsonl.partial")
    assert len(partial) == 1

    summary = told(mae(*command, *flags(server), *(["--retry-failed"] if goes_on_with_flag else [])))

    rows = read_json_lines(out)
    assert [row["id"] for row in rows] == list(before)
    assert all(row == before[row["id"]] for row in rows if row["id"] not in failed)
    assert next(row for row in rows if row["id"] == partial[0]["id"]) == partial[0]
    assert len(failed_in(out)) == (0 if goes_on_with_flag else len(failed) - 1)
    assert summary["retried"] == (len(failed) - 1 if goes_on_with_flag else None)
    assert not os.path.exists(tmp_path / "out.jsonl.partial")


def test_a_dead_server_fails_the_command_and_loses_nothing(tmp_path: Path, server: FaultyServer) -> None:
    command, out = commands("solve", tmp_path), tmp_path / "out.jsonl"
    server.refused = {"item 1?": 400}
    told(mae(*command, *flags(server)))
    before = {row["id"]: row for row in read_json_lines(out)}
    dead = [*flags(server)]
    dead[dead.index(server.url)] = "http://127.0.0.1:9/v1"

    assert mae(*command, *dead, "--retry-failed").returncode in (2, 75)

    summary = told(mae(*command, *flags(server)))
    assert summary["written"] == len(before)
    assert {row["id"]: row for row in read_json_lines(out)} == before
