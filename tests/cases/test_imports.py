"""Problem files as published: every file of `imports/` and every layout of `imports_more.jsonl` reads as decided."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mae_cli.data.imports import import_set, parse_fields
from mae_cli.errors import DataError
from mae_cli.records import Problem, choices_of
from mae_cli.records.read import read_input
from tests.support import here, read_json_lines, write_json_lines

HERE = Path(__file__).parent
FILES = HERE / "imports"
MORE = read_json_lines(HERE / "imports_more.jsonl")
TRAM = "A tram has 14 seats and 9 are taken. How many seats are free?"
# File, then (question, answer) of each problem.
GIVEN: dict[str, list[tuple[str, str | None]]] = {
    "alpaca_as_problem.jsonl": [("Add the numbers.\n\n2 and 3", "5")],
    "one_based.jsonl": [("Largest planet?", "D"), ("Formula of water?", "A")],
    "expected_answer.jsonl": [(TRAM, "5")],
    "ground_truth.jsonl": [(TRAM, "5")],
    "aqua.jsonl": [("A car drives 60 km in 45 minutes. What is its speed in km/h?", "C")],
    "math_solution_only.jsonl": [("What is $2+3$?", "5")],
    "mbpp.jsonl": [("Write a function to square a number.", None)],
    "apps.jsonl": [("Read n and print n squared.", None)],
    "aime.jsonl": [("Find 30+3.", "33")],
    "kmmlu.jsonl": [("가장 큰 행성은?", "D"), ("물의 화학식은?", "A")],
    "array.json": [(TRAM, "5"), ("Two plus two?", "4")],
    "t.parquet": [(TRAM, "5")],
    "verl.jsonl": [("What is 6*7? Put the answer in \\boxed{}.", "42")],
    "inspect_messages.jsonl": [("What is 3+4?", "7")],
    "olympiad.jsonl": [("Find all x with x^2=4.", "2, -2"), ("Find x with 2x=1.", "\\frac{1}{2}")],
}


@pytest.mark.parametrize("name", GIVEN)
def test_a_given_file_reads_as_expected(name: str) -> None:
    problems = read_input(FILES / name).problems

    assert [(problem.question, problem.reference_answer) for problem in problems] == GIVEN[name]


def test_every_given_file_is_looked_at() -> None:
    assert {path.name for path in FILES.iterdir()} == {*GIVEN, "cp1252.jsonl"}


def test_the_tests_of_apps_are_an_object() -> None:
    (problem,) = read_input(FILES / "apps.jsonl").problems

    assert problem.meta["input_output"] == {"inputs": ["3\n", "4\n"], "outputs": ["9\n", "16\n"]}


def test_answers_from_one_are_said_with_both_readings() -> None:
    (notice,) = read_input(FILES / "one_based.jsonl").notices

    assert "from 1 (1 is A)" in notice
    assert "from 0 (0 is A)" in notice


def test_another_encoding_ends_with_2_and_a_way_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.jsonl"

    assert here("data", "import", FILES / "cp1252.jsonl", "-o", out) == 2
    said = capsys.readouterr().err
    assert re.search(r"cp1252\.jsonl:1: not UTF-8: byte 0xfb at position 28; .*--encoding cp1252", said)
    assert here("data", "import", FILES / "cp1252.jsonl", "-o", out, "--encoding", "cp1252") == 0
    assert read_json_lines(out) == [{"question": "Une fraise coûte 3 €. Combien coûtent 4 fraises ?", "answer": "12"}]


def _matches(problem: Problem, expected: dict[str, Any]) -> None:
    choices = choices_of(problem)
    if "question" in expected:
        assert problem.question == expected["question"]
    if "answer" in expected:
        assert problem.reference_answer == expected["answer"]
    if "choices" in expected:
        assert choices == expected["choices"]
    if "choices_set" in expected:
        assert sorted(choices) == expected["choices_set"]
    if "answer_text" in expected:
        answer = problem.reference_answer or ""
        by_letter = {chr(ord("A") + place): text for place, text in enumerate(choices)}
        assert by_letter.get(answer, answer) == expected["answer_text"]
    for name, value in expected.get("meta", {}).items():
        assert problem.meta[name] == value


@pytest.mark.parametrize("case", MORE, ids=lambda case: case["set"])
def test_a_published_layout_reads_as_decided(case: dict[str, Any], tmp_path: Path) -> None:
    path = write_json_lines(tmp_path / "f.jsonl", case["rows"])
    if "refused" in case:
        with pytest.raises(DataError, match=case["refused"]):
            read_input(path)
        return

    found = read_input(path)

    assert len(found.problems) == len(case["expected"])
    for problem, expected in zip(found.problems, case["expected"], strict=True):
        _matches(problem, expected)
    if "notice" in case:
        assert case["notice"] in " ".join(found.notices)


@pytest.mark.parametrize("case", [case for case in MORE if "refused" not in case], ids=lambda case: case["set"])
def test_what_was_imported_reads_as_the_same_problems(case: dict[str, Any], tmp_path: Path) -> None:
    path = write_json_lines(tmp_path / "f.jsonl", case["rows"])
    import_set(str(path), tmp_path / "out.jsonl")

    def facts(file: Path) -> list[tuple[str, str, str | None, list[str]]]:
        return [(p.id, p.question, p.reference_answer, choices_of(p)) for p in read_input(file).problems]

    assert facts(tmp_path / "out.jsonl") == facts(path)


QUESTION = "Combien coûte 1,5 kg à 2 € le kg ?"
FORMS: dict[str, bytes] = {
    "f.csv": f'question,answer\n"{QUESTION}",007\n'.encode(),
    "semicolons.csv": f"question;answer\n{QUESTION};007\n".encode(),
    "mark.csv": f'\ufeffquestion,answer\n"{QUESTION}",007\n'.encode(),
    "tabs.csv": f"question\tanswer\n{QUESTION}\t007\n".encode(),
    "empty_rows.csv": f'question,answer\n,\n"{QUESTION}",007\n,\n'.encode(),
    "f.tsv": f"question\tanswer\n{QUESTION}\t007\n".encode(),
    "two_lines.csv": f'answer,question\r\n007,"{QUESTION}"\r\n'.encode(),
    "f.json": msgspec.json.format(msgspec.json.encode([{"question": QUESTION, "answer": "007"}]), indent=2),
    "one_line.json": msgspec.json.encode([{"question": QUESTION, "answer": "007"}]),
    "data.json": msgspec.json.encode({"version": "1", "data": [{"question": QUESTION, "answer": "007"}]}),
    "rows.json": msgspec.json.encode({"features": [], "rows": [{"row": {"question": QUESTION, "answer": "007"}}]}),
    "lines.json": msgspec.json.encode({"question": QUESTION, "answer": "007"}) + b"\n",
    "utf16.jsonl": (msgspec.json.encode({"question": QUESTION, "answer": "007"}).decode() + "\n").encode("utf-16"),
    "utf16.csv": f'question,answer\r\n"{QUESTION}",007\r\n'.encode("utf-16"),
    "mark.jsonl": b"\xef\xbb\xbf" + msgspec.json.encode({"question": QUESTION, "answer": "007"}),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("is_packed", [False, True], ids=["plain", "gz"])
def test_every_form_of_file_gives_the_same_row(name: str, is_packed: bool, tmp_path: Path) -> None:
    import gzip

    path = tmp_path / (f"{name}.gz" if is_packed else name)
    path.write_bytes(gzip.compress(FORMS[name]) if is_packed else FORMS[name])

    (problem,) = read_input(path).problems

    assert (problem.question, problem.reference_answer) == (QUESTION, "007")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("f.xlsx", b"PK", r"f\.xlsx: a spreadsheet is not read; save it as JSONL, CSV or parquet"),
        ("f.pkl", b"\x80", "a pickle, which is never opened"),
        ("f.parquet", b"PAR1 no", "not a parquet file that can be read"),
        ("f.csv", b"question,answer\na,b,c\n", r"f\.csv:2: 3 cells under 2 headings"),
        ("f.csv", b'question,answer\n"a,b\n', r"f\.csv:2: not CSV"),
        ("f.csv", b"question,question\na,b\n", 'two columns are called "question"'),
        ("f.csv", b"question,answer\nco\xfbte,1\n", r"f\.csv:2: not UTF-8: byte 0xfb at position 3"),
        ("f.json", b'[{"question": "a"}, 5]', "item 2: expected an object, found int"),
        ("f.json", b'[{"question": "a"', "not JSON"),
        (
            "f.jsonl",
            b'{"question": "a", "x": ' + b"[" * 5000 + b"]" * 5000 + b"}\n",
            r"f\.jsonl:1: .*nested too deeply",
        ),
        ("f.jsonl", b"\x1f\x8b\x08\x00\x00\n", r"f\.jsonl:1: .*gzip; give it a name that ends in \.gz"),
        ("f.jsonl", b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        ("f.parquet", b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        ("f.jsonl", b"<!DOCTYPE html>\n", "a web page"),
        ("f.jsonl", b'{"question": "a", "answer": NaN}\n', "NaN and Infinity are not JSON; write null"),
        ("f.jsonl", '{"question": "a"}\n'.encode("utf-16-le"), r"f\.jsonl:1: .*zero bytes.*utf-16-le"),
    ],
)
def test_what_cannot_be_read_is_named(name: str, data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)

    with pytest.raises(DataError, match=message):
        read_input(tmp_path / name)


def imported(tmp_path: Path, rows: list[dict[str, Any]], *mappings: str) -> tuple[list[dict[str, Any]], list[str]]:
    path = write_json_lines(tmp_path / "f.jsonl", rows)
    said = import_set(str(path), tmp_path / "out.jsonl", fields=parse_fields(mappings), replace=True)
    return read_json_lines(tmp_path / "out.jsonl"), said


def test_one_line_says_how_many_have_an_answer_and_what_was_not_used(tmp_path: Path) -> None:
    rows = [{"question": "a", "answer": "1", "level": 3}, {"question": "b", "kind": "x"}]

    _, said = imported(tmp_path, rows)

    assert said == [
        "import: read 2, written 2, 1 with an answer; columns not used (kept as they are): level, kind "
        f"-> {tmp_path / 'out.jsonl'}"
    ]


def test_mapped_columns_win_over_the_usual_names(tmp_path: Path) -> None:
    row = {"question": "old", "Frage": "Was ist 2+2?", "answer": "wrong", "check": {"truth": "4"}}

    written, _ = imported(tmp_path, [row], "question=Frage,answer=check.truth")

    assert written[0]["question"] == "Was ist 2+2?"
    assert written[0]["answer"] == "4"
    assert written[0]["original_question"] == "old"
    assert read_input(tmp_path / "out.jsonl").problems[0].question == "Was ist 2+2?"


def test_mapped_choices_and_passage(tmp_path: Path) -> None:
    row = {"t": "It rains.", "q": "What falls?", "opts": ["sun", "rain"], "right": 1}

    written, _ = imported(tmp_path, [row], "question=q,answer=right,choices=opts", "passage=t")

    assert written == [{"question": "It rains.\n\nWhat falls?", "answer": "B", "choices": ["sun", "rain"]}]


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ("question=Frag", 'no column "Frag"; did you mean "Frage"'),
        ("answer=truth", "no row has the column truth that answer is mapped to"),
        ("questions=Frage", 'nothing is called "questions" here; did you mean "question"'),
        ("Frage", "expected question=COLUMN"),
    ],
)
def test_a_mapping_that_leads_nowhere_is_refused(
    mapping: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_json_lines(tmp_path / "f.jsonl", [{"Frage": "Was?", "question": "x"}])

    assert here("data", "import", path, "-o", tmp_path / "out.jsonl", "--map", mapping) == 2
    assert message in capsys.readouterr().err
