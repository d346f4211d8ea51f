from __future__ import annotations

import json
from typing import Any

import pytest

from mae_cli.engines.openai.reply import option_logprobs, read_completions, read_reply
from mae_cli.records import Completion, Usage

TAGS = ("<think>", "</think>")


def reply(message: Any, finish: str | None = "stop", **more: Any) -> bytes:
    choice = {"index": 0, "message": message, "finish_reason": finish, **more.pop("choice", {})}
    tree = {"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 3}, **more}
    return json.dumps(tree).encode()


def one(message: Any, finish: str | None = "stop", **more: Any) -> Completion:
    found = read_reply(reply(message, finish, **more))
    assert found is not None
    (completion,) = read_completions(found, TAGS)
    return completion


def test_a_plain_answer_has_its_text_and_its_cost() -> None:
    found = one({"content": "7"})
    assert (found.raw, found.completion, found.reasoning) == ("7", "7", None)
    assert (found.status, found.finish_reason, found.usage) == ("ok", "stop", Usage(5, 3))


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_the_server_split_off_is_kept_apart_and_stands_in_the_raw_text(field: str) -> None:
    found = one({"content": "7", field: "3 and 4"})
    assert (found.reasoning, found.completion) == ("3 and 4", "7")
    assert found.raw == "<think>3 and 4</think>7"


def test_reasoning_in_the_text_is_split_off_here() -> None:
    found = one({"content": "3 and 4</think>7"})
    assert (found.reasoning, found.completion) == ("3 and 4", "7")


def test_reasoning_that_never_ended_is_no_answer() -> None:
    apart, inside = one({"content": None, "reasoning_content": "so"}, "length"), one({"content": "<think>so"})
    assert (apart.status, apart.completion, apart.reasoning) == ("truncated", "", "so")
    assert (inside.status, inside.completion, inside.reasoning) == ("truncated", "", "so")


@pytest.mark.parametrize(
    ("told", "status", "finish"),
    [
        ("stop", "ok", "stop"),
        ("eos_token", "ok", "stop"),
        (None, "ok", "stop"),
        ("length", "truncated", "length"),
        ("content_filter", "error", "error"),
        ("tool_calls", "error", "error"),
    ],
)
def test_how_it_ended_is_told_in_our_words(told: str | None, status: str, finish: str) -> None:
    found = one({"content": "7"}, told)
    assert (found.status, found.finish_reason) == (status, finish)
    assert (found.error is None) == (status != "error")


def test_a_model_that_declines_has_said_so_and_counts_as_wrong_not_as_unknown() -> None:
    found = one({"content": None, "refusal": "I will not"})
    assert (found.status, found.raw, found.completion, found.error) == ("ok", "I will not", "I will not", None)


def test_an_answer_without_a_text_is_an_error() -> None:
    assert one({"content": None}).status == "error"
    assert one({"content": ""}).status == "ok"


def test_text_in_parts_is_joined() -> None:
    assert one({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}).completion == "ab"


def test_token_ids_are_taken_where_the_server_tells_them() -> None:
    found = one({"content": "7"}, choice={"token_ids": [8, 9]}, prompt_token_ids=[1, 2, 3, 4, 5])
    assert (found.prompt_token_ids, found.completion_token_ids, found.usage) == ([1, 2, 3, 4, 5], [8, 9], Usage(5, 2))


def test_a_missing_count_is_unknown_and_a_sum_over_samples_is_no_rows_cost() -> None:
    assert one({"content": "7"}, usage=None).usage is None
    choices = [{"message": {"content": text}, "finish_reason": "stop"} for text in "ab"]
    found = read_reply(json.dumps({"choices": choices, "usage": {"prompt_tokens": 5, "completion_tokens": 6}}).encode())
    assert found is not None
    assert [answer.usage for answer in read_completions(found, TAGS)] == [None, None]


@pytest.mark.parametrize(
    "body", [b"", b"{", reply({"content": "7"})[:-9], b"<html>", b'{"error": {"message": "x"}}', b"[]"]
)
def test_what_is_no_whole_answer_is_none(body: bytes) -> None:
    assert read_reply(body) is None


def test_an_answer_the_server_gave_up_is_known_as_such() -> None:
    found = read_reply(reply({"content": "half"}, "abort"))
    assert found is not None
    assert found.is_broken_off


def test_options_are_scored_by_the_token_that_reads_exactly_like_them() -> None:
    top = [{"token": "A", "logprob": -0.25}, {"token": " B", "logprob": -1.5}, {"token": "C", "logprob": -9999.0}]
    content = [{"token": "A", "logprob": -0.25, "top_logprobs": top}, {"token": "D", "logprob": -0.1}]
    found = read_reply(reply({"content": "A"}, choice={"logprobs": {"content": content}}))
    assert found is not None

    # "B" was not listed (only " B"), "D" belongs to the second position.
    assert option_logprobs(found, ["A", "B", " B", "C", "D"]) == [-0.25, None, -1.5, -9999.0, None]


def test_without_logprobs_there_is_no_score_at_all() -> None:
    found = read_reply(reply({"content": "A"}))
    assert found is not None
    assert option_logprobs(found, ["A"]) is None
