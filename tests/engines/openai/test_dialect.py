from __future__ import annotations

import json
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mae_cli.engines.openai.dialect import Dialect, api_key, base_urls, retry_after_seconds
from mae_cli.engines.openai.refusal import read_refusal
from mae_cli.errors import ConfigError, EngineError
from mae_cli.records import Message, Request, Sampling

SAMPLING = Sampling(16)
REQUEST = Request("r", (Message("system", "Be brief."), Message("user", "Hi")), seed=2**51 + 3)


def body_of(dialect: Dialect, sampling: Sampling = SAMPLING, **more: int) -> dict[str, object]:
    found: dict[str, object] = json.loads(dialect.body("m", REQUEST, sampling, max_new_tokens=16, **more))
    return found


def refusal(message: str, status: int = 400, code: str | None = None):
    return read_refusal(status, json.dumps({"error": {"message": message, "code": code}}).encode(), None)


# ---- Retry-After


@given(st.integers(0, 10**9))
def test_whole_seconds_are_read_as_they_stand(seconds: int) -> None:
    assert retry_after_seconds({"retry-after": str(seconds)}) == seconds


@given(st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)), st.integers(-(10**6), 10**6))
def test_a_date_is_the_time_left_until_it_and_never_negative(moment: datetime, ahead: int) -> None:
    moment = moment.replace(microsecond=0, tzinfo=UTC)
    now = moment.timestamp() - ahead

    told = retry_after_seconds({"retry-after": format_datetime(moment, usegmt=True)}, lambda: now)

    assert told == pytest.approx(max(0, ahead))


@given(st.text(max_size=40))
def test_no_header_text_raises_or_gives_a_negative_wait(text: str) -> None:
    told = retry_after_seconds({"retry-after": text})
    assert told is None or told >= 0


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "1e9"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "2", "retry-after-ms": "250"}, 0.25),
        # The three forms of RFC 9110 section 5.6.7, of one moment, one minute after the clock of this test.
        ({"retry-after": "Sun, 06 Nov 1994 08:49:37 GMT"}, 60.0),
        ({"retry-after": "Sunday, 06-Nov-94 08:49:37 GMT"}, 60.0),
        ({"retry-after": "Sun Nov  6 08:49:37 1994"}, 60.0),
    ],
)
def test_what_servers_write_is_read(headers: dict[str, str], expected: float | None) -> None:
    now = datetime(1994, 11, 6, 8, 48, 37, tzinfo=UTC).timestamp()
    assert retry_after_seconds(headers, lambda: now) == expected


# ---- addresses and keys


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("http://localhost:8000", ["http://localhost:8000/v1"]),
        (["http://a:1/v1/", "http://a:1/v1", "https://b/api/v3"], ["http://a:1/v1", "https://b/api/v3"]),
        ("http://a/v1/chat/completions", ["http://a/v1"]),
    ],
)
def test_addresses_end_at_the_version_and_stand_once(told: str | list[str], expected: list[str]) -> None:
    assert base_urls(told) == expected


def test_the_address_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(ConfigError, match="no server; give --base-url"):
        base_urls(None)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://elsewhere:9/v1")
    assert base_urls(None) == ["http://elsewhere:9/v1"]


@pytest.mark.parametrize("address", ["http://me:s3cret@host/v1", "http://host/v1?api-key=s3cret"])
def test_an_address_that_carries_a_secret_is_refused_without_repeating_it(address: str) -> None:
    with pytest.raises(ConfigError) as caught:
        base_urls(address)
    assert "s3cret" not in str(caught.value)


def test_a_key_given_in_place_of_its_variable_is_refused_without_repeating_it() -> None:
    with pytest.raises(ConfigError, match="never the key") as caught:
        api_key("sk-not-a-name")
    assert "sk-not" not in str(caught.value)


def test_the_usual_variable_is_taken_where_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert api_key(None) is None
    monkeypatch.setenv("OPENAI_API_KEY", "k\n")
    assert api_key(None) == "k"


# ---- bodies and refusals


def test_every_sampling_setting_is_sent_so_that_no_default_of_the_server_holds() -> None:
    body = body_of(Dialect({}, print), Sampling(16, temperature=0.7, top_p=0.9, stop=("x",)))

    told = {name: body[name] for name in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "stop")}
    assert told == {
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "stop": ["x"],
    }
    assert body["seed"] == (2**51 + 3) % 2**31


def test_a_greedy_request_has_no_seed_and_a_single_one_no_n() -> None:
    body = body_of(Dialect({}, print), Sampling(16, temperature=0.0))
    assert not {"seed", "n"} & body.keys()


@pytest.mark.parametrize(
    ("message", "gone"),
    [
        ("Unrecognized request argument supplied: top_k", {"top_k"}),
        (
            "Unexpected fields in the request: {'min_p', 'top_k', 'return_token_ids'}",
            {"min_p", "top_k", "return_token_ids"},
        ),
        ("seed is not supported", {"seed"}),
        ("n > 1 is not supported", {"n"}),
    ],
)
def test_a_refused_field_is_left_out_and_told_once(message: str, gone: set[str]) -> None:
    said: list[str] = []
    dialect = Dialect({}, said.append)
    before = body_of(dialect, number=4)

    spoken = dialect.version
    assert all(dialect.learn(refusal(message), Sampling(16), number=4, spoken=spoken) for _ in range(3))

    assert before.keys() - body_of(dialect, number=4).keys() == gone
    assert len(said) == len(gone)


def test_a_field_the_recipe_sets_is_never_left_out_in_silence() -> None:
    dialect = Dialect({"enable_thinking": False}, print)
    with pytest.raises(EngineError, match="refuses top_k, which the recipe sets"):
        dialect.learn(refusal("unknown: top_k"), Sampling(16, top_k=20), number=1, spoken=0)
    with pytest.raises(EngineError, match="refuses chat_template_kwargs"):
        dialect.learn(refusal("unknown: chat_template_kwargs"), Sampling(16), number=1, spoken=0)


def test_a_field_left_out_for_one_stage_is_missed_by_a_later_one_that_sets_it() -> None:
    dialect = Dialect({}, lambda _: None)
    assert dialect.learn(refusal("unknown: top_k"), Sampling(16), number=1, spoken=0)
    assert "top_k" not in body_of(dialect, Sampling(16))

    with pytest.raises(EngineError, match="refuses top_k, which the recipe sets"):
        body_of(dialect, Sampling(16, top_k=20))


def test_newer_names_and_templates_without_system_text_are_learnt() -> None:
    dialect = Dialect({}, lambda _: None)
    assert dialect.learn(refusal("use 'max_completion_tokens' instead"), Sampling(16), number=1, spoken=0)
    assert dialect.learn(refusal("System role not supported"), Sampling(16), number=1, spoken=dialect.version)

    body = body_of(dialect)
    assert body["max_completion_tokens"] == 16
    assert "max_tokens" not in body
    assert body["messages"] == [{"role": "user", "content": "Be brief.\n\nHi"}]


def test_a_refusal_about_the_row_itself_teaches_nothing() -> None:
    dialect = Dialect({}, print)
    assert not dialect.learn(refusal("the content is not allowed"), Sampling(16), number=1, spoken=0)
    assert not dialect.dropped


@pytest.mark.parametrize(
    ("message", "code", "room"),
    [
        (
            "This model's maximum context length is 4096 tokens. However, you requested 4600 tokens (4000 in the "
            "messages, 600 in the completion). Please reduce the length.",
            "context_length_exceeded",
            96,
        ),
        (
            "'max_tokens' or 'max_completion_tokens' is too large: 512. This model's maximum context length is 1024 "
            "tokens and your request has 1000 input tokens (512 > 1024 - 1000).",
            None,
            24,
        ),
        (
            "You passed 1025 input tokens and requested 1 output tokens. However, the model's context length is only "
            "1024 tokens.",
            None,
            -1,
        ),
        ("the request exceeds the available context size, try increasing it", "exceed_context_size_error", None),
        ("The input (5000 tokens) is longer than the model's context length (4096 tokens).", None, -904),
    ],
)
def test_an_overflow_is_known_and_what_still_fits_is_read(message: str, code: str | None, room: int | None) -> None:
    found = refusal(message, code=code)
    assert found.is_overflow
    assert found.room == room


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": {"message": "no k3y here"}}', "no *** here"),
        (b'{"object": "error", "message": "k3y"}', "***"),
        (b'{"detail": [{"loc": ["body", "top_k"], "msg": "extra"}]}', '[{"loc":["body","top_k"],"msg":"extra"}]'),
        (b'{"error": "plain k3y"}', "plain ***"),
        (b"<html>\n k3y \xff</html>", "<html> *** �</html>"),
        (b"", "HTTP 400"),
        (b"[]", "[]"),
    ],
)
def test_the_servers_words_are_found_in_any_shape_and_never_hold_the_key(body: bytes, message: str) -> None:
    assert read_refusal(400, body, "k3y").message == message
