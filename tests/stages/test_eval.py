from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.support import here, read_json_lines, write_json_lines, write_sums


def test_every_item_is_answered_and_read_strictly_and_flexibly(tmp_path: Path) -> None:
    items = write_sums(tmp_path / "items.jsonl", 12)

    here("eval", items, "-o", tmp_path / "e.jsonl", "--engine", "scripted:malformed=0,truncated=0.5")

    rows = read_json_lines(tmp_path / "e.jsonl")
    assert [row["purpose"] for row in rows] == ["eval"] * 12
    assert all([v["name"] for v in row["verdicts"]] == ["numeric/strict", "numeric/flexible"] for row in rows)
    scores = {row["status"]: {v["score"] for v in row["verdicts"]} for row in rows}
    assert scores["ok"] <= {0.0, 1.0}
    # The cut-off texts hold the right number and are not correct all the same.
    assert scores["truncated"] == {0.0}


def test_a_missing_or_cut_off_answer_is_not_correct_and_never_unknown(tmp_path: Path) -> None:
    items = write_sums(tmp_path / "items.jsonl", 12)

    here("eval", items, "-o", tmp_path / "e.jsonl", "--engine", "scripted:malformed=1,truncated=0")

    rows = read_json_lines(tmp_path / "e.jsonl")
    assert {v["score"] for row in rows for v in row["verdicts"]} == {0.0}


def test_items_of_several_files_are_marked_and_taken_once(tmp_path: Path) -> None:
    first, second = write_sums(tmp_path / "a.jsonl", 3), write_sums(tmp_path / "b.jsonl", 5)

    here("eval", first, second, "-o", tmp_path / "e.jsonl", "--engine", "scripted")

    marks = [row["problem"]["meta"]["benchmark"] for row in read_json_lines(tmp_path / "e.jsonl")]
    assert marks == ["a", "a", "a", "b", "b"]


def test_an_item_without_a_reference_answer_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = write_json_lines(tmp_path / "i.jsonl", [{"question": "What is 3 + 4?"}])

    assert here("eval", items, "-o", tmp_path / "e.jsonl", "--engine", "scripted") == 2
    assert 'item "What is 3 + 4?" has no reference answer' in capsys.readouterr().err


def test_the_summary_stands_beside_the_rows(tmp_path: Path) -> None:
    items = write_sums(tmp_path / "items.jsonl", 4)

    here("eval", items, "-o", tmp_path / "e.jsonl", "--engine", "scripted")

    assert msgspec.json.decode((tmp_path / "e.summary.json").read_bytes())


def test_several_samples_of_an_item_are_rows_of_one_group(tmp_path: Path) -> None:
    items = write_sums(tmp_path / "items.jsonl", 2)

    here("eval", items, "-o", tmp_path / "e.jsonl", "--engine", "scripted", "--samples", 3, "--temperature", 1)

    rows = read_json_lines(tmp_path / "e.jsonl")
    assert [row["sample_index"] for row in rows] == [0, 1, 2] * 2
    assert len({row["group_id"] for row in rows}) == 2


def test_the_limit_holds_for_each_file(tmp_path: Path) -> None:
    first, second = write_sums(tmp_path / "a.jsonl", 6), tmp_path / "b.jsonl"
    write_json_lines(second, [{"question": f"What is {n} + 50?", "answer": str(n + 50)} for n in range(6)])

    here("eval", first, second, "-o", tmp_path / "e.jsonl", "--engine", "scripted", "--limit", 2)

    marks = [row["problem"]["meta"]["benchmark"] for row in read_json_lines(tmp_path / "e.jsonl")]
    assert marks == ["a", "a", "b", "b"]
