"""Training files as published: every file of `training/` and every layout of `training_more.jsonl` reads as decided."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from mae_cli.data.formats import read_foreign, rows_of
from mae_cli.errors import DataError
from tests.support import here, read_json_lines, write_json_lines

HERE = Path(__file__).parent
FILES = HERE / "training"
MORE = read_json_lines(HERE / "training_more.jsonl")
Trained = list[tuple[list[tuple[str, str]], str, float | None]]
HI: Trained = [([("user", "Hi")], "Hello", None)]
FRUIT: Trained = [([("user", "Best fruit?")], "Apples.", 1.0), ([("user", "Best fruit?")], "No idea.", 0.0)]
BRIEF = [("system", "Be brief."), ("user", "Best fruit?")]
# File, then (prompt, answer, reward) of each trained row, or a part of the refusal.
GIVEN: dict[str, Trained | str] = {
    "orca_dpo.jsonl": [(BRIEF, "Apples.", 1.0), (BRIEF, "No idea.", 0.0)],
    "uf_binarized.jsonl": FRUIT,
    "lf_dpo.jsonl": FRUIT,
    "lf_tool.jsonl": r'lf_tool\.jsonl:1: field "conversations\[1\]\.from": function_call: a tool call',
    "ms_nulls_padded.jsonl": HI,
    "sg_weight.jsonl": HI,
    "ms_tool_calls.jsonl": r'ms_tool_calls\.jsonl:1: field "messages\[1\]\.tool_calls": a tool call',
    "dolly.jsonl": [([("user", "Summarise.\n\nA long text.")], "Short.", None)],
    "sg_singular.jsonl": HI,
    "array.json": HI,
}


def trained(path: Path) -> Trained:
    found = read_foreign(path)
    if found is None:
        raise DataError("plain problems, no answer to train on")
    return [
        ([(message.role, message.content) for message in row.messages], row.raw or "", row.reward)
        for row in rows_of(found)
    ]


@pytest.mark.parametrize("name", GIVEN)
def test_a_given_file_is_trained_or_refused_as_expected(name: str) -> None:
    expected = GIVEN[name]
    if isinstance(expected, str):
        with pytest.raises(DataError, match=expected):
            trained(FILES / name)
        return

    assert trained(FILES / name) == expected


def test_every_given_file_is_looked_at() -> None:
    assert {path.name for path in FILES.iterdir()} == GIVEN.keys()


@pytest.mark.parametrize("case", MORE, ids=lambda case: case["layout"])
def test_a_published_layout_is_trained_or_refused_as_decided(case: dict[str, Any], tmp_path: Path) -> None:
    path = write_json_lines(tmp_path / "f.jsonl", case["rows"])
    if "refused" in case:
        with pytest.raises(DataError, match=case["refused"]):
            trained(path)
        return

    assert trained(path) == [
        ([(role, text) for role, text in row["messages"]], row["text"], row["reward"]) for row in case["trained"]
    ]


@pytest.mark.parametrize("case", [case for case in MORE if "trained" in case], ids=lambda case: case["layout"])
def test_a_layout_that_is_read_is_trained_alike_after_a_conversion(case: dict[str, Any], tmp_path: Path) -> None:
    path = write_json_lines(tmp_path / "f.jsonl", case["rows"])
    is_pair = case["trained"][0]["reward"] is not None and "KTO" not in case["layout"]
    kind = "preference" if is_pair else "messages"

    assert here("data", "convert", path, "-o", tmp_path / "out.jsonl", "--to", kind) == 0
    assert trained(tmp_path / "out.jsonl") == trained(path)


def test_an_array_and_a_parquet_file_are_trained_like_lines(tmp_path: Path) -> None:
    from datasets import Dataset

    rows = [case["rows"][0] for case in MORE if case["layout"] in ("messages", "messages with a developer")]
    lines = write_json_lines(tmp_path / "f.jsonl", rows)
    (tmp_path / "f.json").write_bytes(msgspec.json.format(msgspec.json.encode(rows)))
    Dataset.from_list(rows).to_parquet(str(tmp_path / "f.parquet"))

    assert trained(tmp_path / "f.json") == trained(lines)
    assert trained(tmp_path / "f.parquet") == trained(lines)


def test_the_command_says_what_it_cannot_train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_json_lines(tmp_path / "f.jsonl", [{"text": "The sky is blue."}])

    assert here("finetune", path, "-o", tmp_path / "adapter") == 2
    assert "f.jsonl:1: plain text" in capsys.readouterr().err
