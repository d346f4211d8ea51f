"""`mae eval --via lm-eval`: the harness's samples as rows, and its totals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mae_cli.recipe.load import load_recipe
from mae_cli.records import Policy, Row
from mae_cli.reports.accuracy import accuracy, readings_in
from mae_cli.stages.evaluation.lm_eval import rows_of
from mae_cli.stages.generation.job import open_job
from tests.support import PATIENT_SECONDS, child_environment, here, mae, read_json_lines, write_json_lines, write_sums


def a_sample(number: int, filter_name: str, **metrics: Any) -> dict[str, Any]:
    return {
        "doc_id": number,
        "doc_hash": f"h{number}",
        "target": "7",
        "arguments": [(f"Question {number}", {"until": []})],
        "resps": [["the answer is 7"]],
        "filtered_resps": ["7"],
        "filter": filter_name,
        "metrics": list(metrics),
        **metrics,
    }


def rows(samples: dict[str, list[dict[str, Any]]]) -> list[Row]:
    return list(rows_of(samples, Policy(model="m"), open_job(load_recipe(None))))


def test_an_item_is_one_row_with_a_verdict_per_metric_and_filter() -> None:
    made = rows(
        {"gsm8k": [a_sample(0, "strict-match", exact_match=0.0), a_sample(0, "flexible-extract", exact_match=1.0)]}
    )

    assert [(v.name, v.score) for v in made[0].verdicts] == [
        ("lm-eval:gsm8k/exact_match,strict-match", 0.0),
        ("lm-eval:gsm8k/exact_match,flexible-extract", 1.0),
    ]
    assert len(made) == 1
    assert (made[0].completion, made[0].answer) == ("the answer is 7", "7")
    assert made[0].problem is not None
    assert made[0].problem.meta == {"benchmark": "gsm8k", "doc_id": 0}


def test_choices_are_answered_by_the_likeliest() -> None:
    sample = a_sample(0, "none", acc=True) | {
        "arguments": [("Sky?", " green"), ("Sky?", " blue")],
        "resps": [[(-3.0, False)], [(-1.0, True)]],
    }

    (row,) = rows({"colours": [sample]})

    assert (row.answer, row.completion, row.verdicts[0].score) == ("blue", None, 1.0)
    assert readings_in([row]) == ["acc"]


def test_graded_metrics_make_no_item_right_or_wrong() -> None:
    (row,) = rows({"t": [a_sample(0, "none", f1=0.5, word_perplexity=(3.0, 2), acc=0)]})

    assert [v.name for v in row.verdicts] == ["lm-eval:t/acc"]


def test_a_graded_metric_is_no_reading_even_of_the_items_where_it_is_0_or_1() -> None:
    made = rows({"t": [a_sample(n, "none", f1=f1, exact=int(f1 == 1)) for n, f1 in enumerate([1, 0.6, 0])]})

    assert readings_in(made) == ["exact"]


def test_an_item_another_task_scores_otherwise_is_in_no_share_of_this_metric() -> None:
    made = rows({"a": [a_sample(0, "none", acc=1)], "b": [a_sample(0, "none", exact_match=1)]})

    assert (accuracy("m", made, "acc", 0.95).items, accuracy("m", made, "acc", 0.95).unknown) == (1, 0)
    assert len({row.id for row in made}) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("x", "--engine", "scripted"), "drives a model in this process"),
        (("no_file.yaml",), "no_file.yaml: No such file"),
        (("not_a_task.yaml",), 'field "task": expected the name of a task'),
        ((), "name tasks"),
    ],
)
def test_what_the_harness_cannot_do_is_one_line_and_exit_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    pytest.importorskip("lm_eval.tasks")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "not_a_task.yaml").write_text("group: x\n")

    assert here("eval", *arguments, "--via", "lm-eval", "-o", "e.jsonl") in (2,)

    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_with_the_hub_switched_off_a_task_that_is_not_cached_exits_2(tmp_path: Path, tiny_model_dir: Path) -> None:
    pytest.importorskip("lm_eval")
    task = tmp_path / "far.yaml"
    task.write_text("task: far\ndataset_path: org/not_here\ntest_split: test\noutput_type: generate_until\n")

    done = mae("eval", task, "--via", "lm-eval", "-o", tmp_path / "e.jsonl", "-m", tiny_model_dir, "--device", "cpu",
               HF_HOME=str(tmp_path / "hf"))  # fmt: skip

    assert done.returncode == 2, done.stderr
    assert b"is not in the cache, and the hub is switched off" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_run_does_not_ask_the_harness(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"seeds: {write_sums(tmp_path / 's.jsonl', 2)}\neval: {{benchmarks: [arc], via: lm-eval}}\n")

    assert here("run", recipe, "--run-dir", tmp_path / "run", "--engine", "scripted") == 2

    assert "eval.via: lm-eval is for mae eval" in capsys.readouterr().err


COLOURS = """
task: colours
dataset_path: json
dataset_kwargs: {{data_files: {{test: {items}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{gold}}}}"
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""


def the_harness_by_itself(folder: Path, task: Path, model: Path, adapters: dict[str, Path | None]) -> dict[str, float]:
    """Accuracy of each policy, by a process that knows nothing of ours."""
    script = folder / "harness.py"
    script.write_text(
        "import json, sys\n"
        "from lm_eval import simple_evaluate\n"
        "from lm_eval.tasks import TaskManager\n"
        "folder, model, adapters = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])\n"
        "manager = TaskManager(include_path=folder, include_defaults=False)\n"
        "found = {}\n"
        "for policy, adapter in adapters.items():\n"
        "    more = f',peft={adapter}' if adapter else ''\n"
        "    result = simple_evaluate('hf', f'pretrained={model},dtype=float32{more}', ['colours'], device='cpu',\n"
        "        task_manager=manager, bootstrap_iters=0)\n"
        "    found[policy] = result['results']['colours']['acc,none']\n"
        "print(json.dumps(found))\n"
    )
    told = msgspec.json.encode({name: str(path) if path else None for name, path in adapters.items()}).decode()
    done = subprocess.run(
        [sys.executable, str(script), str(task.parent), str(model), told],
        check=True,
        capture_output=True,
        env=child_environment(HF_HOME=str(folder / "hf"), PYTHONPATH=""),
        timeout=5 * PATIENT_SECONDS,
        cwd=folder,
    )
    found: dict[str, float] = msgspec.json.decode(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
def test_our_totals_are_those_of_the_harness_run_by_itself_on_base_and_adapter(
    tmp_path: Path, tiny_model_dir: Path
) -> None:
    pytest.importorskip("lm_eval")
    items = write_json_lines(
        tmp_path / "items.jsonl",
        [
            {"question": f"What is {i} plus {i + 1}?", "choices": ["red", "blue coins", "green"], "gold": i % 3}
            for i in range(40)
        ],
    )
    task = tmp_path / "colours.yaml"
    task.write_text(COLOURS.format(items=items))
    ours = ("-m", tiny_model_dir, "--device", "cpu")
    rollouts, adapter, output = tmp_path / "r.jsonl", tmp_path / "adapter", tmp_path / "e.jsonl"
    assert here("solve", write_sums(tmp_path / "s.jsonl", 8), "-o", rollouts, "--engine", "scripted") == 0
    trained = mae("finetune", rollouts, "-o", adapter, *ours, "--learning-rate", "0.05", "--lora-r", "2")
    assert trained.returncode == 0, trained.stderr

    via = ("eval", task, "--via", "lm-eval", "--adapter", adapter, "-o", output, *ours)

    done = mae(*via, HF_HOME=str(tmp_path / "hf"))

    assert done.returncode == 0, done.stderr
    assert b"\r" not in done.stderr
    told = done.stderr.decode()
    assert "colours: 40 items: one accuracy near 50 % is known to" in told.partition("lm-eval: base")[0]
    assert "smallest difference found with 80 % power" in told.partition("lm-eval: base")[0]
    summary = msgspec.json.decode((tmp_path / "e.summary.json").read_bytes())
    shares = {figure["policy"]: figure["share"] for figure in summary["accuracy"]}
    totals = the_harness_by_itself(tmp_path, task, tiny_model_dir, {"base": None, "adapter": adapter})
    for policy, total in totals.items():
        assert shares[policy] == pytest.approx(total) == summary["lm_eval"][policy]["colours"]["acc,none"]
    assert shares["base"] != shares["adapter"], "the adapter must show, or equal totals prove nothing"
    assert summary["comparisons"][0]["items"] == 40
    assert len(read_json_lines(output)) == 80
    again = mae(*via)
    assert b"skipped 80 (done before)" in again.stderr
