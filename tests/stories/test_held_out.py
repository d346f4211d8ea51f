"""A recipe keeps its own benchmarks and gate out of training, and an evaluation says how far it did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mae_cli.recipe.files import find_recipe
from mae_cli.recipe.load import load_recipe
from mae_cli.records.problems import problem_from
from tests.support import ROOT, a_problem, a_row, here, read_json_lines, write_json_lines, write_rows, write_sums

RECIPE = """
model: {model}
device: cpu
seeds: {seeds}
propose: {{num_problems: 1, max_new_tokens: 4}}
solve: {{num_problems: 6, rollouts_per_problem: 1, max_new_tokens: 4}}
judge: {{verifier: numeric, judge: none, max_unparsed: 1.0, solver_reward: checked_solver}}
filter: {{filters: [{{name: quality}}]}}
finetune: {{objective: sft, batch_size: 2, lora_r: 2}}
eval: {{benchmarks: [{held_out}], gate: {gate}, max_new_tokens: 4}}
"""


@pytest.fixture
def recipe(tmp_path: Path, tiny_model_dir: Path) -> Path:
    """Six seeds, of which one is reported in other dress and one decides in other dress."""
    seeds = write_sums(tmp_path / "seeds.jsonl", 6)
    held_out = write_json_lines(
        tmp_path / "held_out.jsonl",
        [
            {"question": "Question: What is three plus $4$?", "answer": "7"},
            {"question": "What is 2 + 60?", "answer": "62"},
        ],
    )
    gate = write_json_lines(
        tmp_path / "gate.jsonl",
        [{"question": "**What is 10 + 5**", "answer": "15"}, {"question": "What is 1 + 60?", "answer": "61"}],
    )
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE.format(model=tiny_model_dir, seeds=seeds, held_out=held_out, gate=gate))
    return path


def lines(run: Path, name: str) -> list[dict[str, Any]]:
    return read_json_lines(run / "round-001" / name)


def test_a_run_trains_no_item_of_its_benchmarks_and_gate_and_says_so(
    tmp_path: Path, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"

    assert here("run", recipe, "--run-dir", run, "--json") == 0

    told = json.loads(capsys.readouterr().out)
    assert told["contamination"] == {"items": 4, "overlapping": 0, "removed": 2}
    held_out = {"What is 3 + 4?", "What is 10 + 5?"}
    assert {row["problem"]["question"] for row in lines(run, "4_dropped.jsonl")} == held_out
    selected = [row for row in lines(run, "4_selected.jsonl") if row["kept"] and row["problem"]]
    assert held_out.isdisjoint(row["problem"]["question"] for row in selected)
    summary = json.loads((run / "round-001" / "6_eval.summary.json").read_bytes())
    assert summary["contamination"] == {"items": 2, "overlapping": 0, "removed": 2}
    assert "contamination" not in json.loads((run / "round-000" / "6_eval.summary.json").read_bytes())


def test_a_recipe_may_switch_it_off_and_then_the_overlap_is_counted(
    tmp_path: Path, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"

    assert here("run", recipe, "--run-dir", run, "--set", "filter.decontaminate=false") == 0

    assert "trained on: 2 of 4 items overlap; 0 rows removed" in capsys.readouterr().out


def test_a_pipeline_without_a_filter_trains_no_held_out_item_either(
    tmp_path: Path, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"

    assert here("run", recipe, "--run-dir", run, "--set", "pipeline=[solve, judge, finetune, eval]") == 0

    assert "trained on: 0 of 4 items overlap; 2 rows removed" in capsys.readouterr().out


def test_single_commands_with_the_recipe_do_what_the_run_does(
    tmp_path: Path, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judged, selected, adapter = tmp_path / "j.jsonl", tmp_path / "s.jsonl", tmp_path / "adapter"
    rows = [
        a_row(problem=a_problem(f"What is {a} + {b}?", str(a + b)), prompt=f"{a} {b}", answer=str(a + b), reward=1.0)
        for a, b in ((3, 4), (10, 5), (7, 8), (12, 9))
    ]
    write_rows(judged, rows)

    assert here("filter", judged, "-o", selected, "-c", recipe) == 0
    assert len(read_json_lines(selected)) == 2
    assert here("finetune", selected, "-o", adapter, "-c", recipe, "--other-models") == 0
    capsys.readouterr()
    assert here("eval", "--adapter", adapter, "-o", tmp_path / "e.jsonl", "-c", recipe, "--json") == 0

    told = capsys.readouterr()
    assert json.loads(told.out)["details"]["contamination"] == {"items": 2, "overlapping": 0, "removed": 2}
    assert "trained on: 0 of 2 items overlap; 2 rows removed" in told.err
    assert here("filter", judged, "-o", tmp_path / "all.jsonl", "-c", recipe, "--no-decontaminate") == 0
    assert len(read_json_lines(tmp_path / "all.jsonl")) == 4


def test_a_benchmark_that_cannot_be_read_is_said(
    tmp_path: Path, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judged = write_rows(tmp_path / "j.jsonl", [a_row(problem=a_problem())])

    assert here("filter", judged, "-o", tmp_path / "s.jsonl", "--set", "eval.benchmarks=[nowhere.jsonl]") == 0

    assert "WARNING: not compared with held-out items: " in capsys.readouterr().err


def test_items_of_one_question_with_other_choices_are_two_items(tmp_path: Path) -> None:
    held_out = write_json_lines(
        tmp_path / "h.jsonl",
        [{"question": "Which is even?", "choices": ["3", "4"], "answer": "B"}, {"question": "Who wrote Emma?"}],
    )
    asked = [
        problem_from(row, "here:1")
        for row in (
            {"question": "Which is even?", "choices": ["6", "7"]},
            {"question": "Which is even?", "choices": ["4", "3"]},
            {"question": "Which is even?"},
            {"question": "Who wrote Emma?", "choices": ["Austen", "Eliot"]},
        )
    ]
    judged = write_rows(
        tmp_path / "j.jsonl", [a_row("proposer", problem=p, index=number) for number, p in enumerate(asked)]
    )

    assert here("filter", judged, "-o", tmp_path / "s.jsonl", "--set", f"eval.benchmarks=[{held_out}]") == 0
    assert [row["problem"]["meta"]["choices"] for row in read_json_lines(tmp_path / "s.jsonl")] == [["6", "7"]]


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_has_it_on(path: Path) -> None:
    assert load_recipe(find_recipe(str(path))).filter.decontaminate
