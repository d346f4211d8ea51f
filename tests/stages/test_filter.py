from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from mae_cli.records import Row, Verdict
from tests.support import a_problem, a_row, here, read_json_lines, write_json_lines, write_rows


def proposal(score: float, index: int, **changes: Any) -> Row:
    verdict = Verdict("rubric", "judge", "problem", score)
    return a_row("proposer", problem=a_problem(f"Why {index}?", None), index=index, verdicts=[verdict], **changes)


def select(tmp_path: Path, rows: list[Row], filters: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    given = write_rows(tmp_path / "3.jsonl", rows)
    out, dropped = tmp_path / "4.jsonl", tmp_path / "4_dropped.jsonl"
    assert here("filter", given, "-o", out, "--dropped", dropped, "--set", f"filter.filters={filters}") == 0
    return read_json_lines(out), read_json_lines(dropped)


def test_a_poor_question_is_trained_and_not_stored(tmp_path: Path) -> None:
    rows, dropped = select(tmp_path, [proposal(0.9, 0), proposal(0.6, 1)], "[quality]")

    assert [(row["kept"], row["stored"]) for row in rows] == [(True, ["questions"]), (True, [])]
    assert dropped == []


def test_a_pair_is_stored_though_it_is_not_trained(tmp_path: Path) -> None:
    cut = a_row(problem=a_problem(), finish_reason="length")

    rows, dropped = select(tmp_path, [cut, a_row(problem=a_problem(), index=1)], "[quality, finish_reason]")

    assert [(row["kept"], row["stored"], row["reasons"]) for row in rows] == [
        (False, ["pairs"], ["finish_reason:length"]),
        (True, ["pairs"], []),
    ]
    assert dropped == []


def test_a_row_neither_kept_nor_stored_goes_to_the_dropped_file_with_all_its_reasons(tmp_path: Path) -> None:
    lost = a_row(index=0, finish_reason="length", completion="a b c")

    rows, dropped = select(tmp_path, [lost, a_row(index=1)], "[finish_reason, {name: length, high: 2}]")

    assert [row["id"] for row in rows] == [a_row(index=1).id]
    assert [(row["id"], row["kept"], row["reasons"]) for row in dropped] == [
        (lost.id, False, ["finish_reason:length", "length:3"])
    ]


def test_rows_of_other_purposes_are_undecided_and_pass_through(tmp_path: Path) -> None:
    others = [a_row(purpose="difficulty"), a_row("judge", "grade")]

    rows, _ = select(tmp_path, [a_row(index=1), *others], "[{name: length, high: 9}]")

    assert [(row["purpose"], row["kept"]) for row in rows] == [("train", True), ("difficulty", None), ("grade", None)]


def test_held_out_items_leave_the_pools_too(tmp_path: Path) -> None:
    held_out = write_json_lines(tmp_path / "h.jsonl", [{"question": "Why 0?"}])
    filters = f"[quality, {{name: decontaminate, against: [{held_out}]}}]"

    rows, dropped = select(tmp_path, [proposal(0.9, 0), proposal(0.9, 1)], filters)

    assert [row["problem"]["question"] for row in rows] == ["Why 1?"]
    assert [(row["stored"], row["reasons"]) for row in dropped] == [([], ["decontaminate:held out"])]


def test_the_funnel_counts_what_is_left_after_each_filter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        a_row(index=index, finish_reason="stop" if index else "length", completion="w " * index) for index in range(6)
    ]
    given = write_rows(tmp_path / "3.jsonl", [*rows, a_row(purpose="difficulty")])

    here(
        *("filter", given, "-o", tmp_path / "4.jsonl", "--json", "--set"),
        "filter.filters=[finish_reason, {name: length, high: 4}, {name: length, low: 2}]",
    )

    details = msgspec.json.decode(capsys.readouterr().out)["details"]
    assert details["funnel"] == {"candidates": 6, "finish_reason": 5, "length": 4, "length#3": 3}
    assert details["solver"] == {"candidates": 6, "unknown": 6, "kept": 3, "stored": 0}


def test_decisions_of_an_earlier_filter_command_are_decided_anew(tmp_path: Path) -> None:
    old = a_row(kept=False, reasons=["old"], stored=["questions"])

    rows, _ = select(tmp_path, [old], "[finish_reason]")

    assert [(row["kept"], row["reasons"], row["stored"]) for row in rows] == [(True, [], [])]


def test_a_filter_may_be_given_more_than_once_on_the_command_line(tmp_path: Path) -> None:
    given = write_rows(tmp_path / "3.jsonl", [a_row(index=0), a_row(index=1)])

    assert here("filter", given, "-o", tmp_path / "4.jsonl", "--filters", "finish_reason", "--filters", "dedup") == 0
    assert len(read_json_lines(tmp_path / "4.jsonl")) == 1
