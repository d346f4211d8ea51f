from __future__ import annotations

import gzip
import io
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mae_cli.data.pools import read_pairs, read_questions
from mae_cli.errors import DataError
from mae_cli.records.atomic import write_json
from mae_cli.records.file_names import STDIO
from mae_cli.records.problem_columns import (
    ANSWER_KEYS,
    CHOICE_COLUMNS,
    CHOICE_KEYS,
    PASSAGE_KEYS,
    QUESTION_KEYS,
    SOLUTION_KEYS,
    column_key,
)
from mae_cli.records.problems import problem_from
from mae_cli.records.read import read_input, read_problems, read_rows
from mae_cli.records.resumable_file import encode_rows
from tests.records.test_row import VALUES
from tests.support import a_problem, a_row, write_json_lines, write_rows

UNDERSTOOD = {
    column_key(name)
    for name in (
        *(*QUESTION_KEYS, *PASSAGE_KEYS, *ANSWER_KEYS, *SOLUTION_KEYS, *CHOICE_KEYS, "reward_model", "doc"),
        *(name for layout in CHOICE_COLUMNS for name in layout.columns),
    )
}


def error_of(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_input(path)
    return str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert error_of(tmp_path / "no.jsonl") == f"{tmp_path}/no.jsonl: no such file"
    assert error_of(tmp_path / "no.jsonl.gz") == f"{tmp_path}/no.jsonl.gz: no such file"


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    assert error_of(tmp_path) == f"{tmp_path}: Is a directory"


def test_an_empty_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n  \n")

    assert error_of(path) == f"{path}: empty, expected at least one row"


def test_a_torn_line_is_named_by_its_number(tmp_path: Path) -> None:
    data = encode_rows([a_row(index=0), a_row(index=1)])
    path = tmp_path / "a.jsonl"
    path.write_bytes(data[:-40])

    assert error_of(path).startswith(f"{path}:2: torn line")


def test_a_torn_utf8_character_is_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes('{"question": "é'.encode()[:-1])

    assert error_of(path).startswith(f"{path}:1: torn line")


def test_another_encoding_is_an_error_with_a_place(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes('{"question": "é"}\n'.encode("latin-1"))

    assert error_of(path).startswith(f"{path}:1: not UTF-8: byte 0xe9 at position 15")


def test_a_file_whose_mark_says_utf16_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes('{"question": "é"}\n'.encode("utf-16"))

    assert [problem.question for problem in read_input(path).problems] == ["é"]


def test_bytes_that_are_not_utf8_inside_a_record_are_named(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [a_row(index=0), a_row(index=1, completion="XYZ")])
    path.write_bytes(path.read_bytes().replace(b"XYZ", b"X\xffZ"))

    assert error_of(path).startswith(f"{path}:2: ")


def test_a_wrong_type_at_line_90000_names_line_and_field(tmp_path: Path) -> None:
    row = msgspec.to_builtins(a_row(problem=a_problem()))
    line = msgspec.json.encode({**row, "id": "IDENTITY"}) + b"\n"
    path = tmp_path / "big.jsonl"
    with path.open("wb") as file:
        for number in range(1, 90_000):
            file.write(line.replace(b"IDENTITY", b"%d" % number))
        file.write(msgspec.json.encode({**row, "reward": "high"}) + b"\n")

    message = error_of(path)

    assert message.startswith(f'{path}:90000: field "reward": expected float | null, got str')


def test_a_null_that_becomes_text_at_line_90000_reads(tmp_path: Path) -> None:
    lines = [{"question": f"q{number}", "note": None} for number in range(20_000)]
    path = write_json_lines(tmp_path / "a.jsonl", [*lines, {"question": "last", "note": "text", "more": [1]}])

    problems = read_input(path).problems

    assert problems[0].meta == {"note": None}
    assert problems[-1].meta == {"note": "text", "more": [1]}


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    tree = msgspec.to_builtins(a_row())
    del tree["messages"]

    path = write_json_lines(tmp_path / "a.jsonl", [tree])

    assert f'{path}:1: field "messages": is missing' in error_of(path)


def test_a_wrong_type_deep_inside_names_its_place(tmp_path: Path) -> None:
    tree = msgspec.to_builtins(a_row())
    tree["messages"][0]["content"] = 5

    path = write_json_lines(tmp_path / "a.jsonl", [tree])

    assert 'field "messages[0].content": expected str, got int' in error_of(path)


def test_mixed_kinds_name_both_lines(tmp_path: Path) -> None:
    record = msgspec.to_builtins(a_row())
    path = write_json_lines(tmp_path / "a.jsonl", [record, {"question": "q"}])
    other = write_json_lines(tmp_path / "b.jsonl", [{"question": "q"}, record])

    assert error_of(path) == f"{path}:2: a problem, but line 1 is a record; one kind per file"
    assert error_of(other) == f"{other}:2: a record, but line 1 is a problem; one kind per file"


def test_a_problem_that_speaks_of_a_schema_is_still_a_problem(tmp_path: Path) -> None:
    path = write_json_lines(
        tmp_path / "a.jsonl", [{"question": "first"}, {"question": "q", "schema": 3}, {"question": 'is "schema": ok?'}]
    )

    assert [problem.question for problem in read_input(path).problems] == ["first", "q", 'is "schema": ok?']


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = write_json_lines(tmp_path / "a.jsonl", [{**msgspec.to_builtins(a_row()), "schema": 3}])

    assert error_of(path) == f'{path}:1: field "schema": 3 is newer than 2'


def test_one_record_twice_names_both_lines(tmp_path: Path) -> None:
    row = a_row()
    path = write_rows(tmp_path / "a.jsonl", [row, row])

    assert error_of(path) == f'{path}:2: field "id": {row.id} stands on line 1 too'


def test_a_line_that_is_no_object_is_named(tmp_path: Path) -> None:
    path = write_json_lines(tmp_path / "a.jsonl", [{"question": "q"}, [1, 2]])

    assert error_of(path) == f"{path}:2: expected an object, found list"


def test_a_file_cut_inside_its_compression_is_named(tmp_path: Path) -> None:
    data = gzip.compress(encode_rows([a_row(index=index) for index in range(50)]))
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(data[: len(data) // 2])
    broken = tmp_path / "b.jsonl.gz"
    broken.write_bytes(data[:30] + b"\xff" * 30 + data[60:])

    assert "cannot be read further" in error_of(path)
    assert "cannot be read further" in error_of(broken)


def test_compressed_files_and_byte_order_marks_and_blank_lines_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'\xef\xbb\xbf{"question": "a"}\n\n{"question": "b"}'))

    assert [problem.question for problem in read_input(path).problems] == ["a", "b"]


def test_standard_input_is_called_stdin_in_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"question": "q"}\n{"x": 1}\n')))

    assert error_of(STDIO) == (
        'stdin:2: field "question" is missing (found: x); say which column it is: '
        "mae data import FILE -o OUTPUT --map question=COLUMN"
    )


def test_duplicate_problems_are_merged_with_a_notice(tmp_path: Path) -> None:
    path = write_json_lines(tmp_path / "a.jsonl", [{"question": "a b"}, {"question": " a  b "}, {"question": "c"}])

    data = read_input(path)

    assert [problem.question for problem in data.problems] == ["a b", "c"]
    assert data.notices == [f"{path}: 1 duplicate problems merged"]


def test_an_incomplete_file_is_refused_unless_allowed(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [a_row()])
    write_json(tmp_path / "a.jsonl.meta.json", {"complete": False})

    assert "--allow-incomplete" in error_of(path)
    assert len(read_input(path, allow_incomplete=True).rows) == 1


def test_the_problems_of_a_record_file_are_read_once_each(tmp_path: Path) -> None:
    rows = [a_row(problem=a_problem(), index=0), a_row(problem=a_problem(), index=1)]

    assert read_problems(write_rows(tmp_path / "a.jsonl", rows)) == [a_problem()]
    assert len(read_rows(tmp_path / "a.jsonl")) == 2


@pytest.mark.parametrize(
    ("tree", "question", "answer"),
    [
        ({"question": "q", "answer": "5"}, "q", "5"),
        ({"problem": "q", "final_answer": 5}, "q", "5"),
        ({"instruction": "q", "output": "five"}, "q", "five"),
        ({"question": "q", "answer": "3 + 2 = 5\n#### 5"}, "q", "5"),
        ({"question": "q", "answer": "#### 5"}, "q", "5"),
        ({"question": "q", "answer": True}, "q", "True"),
        ({"question": "q", "choices": ["x", "y"], "answer": 1}, "q", "B"),
        ({"question": "q", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "B"}, "q", "B"),
        ({"question": "q"}, "q", None),
    ],
)
def test_the_usual_field_names_are_understood(tree: dict[str, Any], question: str, answer: str | None) -> None:
    problem = problem_from(tree, "here:1")

    assert (problem.question, problem.reference_answer) == (question, answer)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (
            {"text": "q"},
            'here:1: field "question" is missing (found: text); say which column it is: '
            "mae data import FILE -o OUTPUT --map question=COLUMN",
        ),
        ({"question": 5}, 'here:1: field "question": expected text, found int'),
        ({"question": "  "}, 'here:1: field "question": empty'),
        (
            {"question": "q", "answer": {"x": 5}},
            'here:1: field "answer": expected text or a number, found an object with x',
        ),
        (
            {"question": "q", "choices": [None, 2]},
            'here:1: field "choices": expected a list of texts, found a list with other things; write a JSON list',
        ),
        (
            {"question": "q", "choices": 5},
            'here:1: field "choices": expected a list of texts, found a value of type int; write a JSON list',
        ),
    ],
)
def test_a_wrong_problem_field_is_named(tree: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        problem_from(tree, "here:1")

    assert str(caught.value) == message


@given(st.dictionaries(st.text(max_size=10).filter(lambda key: column_key(key) not in UNDERSTOOD), VALUES, max_size=5))
def test_unknown_keys_of_a_problem_row_move_to_its_meta(foreign: dict[str, Any]) -> None:
    assert problem_from({"question": "q", "answer": "5", **foreign}, "here:1").meta == foreign


@pytest.mark.parametrize("read", [read_questions, read_pairs])
def test_a_torn_pool_line_is_named(tmp_path: Path, read: Any) -> None:
    path = tmp_path / "0_pool.jsonl"
    path.write_bytes(b'{"question": "q", "candidate": "5"}\n{"question": "q2", "cand')

    with pytest.raises(DataError, match=r"0_pool\.jsonl:2: torn line"):
        read(path)
