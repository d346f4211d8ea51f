"""Training files of other tools: read, refused, written, and trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mae_cli.data.formats import read_foreign, rows_of, written
from mae_cli.data.sample_readers import FORMATS, Format, Sample
from mae_cli.errors import DataError
from mae_cli.records import Message
from tests.support import a_row, here, read_json_lines, write_json_lines, write_rows, write_sums

CHAT = [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}]
LINES: dict[str, dict[str, Any]] = {
    "messages": {"messages": CHAT},
    "prompt-completion": {"prompt": "1 + 1?", "completion": "2"},
    "preference": {"prompt": CHAT[:1], "chosen": CHAT[1:], "rejected": [{"role": "assistant", "content": "3"}]},
    "sharegpt": {"conversations": [{"from": "human", "value": "1 + 1?"}, {"from": "gpt", "value": "2"}]},
    "alpaca": {"instruction": "1 + 1?", "input": "", "output": "2"},
}
SAMPLE = Sample((Message("user", "1 + 1?"), Message("assistant", "2")))


def read(path: Path, *lines: dict[str, Any]) -> list[Sample]:
    found = read_foreign(write_json_lines(path, lines))
    assert found is not None
    return found.samples


def lines_of(samples: list[Sample], kind: Format) -> bytes:
    return b"".join(written(samples, kind, where=lambda index: f"sample {index}"))


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind != "preference"])
def test_every_format_of_a_conversation_reads_the_same(kind: str, tmp_path: Path) -> None:
    found = read_foreign(write_json_lines(tmp_path / "f.jsonl", [LINES[kind]]))

    assert found is not None
    assert found.format == kind
    assert found.samples == [SAMPLE]


def test_a_preference_line_with_the_prompt_inside_its_sides_is_the_same_pair(tmp_path: Path) -> None:
    line = LINES["preference"]
    inside = {name: line["prompt"] + line[name] for name in ("chosen", "rejected")}

    plain, implicit = read(tmp_path / "f.jsonl", line, inside)

    assert implicit == plain
    assert plain.messages == SAMPLE.messages[:1]


texts = st.text(st.characters(codec="utf-8"), max_size=12)
keys = st.text("abcxyz_", min_size=1, max_size=6).filter(lambda key: key not in ("id",))
extras = st.dictionaries(keys.map("my_".__add__), st.none() | st.booleans() | st.integers(-9, 9) | texts, max_size=2)
turns = st.lists(st.tuples(texts, texts), min_size=1, max_size=3)


@st.composite
def conversations(draw: st.DrawFn) -> Sample:
    """System text or none, then user and assistant by turns: what all formats can hold."""
    system = draw(st.none() | texts.filter(bool))
    messages = [Message("system", system)] if system else []
    for question, answer in draw(turns):
        messages += [Message("user", question), Message("assistant", answer)]
    return Sample(tuple(messages), extra=draw(extras))


@st.composite
def pairs(draw: st.DrawFn) -> Sample:
    prompt = tuple(Message("user", text) for text in draw(st.lists(texts, min_size=1, max_size=2)))
    chosen, rejected = ((Message("assistant", draw(texts)),) for _ in range(2))
    return Sample(prompt, chosen, rejected, draw(extras))


@given(st.lists(conversations(), min_size=1, max_size=3))
def test_a_conversation_comes_through_every_format_and_back_unchanged(
    tmp_path_factory: pytest.TempPathFactory, samples: list[Sample]
) -> None:
    path = tmp_path_factory.getbasetemp() / "round_trip.jsonl"
    now = samples
    for kind in (*FORMATS, *FORMATS[::-1]):
        if kind == "preference":
            continue
        path.write_bytes(lines_of(now, kind))
        found = read_foreign(path)
        assert found is not None
        now = found.samples
        assert now == samples, kind


@given(st.lists(pairs(), min_size=1, max_size=3))
def test_a_pair_comes_through_and_back_unchanged(
    tmp_path_factory: pytest.TempPathFactory, samples: list[Sample]
) -> None:
    path = tmp_path_factory.getbasetemp() / "pairs.jsonl"
    path.write_bytes(lines_of(samples, "preference"))
    found = read_foreign(path)

    assert found is not None
    assert found.samples == samples


@given(texts, texts.filter(bool), texts, extras)
def test_an_alpaca_line_comes_back_with_its_input_apart(
    tmp_path_factory: pytest.TempPathFactory, instruction: str, given_input: str, output: str, extra: dict[str, Any]
) -> None:
    line = {"instruction": instruction, "input": given_input, "output": output, **extra}
    path = tmp_path_factory.getbasetemp() / "alpaca.jsonl"

    (sample,) = read(path, line)
    path.write_bytes(lines_of([sample], "messages"))
    again = read_foreign(path)

    assert again is not None
    assert json.loads(lines_of(again.samples, "alpaca")) == line


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("messages", "alpaca", r"f\.jsonl:3: alpaca, but line 1 is messages; one kind per file"),
        ("alpaca", "preference", r"f\.jsonl:3: preference, but line 1 is alpaca"),
    ],
)
def test_a_mixed_file_is_refused_with_both_lines(first: str, second: str, message: str, tmp_path: Path) -> None:
    path = write_json_lines(tmp_path / "f.jsonl", [LINES[first], LINES[first], LINES[second]])

    with pytest.raises(DataError, match=message):
        read_foreign(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"messages": "text"}, r':1: field "messages": expected a list, found str; read as messages'),
        ({"messages": [{"role": "bot", "content": ""}]}, r'field "messages\[0\]\.role": unknown role \'bot\''),
        ({"messages": [{"role": "user"}]}, r'field "messages\[0\]\.content": expected text, found NoneType'),
        (
            {"messages": [{"role": "user", "content": "a", "name": "Ann"}]},
            r'field "messages\[0\]\.name": not understood, and it would be lost',
        ),
        ({"messages": [{"role": ["user"], "content": ""}]}, r"unknown role \['user'\]"),
        ({"conversations": [{"from": "alien", "value": ""}]}, "unknown role 'alien'"),
        ({"prompt": "a", "completion": []}, 'field "completion": expected one assistant message'),
        ({"prompt": "a", "chosen": CHAT, "rejected": "b"}, 'field "chosen": expected one assistant message'),
        ({"instruction": "a", "output": 3}, 'field "output": expected text, found int'),
        ({"instruction": "a", "output": "b", "history": ["c"]}, 'field "history": expected pairs of texts'),
    ],
)
def test_a_broken_line_is_one_error_that_names_line_and_field(
    line: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        read_foreign(write_json_lines(tmp_path / "f.jsonl", [line]))


def test_records_and_problems_are_no_foreign_files(tmp_path: Path) -> None:
    assert read_foreign(write_rows(tmp_path / "rows.jsonl", [a_row()])) is None
    assert read_foreign(write_sums(tmp_path / "sums.jsonl")) is None


@pytest.mark.parametrize(
    ("sample", "kind", "message"),
    [
        (Sample(SAMPLE.messages[:1], SAMPLE.messages[1:], SAMPLE.messages[1:]), "messages", "would lose a side"),
        (SAMPLE, "preference", "no second answer"),
        (Sample(SAMPLE.messages[:1]), "prompt-completion", "does not end with an answer"),
        (Sample(SAMPLE.messages[1:]), "alpaca", "not user and assistant by turns"),
        (Sample((Message("system", ""), *SAMPLE.messages)), "alpaca", "system message is empty"),
        (Sample(SAMPLE.messages, extra={"messages": 1}), "messages", 'a key "messages" of another meaning'),
    ],
)
def test_what_a_format_cannot_hold_is_refused(sample: Sample, kind: Format, message: str) -> None:
    with pytest.raises(DataError, match=f"sample 0: cannot be written as {kind}: .*{message}"):
        lines_of([sample], kind)


def test_every_assistant_turn_is_a_row_and_a_pair_is_a_group_of_two(tmp_path: Path) -> None:
    turns = [*CHAT, {"role": "user", "content": "and 2 + 2?"}, {"role": "assistant", "content": "4"}]
    chat = read_foreign(write_json_lines(tmp_path / "chat.jsonl", [{"messages": turns}, {"messages": turns}]))
    pair = read_foreign(write_json_lines(tmp_path / "pair.jsonl", [LINES["preference"]]))
    label = read_foreign(write_json_lines(tmp_path / "kto.jsonl", [{**LINES["prompt-completion"], "label": False}]))
    assert chat is not None
    assert pair is not None
    assert label is not None

    rows = rows_of(chat)

    assert [(len(row.messages), row.raw) for row in rows] == [(1, "2"), (3, "4")] * 2
    assert len({row.id for row in rows}) == 4, "equal lines are rows of their own"
    assert {row.reward for row in rows} == {None}
    sides = rows_of(pair)
    assert [(row.raw, row.reward) for row in sides] == [("2", 1.0), ("3", 0.0)]
    assert sides[0].group_id == sides[1].group_id
    assert [row.reward for row in rows_of(label)] == [0.0]


@pytest.mark.parametrize("kind", FORMATS)
def test_finetune_trains_on_every_format_and_says_which(
    kind: str, tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_json_lines(tmp_path / "f.jsonl", [LINES[kind]] * 3)
    objective = "dpo" if kind == "preference" else "sft"

    code = here(
        *("finetune", path, "-o", tmp_path / "adapter", "-m", tiny_model_dir, "--device", "cpu", "--lora-r", 2),
        *("--objective", objective),
    )

    assert code == 0
    assert f"read as {kind}: 3 samples" in capsys.readouterr().err
    trained = read_json_lines(tmp_path / "adapter" / "train_rows.jsonl")
    # "2" and the end of the turn
    assert [row["tokens"] for row in trained] == [2] * len(trained)
    assert len(trained) == (6 if kind == "preference" else 3)


def test_a_mixed_file_ends_finetune_with_2_and_one_line(
    tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_json_lines(tmp_path / "f.jsonl", [LINES["messages"], LINES["alpaca"]])

    assert here("finetune", path, "-o", tmp_path / "adapter", "-m", tiny_model_dir) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "f.jsonl:2: alpaca, but line 1 is messages" in error
    assert not (tmp_path / "adapter").exists()


def test_convert_writes_another_format_and_keeps_other_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_json_lines(tmp_path / "f.jsonl", [{**LINES["alpaca"], "source": "mine"}])

    assert here("data", "convert", path, "-o", tmp_path / "out.jsonl", "--to", "sharegpt") == 0
    assert read_json_lines(tmp_path / "out.jsonl") == [{**LINES["sharegpt"], "source": "mine"}]
    assert here("data", "convert", path, "-o", tmp_path / "out.jsonl", "--to", "sharegpt") == 2
    assert "exists; use --overwrite" in capsys.readouterr().err
    assert here("data", "convert", path, "-o", tmp_path / "other.jsonl", "--to", "share") == 2
    assert "--to share: unknown format; known: messages" in capsys.readouterr().err
    assert here("data", "convert", path, "-o", tmp_path / "other.jsonl", "--to", "preference") == 2
    assert "f.jsonl:1: cannot be written as preference" in capsys.readouterr().err


def test_records_are_converted_too(tmp_path: Path) -> None:
    rows = [
        a_row(index=0, raw="best", reward=1.0),
        a_row(index=1, raw="worst", reward=0.0),
        a_row(index=2, raw="dropped", kept=False),
        a_row("judge", "grade", raw="a grade"),
    ]
    for row in rows[:3]:
        row.group_id = "g"
    path = write_rows(tmp_path / "4_selected.jsonl", rows)

    assert here("data", "convert", path, "-o", tmp_path / "chat.jsonl", "--to", "messages") == 0
    assert here("data", "convert", path, "-o", tmp_path / "pairs.jsonl", "--to", "preference") == 0

    chat = read_json_lines(tmp_path / "chat.jsonl")
    assert [line["messages"][-1]["content"] for line in chat] == ["best", "worst"]
    (pair,) = read_json_lines(tmp_path / "pairs.jsonl")
    assert (pair["chosen"][0]["content"], pair["rejected"][0]["content"], pair["gap"]) == ("best", "worst", 1.0)
    assert (pair["id"], pair["rejected_id"]) == (rows[0].id, rows[1].id)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"conversations": [{"from": "human", "value": "a"}], "system": 3}, 'field "system": expected text, found int'),
        ({"instruction": None, "output": "b"}, 'field "instruction": expected text, found null'),
        ({"instruction": "a", "output": None}, 'field "output": expected text, found null'),
    ],
)
def test_what_would_be_dropped_or_invented_is_refused(line: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write_json_lines(tmp_path / "x.jsonl", [line])

    with pytest.raises(DataError, match=message):
        read_foreign(path)
