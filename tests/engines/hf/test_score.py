"""Option log-probabilities: shared prefills give what each option as a full prompt gives."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from mae_cli.engines.hf import engine as hf
from mae_cli.engines.hf.score import OptionTree
from mae_cli.engines.hf.ways import Way
from mae_cli.errors import DataError
from mae_cli.prompts import chat_template
from mae_cli.recipe.sections import Recipe
from mae_cli.records import Message, Request, Sampling
from tests.conftest import TEXT

WORDS = TEXT.split()
OPTIONS = ["yes", "no", " ".join(WORDS[:3]), " ".join(WORDS[5:13]), " ".join([*WORDS[5:9], "no"])]


@pytest.fixture
def engine(tiny_recipe: Recipe) -> Iterator[hf.HfEngine]:
    opened = hf.open_engine(tiny_recipe, "")
    yield opened
    opened.close()


def request(index: int, shared: int = 0) -> Request:
    system = (Message("system", " ".join(WORDS[:shared])),) if shared else ()
    words = " ".join(WORDS[(index + 3 * place) % len(WORDS)] for place in range(1 + index % 9))
    return Request(str(index), (*system, Message("user", words)), 0)


def full_prompt(engine: hf.HfEngine, asked: Request, option: str) -> float:
    prompt = engine.chat.render(asked.messages)
    ids = [*prompt, *chat_template.encode(engine.tokenizer, option)]
    with torch.inference_mode():
        logprobs = engine.model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(float(logprobs[place - 1, ids[place]]) for place in range(len(prompt), len(ids)))


@pytest.mark.parametrize("shared", [0, 20])
def test_scores_equal_those_of_each_option_as_a_full_prompt(engine: hf.HfEngine, shared: int) -> None:
    requests = [request(index, shared) for index in range(14)]

    scores = engine.score(requests, [OPTIONS] * 14)

    for asked, row in zip(requests, scores, strict=True):
        expected = [full_prompt(engine, asked, option) for option in OPTIONS]
        assert row == pytest.approx(expected, abs=1e-4)
    assert (engine.prefiller.reused_tokens > 0) == (shared > 0)


def test_scores_do_not_depend_on_the_other_prompts(engine: hf.HfEngine) -> None:
    requests = [request(index, 20) for index in range(9)]

    together = engine.score(requests, [OPTIONS[: 1 + index % 4] for index in range(9)])
    alone = [engine.score([asked], [OPTIONS[: 1 + index % 4]])[0] for index, asked in enumerate(requests)]

    assert [len(row) for row in together] == [1, 2, 3, 4, 1, 2, 3, 4, 1]
    for row, other in zip(together, alone, strict=True):
        assert row == pytest.approx(other, abs=1e-4)


def test_the_probabilities_of_all_next_tokens_add_up_to_one(engine: hf.HfEngine) -> None:
    vocabulary = [engine.tokenizer.decode([place]) for place in range(len(engine.tokenizer))]
    # Texts that are one token, each once: special tokens and pieces of characters are not.
    singles = {
        text: place
        for place, text in enumerate(vocabulary)
        if text and chat_template.encode(engine.tokenizer, text) == [place]
    }

    (scores,) = engine.score([request(3)], [list(singles)])

    mass = sum(torch.tensor([score for score in scores if score is not None]).exp().tolist())
    assert 0.5 < mass <= 1 + 1e-4


def test_a_prompt_that_is_too_long_has_unknown_scores_and_loses_no_other(engine: hf.HfEngine) -> None:
    long = Request("long", (Message("user", " ".join(WORDS * 5)),), 0)

    scores = engine.score([long, request(2)], [["yes", "no"], ["yes", "no"]])

    assert scores[0] == [None, None]
    assert scores[1] == engine.score([request(2)], [["yes", "no"]])[0]


def test_an_empty_option_is_refused(engine: hf.HfEngine) -> None:
    with pytest.raises(DataError, match="empty"):
        engine.score([request(1)], [["yes", ""]])


def test_a_constrained_completion_is_one_of_the_choices_and_the_likeliest_when_greedy(engine: hf.HfEngine) -> None:
    requests = [request(index) for index in range(6)]
    scores = engine.score(requests, [OPTIONS] * 6)

    greedy = engine.generate(requests, Sampling(8, temperature=0.0, choices=tuple(OPTIONS)))

    for row, completion in zip(scores, greedy, strict=True):
        known = [score for score in row if score is not None]
        assert completion.raw == completion.completion == OPTIONS[known.index(max(known))]
        assert completion.status == "ok"
        assert completion.finish_reason == "stop"


def test_constrained_samples_follow_the_probabilities_of_the_whole_texts(engine: hf.HfEngine) -> None:
    asked = [Request(str(seed), request(4).messages, 7919 * seed) for seed in range(2000)]
    (scores,) = engine.score([request(4)], [OPTIONS[:3]])
    expected = torch.tensor([score or 0.0 for score in scores]).softmax(-1)

    drawn = engine.generate(asked, Sampling(8, temperature=1.0, choices=tuple(OPTIONS[:3])))

    shares = torch.tensor([sum(row.raw == option for row in drawn) / 2000 for option in OPTIONS[:3]])
    assert ((shares - expected).abs() < 4.5 * (expected * (1 - expected) / 2000).sqrt() + 1e-3).all()
    assert [row.raw for row in drawn] == [
        row.raw for row in engine.generate(asked, Sampling(8, temperature=1.0, choices=tuple(OPTIONS[:3])))
    ]


def test_options_that_begin_alike_share_their_nodes() -> None:
    tree = OptionTree([[5, 6, 7], [5, 6, 8], [5], [9]])

    # Nodes: 1 is 5, 2 is 6 behind it, 3 is 7, 4 is 8, 5 is 9; only 1 and 2 have something behind them.
    assert tree.tokens == [-1, 5, 6, 7, 8, 9]
    assert tree.paths == [[1, 2, 3], [1, 2, 4], [1], [5]]
    assert tree.fed == [1, 2]
    assert tree.ancestors(4) == [2, 1]


def test_a_model_whose_layers_forget_scores_option_by_option(
    engine: hf.HfEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [request(index) for index in range(5)]
    expected = engine.score(requests, [OPTIONS] * 5)

    monkeypatch.setattr(engine, "_way", Way(rows="batch", prefix=False, tree="none"))
    engine.attach(None)

    for row, other in zip(engine.score(requests, [OPTIONS] * 5), expected, strict=True):
        assert row == pytest.approx(other, abs=1e-4)
