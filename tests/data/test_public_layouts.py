"""Layouts that people bring to finetune: read as what they mean, or refused with file, line and field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mae_cli.data.formats import read_foreign, rows_of
from mae_cli.errors import DataError
from mae_cli.records import Row
from tests.support import write_json_lines

USER, BOT = {"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}
WORSE = {"role": "assistant", "content": "3"}
SYSTEM = {"role": "system", "content": "Be brief."}
TOOL = {"role": "tool", "content": "RAIN"}


def rows(path: Path, *lines: dict[str, Any]) -> list[Row]:
    found = read_foreign(write_json_lines(path / "t.jsonl", lines))
    assert found is not None
    return rows_of(found)


@pytest.mark.parametrize(
    ("line", "prompt"),
    [
        ({"prompt": "1 + 1?", "chosen": [USER, BOT], "rejected": [USER, WORSE]}, ["user"]),
        ({"prompt": [USER], "chosen": [BOT], "rejected": [WORSE]}, ["user"]),
        ({"prompt": [SYSTEM, USER], "chosen": [BOT], "rejected": [WORSE]}, ["system", "user"]),
        ({"prompt": "1 + 1?", "chosen": [SYSTEM, USER, BOT], "rejected": [SYSTEM, USER, WORSE]}, ["system", "user"]),
        ({"chosen": [USER, BOT], "rejected": [USER, WORSE]}, ["user"]),
        ({"prompt": "1 + 1?", "system": "Be brief.", "chosen": "2", "rejected": "3"}, ["system", "user"]),
        ({"conversations": [{"from": "human", "value": "1 + 1?"}],
          "chosen": {"from": "gpt", "value": "2"}, "rejected": {"from": "gpt", "value": "3"}}, ["user"]),
        ({"chosen": [USER, BOT, USER, BOT], "rejected": [USER, BOT, USER, WORSE]}, ["user", "assistant", "user"]),
    ],
)  # fmt: skip
def test_a_pair_is_the_same_wherever_its_prompt_stands(line: dict[str, Any], prompt: list[str], tmp_path: Path) -> None:
    better, worse = rows(tmp_path, line)

    assert [message.role for message in better.messages] == [message.role for message in worse.messages] == prompt
    assert (better.raw, better.reward, worse.raw, worse.reward) == ("2", 1.0, "3", 0.0)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({"chosen": [USER, BOT, USER, BOT], "rejected": [USER, WORSE, USER, BOT]}, "one assistant message behind"),
        ({"prompt": "2 + 2?", "chosen": [USER, BOT], "rejected": [USER, WORSE]}, "another text than the one both"),
        ({"chosen": [BOT], "rejected": [WORSE]}, "no prompt"),
        ({"prompt": "1 + 1?", "completion": "2", "label": 1}, "label"),
        ({"prompt": "1 + 1?", "completion": "2", "label": 0}, "label"),
        ({"prompt": "1 + 1?", "completion": "2", "label": "true"}, "label"),
        ({"prompt": "1 + 1?", "completion": "2", "label": "0"}, "label"),
        ({"text": "one two three"}, "messages, or prompt and completion"),
        ({"messages": [USER, BOT], "tools": [{"type": "function"}]}, "tools"),
        ({"messages": [USER, BOT], "tools": '[{"type": "function"}]'}, "tools"),
        ({"messages": [USER, BOT], "functions": [{"name": "f"}]}, "functions"),
        ({"messages": [USER, {**BOT, "tool_calls": [{"id": "1"}]}]}, r"messages\[1\].tool_calls"),
        ({"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}]}, "tool_calls"),
        ({"messages": [USER, {"role": "assistant", "content": None}]}, r"messages\[1\].content"),
        ({"messages": [{**USER, "name": "ann"}, BOT]}, r"messages\[0\].name"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "url": "x"}]}, BOT]}, "image"),
        ({"messages": [USER, BOT], "images": ["x.png"]}, "images"),
        ({"messages": [USER, {**BOT, "weight": 0}]}, "weight"),
        ({"messages": [USER, {**BOT, "reasoning_content": "one and one"}]}, "reasoning_content"),
        ({"messages": [USER, {"role": "narrator", "content": "x"}]}, "unknown role 'narrator'"),
        ({"input_ids": [1, 2], "labels": [1, 2]}, "tokens"),
    ],
)
def test_what_would_be_lost_or_guessed_is_refused_with_file_and_line(
    line: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=rf"t\.jsonl:1: .*{words}"):
        rows(tmp_path, line)


@pytest.mark.parametrize(
    ("label", "reward"),
    [(True, 1.0), (False, 0.0), ("chosen", 1.0), ("rejected", 0.0), ("Desirable", 1.0), ("undesirable", 0.0)],
)
def test_a_label_that_names_a_side_is_a_reward(label: Any, reward: float, tmp_path: Path) -> None:
    (row,) = rows(tmp_path, {"prompt": "1 + 1?", "completion": "2", "label": label})

    assert row.reward == reward


@pytest.mark.parametrize(
    ("line", "turns"),
    [
        ({"messages": [USER, {**BOT, "weight": 1}]}, ["1 + 1?", "2"]),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "1 + 1?"}]}, BOT]}, ["1 + 1?", "2"]),
        ({"messages": [{"role": "developer", "content": "Be brief."}, USER, BOT]}, ["Be brief.", "1 + 1?", "2"]),
        ({"messages": [USER, BOT], "tools": "[]"}, ["1 + 1?", "2"]),
        ({"messages": [USER, {**BOT, "tool_calls": []}]}, ["1 + 1?", "2"]),
        ({"instruction": "Add.", "input": "1 1", "output": "2"}, ["Add.\n\n1 1", "2"]),
        ({"prompt": [USER], "completion": [BOT]}, ["1 + 1?", "2"]),
        ({"messages": [USER, {"role": "assistant", "content": "CALL"}, TOOL, BOT]}, ["1 + 1?", "CALL", "RAIN", "2"]),
    ],
)
def test_every_turn_of_a_readable_layout_is_kept(line: dict[str, Any], turns: list[str], tmp_path: Path) -> None:
    last = rows(tmp_path, line)[-1]

    assert [*(message.content for message in last.messages), last.raw] == turns
