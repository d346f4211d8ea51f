"""Replies that servers in the field send, from public reports, with what a row or a command must make of each."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from mae_cli.engines.openai.constraints import choice_fields, chosen
from mae_cli.engines.openai.dialect import Dialect, base_urls
from mae_cli.engines.openai.engine import open_engine
from mae_cli.engines.openai.option_scores import is_one_token_at_most
from mae_cli.engines.openai.refusal import read_hidden_refusal, read_refusal
from mae_cli.engines.openai.reply import read_completions, read_reply
from mae_cli.errors import EngineError, TemporaryError
from mae_cli.recipe.sections import Recipe
from mae_cli.records import Completion, Message, Request, Sampling

TAGS = ("<think>", "</think>")
# ---- overflows: (server, HTTP status, body, tokens of the prompt that the row records, new tokens that still fit)
OVERFLOWS = [
    (
        "llama.cpp",
        400,
        {
            "error": {
                "code": 400,
                "message": "request (8762 tokens) exceeds the available context size (2048 tokens), try increasing it",
                "type": "exceed_context_size_error",
                "n_prompt_tokens": 8762,
                "n_ctx": 2048,
            }
        },
        8762,
        2048 - 8762,
    ),
    (
        "llama.cpp of September 2025, under HTTP 500",
        500,
        {
            "error": {
                "code": 500,
                "message": "the request exceeds the available context size. try increasing the context size",
                "type": "exceed_context_size_error",
                "n_prompt_tokens": 1407,
                "n_ctx": 256,
            }
        },
        1407,
        256 - 1407,
    ),
    (
        "llama.cpp of October 2025, under HTTP 200",
        200,
        {
            "error": {
                "code": 400,
                "message": "the request exceeds the available context size. try increasing the context size",
                "type": "exceed_context_size_error",
                "n_prompt_tokens": 14429,
                "n_ctx": 8192,
            }
        },
        14429,
        8192 - 14429,
    ),
    (
        "LM Studio, under HTTP 200",
        200,
        {
            "error": "Trying to keep the first 111490 tokens when context the overflows. However, the model is loaded "
            "with context length of only 32768 tokens, which is not enough."
        },
        111490,
        32768 - 111490,
    ),
    (
        "LM Studio",
        400,
        {
            "error": "The number of tokens to keep from the initial prompt is greater than the context length "
            "(n_keep: 13055>= n_ctx: 4096). Try to load the model with a larger context length."
        },
        13055,
        4096 - 13055,
    ),
    (
        "TGI, sum",
        422,
        {
            "error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 1512. Given: 1000 `inputs` "
            "tokens and 1024 `max_new_tokens`",
            "error_type": "validation",
        },
        1000,
        512,
    ),
    (
        "TGI, prompt",
        422,
        {
            "error": "Input validation error: `inputs` must have less than 1024 tokens. Given: 1062",
            "error_type": "validation",
        },
        1062,
        1024 - 1062,
    ),
    (
        "SGLang, prompt",
        400,
        {
            "object": "error",
            "message": "The input (5000 tokens) is longer than the model's context length (4096 tokens).",
            "type": "BadRequestError",
            "code": 400,
        },
        5000,
        4096 - 5000,
    ),
    (
        "SGLang, sum",
        400,
        {
            "object": "error",
            "message": "Requested token count exceeds the model's maximum context length of 4096 tokens. You requested "
            "a total of 5000 tokens: 4000 tokens from the input messages and 1000 tokens for the completion.",
        },
        4000,
        96,
    ),
    (
        "vLLM, both told",
        400,
        {
            "error": {
                "message": "'max_tokens' is too large: 512. This model's maximum context length is 1024 tokens and "
                "your request has 1000 input tokens (512 > 1024 - 1000).",
                "type": "BadRequestError",
            }
        },
        1000,
        24,
    ),
    (
        "vLLM, a lower bound of the prompt",
        400,
        {
            "error": {
                "message": "This model's maximum context length is 2048 tokens. However, you requested 64 output "
                "tokens and your prompt contains at least 2049 input tokens, for a total of at least 2113 tokens.",
                "type": "BadRequestError",
            }
        },
        None,
        -1,
    ),
    (
        "OpenAI, sum",
        400,
        {
            "error": {
                "message": "This model's maximum context length is 4097 tokens. However, you requested 4120 tokens "
                "(3120 in the messages, 1000 in the completion). Please reduce the length of the messages.",
                "code": "context_length_exceeded",
            }
        },
        3120,
        977,
    ),
    (
        "OpenAI, prompt",
        400,
        {
            "error": {
                "message": "This model's maximum context length is 128000 tokens. However, your messages resulted in "
                "204308 tokens. Please reduce the length of the messages.",
                "code": "context_length_exceeded",
            }
        },
        204308,
        128000 - 204308,
    ),
]


@pytest.mark.parametrize(("server", "status", "body", "prompt", "room"), OVERFLOWS, ids=[one[0] for one in OVERFLOWS])
def test_a_prompt_beyond_the_context_is_known_with_its_tokens(
    server: str, status: int, body: Any, prompt: int | None, room: int
) -> None:
    data = json.dumps(body).encode()
    found = read_hidden_refusal(data, None) if status == 200 else read_refusal(status, data, None)

    assert found is not None
    assert found.is_overflow
    assert (found.prompt_tokens, found.room) == (prompt, room)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"code": "rate_limit_daily", "message": "Error code: 429 - too many requests today"}, 429),
        ({"error": {"message": "Provider returned error", "code": 502}}, 502),
        ({"error": {"message": "Rate limit exceeded", "code": "429"}}, 429),
        ({"error": "Unexpected endpoint or method. (POST /chat/completions). Returning 200 anyway"}, 404),
        ({"error": {"message": "upstream connect error or disconnect/reset before headers"}}, 502),
        ({"object": "error", "message": "Internal error", "code": 500}, 500),
        ({"error": {"message": "Incorrect API key provided", "code": 401}}, 401),
    ],
)
def test_an_error_under_http_200_has_the_status_that_it_names(body: Any, status: int) -> None:
    found = read_hidden_refusal(json.dumps(body).encode(), None)

    assert found is not None
    assert found.status == status


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"choices": [{"mess', b'{"id": 1}', b'{"choices": [], "error": null}']
)
def test_what_names_no_error_is_none(body: bytes) -> None:
    assert read_hidden_refusal(body, None) is None


# ---- how an answer ended


def completion_of(finish: Any, *, tokens: Any = 3, limit: int | None = 16, **message: Any) -> Completion:
    choice = {"index": 0, "message": {"role": "assistant", "content": "7", **message}, "finish_reason": finish}
    tree = {"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": tokens}}
    reply = read_reply(json.dumps(tree).encode())
    assert reply is not None
    return read_completions(reply, TAGS, limit=limit)[0]


@pytest.mark.parametrize(
    ("finish", "expected"),
    [
        ("stop", "stop"),
        ("STOP", "stop"),
        ("eos", "stop"),
        ("eos_token", "stop"),
        ("COMPLETE", "stop"),
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("", "stop"),
        ("null", "stop"),
        (None, "stop"),
        ("length", "length"),
        ("MAX_TOKENS", "length"),
        ("model_length", "length"),
        ("content_filter", "error"),
        ("SAFETY", "error"),
        ("tool_calls", "error"),
        ("function_call", "error"),
    ],
)
def test_the_ends_that_servers_name_are_three(finish: str | None, expected: str) -> None:
    assert completion_of(finish).finish_reason == expected


def test_an_answer_of_as_many_tokens_as_were_asked_for_was_cut_where_nothing_says_how_it_ended() -> None:
    assert completion_of(None, tokens=16).finish_reason == "length"
    assert completion_of("", tokens=16.0).finish_reason == "length"
    assert completion_of("stop", tokens=16).finish_reason == "stop"


@pytest.mark.parametrize("finish", ["abort", "cancelled", "error", "ABORTED", "insufficient_system_resource"])
def test_an_answer_that_the_server_gave_up_is_asked_for_again(finish: str) -> None:
    reply = read_reply(json.dumps({"choices": [{"message": {"content": "7"}, "finish_reason": finish}]}).encode())

    assert reply is not None
    assert reply.is_broken_off


def test_an_answer_of_no_token_at_all_is_an_error_not_a_wrong_answer() -> None:
    empty = completion_of("stop", tokens=0, content="")

    assert (empty.status, empty.finish_reason) == ("error", "error")
    assert "0 tokens" in (empty.error or "")
    assert completion_of("stop", tokens=1, content="").status == "ok"


@pytest.mark.parametrize(
    ("choice", "rest"),
    [
        ('"finish_reason": "stop", "logprobs": {"content": [{"token": "7", "logprob": NaN}]}', ""),
        ('"finish_reason": "stop", "score": -Infinity', ""),
        ('"finish_reason": "stop", "tool_calls": [], "index": 0', ', "usage": null'),
        ('"finish_reason": "stop"', ', "usage": {"prompt_tokens": 3.0}, "x": {}'),
        ('"index": 0', ', "usage": {}, "timings": {"predicted_ms": 1e400}'),
    ],
)
def test_a_whole_answer_with_odd_fields_is_read(choice: str, rest: str) -> None:
    reply = read_reply(f'{{"choices": [{{"message": {{"content": "7"}}, {choice}}}]{rest}}}'.encode())

    assert reply is not None
    assert read_completions(reply, TAGS)[0].completion == "7"


def test_text_of_any_language_comes_through_whole() -> None:
    text = "π ≈ 3,14 — 三 \U0001f600 e\u0301 \ufeff\u200b\u2028"
    assert completion_of("stop", content=text).raw == text


# ---- addresses


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("http://h:1", "http://h:1/v1"),
        ("http://h:1/", "http://h:1/v1"),
        ("http://h:1/v1/", "http://h:1/v1"),
        ("http://h:1/v1/v1", "http://h:1/v1"),
        ("http://h:1/v1/chat", "http://h:1/v1"),
        ("http://h:1/v1/chat/completions/", "http://h:1/v1"),
        ("http://h:1/v1/completions", "http://h:1/v1"),
        ("http://h:1/v1/models", "http://h:1/v1"),
        ("https://h/openai/v1/responses", "https://h/openai/v1"),
        ("https://h/api/v3", "https://h/api/v3"),
    ],
)
def test_an_address_ends_at_the_version_however_it_was_copied(told: str, expected: str) -> None:
    assert base_urls(told) == [expected]


# ---- fields that are refused


@pytest.mark.parametrize(
    ("message", "sampling", "field"),
    [
        (
            "Unsupported value: 'temperature' does not support 0.16 with this model. Only the default (1) value is "
            "supported.",
            Sampling(16, temperature=0.16),
            "temperature",
        ),
        ("Unsupported parameter: 'top_p' is not supported with this model.", Sampling(16, top_p=0.9), "top_p"),
        ("Unsupported parameter: 'top_k'", Sampling(16, top_k=5), "top_k"),
    ],
)
def test_a_refused_setting_of_the_recipe_ends_the_command(message: str, sampling: Sampling, field: str) -> None:
    refusal = read_refusal(400, json.dumps({"error": {"message": message}}).encode(), None)

    with pytest.raises(EngineError, match=f"refuses {field}, which the recipe sets"):
        Dialect({}, print).learn(refusal, sampling, number=1, spoken=0)


@pytest.mark.parametrize("field", ["temperature", "top_p", "seed", "stream", "min_p", "return_token_ids"])
def test_a_refused_field_at_the_value_that_is_off_is_left_out(field: str) -> None:
    said: list[str] = []
    dialect = Dialect({}, said.append)
    refusal = read_refusal(400, json.dumps({"error": {"message": f"'{field}' is not supported."}}).encode(), None)

    assert dialect.learn(refusal, Sampling(16), number=1, spoken=0)
    body = json.loads(dialect.body("m", Request("r", (Message("user", "x"),), 1), Sampling(16), max_new_tokens=16))
    assert field not in body
    assert len(said) == 1


# ---- one of several replies


def test_allowed_replies_are_asked_for_in_the_form_of_vllm_and_of_llama() -> None:
    fields = choice_fields("native", ['<score>"1"</score>', "a\\b\n"])

    assert fields["structured_outputs"] == {"choice": ['<score>"1"</score>', "a\\b\n"]}
    assert fields["grammar"] == r'root ::= "<score>\"1\"</score>" | "a\\b\n"'


@pytest.mark.parametrize(
    ("text", "expected"),
    [("yes", "yes"), (" yes\n", "yes"), ('{"reply": "no"}', "no"), ('"yes"', None), ("maybe", None), ("{}", None)],
)
def test_a_reply_counts_by_itself_or_in_its_object(text: str, expected: str | None) -> None:
    assert chosen(text, ["yes", "no"]) == expected


@pytest.mark.parametrize(
    ("option", "expected"),
    [("A", True), (" B", True), ("yes", True), ("10", True), ("<score>1</score>", False), ("", False), ("a b", False)],
)
def test_an_option_that_no_single_token_can_be_is_known(option: str, expected: bool) -> None:
    assert is_one_token_at_most(option) is expected


# ---- a whole server that says one thing

OK = {"choices": [{"message": {"content": "7"}, "finish_reason": "stop"}]}


class Canned:
    """A server that gives one answer to every chat, and keeps what it was asked."""

    def __init__(self, status: int, body: bytes, headers: dict[str, str], models: Any) -> None:
        self.answers: list[tuple[int, bytes, dict[str, str]]] = [(status, body, headers)]
        self.models, self.asked = models, [{}]
        self.asked.clear()


@contextmanager
def canned(
    body: Any = OK, status: int = 200, models: Any = None, then: Any = None, **headers: str
) -> Iterator[tuple[str, Canned]]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    told = Canned(status, data, headers, models)
    if then is not None:
        told.answers.append((200, json.dumps(then).encode(), {}))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._say(200, json.dumps({"data": told.models or [{"id": "m"}]}).encode(), {})

        def do_POST(self) -> None:
            told.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self._say(*(told.answers.pop(0) if len(told.answers) > 1 else told.answers[0]))

        def _say(self, status: int, data: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", told
    finally:
        server.shutdown()
        server.server_close()


def answer_of(
    url: str, sampling: Sampling | None = None, argument: str = "retry_seconds=1", **recipe: Any
) -> Completion:
    engine = open_engine(Recipe(model="m", base_url=url, max_concurrent=1, **recipe), argument)
    try:
        return engine.generate([Request("r", (Message("user", "3 + 4?"),), 1)], sampling or Sampling(16))[0]
    finally:
        engine.close()


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"<!DOCTYPE html><html>sign in</html>", 200, r"web page \(HTML\); is --base-url right"),
        (b"<html>proxy</html>", 200, r"web page \(HTML\)"),
        (b'data: {"choices": [{"delta": {"content": "7"}}]}\n\ndata: [DONE]\n', 200, "streams its answers although"),
        ({"error": "Unexpected endpoint or method. (POST /x). Returning 200 anyway"}, 200, "is --base-url right"),
        ({"error": {"message": "Incorrect API key", "code": 401}}, 200, "wants a key, and none is set"),
        ({"error": {"message": "model 'm' not found", "type": "not_found_error"}}, 404, "model 'm' not found"),
        (b"", 307, "redirect|is --base-url right"),
    ],
)
def test_what_no_second_try_can_mend_ends_the_command_at_once(
    body: Any, status: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with canned(body, status) as (url, told), pytest.raises(EngineError, match=message):
        answer_of(url, argument="")

    assert len(told.asked) == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}, 503),
        ({"error": {"message": "Model is overloaded", "error_type": "overloaded"}}, 429),
        ({"error": {"message": "Provider returned error", "code": 502}}, 200),
        ({"choices": []}, 200),
        ({"choices": [{"message": {"content": "half"}, "finish_reason": "abort"}]}, 200),
        (b'{"choices": [{"message": {"cont', 200),
        (b"<html>502 Bad Gateway</html>", 502),
    ],
)
def test_what_may_pass_is_asked_for_again(body: Any, status: int) -> None:
    with canned(body, status, then=OK) as (url, told):
        answer = answer_of(url, argument="retry_seconds=60")

    assert answer.completion == "7"
    assert len(told.asked) == 2


@pytest.mark.parametrize(("server", "status", "body", "prompt", "room"), OVERFLOWS, ids=[one[0] for one in OVERFLOWS])
def test_a_row_beyond_the_context_is_too_long_whatever_the_status(
    server: str, status: int, body: Any, prompt: int | None, room: int
) -> None:
    with canned(body, status) as (url, _):
        found = answer_of(url)

    assert (found.status, found.finish_reason) == ("too_long", "error")
    assert (found.usage.prompt_tokens if found.usage else None) == prompt


def test_a_name_that_the_server_does_not_list_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "mae_cli")
    with canned(models=[{"id": "other.gguf", "owned_by": "llamacpp"}]) as (url, _):
        answer_of(url)
    assert caplog.text.count('answers to "m", and lists other.gguf') == 1

    caplog.clear()
    for models in ([{"id": "other", "aliases": ["m"]}], [{"id": "m:latest"}], [{"id": "openai/*"}]):
        with canned(models=models) as (url, _):
            answer_of(url)
    assert "lists" not in caplog.text


def test_a_reply_outside_the_allowed_ones_is_asked_for_by_schema_and_then_ends_the_command() -> None:
    sampling = Sampling(4, temperature=0.0, choices=("<score>1</score>", "<score>2</score>"))
    good = {"choices": [{"message": {"content": '{"reply": "<score>2</score>"}'}, "finish_reason": "stop"}]}
    with canned(then=good) as (url, told):
        answer = answer_of(url, sampling)
    assert (answer.completion, answer.raw) == ("<score>2</score>", '{"reply": "<score>2</score>"}')
    assert "grammar" in told.asked[0]
    assert told.asked[1]["response_format"]["type"] == "json_schema"
    # A reply must not be cut by a limit that was chosen for free text.
    assert told.asked[0]["max_tokens"] >= len("<score>1</score>")

    with canned() as (url, _), pytest.raises(EngineError, match="does not keep to the allowed replies: it wrote '7'"):
        answer_of(url, sampling)


def test_an_option_of_several_tokens_is_refused_where_only_first_tokens_are_listed() -> None:
    with canned() as (url, told):
        engine = open_engine(Recipe(model="m", base_url=url), "")
        with pytest.raises(EngineError, match="how likely single tokens are, and '<score>1</score>' is longer"):
            engine.score([Request("r", (Message("user", "x"),), 1)], [["<score>1</score>"]])
        engine.close()

    assert told.asked == []


@pytest.mark.parametrize(
    ("message", "mend"),
    [
        ("LoRA is not enabled. Use `--enable-lora` to enable LoRA.", "start vLLM with --enable-lora"),
        ("LoRA rank 32 is greater than max_lora_rank 16.", "start vLLM with a larger --max-lora-rank"),
        ("Loading lora mae-1 failed: No adapter found for /x", "can it see that path"),
    ],
)
def test_an_adapter_that_the_server_cannot_take_ends_the_command_at_once(
    message: str, mend: str, tmp_path: Any
) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"x")
    body = {"error": {"message": message, "type": "InternalServerError", "code": 500}}
    with canned(body, 500) as (url, told), pytest.raises(EngineError, match=mend):
        answer_of(url, argument="", adapter=str(tmp_path))

    assert len(told.asked) == 1


def test_a_server_whose_engine_died_while_it_loads_an_adapter_is_waited_for(tmp_path: Any) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"x")
    body = {"error": {"message": "EngineCore encountered an issue.", "code": 500}}
    with canned(body, 500) as (url, _), pytest.raises(TemporaryError, match="EngineCore encountered an issue"):
        answer_of(url, argument="retry_seconds=0.2", adapter=str(tmp_path))


def test_an_adapter_asked_for_by_the_name_of_a_folders_digest_is_the_same_policy(tmp_path: Any) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"x")
    by_folder = open_engine(Recipe(model="m", base_url="http://h/v1", adapter=str(tmp_path)), "")
    by_name = open_engine(Recipe(model="m", base_url="http://h/v1", adapter=f"mae-{by_folder.policy.adapter}"), "")

    assert by_name.policy == by_folder.policy
