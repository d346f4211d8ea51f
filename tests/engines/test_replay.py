"""The replay engine answers from recorded rows."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from mae_cli.engines import replay, scripted
from mae_cli.errors import ConfigError
from mae_cli.recipe.sections import Recipe
from mae_cli.records import Message, Request, Row, Sampling, complete_row, new_row, request_of

SAMPLING = Sampling(max_new_tokens=50)


def recorded(num_samples: int = 4) -> list[Row]:
    engine = scripted.open_engine(Recipe(), "")
    rows = [
        new_row(
            "solve",
            role="solver",
            purpose="train",
            round_number=1,
            run_seed=0,
            messages=[Message("user", "What is 3 + 4?")],
            sampling=SAMPLING,
            policy=engine.policy,
            sample_index=index,
        )
        for index in range(num_samples)
    ]
    completions = engine.generate([request_of(row) for row in rows], SAMPLING)
    return [complete_row(row, completion) for row, completion in zip(rows, completions, strict=True)]


@pytest.fixture
def rows() -> list[Row]:
    return recorded()


@pytest.fixture
def path(rows: list[Row], tmp_path: Path) -> Path:
    file = tmp_path / "rollouts.jsonl"
    file.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    return file


def test_a_row_id_gets_its_own_answer_back(rows: list[Row], path: Path) -> None:
    engine = replay.open_engine(Recipe(), str(path))

    answers = engine.generate([request_of(row) for row in reversed(rows)], SAMPLING)

    assert [answer.raw for answer in answers] == [row.raw for row in reversed(rows)]
    assert [answer.usage for answer in answers] == [row.usage for row in reversed(rows)]
    assert engine.policy == rows[0].policy


def test_new_ids_are_answered_by_equal_messages_and_sample(rows: list[Row], path: Path) -> None:
    engine = replay.open_engine(Recipe(), str(path))
    answers = [engine.generate([new(rows[0], index)], SAMPLING)[0].raw for index in range(4)]

    assert answers == [row.raw for row in rows]


def new(row: Row, sample_index: int) -> Request:
    """The same question under an id that nobody has recorded."""
    return Request(f"new-{sample_index}", tuple(row.messages), 7, sample_index=sample_index)


def test_an_answer_depends_on_its_request_alone_so_resumed_and_split_files_are_the_uninterrupted_one(
    rows: list[Row], path: Path
) -> None:
    whole = replay.open_engine(Recipe(), str(path)).generate([new(rows[0], index) for index in range(4)], SAMPLING)

    for order in ([2, 3], [3], [1, 0, 3, 2]):
        found = replay.open_engine(Recipe(), str(path)).generate([new(rows[0], index) for index in order], SAMPLING)
        assert [answer.raw for answer in found] == [whole[index].raw for index in order]


def test_a_sample_beyond_the_recorded_ones_is_an_error_and_no_copy(rows: list[Row], path: Path) -> None:
    (answer,) = replay.open_engine(Recipe(), str(path)).generate([new(rows[0], 4)], SAMPLING)

    assert (answer.status, answer.raw) == ("error", None)
    assert "nor sample 4 of these messages is there" in (answer.error or "")


def test_a_request_without_a_recorded_answer_is_an_error_row_and_loses_no_other(rows: list[Row], path: Path) -> None:
    engine = replay.open_engine(Recipe(), str(path))

    unknown, known = engine.generate([Request("x", (Message("user", "else"),), 1), request_of(rows[2])], SAMPLING)

    assert (unknown.status, unknown.finish_reason) == ("error", "error")
    assert "rollouts.jsonl" in (unknown.error or "")
    assert known.raw == rows[2].raw


def test_a_missing_or_empty_file_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")

    for argument in ("", str(tmp_path / "none.jsonl"), str(tmp_path / "empty.jsonl")):
        with pytest.raises(ConfigError, match="replay"):
            replay.open_engine(Recipe(), argument)
