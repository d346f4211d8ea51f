from __future__ import annotations

import errno
import gzip
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from mae_cli.errors import ConfigError, LockedError
from mae_cli.records import Row
from mae_cli.records.atomic import write_atomically
from mae_cli.records.lock import Lock
from mae_cli.records.resumable_file import Output
from mae_cli.records.resumable_folder import FolderOutput
from tests.support import (
    a_row,
    child_environment,
    command,
    here,
    mae,
    paused,
    read_json_lines,
    wait_until,
    write_json_lines,
    write_sums,
)

SOLVE = ("--engine", "scripted", "--rollouts-per-problem", 2, "--batch-size", 2)


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    return write_sums(tmp_path / "problems.jsonl")


@pytest.fixture
def unbroken(problems: Path, tmp_path: Path) -> bytes:
    assert here("solve", problems, "-o", tmp_path / "unbroken.jsonl", *SOLVE) == 0
    return (tmp_path / "unbroken.jsonl").read_bytes()


def interrupt(whole: Path, broken: Path, *, num_lines: int, torn: int = 0) -> None:
    """What a killed command leaves: a meta that says incomplete, and a partial file cut off somewhere."""
    meta = msgspec.json.decode((whole.parent / f"{whole.name}.meta.json").read_bytes())
    (broken.parent / f"{broken.name}.meta.json").write_bytes(msgspec.json.encode({**meta, "complete": False}))
    lines = whole.read_bytes().splitlines(keepends=True)
    rest = lines[num_lines][:torn] if torn else b""
    (broken.parent / f"{broken.name}.partial").write_bytes(b"".join(lines[:num_lines]) + rest)


def summary_of(capsys: pytest.CaptureFixture[str]) -> dict[str, int]:
    summary: dict[str, int] = msgspec.json.decode(capsys.readouterr().out.splitlines()[-1])
    return summary


def test_the_same_command_twice_does_nothing_the_second_time(
    problems: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    here("solve", problems, "-o", out, *SOLVE)
    before = out.stat().st_mtime_ns

    assert here("solve", problems, "-o", out, *SOLVE, "--json") == 0

    assert out.stat().st_mtime_ns == before
    assert (summary_of(capsys)["skipped"], sorted(path.name for path in tmp_path.glob("out.*"))) == (
        12,
        ["out.jsonl", "out.jsonl.lock", "out.jsonl.meta.json"],
    )


@pytest.mark.parametrize(("num_lines", "torn", "reused"), [(0, 0, 0), (4, 0, 4), (4, 100, 4), (5, 0, 4), (12, 0, 12)])
def test_resume_gives_the_same_bytes_and_redoes_only_broken_segments(
    unbroken: bytes,
    problems: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    num_lines: int,
    torn: int,
    reused: int,
) -> None:
    out = tmp_path / "out.jsonl"
    interrupt(tmp_path / "unbroken.jsonl", out, num_lines=num_lines, torn=torn)

    assert here("solve", problems, "-o", out, *SOLVE, "--json") == 0

    assert out.read_bytes() == unbroken
    assert summary_of(capsys)["skipped"] == reused
    assert not (tmp_path / "out.jsonl.partial").exists()


def test_a_torn_last_line_is_cut_off_with_a_notice(
    unbroken: bytes, problems: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupt(tmp_path / "unbroken.jsonl", tmp_path / "out.jsonl", num_lines=4, torn=100)

    here("solve", problems, "-o", tmp_path / "out.jsonl", *SOLVE)

    assert "a torn last line of 100 bytes was cut off" in capsys.readouterr().err


def test_an_unfinished_output_is_not_read_by_the_next_stage(unbroken: bytes, problems: Path, tmp_path: Path) -> None:
    interrupt(tmp_path / "unbroken.jsonl", tmp_path / "out.jsonl", num_lines=4)
    (tmp_path / "out.jsonl").write_bytes(unbroken)

    judge = ("judge", tmp_path / "out.jsonl", "-o", tmp_path / "judged.jsonl", "--engine", "scripted")

    assert here(*judge) == 2
    assert here(*judge, "--allow-incomplete") == 0


def test_a_removed_input_row_refuses_and_an_added_one_is_worked_on(
    problems: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    here("solve", problems, "-o", out, *SOLVE)
    before = out.read_bytes()
    fewer, more = write_sums(tmp_path / "fewer.jsonl", 5), write_sums(tmp_path / "more.jsonl", 7)

    assert here("solve", fewer, "-o", out, *SOLVE) == 2
    assert "removed or changed" in capsys.readouterr().err
    assert out.read_bytes() == before
    assert here("solve", more, "-o", out, *SOLVE, "--json") == 0
    assert (summary_of(capsys)["skipped"], len(read_json_lines(out))) == (12, 14)
    assert out.read_bytes().startswith(before)


def test_a_changed_reference_answer_refuses(problems: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.jsonl"
    here("solve", problems, "-o", out, *SOLVE)
    lines = read_json_lines(problems)
    write_json_lines(problems, [{**lines[0], "answer": "8"}, *lines[1:]])

    assert here("solve", problems, "-o", out, *SOLVE) == 2
    assert "removed or changed" in capsys.readouterr().err


def test_changed_verdicts_of_an_input_reach_the_output(problems: Path, tmp_path: Path) -> None:
    rollouts, judged, selected = tmp_path / "r.jsonl", tmp_path / "j.jsonl", tmp_path / "s.jsonl"
    judge = ("judge", rollouts, "-o", judged, "--judge", "none", "--verifier", "numeric", "--engine", "scripted")
    here("solve", problems, "-o", rollouts, *SOLVE)
    here(*judge)
    here("filter", judged, "-o", selected)

    # The rows keep their ids: only what they hold is new.
    assert here(*judge, "--solver-reward", "checked_solver", "--overwrite") == 0
    assert here("filter", judged, "-o", selected) == 0

    rewards = {row["id"]: row["reward"] for row in read_json_lines(judged)}
    assert {row["id"]: row["reward"] for row in read_json_lines(selected)}.items() <= rewards.items()
    assert any(reward == 1.0 for reward in rewards.values())


def test_other_settings_name_the_key_and_both_values(
    problems: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    here("solve", problems, "-o", out, *SOLVE)

    assert here("solve", problems, "-o", out, *SOLVE, "--temperature", 0.5) == 2

    message = capsys.readouterr().err.splitlines()[-1]
    assert "sampling.temperature: 1.0 there, 0.5 now" in message
    assert "--overwrite" in message


@pytest.mark.parametrize(
    ("more", "key"),
    [
        (("--seed", 1), "seed"),
        (("--max-new-tokens", 5), "sampling.max_new_tokens"),
        (("--round", 2), "round"),
        (("--engine", "scripted:accuracy=0.1"), "policy.model"),
    ],
)
def test_what_decides_the_content_is_compared(
    problems: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[object, ...], key: str
) -> None:
    here("solve", problems, "-o", tmp_path / "out.jsonl", *SOLVE)

    assert here("solve", problems, "-o", tmp_path / "out.jsonl", *SOLVE, *more) == 2
    assert f" {key}: " in capsys.readouterr().err


def test_a_changed_prompt_text_is_another_experiment(
    problems: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = tmp_path / "my.txt"
    prompt.write_text("[user]\nSolve {{ question }}")
    here("solve", problems, "-o", tmp_path / "out.jsonl", *SOLVE, "--prompt", prompt)
    other = tmp_path / "other.txt"
    other.write_text("[user]\nPlease solve {{ question }}")

    assert here("solve", problems, "-o", tmp_path / "out.jsonl", *SOLVE, "--prompt", other) == 2
    assert " prompt: " in capsys.readouterr().err


def test_another_batch_size_resumes(unbroken: bytes, problems: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    interrupt(tmp_path / "unbroken.jsonl", out, num_lines=5)

    assert here("solve", problems, "-o", out, *SOLVE[:-1], 3) == 0
    assert out.read_bytes() == unbroken


def test_another_delay_of_the_scripted_engine_resumes(unbroken: bytes, problems: Path, tmp_path: Path) -> None:
    interrupt(tmp_path / "unbroken.jsonl", tmp_path / "out.jsonl", num_lines=5)

    assert here("solve", problems, "-o", tmp_path / "out.jsonl", *SOLVE[2:], "--engine", "scripted:delay=0.001") == 0
    assert (tmp_path / "out.jsonl").read_bytes() == unbroken


def test_a_limit_is_a_beginning_and_what_it_made_stays(
    unbroken: bytes, problems: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"

    assert here("solve", problems, "-o", out, *SOLVE, "--limit", 2) == 0
    assert unbroken.startswith(out.read_bytes())
    assert here("solve", problems, "-o", out, *SOLVE, "--json") == 0
    assert (out.read_bytes(), summary_of(capsys)["skipped"]) == (unbroken, 4)
    assert here("solve", problems, "-o", out, *SOLVE, "--limit", 1) == 0
    assert out.read_bytes() == unbroken


def test_filter_takes_a_limit_and_then_none(problems: Path, tmp_path: Path) -> None:
    here("solve", problems, "-o", tmp_path / "r.jsonl", *SOLVE)

    assert here("filter", tmp_path / "r.jsonl", "-o", tmp_path / "s.jsonl", "--limit", 3) == 0
    assert here("filter", tmp_path / "r.jsonl", "-o", tmp_path / "s.jsonl") == 0
    assert len(read_json_lines(tmp_path / "s.jsonl")) > 3


def test_overwrite_moves_the_old_file_its_meta_and_its_dropped_rows_aside(
    unbroken: bytes, problems: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    here("solve", problems, "-o", out, *SOLVE)

    for seed in (1, 2):
        assert here("solve", problems, "-o", out, *SOLVE, "--seed", seed, "--overwrite") == 0

    assert (tmp_path / "out.jsonl.old-1").read_bytes() == unbroken
    assert (tmp_path / "out.jsonl.old-2").read_bytes() not in (unbroken, out.read_bytes())
    assert (tmp_path / "out.jsonl.old-1.meta.json").exists()
    assert not (tmp_path / "out.jsonl.partial").exists()


def test_overwrite_moves_an_interrupted_runs_rows_aside_too(unbroken: bytes, problems: Path, tmp_path: Path) -> None:
    interrupt(tmp_path / "unbroken.jsonl", tmp_path / "out.jsonl", num_lines=5)

    assert here("solve", problems, "-o", tmp_path / "out.jsonl", *SOLVE, "--overwrite") == 0
    assert len((tmp_path / "out.jsonl.old-1.partial").read_bytes().splitlines()) == 5


def test_an_output_without_a_meta_is_not_replaced(problems: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("my notes\n")

    assert here("solve", problems, "-o", out, *SOLVE) == 2
    assert out.read_text() == "my notes\n"


def test_rows_of_unknown_settings_are_not_taken_up(unbroken: bytes, problems: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    interrupt(tmp_path / "unbroken.jsonl", out, num_lines=4)
    (tmp_path / "out.jsonl.meta.json").unlink()

    assert here("solve", problems, "-o", out, *SOLVE) == 2


def test_another_stages_output_is_not_replaced(problems: Path, tmp_path: Path) -> None:
    here("solve", problems, "-o", tmp_path / "r.jsonl", *SOLVE)
    here("filter", tmp_path / "r.jsonl", "-o", tmp_path / "s.jsonl")

    assert here("judge", tmp_path / "r.jsonl", "-o", tmp_path / "s.jsonl", "--engine", "scripted") == 2


def test_a_deleted_output_is_made_again_though_its_meta_says_complete(
    unbroken: bytes, problems: Path, tmp_path: Path
) -> None:
    (tmp_path / "unbroken.jsonl").unlink()

    assert here("solve", problems, "-o", tmp_path / "unbroken.jsonl", *SOLVE) == 0
    assert (tmp_path / "unbroken.jsonl").read_bytes() == unbroken


def test_input_and_output_may_not_be_one_file(problems: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.jsonl"
    link.symlink_to(problems)
    before = problems.read_bytes()

    assert here("solve", problems, "-o", problems, *SOLVE) == 2
    assert here("solve", problems, "-o", link, *SOLVE, "--overwrite") == 2
    assert problems.read_bytes() == before


def test_the_dropped_file_may_be_neither_the_input_nor_the_output_nor_the_users(problems: Path, tmp_path: Path) -> None:
    rollouts, notes = tmp_path / "r.jsonl", tmp_path / "notes.jsonl"
    here("solve", problems, "-o", rollouts, *SOLVE)
    notes.write_text("mine")
    before = rollouts.read_bytes()

    for dropped in (rollouts, tmp_path / "s.jsonl", notes):
        assert here("filter", rollouts, "-o", tmp_path / "s.jsonl", "--dropped", dropped) == 2

    assert (rollouts.read_bytes(), notes.read_text()) == (before, "mine")


def test_a_compressed_output_holds_the_same_rows_and_the_same_bytes_twice(
    unbroken: bytes, problems: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "a.jsonl.gz", tmp_path / "b.jsonl.gz"

    assert here("solve", problems, "-o", first, *SOLVE) == 0
    assert here("solve", problems, "-o", second, *SOLVE) == 0

    assert gzip.decompress(first.read_bytes()) == unbroken
    assert first.read_bytes() == second.read_bytes()
    assert here("solve", problems, "-o", first, *SOLVE) == 0


def test_a_pipeline_of_standard_streams_makes_what_files_make(unbroken: bytes, problems: Path, tmp_path: Path) -> None:
    result = mae("solve", "-", "-o", "-", *SOLVE, stdin=problems.read_bytes())

    assert (result.returncode, result.stdout) == (0, unbroken)
    assert b"-> stdout" in result.stderr


def test_a_long_stream_is_whole_when_python_is_unbuffered(problems: Path) -> None:
    # One write to a pipe may then be short; 64 KiB of 300 KiB arrived, and the exit code was 0.
    result = mae(
        "solve", problems, "-o", "-", "--engine", "scripted", "--rollouts-per-problem", 60, PYTHONUNBUFFERED="1"
    )

    assert (result.returncode, len(result.stdout.splitlines())) == (0, 360)


def test_a_stream_refuses_json_and_dropping_without_a_file(problems: Path, tmp_path: Path) -> None:
    here("solve", problems, "-o", tmp_path / "r.jsonl", *SOLVE)

    assert here("solve", problems, "-o", "-", *SOLVE, "--json") == 2
    assert here("filter", tmp_path / "r.jsonl", "-o", "-") == 2
    assert here("filter", tmp_path / "r.jsonl", "-o", "-", "--dropped", tmp_path / "d.jsonl") == 0


def test_a_second_writer_ends_on_5_and_touches_nothing(problems: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"

    with Lock(out):
        result = mae("solve", problems, "-o", out, *SOLVE)

    assert result.returncode == 5
    assert result.stderr.startswith(b"mae: out.jsonl: another process is writing it")
    assert sorted(path.name for path in tmp_path.glob("out*")) == ["out.jsonl.lock"]
    assert here("solve", problems, "-o", out, *SOLVE) == 0


def test_a_stale_lock_file_locks_nobody_out(problems: Path, tmp_path: Path) -> None:
    (tmp_path / "out.jsonl.lock").write_text("4711")

    assert here("solve", problems, "-o", tmp_path / "out.jsonl", *SOLVE) == 0


def test_a_lock_is_free_again_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("x\n")
    with pytest.raises(ConfigError), Output(path, stage="solve", fingerprint={}):
        pass

    with Lock(path), pytest.raises(LockedError), Lock(path):
        pass


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_ends_on_75_and_the_same_command_goes_on(small_disk: Path, problems: Path, tmp_path: Path) -> None:
    many = ("solve", problems, "--engine", "scripted", "--rollouts-per-problem", 12, "--batch-size", 4, "-o")
    assert here(*many, tmp_path / "unbroken.jsonl") == 0
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 200_000)

    result = mae(*many, small_disk / "out.jsonl")

    assert result.returncode == 75
    assert result.stderr.splitlines()[-1].startswith(b"mae: disk full")
    done = len((small_disk / "out.jsonl.partial").read_bytes().splitlines())
    ballast.unlink()
    again = mae(*many, small_disk / "out.jsonl", "--json")
    assert again.returncode == 0
    assert 0 < msgspec.json.decode(again.stdout)["skipped"] <= done
    assert (small_disk / "out.jsonl").read_bytes() == (tmp_path / "unbroken.jsonl").read_bytes()


def test_a_failed_write_leaves_the_old_file_and_no_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")

    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.json", "old")]


def test_an_output_below_a_file_ends_on_2(problems: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert here("solve", problems, "-o", problems / "out.jsonl", *SOLVE) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


class TestFolderOutput:
    """A folder is made beside its place, renamed when whole, and marked last."""

    def make(self, path: Path, text: str = "weights", *, overwrite: bool = False, seed: int = 0) -> bool:
        with FolderOutput(path, stage="finetune", fingerprint={"seed": seed}, overwrite=overwrite) as output:
            if output.is_done:
                return False
            made = output.work_dir / "adapter"
            made.mkdir(parents=True)
            (made / "w").write_text(text)
            output.finish(made)
        return True

    def test_a_finished_folder_is_not_made_again(self, tmp_path: Path) -> None:
        assert self.make(tmp_path / "a")
        assert not self.make(tmp_path / "a")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a.lock", "a.meta.json"]

    def test_killed_before_its_marker_only_the_marker_is_made(self, tmp_path: Path) -> None:
        self.make(tmp_path / "a")
        meta = tmp_path / "a.meta.json"
        meta.write_bytes(meta.read_bytes().replace(b"true", b"false"))

        assert not self.make(tmp_path / "a")
        assert msgspec.json.decode(meta.read_bytes())["complete"] is True

    def test_other_settings_refuse_and_overwrite_moves_aside(self, tmp_path: Path) -> None:
        self.make(tmp_path / "a")
        with pytest.raises(ConfigError, match="seed: 0 there, 1 now"):
            self.make(tmp_path / "a", seed=1)

        assert self.make(tmp_path / "a", "new", seed=1, overwrite=True)

        assert ((tmp_path / "a.old-1" / "w").read_text(), (tmp_path / "a" / "w").read_text()) == ("weights", "new")

    def test_a_folder_of_the_users_is_not_replaced(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()

        with pytest.raises(ConfigError, match="no meta file"):
            self.make(tmp_path / "a")

    def test_checkpoints_of_unknown_settings_are_not_taken_up(self, tmp_path: Path) -> None:
        (tmp_path / "a.partial" / "checkpoints").mkdir(parents=True)

        with FolderOutput(tmp_path / "a", stage="finetune", fingerprint={}, overwrite=False) as output:
            assert not output.work_dir.exists()


def test_an_output_shows_only_old_or_new_whole_files(tmp_path: Path) -> None:
    rows: list[Row] = [a_row(index=index) for index in range(3)]
    path = tmp_path / "a.jsonl"

    with Output(path, stage="solve", fingerprint={}) as output:
        output.begin([])
        output.append(rows[:2])
        assert not path.exists()
        output.finish(rows)

    assert len(read_json_lines(path)) == 3


def test_two_processes_with_one_output_never_both_write(problems: Path, tmp_path: Path) -> None:
    arguments = ("solve", problems, "-o", tmp_path / "out.jsonl", *SOLVE)
    hold = child_environment(**paused(tmp_path / "hold", 1))
    writers = [subprocess.Popen(command(arguments), stderr=subprocess.DEVNULL, env=hold) for _ in range(2)]

    # The one that writes waits in the middle of it until the other has given up.
    wait_until(lambda: any(writer.poll() is not None for writer in writers))
    (tmp_path / "hold" / "go").touch()
    assert sorted(writer.wait() for writer in writers) == [0, 5]
