"""Rows under a schema, from the command line: sound, cut and invalid texts each have their status and reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mae_cli.records import Row, Sampling
from mae_cli.records.text_schema import TextSchema
from mae_cli.stages.generation.schema_check import checked
from tests.support import a_problem, a_row, here, read_json_lines, write_sums

INTEGER = {"type": "object", "properties": {"answer": {"type": "integer", "minimum": 0, "maximum": 99}},
           "required": ["answer"], "additionalProperties": False}  # fmt: skip


def row_with(text: str | None, schema: TextSchema, *, stage_role: str = "solver", **changes: object) -> Row:
    sampling = Sampling(max_new_tokens=16, schema=schema.text())
    role = "proposer" if stage_role == "proposer" else "solver"
    problem = None if role == "proposer" else a_problem()
    return a_row(role, problem=problem, completion=text, raw=text, sampling=sampling, **changes)


@pytest.mark.parametrize(
    ("text", "schema", "status", "answer"),
    [
        ('{"answer": 12}', TextSchema("json", INTEGER), "ok", "12"),
        ('{"answer": "12"}', TextSchema("json", INTEGER), "unparsed", None),
        ('{"answer": 12', TextSchema("json", INTEGER), "unparsed", None),
        ('```json\n{"answer": 12}\n```', TextSchema("json", INTEGER), "unparsed", None),
        ('Sure! {"answer": 12}', TextSchema("json", INTEGER), "unparsed", None),
        ('{"answer": NaN}', TextSchema("json", {"type": "object"}), "unparsed", None),
        ("", TextSchema("json", INTEGER), "unparsed", None),
        ('"x"', TextSchema("json", {"type": "string"}), "ok", '"x"'),
        ("12", TextSchema("regex", "[0-9]+"), "ok", "12"),
        ("12.", TextSchema("regex", "[0-9]+"), "unparsed", None),
        ("yes", TextSchema("choices", ["yes", "no"]), "ok", "yes"),
        ("yes.", TextSchema("choices", ["yes", "no"]), "unparsed", None),
        ("Yes", TextSchema("choices", ["yes", "no"]), "unparsed", None),
    ],
)
def test_a_text_is_checked_and_never_repaired(text: str, schema: TextSchema, status: str, answer: str | None) -> None:
    row = checked(row_with(text, schema))

    assert (row.status, row.answer, row.completion) == (status, answer, text)
    assert (row.error is None) == (status == "ok")


def test_a_cut_text_stays_truncated_with_its_reason_and_an_error_stays_one() -> None:
    cut = checked(row_with('{"ans', TextSchema("json", INTEGER), status="truncated"))
    failed = checked(row_with(None, TextSchema("json", INTEGER), status="error", error="server died"))

    assert (cut.status, "cut by the token limit" in str(cut.error)) == ("truncated", True)
    assert (failed.status, failed.error) == ("error", "server died")


def test_a_question_is_read_out_of_a_proposal() -> None:
    schema = TextSchema("json", {"type": "object", "properties": {"question": {"type": "string"}}})
    row = checked(row_with('{"question": "What is 2 + 2?"}', schema, stage_role="proposer", status="unparsed"))

    assert (row.status, row.problem and row.problem.question) == ("ok", "What is 2 + 2?")


@pytest.mark.parametrize("engine", ["scripted", "scripted:accuracy=0.5", "hf:paged"])
def test_an_engine_without_the_means_is_refused_at_the_start(
    tmp_path: Path, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str], engine: str
) -> None:
    problems = write_sums(tmp_path / "q.jsonl", 2)
    told = ("--engine", engine, "-m", tiny_model_dir, "--set", "solve.schema=[yes, no]")

    assert here("solve", problems, "-o", tmp_path / "r.jsonl", *told) == 2
    assert f'engine "{engine}" cannot hold texts to a schema' in capsys.readouterr().err


def test_solve_and_propose_write_rows_of_their_schema(
    tmp_path: Path, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("llguidance")
    problems = write_sums(tmp_path / "q.jsonl", 2)
    (tmp_path / "s.json").write_text(json.dumps(INTEGER))
    model = ("-m", tiny_model_dir, "--device", "cpu", "--rollouts-per-problem", 2)

    assert here("solve", problems, "-o", tmp_path / "r.jsonl", *model, "--schema", tmp_path / "s.json") == 0
    said = capsys.readouterr().err
    rows = read_json_lines(tmp_path / "r.jsonl")

    assert all(row["status"] == "ok" and 0 <= int(row["answer"]) <= 99 for row in rows)
    assert json.loads(rows[0]["sampling"]["schema"]) == {"json": INTEGER}
    assert "policy gradients" in said
    assert here("solve", problems, "-o", tmp_path / "r.jsonl", *model, "--schema", tmp_path / "s.json") == 0
    assert here("solve", problems, "-o", tmp_path / "r.jsonl", *model) == 2
    assert "sampling.schema" in capsys.readouterr().err


def test_a_schema_that_cannot_be_held_is_refused_before_a_model_is_loaded(
    tmp_path: Path, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("llguidance")
    problems = write_sums(tmp_path / "q.jsonl", 2)
    told = ("-m", tiny_model_dir, "--set", "solve.schema={not: {type: string}}")

    assert here("solve", problems, "-o", tmp_path / "r.jsonl", *told) == 2
    assert "Unimplemented keys" in capsys.readouterr().err
    assert not (tmp_path / "r.jsonl").exists()
