"""`mae run` as cron starts it: refused, stopped, killed, hung, started again; real processes, the scripted engine."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mae_cli.errors import CollapseError
from mae_cli.records.lock_owner import Owner, this_owner
from mae_cli.runs import loop
from tests.stories.kill_driver import folder_content
from tests.support import (
    PATIENT_SECONDS,
    ROOT,
    child_environment,
    command,
    here,
    mae,
    paused,
    start,
    wait_until,
    write_sums,
)

TIMES = ("events.jsonl", "summary.json", "run.state.json")
HANG = """
import json, os, time, ctypes
from pathlib import Path
told, write = json.loads(os.environ["MAE_TEST_HANG"]), os.write

def hanging_write(descriptor, data):
    path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
    if path.name.endswith(told["suffix"]):
        Path(told["folder"], "hangs").touch()
        if told["native"]:
            libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(128)
            libc.pthread_mutex_lock(mutex)
            libc.pthread_mutex_lock(mutex)
        while True:
            time.sleep(1)
    return write(descriptor, data)

os.write = hanging_write
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "r.yaml"
    path.write_text(
        f"""
engine: "scripted:accuracy=0.7"
batch_size: 2
rounds: 2
seeds: {write_sums(tmp_path / "seeds.jsonl", 6)}
pipeline: [propose, solve, judge, filter, eval]
propose: {{num_problems: 6}}
solve: {{num_problems: 4, rollouts_per_problem: 2}}
judge: {{verifier: arithmetic, max_unparsed: 1.0, votes: 1}}
filter: {{decontaminate: false}}
eval: {{benchmarks: [{write_sums(tmp_path / "held_out.jsonl", 8)}]}}
"""
    )
    return path


@pytest.fixture
def whole(tmp_path: Path, recipe: Path) -> bytes:
    """The files of the run that nobody disturbed."""
    assert here("run", recipe, "--run-dir", tmp_path / "whole", "--quiet") == 0
    return content(tmp_path / "whole")


def content(run: Path) -> bytes:
    names = (
        "run.lock",
        "run.owner.json",
        "manifest.json",
        "recipe.resolved.yaml",
        "report.html",
    )  # hold other settings
    return folder_content(run, without=(*TIMES, *names))


def outcome(stdout: bytes) -> dict[str, Any]:
    lines = stdout.splitlines()
    assert len(lines) == 1, stdout
    return json.loads(lines[0])  # type: ignore[no-any-return]


def hanging(folder: Path, *, native: bool = False, suffix: str = ".partial") -> dict[str, str]:
    """The environment of a command that hangs at its first append, in Python or in a call that ends at no signal."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(HANG)
    told = {"folder": str(folder), "native": native, "suffix": suffix}
    return {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "MAE_TEST_HANG": json.dumps(told)}


@pytest.fixture
def begun(tmp_path: Path, recipe: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A run that waits in the middle of round 1's solve."""
    process = start(
        ["run", recipe, "--run-dir", tmp_path / "run", "--json"],
        **paused(tmp_path / "site", 2, "rollouts.jsonl.partial"),
    )
    wait_until(lambda: (tmp_path / "site" / "2_rollouts.jsonl.partial.paused").exists(), process)
    yield process
    if process.poll() is None:
        process.kill()
        process.communicate()


def test_a_quiet_success_prints_nothing_and_json_one_line_without_control_characters(
    tmp_path: Path, recipe: Path
) -> None:
    quiet = mae("run", recipe, "--run-dir", tmp_path / "a", "--quiet")
    told = mae("run", recipe, "--run-dir", tmp_path / "b", "--json")

    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, b"", b"")
    assert told.returncode == 0
    assert not {b"\x1b", b"\r"} & {bytes([byte]) for byte in told.stdout + told.stderr}
    found = outcome(told.stdout)
    assert (found["state"], found["exit_code"], found["reason"]) == ("finished", 0, None)
    assert (found["rounds_done"], found["rounds_wanted"], found["next_step"]) == (2, 2, None)
    assert found["tokens"] == found["tokens_of_run"] > 0


def test_a_run_in_pieces_by_its_token_budget_is_the_run_in_one(
    tmp_path: Path, recipe: Path, whole: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    run, budget, codes, nexts = tmp_path / "run", 0, [], []

    while not codes or codes[-1] == 6:
        budget += 60
        codes.append(here("run", recipe, "--run-dir", run, "--json", "--quiet", "--max-tokens", budget))
        told = outcome(capsys.readouterr().out.encode())
        nexts.append(told["next_step"])
        if codes[-1] == 6:
            assert (told["state"], told["exit_code"]) == ("budget", 6)
            assert budget <= told["tokens_of_run"] < budget + 60  # at most one segment over

    assert codes == [6] * (len(codes) - 1) + [0]
    assert len(codes) > 6
    assert {name for name in nexts if name} >= {"round-001 solve", "round-001 judge", "round-002 solve"}
    assert content(run) == whole
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert sum(event["event"] == "budget" for event in events) == len(codes) - 1


def test_a_used_up_budget_stops_no_run_that_has_nothing_left_to_do(tmp_path: Path, recipe: Path, whole: bytes) -> None:
    run = tmp_path / "whole"

    assert here("run", recipe, "--run-dir", run, "--quiet", "--max-tokens", 1, "--max-disk", "1kB") == 0
    assert here("run", recipe, "--run-dir", run, "--quiet", "--max-rounds", 1) == 0
    assert here("run", recipe, "--run-dir", run, "--quiet", "--max-rounds", 2, "--rounds", 3) == 6
    assert content(run) == whole


@pytest.mark.parametrize(
    ("options", "said", "following"),
    [
        (["--max-rounds", 1], "--max-rounds: 1 of 1 rounds", "round-002 propose"),
        (["--max-hours", 1e-9], "--max-hours", "round-000 eval"),
        (["--max-disk", "10kB"], "--max-disk", None),
    ],
)
def test_other_budgets_stop_on_6_and_go_on_to_the_same_files(
    tmp_path: Path, recipe: Path, whole: bytes, capsys: pytest.CaptureFixture[str], options: list[object], said: str,
    following: str | None,
) -> None:  # fmt: skip
    run = tmp_path / "run"

    assert here("run", recipe, "--run-dir", run, "--json", *options) == 6

    printed = capsys.readouterr()
    told = outcome(printed.out.encode())
    assert said in told["reason"]
    assert f"mae: {told['reason']}" in printed.err
    assert following in (None, told["next_step"])
    assert here("run", recipe, "--run-dir", run, "--quiet") == 0
    assert content(run) == whole


def test_budgets_that_are_none_are_refused_before_anything_is_written(tmp_path: Path, recipe: Path) -> None:
    run = tmp_path / "run"

    for options in (["--max-disk", "lots"], ["--until", "25:00"], ["--until", "lunch"], ["--min-free-disk", "x"]):
        assert here("run", recipe, "--run-dir", run, *options) == 2
    assert not run.exists()


def test_a_second_start_is_told_who_works_and_leaves_no_trace(tmp_path: Path, begun: subprocess.Popen[bytes]) -> None:
    run, before = tmp_path / "run", content(tmp_path / "run")

    second = mae("run", tmp_path / "r.yaml", "--run-dir", run, "--json", "--quiet")

    assert second.returncode == 5
    assert f"process {begun.pid} on ".encode() in second.stderr
    assert second.stderr.count(b"\n") == 1
    assert b" run " in second.stderr
    told = outcome(second.stdout)
    assert (told["state"], told["exit_code"], told["next_step"]) == ("locked", 5, "round-001 solve")
    assert content(run) == before
    assert json.loads((run / "run.state.json").read_bytes())["state"] == "running"


@pytest.mark.parametrize(
    ("number", "code", "state"), [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")]
)
def test_signals_end_a_run_in_order_and_it_goes_on(
    tmp_path: Path, recipe: Path, whole: bytes, begun: subprocess.Popen[bytes], number: int, code: int, state: str
) -> None:
    run = tmp_path / "run"

    begun.send_signal(number)
    out, err = begun.communicate(timeout=PATIENT_SECONDS)

    assert begun.returncode == code
    assert err.splitlines()[-1].endswith(b"the same command goes on from here")
    told = outcome(out)
    assert (told["state"], told["exit_code"], told["next_step"]) == (state, code, "round-001 solve")
    assert not (run / "run.owner.json").exists()
    assert here("run", recipe, "--run-dir", run, "--quiet") == 0
    assert content(run) == whole


def test_what_a_killed_run_left_is_taken_over_with_one_notice(
    tmp_path: Path, recipe: Path, whole: bytes, begun: subprocess.Popen[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    begun.kill()
    begun.communicate()

    assert here("run", recipe, "--run-dir", run) == 0

    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if "taken over" in line] == [said[0]]
    assert said[0].startswith(f"{run}: taken over from process {begun.pid} on ")
    assert content(run) == whole


def test_a_lock_of_another_machine_is_told_and_never_taken_in_silence(
    tmp_path: Path, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert here("run", recipe, "--run-dir", run, "--until", "propose", "--quiet") == 0
    far = Owner(
        pid=7, host="node-17", since=time.time() - 7200, boot="other", machine="other", command="mae run r.yaml"
    )
    (run / "run.owner.json").write_bytes(msgspec.json.encode(far))

    assert here("run", recipe, "--run-dir", run) == 5
    said = capsys.readouterr().err
    assert "process 7 on node-17, begun 2 h 00 min ago: mae run r.yaml" in said
    assert "last sign of life" in said
    assert "--take-over" in said
    assert (run / "run.owner.json").exists()

    assert here("run", recipe, "--run-dir", run, "--take-over") == 0
    assert "taken over from process 7 on node-17" in capsys.readouterr().err
    assert not (run / "run.owner.json").exists()


def test_an_owner_under_the_same_kernel_whose_lock_is_free_is_over(
    tmp_path: Path, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A container that was started anew has another name and counts its processes from 1 again."""
    run = tmp_path / "run"
    run.mkdir()
    if this_owner().boot is None:
        pytest.skip("this system does not name its starts")
    pod = msgspec.structs.replace(this_owner(), pid=1, host="pod-1", namespace="pid:[1]", machine=None)
    (run / "run.owner.json").write_bytes(msgspec.json.encode(pod))

    assert here("run", recipe, "--run-dir", run, "--until", "propose") == 0
    assert "taken over from process 1 on pod-1" in capsys.readouterr().err


def test_a_living_owner_is_believed_where_the_file_system_knows_no_locks(tmp_path: Path, recipe: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        from mae_cli.records.lock_owner import start_of

        owner = msgspec.structs.replace(this_owner(), pid=other.pid, started=start_of(other.pid))
        (run / "run.owner.json").write_bytes(msgspec.json.encode(owner))

        assert here("run", recipe, "--run-dir", run) == 5
        other.communicate(b"\n")


@pytest.mark.parametrize(
    ("options", "code", "state"),
    [
        (["--min-free-disk", "900TB"], 75, "temporary"),
        (["--set", "filter.filters=[{name: length, low: 100000}]"], 3, "gate"),
        (["--set", "seeds=missing.jsonl"], 2, "refused"),
    ],
)
def test_every_ending_has_its_code_and_its_line(
    tmp_path: Path, recipe: Path, capsys: pytest.CaptureFixture[str], options: list[object], code: int, state: str
) -> None:
    assert here("run", recipe, "--run-dir", tmp_path / "run", "--json", "--quiet", *options) == code

    printed = capsys.readouterr()
    told = outcome(printed.out.encode())
    assert (told["state"], told["exit_code"]) == (state, code)
    assert printed.err == f"mae: {told['reason']}\n"


@pytest.mark.parametrize(
    ("error", "code", "state"),
    [
        (CollapseError("worse than base; stopped"), 4, "collapse"),
        (RuntimeError("a fault of ours"), 1, "crashed"),
        (OSError(errno.ENOSPC, "No space left on device"), 75, "temporary"),
        (PermissionError(errno.EACCES, "Permission denied"), 2, "refused"),
    ],
)
def test_an_error_of_any_kind_is_told_in_the_same_line(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    error: Exception, code: int, state: str,
) -> None:  # fmt: skip
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(loop, "file_seeds", fail)
    if code == 1:
        with pytest.raises(RuntimeError, match="a fault of ours"):
            here("run", recipe, "--run-dir", tmp_path / "run", "--json", "--quiet")
    else:
        assert here("run", recipe, "--run-dir", tmp_path / "run", "--json", "--quiet") == code

    told = outcome(capsys.readouterr().out.encode())
    assert (told["state"], told["exit_code"]) == (state, code)
    assert json.loads((tmp_path / "run" / "run.state.json").read_bytes())["state"] == state


def test_a_reader_that_went_away_ends_it_on_141(tmp_path: Path, recipe: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)

    process = subprocess.run(
        command(["run", recipe, "--run-dir", tmp_path / "run", "--quiet", "--json"]),
        stdout=writer, stderr=subprocess.PIPE, env=child_environment(), check=False,
    )  # fmt: skip
    os.close(writer)

    assert (process.returncode, process.stderr) == (141, b"")


def test_a_run_that_hangs_is_started_anew_once_and_ends_as_if_it_had_not(
    tmp_path: Path, recipe: Path, whole: bytes
) -> None:
    run = tmp_path / "run"

    result = mae(
        "run", recipe, "--run-dir", run, "--json", "--stall-minutes", 0.1,
        **paused(tmp_path / "site", 2, "2_rollouts.jsonl.partial"),
    )  # fmt: skip

    assert result.returncode == 0, result.stderr
    assert result.stderr.count(b"starting anew") >= 1
    assert outcome(result.stdout)["state"] == "finished"
    assert json.loads((run / "run.state.json").read_bytes())["restarts"] >= 1
    assert b"stalled" in (run / "events.jsonl").read_bytes()
    assert content(run) == whole


@pytest.mark.parametrize("native", [False, True])
def test_a_run_that_hangs_again_ends_on_75(tmp_path: Path, recipe: Path, native: bool) -> None:
    run = tmp_path / "run"

    result = mae(
        "run", recipe, "--run-dir", run, "--json", "--quiet", "--stall-minutes", 0.05,
        **hanging(tmp_path / "site", native=native),
    )  # fmt: skip

    assert result.returncode == 75, result.stderr
    told = outcome(result.stdout)
    assert (told["state"], told["next_step"]) == ("temporary", "round-000 eval")
    assert "also after a new start" in told["reason"]
    assert json.loads((run / "run.state.json").read_bytes())["exit_code"] == 75


def test_sigterm_ends_a_call_that_hangs_in_a_library(tmp_path: Path, recipe: Path) -> None:
    process = start(["run", recipe, "--run-dir", tmp_path / "run"], **hanging(tmp_path / "site", native=True))
    wait_until(lambda: (tmp_path / "site" / "hangs").exists(), process)

    process.terminate()
    _, err = process.communicate(timeout=PATIENT_SECONDS)

    assert process.returncode == 143
    assert err.splitlines()[-1].startswith(b"mae: terminated after 8 s in a call that did not end")


@pytest.mark.slow
def test_being_stopped_and_continued_is_no_stall(tmp_path: Path, recipe: Path, whole: bytes) -> None:
    run = tmp_path / "run"
    process = start(
        ["run", recipe, "--run-dir", run, "--stall-minutes", 0.2],
        **paused(tmp_path / "site", 2, "2_rollouts.jsonl.partial"),
    )
    wait_until(lambda: (tmp_path / "site" / "2_rollouts.jsonl.partial.paused").exists(), process)

    process.send_signal(signal.SIGSTOP)
    time.sleep(13)
    (tmp_path / "site" / "go").touch()
    process.send_signal(signal.SIGCONT)
    _, err = process.communicate(timeout=PATIENT_SECONDS)

    assert process.returncode == 0
    assert b"starting anew" not in err
    assert content(run) == whole
