"""The engine against a misbehaving server, which is a real process on loopback."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mae_cli.engines.openai.engine import OpenAiEngine, open_engine
from mae_cli.engines.openai.pool import WINDOW
from mae_cli.errors import ConfigError, EngineError, TemporaryError
from mae_cli.recipe.sections import Recipe
from mae_cli.records import Completion, Message, Request, Sampling
from tests.engines.openai.fault_server import Running, running
from tests.support import slowness

SAMPLING = Sampling(64)


@contextlib.contextmanager
def engine(*servers: Running | str, argument: str = "", **recipe: Any) -> Iterator[OpenAiEngine]:
    urls = [server if isinstance(server, str) else server.url for server in servers]
    opened = open_engine(Recipe(engine="openai", **{"model": "test-model", "base_url": urls, **recipe}), argument)
    try:
        yield opened
    finally:
        opened.close()


def ask(index: int, seed: int | None = None) -> Request:
    return Request(f"r{index}", (Message("user", f"What is {index} + 4?"),), 7 * index if seed is None else seed)


def answers_of(opened: OpenAiEngine, number: int, sampling: Sampling = SAMPLING) -> list[Completion]:
    """The answers in the order asked; each came once."""
    found: dict[int, Completion] = {}
    for place, (completion,) in opened.stream(([ask(index)] for index in range(number)), sampling):
        assert place not in found
        found[place] = completion
    assert len(found) == number
    return [found[index] for index in range(number)]


def assert_right(answers: list[Completion]) -> None:
    for index, answer in enumerate(answers):
        assert answer.status == "ok", answer.error
        assert f"<answer>{index + 4}</answer>" in (answer.completion or "")


def free_url() -> str:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/v1"


# ---- answers


def test_each_request_gets_its_own_answer_and_the_seed_makes_it() -> None:
    with running() as server, engine(server) as opened:
        first, again, other = opened.generate([ask(1, 5), ask(1, 5), ask(1, 6)], SAMPLING)

    assert first.completion == again.completion != other.completion
    assert first.usage is not None
    assert (first.usage.prompt_tokens, first.usage.completion_tokens) == (5, 4)


def test_segments_come_as_they_are_finished_and_are_taken_only_as_there_is_room() -> None:
    taken = []

    def segments() -> Iterator[list[Request]]:
        for index in range(10**6):
            taken.append(index)
            yield [ask(index), ask(index + 1)]

    with running() as server, engine(server) as opened:
        stream = opened.stream(segments(), SAMPLING)
        number, (left, right) = next(stream)
        stream.close()  # type: ignore[attr-defined]

    assert f"<answer>{number + 4}</answer>" in (left.completion or "")
    assert f"<answer>{number + 5}</answer>" in (right.completion or "")
    assert len(taken) <= WINDOW


def test_a_segment_is_one_request_or_the_samples_of_one_prompt() -> None:
    requests = [ask(1, 1), ask(2, 2), ask(1, 3), ask(1, 4)]
    with engine("http://localhost:1") as apart, engine("http://localhost:1", argument="samples=together") as together:
        assert apart.plan(requests, 64) == [[0], [1], [2], [3]]
        assert together.plan(requests, 64) == [[0, 2, 3], [1]]
        assert together.plan(requests, 2) == [[0, 2], [3], [1]]


def test_samples_asked_for_together_are_one_request() -> None:
    with running() as server, engine(server, argument="samples=together") as opened:
        answers = opened.generate([ask(1, 1), ask(2, 9), ask(1, 2), ask(1, 3)], SAMPLING)
        stats = server.stats()

    assert len({answer.completion for answer in answers}) == 4
    assert "<answer>6</answer>" in (answers[1].completion or "")
    assert stats["counts"]["ok"] == 2
    assert [answer.usage is None for answer in answers] == [True, False, True, True]


@pytest.mark.parametrize(("options", "word"), [({"ignore": ["n"]}, "ignores"), ({"refuse": ["n"]}, "refuses")])
def test_a_server_without_n_is_noticed_once_and_asked_for_one_at_a_time(options: dict[str, Any], word: str) -> None:
    with running(**options) as server, engine(server, argument="samples=together") as opened:
        segments = [[ask(index, seed) for seed in range(3)] for index in range(4)]
        answers = dict(opened.stream(segments, SAMPLING))

    assert sorted(answers) == [0, 1, 2, 3]
    assert all(answer.status == "ok" for found in answers.values() for answer in found)
    # Each sample is asked for with its own seed: with one for all they were one text three times.
    assert all(len({answer.completion for answer in found}) == 3 for found in answers.values())
    assert opened.facts.notices == (f"the server {word} n: left out, each sample is a request of its own",)


def test_refused_fields_are_noticed_once_and_left_out() -> None:
    refuse = ["seed", "top_k", "min_p", "repetition_penalty", "return_token_ids"]
    with running(refuse=refuse) as server, engine(server) as opened:
        assert_right(answers_of(opened, 50))
        stats = server.stats()

    assert len(opened.facts.notices) == 5
    assert sum("refuses seed" in notice for notice in opened.facts.notices) == 1
    # Only those in flight at the beginning were asked twice.
    assert stats["counts"]["refused"] <= 16


def test_reasoning_is_kept_apart_wherever_the_server_puts_it() -> None:
    for place in ("field", "tags"):
        with running(reasoning=place) as server, engine(server) as opened:
            (answer,) = answers_of(opened, 1)
        assert answer.reasoning == "I add them."
        assert "add" not in (answer.completion or "")
        assert (answer.raw or "").startswith("<think>I add them.</think>")


def test_a_prompt_that_does_not_fit_is_too_long_and_one_that_does_gets_what_is_left() -> None:
    with running(context=12) as server, engine(server) as opened:
        long = Request("x", (Message("user", "word " * 20),), 1)
        # 5 words of prompt and 12 of context leave 7 for the answer, of the 64 asked for.
        short, refused = opened.generate([ask(1), long], SAMPLING)

    assert short.status == "ok"
    assert (refused.status, refused.finish_reason) == ("too_long", "error")
    assert refused.usage is not None
    assert refused.usage.prompt_tokens == 20


# ---- faults


def test_faults_of_every_kind_cost_no_row_and_no_order() -> None:
    faults = {"rate_limited": 0.6, "server_error": 0.04, "disconnect": 0.04, "truncate": 0.04}
    with running(**faults, retry_after=["0.02", "0.05", "0"], seed=1) as server, engine(server) as opened:
        assert_right(answers_of(opened, 150))
        stats = server.stats()

    assert stats["early"] == 0
    # What was answered whole was never asked for again.
    assert stats["counts"]["ok"] == 150
    assert min(stats["counts"][kind] for kind in ("429", "500", "disconnect", "truncate")) > 0


@pytest.mark.parametrize("told", ["1", "date:2"])
def test_retry_after_is_honoured_in_seconds_and_as_a_date(told: str) -> None:
    with running(rate_limited=1.0, faults_until=4, retry_after=[told]) as server, engine(server) as opened:
        assert_right(answers_of(opened, 4))
        stats = server.stats()

    # Not before, by the server's clock; that it is not long after either is shown in test_pool.py.
    assert stats["early"] == 0
    assert stats["counts"] == {"429": 4, "ok": 4}


def test_concurrency_drops_while_the_server_refuses_and_recovers_after() -> None:
    # The latency is long beside what a busy machine needs to send a request, so that what is in flight is the limit.
    options = {
        "latency": 0.05 * slowness(),
        "rate_limited": 0.6,
        "faults_from": 300,
        "faults_until": 600,
        "retry_after": ["0.01"],
    }
    with running(**options) as server, engine(server, max_concurrent=32) as opened:
        assert_right(answers_of(opened, 1000))
        timeline = server.stats()["timeline"]

    # The timeline holds the most in flight among each 50 arrivals.
    before, during, after = max(timeline[:5]), min(timeline[8:12]), max(timeline[-12:])
    assert during <= 8 < before
    assert after > 2 * during


def test_a_server_with_a_bound_of_its_own_is_found_out() -> None:
    with running(latency=0.02 * slowness(), refuse_above=16, retry_after=["0.01"]) as server, engine(server) as opened:
        assert_right(answers_of(opened, 600))
        stats = server.stats()

    # Unbounded growth would have most of the 600 refused.
    assert stats["counts"].get("429", 0) < 200
    assert max(stats["timeline"]) <= 40


def test_a_dead_address_is_routed_around_and_taken_back_when_it_answers(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mae_cli")
    dead = free_url()
    with running(latency=0.01) as server, engine(dead, server, max_concurrent=8) as opened:
        assert_right(answers_of(opened, 60))
        assert f"{dead}: cannot connect" in caplog.text
        with running(latency=0.01, port=int(dead.rpartition(":")[2].partition("/")[0])) as late:
            assert_right(answers_of(opened, 200))
            assert late.stats()["counts"]["ok"] > 20


def test_a_server_that_dies_in_the_middle_loses_no_row() -> None:
    with running(latency=0.005, die_after=40) as mortal, running(latency=0.005) as server:
        with engine(mortal, server) as opened:
            assert_right(answers_of(opened, 300))
        assert mortal.process.wait() == 0


def test_load_is_balanced_over_addresses() -> None:
    latency = 0.01 * slowness()
    with running(latency=latency) as one, running(latency=latency) as two:
        with engine(one, two, max_concurrent=16) as opened:
            assert_right(answers_of(opened, 200))
        shares = [server.stats()["counts"]["ok"] for server in (one, two)]

    assert sum(shares) == 200
    assert min(shares) > 60


def test_a_row_that_breaks_the_server_is_given_up_and_the_others_are_answered() -> None:
    with (
        running(poison="What is 3 +") as server,
        engine(server, argument=f"retry_seconds={0.8 * slowness()}") as opened,
    ):
        answers = answers_of(opened, 40)

    assert [index for index, answer in enumerate(answers) if answer.status == "error"] == [3]
    assert "HTTP 500" in (answers[3].error or "")


def test_a_row_without_an_answer_is_given_up_after_two_tries() -> None:
    # Others are answered all the time that the two tries take: 60 rows of 0.05 s, 2 at a time, are 1.5 s.
    longest = 0.4 * slowness()
    options = {"hang_on": "What is 3 +", "latency": longest / 8}
    with running(**options) as server, engine(server, timeout_seconds=longest, max_concurrent=3) as opened:
        answers = answers_of(opened, 60)

    assert [index for index, answer in enumerate(answers) if answer.status == "error"] == [3]
    assert answers[3].error == f"no answer within {longest:g} s, 2 times; the server answers other requests"


def test_a_last_row_without_an_answer_is_given_up_once_the_server_has_answered_something_else() -> None:
    argument = f"retry_seconds={0.6 * slowness()}"
    with (
        running(hang_on="What is 3 +") as server,
        engine(server, timeout_seconds=0.3 * slowness(), argument=argument) as opened,
    ):
        answers = answers_of(opened, 4)

    assert [answer.status for answer in answers] == ["ok", "ok", "ok", "error"]


@pytest.mark.parametrize("fault", ["server_error", "hang"])
def test_a_server_that_dies_after_an_answered_stage_ends_the_next_as_temporary(fault: str) -> None:
    limits = {"timeout_seconds": 0.2 * slowness(), "argument": f"retry_seconds={0.6 * slowness()}"}
    with running() as server, engine(server, **limits) as opened:
        assert_right(answers_of(opened, 3))
        server.set(**{fault: 1.0})
        found: list[int] = []
        with pytest.raises(TemporaryError, match=r"no answer from .* what is done is kept"):
            found.extend(place for place, _ in opened.stream(([ask(index)] for index in range(5)), SAMPLING))

    assert found == []


def test_a_server_that_is_gone_for_good_ends_the_command_as_temporary() -> None:
    with running(die_after=10, latency=0.01) as server, engine(server, argument="retry_seconds=1") as opened:
        found: list[int] = []
        with pytest.raises(TemporaryError, match=r"no answer from .* what is done is kept"):
            found.extend(place for place, _ in opened.stream(([ask(index)] for index in range(60)), SAMPLING))

    assert 1 <= len(found) <= 10


def test_a_wait_that_is_longer_than_our_patience_ends_the_command_as_temporary() -> None:
    with (
        running(rate_limited=1.0, retry_after=["3600"]) as server,
        engine(server) as opened,
        pytest.raises(TemporaryError, match="asks to wait 3,600 s"),
    ):
        answers_of(opened, 3)


# ---- what the user must put right


def test_a_server_that_was_never_there_is_the_users_to_put_right() -> None:
    with engine(free_url(), free_url()) as opened:
        with pytest.raises(EngineError, match=r"no server can be reached: .*; is it running"):
            answers_of(opened, 1)
        with pytest.raises(EngineError, match="no server can be reached"):
            opened.check()


def test_a_wrong_key_or_model_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(key="right-key") as server:
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        with engine(server) as opened, pytest.raises(EngineError, match="wants a key, and none is set"):
            answers_of(opened, 1)
        monkeypatch.setenv("MY_KEY", "wrong-key")
        told = r"refuses the key: HTTP 401: Incorrect API key provided: \*\*\*"
        with engine(server, api_key_env="MY_KEY") as opened, pytest.raises(EngineError, match=told):
            answers_of(opened, 1)
        monkeypatch.setenv("MY_KEY", "right-key")
        told = 'no model "tset-model"; did you mean "test-model"'
        with engine(server, api_key_env="MY_KEY", model="tset-model") as opened, pytest.raises(EngineError, match=told):
            answers_of(opened, 5)


def test_a_top_k_that_the_server_refused_in_an_earlier_stage_is_not_left_out_of_the_next() -> None:
    with running(refuse=["top_k"]) as server, engine(server) as opened:
        assert_right(answers_of(opened, 2))
        with pytest.raises(EngineError, match="refuses top_k, which the recipe sets"):
            answers_of(opened, 2, msgspec.structs.replace(SAMPLING, top_k=20))


def test_a_setting_that_every_row_is_refused_for_ends_the_command_and_marks_no_row() -> None:
    with running(refuse=["temperature"]) as server, engine(server) as opened:
        stream = opened.stream(([ask(index)] for index in range(100)), SAMPLING)
        with pytest.raises(
            EngineError, match=r"refused each of the first 16 requests, last with HTTP 400: .*temperature"
        ):
            next(stream)


def test_a_setting_of_a_later_stage_that_every_row_is_refused_for_marks_no_row_either() -> None:
    with running() as server, engine(server) as opened:
        assert_right(answers_of(opened, 3))
        server.set(refuse=["stop"])
        found: list[Any] = []
        with pytest.raises(EngineError, match=r"refused each of the first 16 .*: .*stop"):
            found += opened.stream(([ask(index)] for index in range(100)), Sampling(8, stop=("x",)))

    assert found == []


def test_scores_that_every_request_is_refused_for_end_the_command() -> None:
    told = r"refused each of the first 16 .*: .*temperature"
    with running(refuse=["temperature"]) as server, engine(server) as opened, pytest.raises(EngineError, match=told):
        opened.score([ask(index) for index in range(40)], [["A", "B"]] * 40)


def test_a_refusal_of_single_rows_is_theirs() -> None:
    with running() as server, engine(server) as opened:
        broken = Request("b", (Message("user", "\0"),), 1)
        assert opened.generate([ask(1)], SAMPLING)[0].status == "ok"
        server.set(refuse=["stop"])
        (answer,) = opened.generate([broken], Sampling(8, stop=("x",)))

    assert answer.status == "error"
    assert answer.error == "HTTP 400: Unrecognized request argument supplied: stop"


@pytest.mark.parametrize(
    ("recipe", "argument", "message"),
    [
        ({"chat_template": "t.jinja"}, "", "the server applies its own"),
        ({"max_concurrent": 0}, "", "max_concurrent: 0"),
        ({"base_url": "localhost:8000"}, "", "expected an address"),
        ({}, "sample=together", 'did you mean "samples"'),
        ({}, "retry_seconds=0", "engine openai: Expected `float` > 0"),
    ],
)
def test_wrong_settings_are_named(recipe: dict[str, Any], argument: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_engine(Recipe(**{"base_url": "http://localhost:1", **recipe}), argument)


# ---- policy, adapters, scores


def test_the_policy_does_not_depend_on_the_address() -> None:
    with engine("http://a:1") as one, engine("http://b:2") as two, engine("http://a:1", adapter="tuned") as tuned:
        assert one.policy == two.policy
        assert one.policy != tuned.policy
        assert not one.facts.deterministic


def test_a_served_adapter_is_asked_for_by_its_name() -> None:
    with running(models=["test-model", "tuned"]) as server, engine(server, adapter="tuned") as opened:
        (tuned,) = answers_of(opened, 1)
        opened.attach(None)
        (base,) = answers_of(opened, 1)

    assert (tuned.completion or "").startswith("By tuned")
    assert (base.completion or "").startswith("By test-model")


@pytest.fixture
def adapters(tmp_path: Path) -> list[Path]:
    folders = [tmp_path / "one", tmp_path / "two"]
    for number, folder in enumerate(folders):
        folder.mkdir()
        (folder / "adapter_config.json").write_text("{}")
        (folder / "adapter_model.safetensors").write_bytes(bytes([number]))
    return folders


def test_an_adapter_folder_is_loaded_by_every_server_and_the_one_before_is_unloaded(adapters: list[Path]) -> None:
    with running() as one, running() as two, engine(one, two, adapter=str(adapters[0])) as opened:
        first = opened.policy.adapter
        assert one.stats()["adapters"] == {}, "nothing is loaded before a row is wanted"
        (answer,) = answers_of(opened, 1)
        assert (answer.completion or "").startswith(f"By mae-{first}")
        assert one.stats()["adapters"] == two.stats()["adapters"] == {f"mae-{first}": str(adapters[0])}
        opened.attach(adapters[1])
        answers_of(opened, 1)
        assert one.stats()["adapters"] == {f"mae-{opened.policy.adapter}": str(adapters[1])}
        assert opened.policy.adapter != first


def test_a_server_that_loads_no_adapters_says_how_to_start_it(adapters: list[Path]) -> None:
    with (
        running(lora=False) as server,
        engine(server, adapter=str(adapters[0])) as opened,
        pytest.raises(EngineError, match="VLLM_ALLOW_RUNTIME_LORA_UPDATING"),
    ):
        answers_of(opened, 1)


def test_options_are_scored_from_the_listed_tokens() -> None:
    with running() as server, engine(server) as opened:
        assert opened.score([ask(1), ask(2)], [["A", "B"], [" B"]]) == [[-0.25, None], [-1.5]]


@pytest.mark.parametrize("options", [{"ignore": ["logprobs"]}, {"refuse": ["logprobs"]}])
def test_a_server_without_logprobs_cannot_score(options: dict[str, Any]) -> None:
    with (
        running(**options) as server,
        engine(server) as opened,
        pytest.raises(EngineError, match=r"logprobs.*--engine hf"),
    ):
        opened.score([ask(1)], [["A"]])


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_stream_of_200_000_rows_stays_under_500_mb() -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom tests.engines.openai.test_engine import SAMPLING, ask, engine\n"
        "with engine(sys.argv[1], max_concurrent=256) as opened:\n"
        "    count = sum(1 for _ in opened.stream(([ask(index)] for index in range(200_000)), SAMPLING))\n"
        "print(count, Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])\n"
    )
    with running(latency=0.01, padding=2000) as server:
        done = subprocess.run([sys.executable, "-c", code, server.url], capture_output=True, text=True, check=True)

    count, peak_kib = map(int, done.stdout.split())
    assert count == 200_000
    assert peak_kib < 500 * 1024
