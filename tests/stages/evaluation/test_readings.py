"""Readings of completions: ours, and lm-evaluation-harness's on the same texts."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mae_cli.answers.stated import read_solution
from mae_cli.errors import ConfigError
from mae_cli.plugins.verifiers.numeric import Numeric
from mae_cli.records import Row
from mae_cli.stages.evaluation.readings import (
    check_readings,
    check_rows,
    lm_eval_exact_match,
    lm_eval_flexible,
    lm_eval_strict,
)
from tests.support import (
    a_problem,
    a_row,
    benchmark_items,
    child_environment,
    command,
    read_json_lines,
    write_json_lines,
)

READINGS = ("strict", "flexible", "lm_eval_strict", "lm_eval_flexible")
HARD = read_json_lines(Path(__file__).parent / "gsm8k_completions.jsonl")
"""Hand-written completions with the scores of lm-eval 0.4.13's gsm8k filters and, where ours differ, why."""


def scored(completion: str, reference: str, status: str = "ok") -> Row:
    row = a_row(problem=a_problem(answer=reference), raw=completion, completion=completion, status=status)
    check_rows([read_solution(row)], Numeric(), READINGS)
    return row


def scores(row: Row) -> dict[str, float | None]:
    return {verdict.name.rpartition("/")[2]: verdict.score for verdict in row.verdicts}


@pytest.mark.parametrize("case", HARD, ids=lambda case: str(case["completion"])[:40])
def test_the_harness_readings_give_the_harness_scores(case: dict[str, object]) -> None:
    found = scores(scored(str(case["completion"]), str(case["reference"])))

    assert (found["lm_eval_strict"], found["lm_eval_flexible"]) == (case["lm_eval_strict"], case["lm_eval_flexible"])


@pytest.mark.parametrize("case", HARD, ids=lambda case: str(case["completion"])[:40])
def test_ours_differ_from_the_harness_only_where_a_reason_is_written_down(case: dict[str, object]) -> None:
    found = scores(scored(str(case["completion"]), str(case["reference"])))

    differs = (found["strict"], found["flexible"]) != (case["lm_eval_strict"], case["lm_eval_flexible"])
    assert (found["strict"], found["flexible"]) == (case["strict"], case["flexible"])
    assert differs == bool(case["why"])


def test_the_stored_scores_are_those_of_the_installed_harness() -> None:
    extraction = pytest.importorskip("lm_eval.filters.extraction")
    metrics = pytest.importorskip("lm_eval.api.metrics")
    strict = extraction.RegexFilter(regex_pattern=r"#### (\-?[0-9\.\,]+)")
    flexible = extraction.RegexFilter(regex_pattern=r"(-?[$0-9.,]{2,})|(-?[0-9]+)", group_select=-1)

    for case in HARD:
        text = str(case["completion"])
        for stop in ("Question:", "</s>", "<|im_end|>"):
            text = text.split(stop)[0]
        for name, one in (("lm_eval_strict", strict), ("lm_eval_flexible", flexible)):
            (answer,) = one.apply([[text]], [{}])
            found = metrics.exact_match_hf_evaluate(
                predictions=answer,
                references=[f"worked out\n#### {case['reference']}"],
                regexes_to_ignore=[",", r"\$", "(?s).*#### ", r"\.$"],
                ignore_case=True,
            )
            assert float(found["exact_match"]) == case[name], (name, text)


def _task_file() -> dict[str, Any]:
    """GSM8K's task file of the installed harness: its filters, metric and stops as they stand there."""
    yaml = pytest.importorskip("yaml")
    spec = importlib.util.find_spec("lm_eval")
    assert spec is not None, "pip install -e '.[dev]' brings lm-eval"
    assert spec.submodule_search_locations
    path = Path(spec.submodule_search_locations[0]) / "tasks" / "gsm8k" / "gsm8k.yaml"
    tree: dict[str, Any] = yaml.safe_load(path.read_text())
    return tree


def _harness_scores(completions: list[str], solutions: list[str]) -> dict[str, list[float]]:
    """Each filter's score of every completion, by the harness's own classes and its own task file."""
    extraction = pytest.importorskip("lm_eval.filters.extraction")
    metrics = pytest.importorskip("lm_eval.api.metrics")
    task = _task_file()
    (metric,) = task["metric_list"]
    options = {key: metric[key] for key in ("ignore_case", "ignore_punctuation", "regexes_to_ignore")}
    texts = []
    for text in completions:
        for stop in task["generation_kwargs"]["until"]:
            text = text.split(stop)[0]
        texts.append(text)
    found = {}
    for told in task["filter_list"]:
        regex, first = told["filter"]
        assert (regex.pop("function"), first) == ("regex", {"function": "take_first"})
        answers = extraction.RegexFilter(**regex).apply([[text] for text in texts], [{}] * len(texts))
        found[told["name"]] = [
            float(
                metrics.exact_match_hf_evaluate(predictions=list(answer), references=[gold], **options)["exact_match"]
            )
            for answer, gold in zip(answers, solutions, strict=True)
        ]
    return found


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_on_200_items_of_gsm8k_our_scores_are_the_harness_s_item_by_item(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items = [
        {
            "question": item["question"],
            "answer": f"{item['solution'].partition('####')[0].strip()}\n#### {item['answer']}",
        }
        for item in benchmark_items("gsm8k_test")
    ]
    asked, shown = items[:200], items[-2:]
    prompt = tmp_path / "two_examples.txt"
    examples = "".join(f"[user]\nQuestion: {i['question']}\n[assistant]\n{i['answer']}\n" for i in shown)
    prompt.write_text(examples + "[user]\nQuestion: {{ question }}\n")
    out = tmp_path / "e.jsonl"
    arguments = [
        *("eval", f"gsm8k={write_json_lines(tmp_path / 'g.jsonl', asked)}", "-o", out, "-m", "smollm2-135m"),
        *("--prompt", prompt, "--max-new-tokens", 64, "--device", "cpu"),
        *("--set", f"eval.readings=[{', '.join(READINGS)}]"),
    ]
    subprocess.run(command(arguments), check=True, env=child_environment(), timeout=1700)
    rows = [msgspec.convert(tree, Row) for tree in read_json_lines(out)]
    assert [row.problem.question for row in rows if row.problem] == [item["question"] for item in asked]
    # The model is seldom right: the solutions themselves as completions, every second with another result.
    for number, item in enumerate(asked):
        text, _, result = item["answer"].rpartition("#### ")
        told = item["answer"] if number % 2 else f"{text}#### {int(result.replace(',', '')) + 1:,}"
        rows.append(scored(told, result))

    assert len(rows) == 400
    harness = _harness_scores([row.raw or "" for row in rows], 2 * [item["answer"] for item in asked])
    ours = [scores(row) for row in rows]

    differ: list[tuple[str, str, str]] = []
    for name, reading in (("strict-match", "strict"), ("flexible-extract", "flexible")):
        assert [found[f"lm_eval_{reading}"] for found in ours] == harness[name]
        differ += [
            (reading, row.status, (row.raw or "")[-60:])
            for row, found, theirs in zip(rows, ours, harness[name], strict=True)
            if found[reading] != theirs
        ]
    with capsys.disabled():
        right = {name: int(sum(values)) for name, values in harness.items()}
        print(f"\n400 completions of 200 items, right by the harness: {right}; ours differ on {differ}")
    assert {status for _, status, _ in differ} <= {"truncated"}


def test_the_harness_reads_a_text_that_was_cut_off_and_ours_do_not() -> None:
    found = scores(scored("so #### 7", "7", status="truncated"))

    assert found == {"strict": 0.0, "flexible": 0.0, "lm_eval_strict": 1.0, "lm_eval_flexible": 1.0}


def test_the_harness_ends_a_text_at_the_next_question() -> None:
    assert lm_eval_strict("#### 7\nQuestion: #### 8") == "7"
    assert lm_eval_flexible("it is 7 Question: 8") == "7"
    assert lm_eval_flexible("no figure") == lm_eval_strict("7") == "[invalid]"


def test_the_harness_match_ignores_commas_dollars_and_one_stop() -> None:
    assert lm_eval_exact_match("$1,234.", "1234")
    assert lm_eval_exact_match("7", "three\nplus four\n#### 7")
    assert not lm_eval_exact_match("7.0", "7")


def test_without_a_reference_answer_the_harness_readings_are_unknown() -> None:
    row = a_row(problem=a_problem(answer=None), raw="7", completion="7")

    check_rows([read_solution(row)], Numeric(), READINGS)

    assert {verdict.score for verdict in row.verdicts} == {None}


def test_a_row_that_the_engine_failed_on_is_unknown_and_not_wrong() -> None:
    failed, cut, long = a_row(problem=a_problem(answer="7")), scored("It is", "7", "truncated"), a_row()
    failed.status, failed.error, failed.raw = "error", "HTTP 500: engine dead", None
    long.status, long.problem = "too_long", a_problem(answer="7")

    for row in (failed, cut, long):
        check_rows([row], Numeric(), ("strict", "flexible", "lm_eval_flexible"))

    assert [(verdict.score, verdict.status) for verdict in failed.verdicts] == [(None, "error")] * 3
    assert list(scores(cut).values())[:2] == list(scores(long).values())[:2] == [0.0, 0.0]


def test_an_unknown_reading_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match='unknown reading "flexibel"; did you mean "flexible"'):
        check_readings(["strict", "flexibel"])
    with pytest.raises(ConfigError, match="each once"):
        check_readings(["strict", "strict"])
    assert msgspec.json.encode(READINGS)
