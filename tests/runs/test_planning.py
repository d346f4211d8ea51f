"""`mae plan`: formulas of memory by hand and by PEFT's own count, rows and tokens against a real run."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mae_cli.recipe.load import load_recipe
from mae_cli.runs.planning.memory import activation_bytes, kv_bytes_per_token, memory_of
from mae_cli.runs.planning.predict import repeated
from tests.conftest import save_tiny_model
from tests.support import a_problem, a_row, here, write_sums

RECIPE = """\
device: cpu
batch_size: 8
rounds: 2
on_empty: skip
propose: {num_problems: 6, proposer: zero, max_new_tokens: 8}
solve: {num_problems: 10, rollouts_per_problem: 3, max_new_tokens: 8, train_on_proposals: false}
judge: {verifier: numeric, judge: null, votes: 0, solver_reward: checked_solver, proposer_reward: checked_proposer,
  judge_reward: checked_judge, max_new_tokens: 8}
filter: {filters: [{name: best_of_k, k: 2}]}
finetune: {objective: sft, lora_r: 2, batch_size: 4}
eval: {max_new_tokens: 8}
"""


@pytest.fixture
def recipe(tiny_model_dir: Path, tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    seeds, items = write_sums(tmp_path / "seeds.jsonl", 12), tmp_path / "items.jsonl"
    write_sums(items, 40)
    items.write_text("".join(items.read_text().splitlines(keepends=True)[20:]))
    path.write_text(f"model: {tiny_model_dir}\nseeds: {seeds}\n{RECIPE}")
    path.write_text(path.read_text().replace("eval: {", f"eval: {{benchmarks: ['{items}'], "))
    return path


def planned(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    capsys.readouterr()
    assert here("plan", *arguments, "--json", "-q") == 0
    plan: dict[str, Any] = msgspec.json.decode(capsys.readouterr().out)
    return plan


def made(run_dir: Path) -> dict[tuple[int, str], tuple[int, int]]:
    """(new rows, tokens) of each step of a real run, by round and stage; an exam's two parts are one."""
    found: dict[tuple[int, str], tuple[int, int]] = {}
    for line in (run_dir / "events.jsonl").read_bytes().splitlines():
        event = msgspec.json.decode(line)
        if event["event"] not in ("propose", "solve", "judge", "finetune", "eval"):
            continue
        told, key = event["details"], (int(event["round"].rpartition("-")[2]), event["event"])
        rows = told["written"] - (told["read"] if event["event"] == "judge" else 0)
        rows = told["written"] if event["event"] in ("finetune", "propose", "eval") else rows
        before = found.get(key, (0, 0))
        found[key] = (before[0] + rows, before[1] + told["tokens"])
    return found


def test_rows_and_tokens_are_those_of_the_real_run(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = planned(capsys, recipe, "--rows", 64)
    assert here("run", recipe, "--run-dir", tmp_path / "run", "-q") == 0

    real = made(tmp_path / "run")
    steps = {(step["round"], step["stage"]): step for step in plan["steps"]}
    for stage, number in (("propose", 1), ("propose", 2), ("eval", 0), ("eval", 1), ("finetune", 1)):
        assert steps[number, stage]["rows"] == real[number, stage][0]
    # The file of solve holds the proposals too.
    assert steps[1, "solve"]["rows"] == real[1, "solve"][0] - real[1, "propose"][0] == 30
    tokens = sum(count for (number, _), (_, count) in real.items() if number <= 1)
    assert sum(step["tokens"] for step in plan["steps"] if step["round"] <= 1) == pytest.approx(tokens, rel=0.2)


def test_from_a_few_rows_the_recipes_own_numbers_stay_exact(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = planned(capsys, recipe, "--rows", 3)

    rows = {(step["round"], step["stage"]): step["rows"] for step in plan["steps"]}
    assert [rows[key] for key in ((0, "eval"), (1, "propose"), (1, "solve"), (2, "solve"))] == [20, 6, 30, 30]
    assert rows[1, "finetune"] == 20  # two of each group of three
    assert plan["disk_bytes"] > 0
    assert plan["bottleneck"] in ("propose", "solve", "finetune", "eval")
    assert 1 <= len(plan["settings"]) <= 3


def test_nothing_is_left_behind(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    work, temporary = tmp_path / "work", tmp_path / "temporary"
    work.mkdir()
    temporary.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr("tempfile.tempdir", str(temporary))

    planned(capsys, recipe, "--rows", 3)

    assert list(work.iterdir()) == list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("budget", "line"),
    [
        (["--max-hours", "1e-9"], "mae: --max-hours 1e-09: "),
        (["--max-tokens", "5"], "mae: --max-tokens 5: "),
        (["--max-disk", "1B"], "mae: --max-disk "),
    ],
)
def test_a_plan_over_its_budget_ends_on_6(
    budget: list[str], line: str, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["--set", "rounds=1", "--set", "pipeline=[solve, judge, filter, eval]"]

    assert here("plan", recipe, "--rows", 2, "-q", *settings, *budget) == 6

    told = capsys.readouterr()
    assert told.err.startswith(line)
    assert len(told.err.splitlines()) == 1


# ---- rows repeated to full size


def test_repeated_rows_keep_their_groups_and_get_ids_of_their_own() -> None:
    rows = [a_row(problem=a_problem(f"What is {n} + 1?"), index=i) for n in range(2) for i in range(3)]

    found = repeated(rows, 15)

    assert len({row.id for row in found}) == 15
    assert [sum(row.group_id == group for row in found) for group in dict.fromkeys(r.group_id for r in found)] == [
        3
    ] * 5
    assert found[:6] == rows
    assert repeated(rows, 4) == rows[:4]
    assert repeated(rows, 0) == repeated([], 5) == []


# ---- memory


def test_keys_and_values_by_hand() -> None:
    from transformers import LlamaConfig

    # Llama 3 8B: 32 layers, 8 key-value heads of 128: 128 KiB a token in bfloat16, as its model card's users reckon.
    config = LlamaConfig(hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8)

    assert kv_bytes_per_token(config, 2) == 2 * 32 * 8 * 128 * 2 == 131072


def test_activations_by_hand() -> None:
    from transformers import LlamaConfig

    config = LlamaConfig(hidden_size=100, num_hidden_layers=3, num_attention_heads=1)

    assert activation_bytes(config, 10, 2, checkpointed=False) == 3 * 34 * 10 * 100
    assert activation_bytes(config, 10, 4, checkpointed=False) == 2 * 3 * 34 * 10 * 100
    assert activation_bytes(config, 10, 2, checkpointed=True) == 3 * 2 * 10 * 100 + 34 * 10 * 100


def test_a_config_alone_is_enough_and_lora_is_counted_as_peft_does(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = save_tiny_model(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(str(folder))
    whole = sum(one.numel() for one in model.parameters())
    tuned = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear"))
    trained = sum(one.numel() for one in tuned.parameters() if one.requires_grad)
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(folder / "config.json", bare)

    found = memory_of(load_recipe(None, [f"model={bare}", "device=cpu", "finetune.lora_r=4", "batch_size=2"]))

    assert (found.parameters, found.trained_parameters) == (whole, trained)
    assert found.weight_bytes == 4 * whole
    assert found.optimizer_bytes == 16 * trained
    assert found.kv_bytes_per_token == 2 * 2 * 2 * 16 * 4
    assert found.kv_bytes == found.kv_bytes_per_token * 256 * 2  # no row is longer than the context


def test_a_large_model_is_planned_without_its_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A 7B class on the meta device: parameters as published (6.74 billion), no memory taken."""
    config = {
        **{"model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32},
        **{"num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32000, "tie_word_embeddings": False},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))

    assert here("plan", "mae_zero", "--config-only", "-m", tmp_path, "--dtype", "bfloat16", "--json") == 0

    found = msgspec.json.decode(capsys.readouterr().out)
    assert found["parameters"] == 6_738_415_616
    assert found["weight_bytes"] == 2 * 6_738_415_616


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"model_type": "llama9"}', "transformers cannot build it from config.json"),
        (None, 'no model "'),
    ],
)
def test_a_config_that_is_none_is_one_line(
    text: str | None, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "nobody"
    if text is not None:
        folder.mkdir()
        (folder / "config.json").write_text(text)

    assert here("plan", "quickstart", "--config-only", "-m", folder) == 2

    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert line in told[0]


@pytest.mark.slow
@pytest.mark.skipif("MAE_QUIET_MACHINE" not in os.environ, reason="wall time means something on a quiet machine only")
def test_the_quickstart_takes_what_its_plan_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Wall time within 35 %, rows and tokens within 20 %."""
    plan = planned(capsys, "quickstart")
    assert here("run", "quickstart", "--run-dir", tmp_path / "run", "-q") == 0

    summary = msgspec.json.decode((tmp_path / "run" / "summary.json").read_bytes())
    assert plan["seconds"] == pytest.approx(summary["seconds"], rel=0.35)
    assert plan["tokens"] == pytest.approx(summary["tokens"], rel=0.2)
