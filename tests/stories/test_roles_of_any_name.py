"""A recipe with roles of its own: an attacker writes problems, a defender answers them, and both are trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec
import pytest

from mae_cli.records.read import read_json, read_rows
from mae_cli.stages.judging.panel import read_reply
from tests.support import here, read_json_lines, write_rows, write_sums

RECIPE = """
engine: scripted:accuracy=0.5
model: {model}
device: cpu
seeds: {seeds}
roles: {{attacker: {{}}, defender: {{}}}}
propose: {{role: attacker, num_problems: 6, max_new_tokens: 32}}
solve: {{role: defender, num_problems: 6, rollouts_per_problem: 3, train_on_proposals: true, max_new_tokens: 32}}
judge:
  verifier: numeric
  votes: 1
  num_own_pairs: 3
  max_unparsed: 1.0
  rewards: {{attacker: {{name: checked_proposer, floor: 0.5}}, defender: {{name: checked_solver, format_weight: 0.25}}}}
  judge_reward: checked_judge
filter:
  decontaminate: false # the seeds are among the held-out items
  filters:
    - finish_reason
    - {{name: best_of_k, k: 2, min_reward: 0.1, roles: [defender]}}
finetune: {{objective: reinforce_pp, other_models: true, batch_size: 8, lora_r: 2, min_spread: 0.0}}
eval: {{benchmarks: [{held_out}], max_new_tokens: 8}}
"""


@pytest.fixture
def recipe(tmp_path: Path, tiny_model_dir: Path) -> Path:
    path = tmp_path / "r.yaml"
    seeds, held_out = write_sums(tmp_path / "seeds.jsonl", 8), write_sums(tmp_path / "held_out.jsonl", 4)
    model = tmp_path / "model"
    shutil.copytree(tiny_model_dir, model)
    config = json.loads((model / "config.json").read_text("utf-8"))
    # The judge's prompts are longer than the 256 positions of the tiny model.
    (model / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 2048}))
    path.write_text(RECIPE.format(model=model, seeds=seeds, held_out=held_out))
    return path


@pytest.fixture
def judged(recipe: Path, tmp_path: Path) -> Path:
    given = ("--recipe", recipe)
    assert here("propose", tmp_path / "seeds.jsonl", "-o", tmp_path / "1.jsonl", *given) == 0
    assert (
        here("solve", tmp_path / "1.jsonl", "-o", tmp_path / "2.jsonl", "--pool", tmp_path / "seeds.jsonl", *given) == 0
    )
    assert here("judge", tmp_path / "2.jsonl", "-o", tmp_path / "3.jsonl", *given) == 0
    return tmp_path / "3.jsonl"


def test_rows_of_own_roles_are_planned_and_rewarded_by_what_their_role_says(judged: Path) -> None:
    rows = read_json_lines(judged)

    by_role = {role: [row for row in rows if row["role"] == role] for role in ("attacker", "defender", "judge")}
    assert sum(map(len, by_role.values())) == len(rows)
    assert {role: {row["stage"] for row in found} for role, found in by_role.items()} == {
        "attacker": {"propose"}, "defender": {"solve"}, "judge": {"judge"},
    }  # fmt: skip
    for row in by_role["defender"]:
        terms = {term["name"]: term["value"] for term in row["reward_terms"]}
        if row["purpose"] == "train" and row["reward"] is not None:
            assert row["reward"] == pytest.approx(0.75 * terms["answer_score"] + 0.25 * terms["format"])
    assert any(row["reward"] is not None for row in by_role["attacker"])
    # The attacker's problems were graded as problems, the defender's answers as answers.
    about = {row["asked"]["about"] for row in by_role["judge"] if row["purpose"] == "grade"}
    assert about == {"problem", "answer"}


def test_they_are_filtered_trained_and_shown_role_by_role(
    recipe: Path, judged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert here("filter", judged, "-o", tmp_path / "4.jsonl", "--recipe", recipe, "--json") == 0
    counts = msgspec.json.decode(capsys.readouterr().out)["details"]
    assert set(counts) >= {"funnel", "attacker", "defender", "judge"}
    kept = [row for row in read_json_lines(tmp_path / "4.jsonl") if row["kept"]]
    assert {row["role"] for row in kept} == {"attacker", "defender", "judge"}

    trained = tmp_path / "adapter"
    assert here("finetune", tmp_path / "4.jsonl", "-o", trained, "--recipe", recipe, "--engine", "hf") == 0
    assert {row["role"] for row in read_json_lines(trained / "train_rows.jsonl")} == {"attacker", "defender", "judge"}
    assert set(read_json(trained / "lineage.json")["roles"]) == {"attacker", "defender", "judge"}


def test_a_run_shows_the_figures_of_each_role(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Rows come from the scripted engine, weights from the tiny model: each role keeps the engine, training has its own.
    text = recipe.read_text().replace("engine: scripted:accuracy=0.5\n", "")
    own = "{engine: 'scripted:accuracy=0.5'}"
    roles = f"roles: {{attacker: {own}, defender: {own}, judge: {own}}}"
    recipe.write_text(text.replace("roles: {attacker: {}, defender: {}}", roles))

    assert here("run", recipe, "--run-dir", tmp_path / "run") == 0

    shown = [
        line.split()[0]
        for line in capsys.readouterr().err.splitlines()
        if line.startswith(("attacker", "defender", "judge "))
    ]
    assert shown == ["judge", "attacker", "defender"]
    figures = read_json(tmp_path / "run" / "round-001" / "roles.json")
    assert {figure["role"]: figure["trained"] > 0 for figure in figures} == {
        "judge": True, "attacker": True, "defender": True,
    }  # fmt: skip


def test_a_role_in_a_file_that_nobody_declares_is_refused_by_name_with_the_declared_ones(
    recipe: Path, judged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert here("filter", judged, "-o", tmp_path / "x.jsonl") == 2
    said = capsys.readouterr().err
    assert 'role "attacker" is not declared; declared: proposer, solver, judge' in said
    assert str(judged) in said
    assert said.count("\n") == 1
    assert not (tmp_path / "x.jsonl").exists()


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("filter.filters=[best_of_k]", "filter best_of_k: no step plays solver"),
        ("filter.filters=[{name: best_of_k, roles: [defnder]}]", 'no step plays defnder; did you mean "defender"?'),
        ("judge.rewards={attackr: checked_solver}", 'judge.rewards: role "attackr" is not declared'),
        ("solve.role=defnder", 'pipeline[2] (solve): role: role "defnder" is not declared'),
        ("roles.referee.model=x", "roles.referee: no step plays this role"),
        ("solve.role=Defender", "solve.role: expected `str` matching regex"),
    ],
)
def test_a_slip_of_the_pen_in_a_role_is_told_before_any_work(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: str, said: str
) -> None:
    assert here("run", recipe, "--run-dir", tmp_path / "run", "--set", setting) == 2

    told = capsys.readouterr().err
    assert said.replace("`", "") in told
    assert told.count("\n") == 1


def test_a_judged_file_is_read_again_from_the_rows_alone(judged: Path, tmp_path: Path) -> None:
    rows = read_rows(judged)
    asked = [row for row in rows if row.stage == "judge" and row.purpose == "grade"]
    verdicts = {verdict.judge_id: verdict.score for row in rows for verdict in row.verdicts if verdict.judge_id}

    assert asked
    for row in asked:
        assert read_reply(row).score == verdicts[row.id]
    again = read_rows(write_rows(tmp_path / "copy.jsonl", rows))
    assert again == rows
