"""A whole round of the faithful recipe, by pipes and by files, and its files read by other tools."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mae_cli.records import Verdict
from tests.support import (
    a_problem,
    a_row,
    child_environment,
    command,
    here,
    read_json_lines,
    write_rows,
    write_sums,
)

SMALL = (
    *("--recipe", "mae_half_reference", "--engine", "scripted"),
    *("--set", "propose.num_problems=8", "--set", "solve.num_problems=6", "--set", "solve.difficulty_samples=3"),
    *("--set", "judge.votes=3", "--set", "judge.num_pairs=4", "--set", "judge.max_unparsed=1"),
)


def play_round(folder: Path, number: int, seeds: Path) -> Path:
    """Propose to filter on the files of a round."""
    here_is, before = folder / f"round-{number:03d}", folder / f"round-{number - 1:03d}"
    again = ("--before", before) if number > 1 else ()
    pooled = ("--recipe", "mae_half_reference", "--set", f"seeds={seeds}", "--set", "num_seeds=0")
    assert here("data", "pools", here_is, *pooled, *again) == 0
    questions, pairs = here_is / "0_questions.jsonl", here_is / "0_pairs.jsonl"
    files = [here_is / name for name in ("1_problems.jsonl", "2_rollouts.jsonl", "3_judged.jsonl", "4_selected.jsonl")]
    more = (*SMALL, "--round", number)
    assert here("propose", questions, "-o", files[0], *more) == 0
    assert here("solve", files[0], "-o", files[1], "--pool", questions, *more) == 0
    assert here("judge", files[1], "-o", files[2], "--pool", pairs, *more) == 0
    assert here("filter", files[2], "-o", files[3], "--recipe", "mae_half_reference", "--round", number) == 0
    return here_is


def test_the_second_round_draws_from_what_the_first_one_stored(tmp_path: Path) -> None:
    seeds = write_sums(tmp_path / "seeds.jsonl")

    first, second = play_round(tmp_path, 1, seeds), play_round(tmp_path, 2, seeds)

    rows = read_json_lines(first / "4_selected.jsonl")
    new = {row["problem"]["question"] for row in rows if "questions" in row["stored"]}
    questions = [row["question"] for row in read_json_lines(second / "0_questions.jsonl")]
    assert new
    assert questions[:6] == [row["question"] for row in read_json_lines(seeds)]
    assert set(questions[6:]) == new - set(questions[:6])
    pairs = read_json_lines(second / "0_pairs.jsonl")
    stored = [row["id"] for row in rows if "pairs" in row["stored"]]
    assert [pair["from_row"] for pair in pairs] == stored
    judged = [row for row in read_json_lines(second / "3_judged.jsonl") if row["role"] == "judge"]
    drawn = {row["parents"][0] for row in judged if row["purpose"] == "train"}
    assert len(drawn) == 4
    assert drawn <= set(stored)


def test_every_trained_row_leads_back_to_its_prompt_and_its_parents(tmp_path: Path) -> None:
    folder = play_round(tmp_path, 1, write_sums(tmp_path / "seeds.jsonl"))

    rows = {row["id"]: row for row in read_json_lines(folder / "4_selected.jsonl")}
    problems = {row["problem"]["id"] for row in rows.values() if row["problem"]}
    for row in rows.values():
        assert row["messages"]
        assert all(parent in rows or parent in problems for parent in row["parents"] if row["role"] != "proposer")


def test_a_round_by_pipes_makes_what_files_make(tmp_path: Path) -> None:
    problems = write_sums(tmp_path / "problems.jsonl")
    environment = child_environment()
    with problems.open("rb") as file:
        solve = subprocess.Popen(
            command(["solve", "-", "-o", "-", *SMALL]),
            stdin=file,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )
    judge = subprocess.run(
        command(["judge", "-", "-o", "-", *SMALL]), stdin=solve.stdout, capture_output=True, env=environment, check=True
    )
    solve.communicate()

    assert here("solve", problems, "-o", tmp_path / "2.jsonl", *SMALL) == 0
    assert here("judge", tmp_path / "2.jsonl", "-o", tmp_path / "3.jsonl", *SMALL) == 0

    assert solve.returncode == 0
    assert judge.stdout == (tmp_path / "3.jsonl").read_bytes()


@pytest.fixture(scope="module")
def features() -> Any:
    from datasets import Features

    result = subprocess.run(command(["data", "features"]), capture_output=True, check=True, env=child_environment())
    return Features.from_dict(msgspec.json.decode(result.stdout))


def load(path: Path, features: Any, cache: Path) -> Any:
    from datasets import load_dataset

    return load_dataset("json", data_files=str(path), features=features, split="train", cache_dir=str(cache))


@pytest.mark.filterwarnings("ignore")
def test_every_stages_file_loads_with_the_printed_features(tmp_path: Path, features: Any) -> None:
    folder = play_round(tmp_path, 1, write_sums(tmp_path / "seeds.jsonl"))
    assert here("eval", tmp_path / "seeds.jsonl", "-o", folder / "6_eval.jsonl", "--engine", "scripted") == 0

    for name in ("1_problems", "2_rollouts", "3_judged", "4_selected", "6_eval"):
        path = folder / f"{name}.jsonl"
        loaded = load(path, features, tmp_path / "cache")
        assert loaded["id"] == [row["id"] for row in read_json_lines(path)]
        # Its reader keeps ten digits of a float.
        assert list(loaded["reward"]) == [pytest.approx(row["reward"], abs=1e-9) for row in read_json_lines(path)]


def write_late_rows(path: Path, count: int) -> Path:
    """Rows whose fields are null or empty all along, and typed at the very end."""
    plain = a_row("proposer", completion="x" * 400, extra={})
    late = a_row(
        problem=a_problem(choices=["a"], deep={"list": [1, "x", None]}),
        reward=0.5,
        answer="7",
        prompt_token_ids=[1, 2],
        verdicts=[Verdict("numeric", "verifier", "answer", 1.0)],
        stored=["pairs"],
        extra={"note": [{"any": 1}]},
    )
    rows = [msgspec.structs.replace(plain, id=f"row-{index}") for index in range(count)]
    return write_rows(path, [*rows, late])


@pytest.mark.filterwarnings("ignore")
def test_a_file_of_30_megabytes_whose_late_rows_differ_loads(tmp_path: Path, features: Any) -> None:
    count = 28_000
    path = write_late_rows(tmp_path / "big.jsonl", count)

    loaded = load(path, features, tmp_path / "cache")

    assert len(loaded) == count + 1
    assert (loaded[-1]["reward"], loaded[-1]["answer"], loaded[0]["answer"]) == (0.5, "7", None)
    assert loaded[-1]["problem"]["meta"]["deep"] == {"list": [1, "x", None]}
    assert path.stat().st_size > 30_000_000
