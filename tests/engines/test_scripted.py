"""The scripted engine: answers by rule, a function of seed and messages."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from mae_cli.engines.scripted import Options, ScriptedEngine, open_engine
from mae_cli.errors import ConfigError
from mae_cli.prompts.prompt_files import load_prompt
from mae_cli.recipe.sections import Recipe
from mae_cli.records import Message, Request, Sampling

SAMPLING = Sampling(max_new_tokens=100)
SOLVE = load_prompt("solve").render(question="What is 12 + 30?")
PROPOSE = load_prompt("propose").render()


def judge_answer(answer: str) -> list[Message]:
    prompt = load_prompt("judge_answer")
    return prompt.render(question="What is 12 + 30?", answer=answer, nonce="f00d", reference="", think=True)


def ask(engine: ScriptedEngine, messages: Sequence[Message], count: int = 200) -> list[str]:
    requests = [Request(str(seed), tuple(messages), seed) for seed in range(count)]
    return [completion.raw or "" for completion in engine.generate(requests, SAMPLING)]


def test_answers_are_right_with_the_given_probability() -> None:
    engine = ScriptedEngine(Options(accuracy=0.7, malformed=0.0, truncated=0.0))

    texts = ask(engine, SOLVE)

    assert 0.55 < sum("<answer>42</answer>" in text for text in texts) / len(texts) < 0.85


def test_a_proposer_writes_sums_and_sometimes_repeats_itself() -> None:
    engine = ScriptedEngine(Options(malformed=0.0, duplicate=0.3))

    texts = ask(engine, PROPOSE)

    assert all(re.fullmatch(r"<question>What is \d+ \+ \d+\?</question>", text) for text in texts)
    assert len(set(texts)) < 170


def test_malformed_replies_lack_their_tags() -> None:
    engine = ScriptedEngine(Options(malformed=1.0, truncated=0.0))

    for messages in (SOLVE, PROPOSE, judge_answer("42")):
        assert not re.search("<answer>|<question>|<score>", "".join(ask(engine, messages, 20)))


def test_a_judge_scores_right_answers_high_and_wrong_ones_low() -> None:
    engine = ScriptedEngine(Options(malformed=0.0))

    def scores(answer: str) -> list[int]:
        return [int(re.findall(r"<score>(\d+)</score>", text)[0]) for text in ask(engine, judge_answer(answer), 30)]

    assert min(scores("It is 42.")) >= 8
    assert max(scores("It is 142.")) <= 3


def test_truncated_answers_say_so() -> None:
    engine = ScriptedEngine(Options(truncated=1.0))

    (completion,) = engine.generate([Request("a", tuple(SOLVE), 1)], SAMPLING)

    assert (completion.status, completion.finish_reason) == ("truncated", "length")
    assert completion.prompt_token_ids is None


def test_an_answer_depends_on_seed_and_messages_only() -> None:
    first, second = open_engine(Recipe(), ""), open_engine(Recipe(), "delay=0.001")
    requests = [Request(str(seed), tuple(SOLVE), seed) for seed in range(10)]

    whole = first.generate(requests, SAMPLING)
    backwards = [second.generate([request], SAMPLING)[0] for request in reversed(requests)]

    assert whole == backwards[::-1]
    assert first.policy == second.policy
    assert second.batch_sizes_used == [1] * 10


def test_greedy_answers_to_one_prompt_are_equal() -> None:
    engine = open_engine(Recipe(), "")
    requests = [Request(str(seed), tuple(SOLVE), seed) for seed in range(5)]

    answers = engine.generate(requests, Sampling(100, temperature=0.0))

    assert len({answer.raw for answer in answers}) == 1


def test_segments_are_cut_in_input_order() -> None:
    requests = [Request(str(seed), tuple(SOLVE), seed) for seed in range(5)]

    assert open_engine(Recipe(), "").plan(requests, 2) == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("acuracy=1", 'did you mean "accuracy"'),
        ("accuracy", "option=value"),
        ("accuracy=2", "<= 1"),
        ("delay=x", "float"),
    ],
)
def test_a_wrong_option_is_a_config_error(argument: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        open_engine(Recipe(), argument)
