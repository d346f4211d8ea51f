"""A command in N parts, merged: the bytes of the one-process command, or one line that says what is wrong."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mae_cli.errors import ConfigError
from mae_cli.records.shards import Shard, parse_shard, part_of, read_ranges, write_ranges
from tests.support import a_problem, a_row, child_environment, here, read_json_lines, write_json_lines, write_sums

SCRIPTED = ("--engine", "scripted", "--batch-size", "4")


def commands(folder: Path) -> dict[str, tuple[Any, ...]]:
    """Each stage's arguments, on files of the stage before; made once per folder."""
    sums = write_sums(folder / "sums.jsonl", 11)
    proposed, solved = folder / "proposed.jsonl", folder / "solved.jsonl"
    assert here("propose", sums, "-o", proposed, "--engine", "scripted", "--num-problems", 13) == 0
    difficulty = ("--difficulty-samples", 3, "--rollouts-per-problem", 2)
    assert here("solve", proposed, "-o", solved, "--pool", sums, "--num-problems", 4, "--engine", "scripted") == 0
    judging = ("--verifier", "numeric", "--votes", 3, "--num-own-pairs", 5, "--max-unparsed", 1)
    return {
        "propose": ("propose", sums, "--num-problems", 13, *SCRIPTED),
        "solve": ("solve", proposed, "--pool", sums, "--num-problems", 4, *difficulty, *SCRIPTED),
        "judge": ("judge", solved, *judging, *SCRIPTED),
        "eval": ("eval", sums, "--samples", 2, "--temperature", 1, *SCRIPTED),
    }


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, ...]]:
    return commands(tmp_path_factory.mktemp("stages"))


def make_shards(command: tuple[Any, ...], folder: Path, count: int, *more: object) -> list[Path]:
    paths = [folder / f"part-{index}.jsonl" for index in range(1, count + 1)]
    for index, path in enumerate(paths, 1):
        assert here(*command, "-o", path, "--shard", f"{index}/{count}", *more) == 0
    return paths


def both_files(path: Path) -> list[bytes]:
    return [path.read_bytes(), path.with_name(path.name + ".meta.json").read_bytes()]


@pytest.mark.parametrize(("stage", "count"), [("propose", 3), ("solve", 3), ("judge", 2), ("judge", 5), ("eval", 20)])
def test_merged_shards_are_the_bytes_of_the_one_process_and_leave_it_nothing_to_do(
    stage: str, count: int, stages: dict[str, tuple[Any, ...]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command, single, merged = stages[stage], tmp_path / "single.jsonl", tmp_path / "merged.jsonl"
    assert here(*command, "-o", single) == 0
    parts = make_shards(command, tmp_path, count)

    assert here("data", "merge", *reversed(parts), "-o", merged) == 0

    assert both_files(merged) == both_files(single)
    sizes = [len(read_json_lines(part)) for part in parts]
    assert sum(sizes) == len(read_json_lines(single))
    assert max(sizes) < sum(sizes)
    before = merged.stat().st_mtime_ns
    capsys.readouterr()
    assert here(*command, "-o", merged) == 0
    planned = sum(row["finish_reason"] is not None for row in read_json_lines(single))
    said = capsys.readouterr().err
    assert f"skipped {planned - len(passed_rows(command))} (done before)" in said
    assert merged.stat().st_mtime_ns == before
    assert here("data", "merge", *parts, "-o", merged) == 0
    assert "is up to date" in capsys.readouterr().err


def passed_rows(command: tuple[Any, ...]) -> list[Any]:
    return [row for row in read_json_lines(command[1]) if "messages" in row]


KILLED = """
import os, sys
from mae_cli.cli.app import run_app
left, replace = int(sys.argv[1]), os.replace
def replace_or_die(source, target):
    global left
    left -= 1
    if not left:
        os._exit(9)
    replace(source, target)
os.replace = replace_or_die
sys.exit(run_app(sys.argv[2:]))
"""


# Four files are put into place: the meta file, the partial file, the rows, the meta file again.
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_merge_killed_before_it_puts_a_file_into_place_goes_on(
    number: int, stages: dict[str, tuple[Any, ...]], tmp_path: Path
) -> None:
    command, single, merged = stages["propose"], tmp_path / "single.jsonl", tmp_path / "merged.jsonl"
    assert here(*command, "-o", single) == 0
    merge = ("data", "merge", *make_shards(command, tmp_path, 2), "-o", merged)

    arguments = [sys.executable, "-c", KILLED, *map(str, (number, *merge))]
    assert subprocess.run(arguments, env=child_environment(), check=False).returncode == 9

    assert merged.exists() == (number == 4)
    assert here(*merge) == 0
    assert both_files(merged) == both_files(single)
    assert not (tmp_path / "merged.jsonl.partial").exists()


def test_shards_of_a_limited_command_merge_to_the_limited_file(
    stages: dict[str, tuple[Any, ...]], tmp_path: Path
) -> None:
    limit = ("--limit", 5)
    assert here(*stages["solve"], "-o", tmp_path / "single.jsonl", *limit) == 0
    parts = make_shards(stages["solve"], tmp_path, 3, *limit)

    assert here("data", "merge", *parts, "-o", tmp_path / "merged.jsonl") == 0

    assert both_files(tmp_path / "merged.jsonl") == both_files(tmp_path / "single.jsonl")


def test_a_compressed_output_merges_too(stages: dict[str, tuple[Any, ...]], tmp_path: Path) -> None:
    parts = make_shards(stages["propose"], tmp_path, 2)

    assert here("data", "merge", *parts, "-o", tmp_path / "merged.jsonl.gz") == 0

    assert here(*stages["propose"], "-o", tmp_path / "single.jsonl.gz") == 0
    assert both_files(tmp_path / "merged.jsonl.gz") == both_files(tmp_path / "single.jsonl.gz")


def test_a_group_is_never_split(stages: dict[str, tuple[Any, ...]], tmp_path: Path) -> None:
    parts = make_shards(stages["judge"], tmp_path, 4)

    groups = [
        {row["group_id"] for row in read_json_lines(part) if row["role"] != "proposer" and row["problem"]}
        for part in parts
    ]

    assert all(groups)
    assert all(not one & other for one, other in itertools.combinations(groups, 2))


# ---- what is refused


@pytest.fixture
def parts(stages: dict[str, tuple[Any, ...]], tmp_path: Path) -> list[Path]:
    return make_shards(stages["propose"], tmp_path, 3)


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 2) -> str:
    capsys.readouterr()
    assert here(*arguments) == code
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    return said


def change_meta(path: Path, **shard: Any) -> None:
    place = path.with_name(path.name + ".meta.json")
    meta = msgspec.json.decode(place.read_bytes())
    meta["shard"] |= shard
    place.write_bytes(msgspec.json.encode(meta))


def test_a_missing_shard_and_one_given_twice_are_named(
    parts: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ("-o", tmp_path / "m.jsonl")

    assert "missing: shard 2/3;" in refusal(capsys, "data", "merge", parts[0], parts[2], *out)
    assert f"{parts[0]}: shard 1/3 as well as" in refusal(capsys, "data", "merge", *parts, parts[0], *out)
    assert not (tmp_path / "m.jsonl").exists()


def test_shards_of_other_settings_name_the_key_with_both_values(
    parts: list[Path], stages: dict[str, tuple[Any, ...]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hotter = tmp_path / "hotter.jsonl"
    assert here(*stages["propose"], "-o", hotter, "--shard", "3/3", "--temperature", 0.5) == 0

    said = refusal(capsys, "data", "merge", *parts[:2], hotter, "-o", tmp_path / "m.jsonl")

    assert f"{hotter} was made with other settings: sampling.temperature: 0.5 there, 1.0 now" in said


def test_shards_of_another_stage_number_input_or_limit_are_refused(
    parts: list[Path], stages: dict[str, tuple[Any, ...]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    evaluated = make_shards(stages["eval"], other, 3)
    merge = ("data", "merge", *parts[:2])
    out = ("-o", tmp_path / "m.jsonl")

    assert f"{evaluated[2]}: made by eval, {parts[0]} by propose" in refusal(capsys, *merge, evaluated[2], *out)
    four = other / "four.jsonl"
    assert here(*stages["propose"], "-o", four, "--shard", "3/4") == 0
    assert f"{four}: shard 3/4, but {parts[0]} is shard 1/3" in refusal(capsys, *merge, four, *out)
    limited = other / "limited.jsonl"
    assert here(*stages["propose"], "-o", limited, "--shard", "3/3", "--limit", 4) == 0
    assert "or with another --limit" in refusal(capsys, *merge, limited, *out)


def test_an_incomplete_a_torn_and_an_overlapping_shard_are_refused(
    parts: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    merge = ("data", "merge", *parts, "-o", tmp_path / "m.jsonl")
    meta = parts[1].with_name(parts[1].name + ".meta.json")
    whole = meta.read_bytes()

    meta.write_bytes(whole.replace(b'"complete": true', b'"complete": false'))
    assert f"{parts[1]}: shard 2/3 is incomplete" in refusal(capsys, *merge)
    meta.write_bytes(whole)
    change_meta(parts[1], positions="0-3")
    assert f"{parts[1]}: overlaps another shard at row 0" in refusal(capsys, *merge)
    meta.write_bytes(whole)
    lines = parts[1].read_bytes().splitlines(keepends=True)
    parts[1].write_bytes(b"".join(lines[:-1]))
    assert f"{parts[1]}: holds {len(lines) - 1} rows, its meta file says {len(lines)}" in refusal(capsys, *merge)


def test_what_is_no_shard_is_refused(
    parts: list[Path], stages: dict[str, tuple[Any, ...]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, foreign = tmp_path / "whole.jsonl", write_json_lines(tmp_path / "foreign.jsonl", [{"question": "1 + 1?"}])
    assert here(*stages["propose"], "-o", whole) == 0
    out = ("-o", tmp_path / "m.jsonl")

    assert f"{whole}: not a shard" in refusal(capsys, "data", "merge", whole, *out)
    assert f"{foreign}: no foreign.jsonl.meta.json beside it" in refusal(capsys, "data", "merge", foreign, *out)
    assert "gone.jsonl: no such file" in refusal(capsys, "data", "merge", "gone.jsonl", *out)
    assert "input and output are the same file" in refusal(capsys, "data", "merge", *parts, "-o", parts[0])


def test_a_shard_goes_on_where_it_was_but_not_in_another_ones_file(
    parts: list[Path], stages: dict[str, tuple[Any, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    command = (*stages["propose"], "-o", parts[0])

    assert "holds shard 1/3, not shard 2/3" in refusal(capsys, *command, "--shard", "2/3")
    assert "holds shard 1/3, not the whole output" in refusal(capsys, *command)
    capsys.readouterr()
    assert here(*command, "--shard", "1/3") == 0
    assert "skipped 5 (done before)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [("0/3", "expected I from 1 to 3"), ("4/3", "expected I from 1 to 3"), ("1", "expected I/N"), ("a/b", "I/N")],
)
def test_a_wrong_shard_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_shard(text)


def test_shuffled_rewards_and_standard_output_are_refused_for_a_shard(
    stages: dict[str, tuple[Any, ...]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judge = (*stages["judge"], "--shard", "1/2")

    assert "shuffles among all rows" in refusal(capsys, *judge, "-o", tmp_path / "o.jsonl", "--shuffle-rewards")
    assert "a shard is merged from its file" in refusal(capsys, *judge, "-o", "-")


# ---- the pure part


@given(st.lists(st.integers(0, 12), max_size=40), st.lists(st.integers(0, 12), max_size=10), st.integers(1, 7))
def test_the_parts_of_all_shards_are_the_whole_once_with_units_unbroken(
    planned_of: list[int], passed_of: list[int], count: int
) -> None:
    problems = [a_problem(f"question {index}") for index in range(13)]
    planned = [a_row(problem=problems[which], index=index) for index, which in enumerate(planned_of)]
    passed = [a_row("judge", problem=problems[which], index=index) for index, which in enumerate(passed_of)]

    parts = [part_of(Shard(index, count), passed, planned) for index in range(1, count + 1)]

    positions = [place for part in parts for place in (*part.passed_at, *part.planned_at.values())]
    assert sorted(positions) == list(range(len(planned) + len(passed)))
    assert sum(len(part.ids) for part in parts) == len(planned)
    units = [
        {row.problem.id for row in (*part.passed, *(row for row in planned if row.id in part.ids))} for part in parts
    ]
    assert all(not one & other for one, other in itertools.combinations(units, 2))
    # A unit goes to the next shard each time, so no shard has two units more than another.
    worked = [len({row.problem.id for row in planned if row.id in part.ids}) for part in parts]
    assert max(worked) - min(worked) <= 1


@given(st.sets(st.integers(0, 300)))
def test_ranges_are_read_as_they_were_written(numbers: set[int]) -> None:
    assert read_ranges(write_ranges(sorted(numbers))) == sorted(numbers)


def test_ranges_are_short() -> None:
    assert write_ranges([0, 1, 2, 3, 8, 10, 11]) == "0-3,8,10-11"


def test_shards_of_the_hf_engine_merge_to_the_one_process_file(tmp_path: Path, tiny_model_dir: Path) -> None:
    sums = write_sums(tmp_path / "sums.jsonl", 5)
    command = ("solve", sums, "-m", tiny_model_dir, "--device", "cpu", "--rollouts-per-problem", 3)
    command = (*command, "--max-new-tokens", 12)
    assert here(*command, "-o", tmp_path / "single.jsonl") == 0
    parts = make_shards(command, tmp_path, 2)

    assert here("data", "merge", *parts, "-o", tmp_path / "merged.jsonl") == 0

    merged, single = (read_json_lines(tmp_path / name) for name in ("merged.jsonl", "single.jsonl"))
    # Shards batch otherwise, so float32 sums may differ in their last bits; none of these rows has a gap that small.
    assert merged == single
    assert both_files(tmp_path / "merged.jsonl")[1] == both_files(tmp_path / "single.jsonl")[1]
