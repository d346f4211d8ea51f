"""`mae diff` over eval files and run folders."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.support import eval_rows, here, write_json_lines, write_rows, write_sums


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    first = write_rows(tmp_path / "a.jsonl", eval_rows([1.0, 0.0, 1.0, 0.0]))
    # won item 1, lost item 2; item 4 only here
    return first, write_rows(tmp_path / "b.jsonl", eval_rows([1.0, 1.0, 0.0, 0.0, 1.0]))


def test_items_won_lost_both_and_neither_are_counted_and_shown(
    two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert here("diff", *two, "--examples", 1) == 0

    text = capsys.readouterr().out
    assert "changed settings: none" in text
    assert "(flexible): +0.0 points" in text
    assert "won 1, lost 1, n = 4, p = 1 (exact McNemar)" in text
    assert "not compared: 0 items only in the first, 1 in the second" in text
    for kind, item in (("won", 1), ("lost", 2), ("both", 0), ("neither", 3)):
        assert f"{kind} (flexible): 1\n  item {item}\n" in text
    assert "a.jsonl: base: 2; " in text


def test_as_json_it_is_one_object(two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert here("diff", *two, "--json") == 0

    found = msgspec.json.decode(capsys.readouterr().out)
    assert (found["only_second"], found["comparisons"][1]["wins"]) == (1, 1)
    assert [example["question"] for example in found["examples"]["won"]] == ["item 1"]


def test_changed_settings_of_eval_files_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = write_sums(tmp_path / "i.jsonl", 4)
    for name, accuracy in (("a", 0.1), ("b", 0.9)):
        assert here("eval", items, "-o", tmp_path / f"{name}.jsonl", "--engine", f"scripted:accuracy={accuracy}") == 0
    capsys.readouterr()

    assert here("diff", tmp_path / "a.jsonl", tmp_path / "b.jsonl") == 0

    text = capsys.readouterr().out
    assert "  policy.model: scripted:accuracy=0.1," in text
    assert "sampling" not in text


def test_a_file_with_two_policies_is_its_first_against_its_last(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned = eval_rows([1.0, 1.0])
    for row in tuned:
        row.policy, row.id = msgspec.structs.replace(row.policy, adapter="abc"), row.id[::-1]
    both = write_rows(tmp_path / "e.jsonl", eval_rows([0.0, 1.0]) + tuned)

    assert here("diff", both) == 0

    assert "base -> abc (strict): +50.0 points" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("problems.jsonl", "field"),
        ("one.jsonl", "one policy; give a second file or run"),
        ("missing.jsonl", "no such file"),
        (".", "not a run folder"),
    ],
)
def test_what_cannot_be_compared_is_one_line_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    write_json_lines(tmp_path / "problems.jsonl", [{"question": "x"}])
    write_rows(tmp_path / "one.jsonl", eval_rows([1.0]))

    assert here("diff", tmp_path / name) == 2

    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
