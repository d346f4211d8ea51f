"""Files, suites and hub data sets as benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mae_cli.data import hub
from mae_cli.errors import ConfigError, DataError, TemporaryError
from mae_cli.plugins.registry import VERIFIERS
from mae_cli.prompts.prompt_files import load_prompt
from mae_cli.recipe.sections import EvalSection
from mae_cli.stages.evaluation import benchmarks
from mae_cli.stages.evaluation.benchmarks import SUITES, keep_items, load_benchmarks, spec_of, spec_text
from tests.support import here, mae, read_json_lines, write_json_lines, write_sums


@pytest.mark.parametrize("name", SUITES)
def test_every_suite_names_a_verifier_and_a_prompt_there_are(name: str) -> None:
    assert SUITES[name].verifier in VERIFIERS
    assert load_prompt(SUITES[name].prompt).variables == {"question"}


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("gsm8k", {"suite": "gsm8k"}),
        ("gsm8k=mine.jsonl", {"suite": "gsm8k", "path": "mine.jsonl"}),
        ("folder/gsm8k.jsonl", {"path": "folder/gsm8k.jsonl"}),
        ("a=b.jsonl", {"path": "a=b.jsonl"}),
        ("hub:org/name/config:test", {"hub": "org/name/config:test"}),
        ('{"path": "x.jsonl", "verifier": "math"}', {"path": "x.jsonl", "verifier": "math"}),
        ({"suite": "mmlu", "limit": 5}, {"suite": "mmlu", "limit": 5}),
    ],
)
def test_a_benchmark_is_named_in_one_word_or_by_a_mapping(spec: Any, told: dict[str, Any]) -> None:
    found = spec_of(spec)

    assert {k: v for k in found.__struct_fields__ if (v := getattr(found, k)) is not None} == told


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"pat": "x"}, 'unknown field "pat"; did you mean "path"'),
        ({"suite": "gsm9k"}, 'no suite "gsm9k"; did you mean "gsm8k"'),
        ({"name": "x"}, "needs suite, path or hub"),
        ({"path": 3}, "expected `?str"),
        ("{no json", "not a JSON object"),
    ],
)
def test_a_wrong_benchmark_is_named(spec: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=f"(?i){message}"):
        spec_of(spec)


def test_a_name_that_is_neither_file_nor_suite_says_so() -> None:
    with pytest.raises(ConfigError, match=r'gsm9k: no such file .* no suite of that name: did you mean "gsm8k"'):
        load_benchmarks(["gsm9k"], EvalSection())


def test_a_local_file_stands_in_for_a_suite_with_its_fields_and_verifier(tmp_path: Path) -> None:
    code = write_json_lines(
        tmp_path / "he.jsonl",
        [{"task_id": "t/0", "prompt": "def f():\n", "test": "def check(c): pass", "entry_point": "f"}],
    )
    exam = write_json_lines(
        tmp_path / "m.jsonl", [{"question": "Pick", "choices": ["red", "blue"], "answer": 1, "subject": "colours"}]
    )

    coded, asked = load_benchmarks([f"humaneval={code}", {"suite": "mmlu", "path": str(exam)}], EvalSection())

    assert (coded.verifier, coded.problems[0].question) == ("python_tests", "def f():")
    assert coded.problems[0].meta["tests"] == "def check(c): pass"
    assert (asked.verifier, asked.group_by, asked.problems[0].reference_answer) == ("choice", ("subject",), "B")
    assert asked.problems[0].meta["benchmark"] == "mmlu"


def test_a_file_of_choices_or_of_tested_functions_is_checked_as_such_unless_told_otherwise(tmp_path: Path) -> None:
    exam = write_json_lines(tmp_path / "m.jsonl", [{"question": "Pick", "choices": ["red", "blue"], "answer": 1}])
    code = write_json_lines(
        tmp_path / "c.jsonl", [{"question": "Add", "tests": ["assert add(1, 2) == 3"], "entry_point": "add"}]
    )
    calls = write_json_lines(
        tmp_path / "d.jsonl", [{"question": "Add", "entry_point": "add", "inputs": [[1, 2]], "outputs": [3]}]
    )
    mixed = write_json_lines(
        tmp_path / "x.jsonl", [*read_json_lines(exam), {"question": "What is 3 + 4?", "answer": "7"}]
    )

    found = load_benchmarks([str(path) for path in (exam, code, calls, mixed)], EvalSection())
    (told,) = load_benchmarks([str(exam)], EvalSection(verifier="exact_match"))

    assert [benchmark.verifier for benchmark in found] == ["choice", "python_tests", "python_call", "numeric"]
    assert told.verifier == "exact_match"


def test_references_the_verifier_cannot_read_are_told_before_anything_is_generated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items = write_json_lines(
        tmp_path / "i.jsonl", [{"question": f"What is {n} + 4?", "answer": ("p - q", "7")[n]} for n in range(2)]
    )

    assert here("eval", items, "-o", tmp_path / "e.jsonl", "--engine", "scripted") == 0

    told = capsys.readouterr().err.splitlines()
    assert told[1].startswith(
        "WARNING: i: verifier numeric cannot read 1 of the first 2 reference answers (the reference answer is not one"
    )
    assert here("eval", items, "-o", tmp_path / "f.jsonl", "--engine", "scripted", "--verifier", "math") == 0
    assert "WARNING" not in capsys.readouterr().err


def test_samples_without_a_temperature_are_told_to_be_one_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items = write_sums(tmp_path / "i.jsonl", 2)

    assert here("eval", items, "-o", tmp_path / "e.jsonl", "--engine", "scripted", "--samples", 3) == 0
    assert "the 3 samples of an item will be the same text" in capsys.readouterr().err
    assert here("eval", items, "-o", tmp_path / "f.jsonl", "--engine", "scripted", "--samples", 3, "-T", 1) == 0
    assert "WARNING" not in capsys.readouterr().err


def test_suites_are_listed_with_their_prompts_word_for_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert here("list", "suites") == 0

    told = capsys.readouterr().out
    for name, suite in SUITES.items():
        assert f"{name} " in told
        assert suite.hub in told
        for message in load_prompt(suite.prompt).render(question="{{ question }}"):
            assert message.content in told
    assert {SUITES[name].prompt for name in ("mmlu", "arc", "humaneval", "gsm8k")} == {
        "solve_choice",
        "solve_code",
        "solve",
    }


def test_labels_of_choices_become_letters_by_place(tmp_path: Path) -> None:
    rows = [{"question": "Pick", "choices": {"text": ["red", "blue"], "label": ["1", "2"]}, "answerKey": "2"}]

    (arc,) = load_benchmarks([f"arc={write_json_lines(tmp_path / 'a.jsonl', rows)}"], EvalSection())

    assert arc.problems[0].reference_answer == "B"


def test_a_recipe_s_own_prompt_and_verifier_win_over_a_suite_s(tmp_path: Path) -> None:
    items = write_sums(tmp_path / "s.jsonl", 2)

    (plain,) = load_benchmarks([f"gsm8k={items}"], EvalSection(prompt="sums_solve", verifier="exact_match"))
    (own,) = load_benchmarks([{"suite": "gsm8k", "path": str(items), "verifier": "regex"}], EvalSection(limit=1))

    assert (plain.prompt, plain.verifier) == ("sums_solve", "exact_match")
    assert (own.verifier, len(own.problems)) == ("regex", 1)


def test_an_item_in_two_benchmarks_is_asked_once_and_equal_names_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    first, second = write_sums(tmp_path / "a.jsonl", 3), write_sums(tmp_path / "d" / "a.jsonl", 5)

    found = load_benchmarks([str(first), str(second)], EvalSection())

    assert [(b.name, len(b.problems)) for b in found] == [("a", 3), ("a-2", 2)]
    again = load_benchmarks([spec_text(benchmark) for benchmark in found], EvalSection())
    assert [(b.name, b.problems) for b in again] == [(b.name, b.problems) for b in found]


def test_an_item_nothing_can_be_checked_against_is_refused(tmp_path: Path) -> None:
    items = write_json_lines(tmp_path / "i.jsonl", [{"question": "What is 3 + 4?"}])

    with pytest.raises(DataError, match='item "What is 3 \\+ 4\\?" has no reference answer'):
        load_benchmarks([str(items)], EvalSection())


def test_kept_items_read_back_as_they_were_and_other_items_are_refused(tmp_path: Path) -> None:
    rows = [{"question": "Pick", "choices": ["red", "blue"], "answer": 1, "subject": "s", "target": "x"}]
    (asked,) = load_benchmarks([f"mmlu={write_json_lines(tmp_path / 'm.jsonl', rows)}"], EvalSection())

    kept = keep_items(asked, tmp_path / "kept" / "mmlu.jsonl")
    (again,) = load_benchmarks([spec_text(kept)], EvalSection(limit=0))

    assert (again.problems, again.prompt, again.verifier) == (asked.problems, asked.prompt, asked.verifier)
    assert keep_items(asked, tmp_path / "kept" / "mmlu.jsonl") == kept
    asked.problems = []
    with pytest.raises(ConfigError, match="holds other items"):
        keep_items(asked, tmp_path / "kept" / "mmlu.jsonl")


def test_a_hub_that_cannot_be_reached_is_said_at_once_and_may_be_tried_again(tmp_path: Path) -> None:
    with pytest.raises(TemporaryError, match="hub:openai/gsm8k/main:test: not in the cache, and the hub cannot"):
        list(hub.hub_rows("openai/gsm8k/main:test"))


def test_with_the_hub_switched_off_a_data_set_that_is_not_cached_exits_2(tmp_path: Path) -> None:
    done = mae("eval", "gsm8k", "-o", tmp_path / "e.jsonl", "--engine", "scripted", HF_HOME=str(tmp_path / "hub"))

    assert done.returncode == 2
    assert b"not in the cache, and the hub is switched off" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_rows_of_a_hub_data_set_become_items(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [({"question": "What is 1 + 1?", "result": "2"}, "hub:x row 1")]
    monkeypatch.setattr(benchmarks, "hub_rows", lambda name: iter(rows))

    (found,) = load_benchmarks(["mawps"], EvalSection())

    assert (found.source, found.name) == ("hub:MU-NLPC/Calc-mawps:test", "mawps")
    assert found.problems[0].reference_answer == "2"


def test_suites_are_evaluated_together_each_by_its_own_verifier(tmp_path: Path) -> None:
    sums = write_sums(tmp_path / "s.jsonl", 4)
    exam = write_json_lines(tmp_path / "m.jsonl", [{"question": "Pick", "choices": ["red", "blue"], "answer": 1}])

    assert here("eval", f"gsm8k={sums}", f"mmlu={exam}", "-o", tmp_path / "e.jsonl", "--engine", "scripted") == 0

    names = {row["verdicts"][0]["name"] for row in read_json_lines(tmp_path / "e.jsonl")}
    assert names == {"numeric/strict", "choice/strict"}
