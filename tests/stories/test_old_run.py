"""A run that commit 37c66da began and left in the middle of judging goes on under today's code.

The archive holds that run (`unfinished`), the same run as 37c66da ended it (`expected`), the tiny model and the
recipes of that commit; `ids_of_37c66da.json` holds digests of the ids that each of those recipes gave with the
scripted engine.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mae_cli.records.read import read_json
from tests.support import ROOT, child_environment, here, read_json_lines

HERE = Path(__file__).parent
# Volatile, or about settings that did not exist: what was made with which keys.
ABOUT = (
    "run.state.json",
    "events.jsonl",
    "summary.json",
    "manifest.json",
    "recipe.resolved.yaml",
    "report.html",
    "run.lock",
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with tarfile.open(HERE / "run_of_37c66da.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path / "run_of_37c66da")
    return tmp_path / "run_of_37c66da"


def files_of(run: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(run)): path.read_bytes()
        for path in sorted(run.rglob("*"))
        if path.is_file()
        and not path.is_symlink()
        and not any(parent.is_symlink() for parent in path.parents)
        and path.name not in ABOUT
        and not path.name.endswith((".lock", ".meta.json"))
    }


def metas_of(run: Path) -> dict[str, Any]:
    return {str(path.relative_to(run)): read_json(path) for path in sorted(run.glob("round-*/*.meta.json"))}


def test_an_unfinished_run_goes_on_to_the_bytes_it_would_have_had(folder: Path) -> None:
    before = files_of(folder / "unfinished")

    assert here("run", "recipe.yaml", "--run-dir", "unfinished") == 0

    expected, found = files_of(folder / "expected"), files_of(folder / "unfinished")
    assert found.keys() == expected.keys()
    # What does not hang on floats is equal on every machine; so is what was there before.
    weightless = [name for name in expected if name < "round-001/4_"]
    assert [name for name in weightless if found[name] != expected[name]] == []
    assert [name for name in before if name in found and before[name] != found[name]] == []
    if (
        found["round-001/5_adapter/adapter_model.safetensors"]
        == expected["round-001/5_adapter/adapter_model.safetensors"]
    ):
        assert [name for name in expected if found[name] != expected[name]] == []
    else:  # another processor rounds otherwise: then the run must equal one that this machine makes from the start
        # That run's held-out items are among its seeds, which it trained on.
        assert here("run", "recipe.yaml", "--run-dir", "anew", "--set", "filter.decontaminate=false") == 0
        ours, anew = read_ids(folder / "unfinished"), read_ids(folder / "anew")
        assert ours == anew


def read_ids(run: Path) -> dict[str, list[str]]:
    return {
        str(path.relative_to(run)): [row["id"] for row in read_json_lines(path)]
        for path in run.glob("round-*/[1-6]_*.jsonl")
    }


def test_its_rows_stay_rows_of_the_schema_it_began_with_and_a_new_run_has_todays(folder: Path) -> None:
    assert here("run", "recipe.yaml", "--run-dir", "unfinished") == 0
    assert here("run", "recipe.yaml", "--run-dir", "new", "--rounds", 1) == 0

    old = read_json_lines(folder / "unfinished" / "round-002" / "3_judged.jsonl")
    new = read_json_lines(folder / "new" / "round-001" / "3_judged.jsonl")
    assert {row["schema"] for row in old} == {1}
    assert {row["schema"] for row in new} == {2}
    assert new[0].keys() - old[0].keys() == {
        *("stage", "step", "player", "key", "origin", "asked", "signals", "labels", "spans"),
    }  # fmt: skip
    assert {meta["schema"] for name, meta in metas_of(folder / "unfinished").items() if "adapter" not in name} == {1}


def test_rows_of_both_schemas_have_the_same_ids_and_texts(folder: Path) -> None:
    # That run's held-out items are among its seeds, which it trained on.
    as_it_was = ("--set", "filter.decontaminate=false")
    assert here("run", "recipe.yaml", "--run-dir", "new", "--rounds", 1, *as_it_was) == 0

    for name in ("1_problems", "2_rollouts", "3_judged", "4_selected"):
        old = read_json_lines(folder / "expected" / "round-001" / f"{name}.jsonl")
        new = read_json_lines(folder / "new" / "round-001" / f"{name}.jsonl")
        same = ("id", "seed", "rollout_id", "group_id", "parents", "role", "purpose", "raw", "answer", "reward", "kept")
        assert [[row[key] for key in same] for row in new] == [[row[key] for key in same] for row in old]


def test_its_rows_are_traced(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = read_json_lines(folder / "expected" / "round-001" / "4_selected.jsonl")
    graded = next(row for row in rows if row["role"] == "solver" and any(v["kind"] == "judge" for v in row["verdicts"]))

    assert here("trace", graded["id"], "--run-dir", "expected", "--json") == 0
    told = msgspec.json.decode(capsys.readouterr().out)
    assert [found["row"]["id"] for found in told["judgements"]] == [
        verdict["rollout_id"] for verdict in graded["verdicts"] if verdict["kind"] == "judge"
    ]
    assert told["trained"][0]["round"] == "round-001"
    assert here("list", "adapters", "--run-dir", "expected") == 0
    assert "round-002  5_adapter" in capsys.readouterr().out


def test_another_recipe_is_still_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert here("run", "recipe.yaml", "--run-dir", "unfinished", "--set", "judge.votes=2") == 2
    assert "judge.votes: 1 there, 2 now" in capsys.readouterr().err
    assert here("run", "recipe.yaml", "--run-dir", "unfinished", "--set", "pipeline=[solve, finetune]") == 2
    assert "pipeline: ['propose', 'solve'," in capsys.readouterr().err


SMALL = [
    *("propose.num_problems=4", "solve.num_problems=4", "judge.num_pairs=3", "judge.num_own_pairs=3", "num_seeds=8"),
    *("judge.max_unparsed=1.0", "seeds=data/arithmetic_train.jsonl", "self_seeds=0"),
]


@pytest.mark.parametrize("name", sorted(read_json(HERE / "ids_of_37c66da.json")))
def test_every_recipe_of_37c66da_gives_the_ids_it_gave(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    recipe, d = tmp_path / "recipes_of_37c66da" / f"{name}.yaml", tmp_path / "out"
    sets = [part for setting in SMALL for part in ("--set", setting)]
    common = ["--recipe", recipe, "--engine", "scripted", *sets]
    d.mkdir()
    assert here("data", "pools", d, "--recipe", recipe, *sets) == 0
    questions, pairs = d / "0_questions.jsonl", d / "0_pairs.jsonl"
    stages: list[tuple[object, ...]] = [
        ("propose", questions, "-o", d / "1_problems.jsonl"),
        ("solve", d / "1_problems.jsonl", "-o", d / "2_rollouts.jsonl", "--pool", questions),
        ("judge", d / "2_rollouts.jsonl", "-o", d / "3_judged.jsonl", "--pool", pairs),
        ("filter", d / "3_judged.jsonl", "-o", d / "4_selected.jsonl"),
        ("eval", "data/arithmetic_heldout.jsonl", "-o", d / "6_eval.jsonl", "--limit", 3,
         "--set", "eval.verifier=numeric", "--set", "eval.limit=3"),
    ]  # fmt: skip
    for stage in stages:
        own = [part for part in common if part not in ("--engine", "scripted")] if stage[0] == "filter" else common
        assert here(*stage, *own) in (0, 3)

    found = {}
    for path in sorted(d.glob("[1-6]_*.jsonl")):
        keys = ("id", "rollout_id", "group_id", "seed", "parents")
        rows = [[*(row[key] for key in keys), row["problem"] and row["problem"]["id"]] for row in read_json_lines(path)]
        text = json.dumps(rows).encode()
        found[path.name] = {"rows": len(rows), "ids": hashlib.sha256(text).hexdigest()[:20]}
    assert found == read_json(HERE / "ids_of_37c66da.json")[name]


@pytest.mark.parametrize("module", ["mae_cli", "mae_cli.cli"])
def test_the_package_runs_as_a_module(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "--version"], capture_output=True, env=child_environment(), check=True
    )

    assert done.stdout.startswith(b"mae ")
