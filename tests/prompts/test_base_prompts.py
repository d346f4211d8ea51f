"""Prompts of base models as they stand: text, BOS, joined messages, stop strings at the next question."""

from __future__ import annotations

from typing import Any

import pytest

from mae_cli.engines.token_texts import TokenTexts
from mae_cli.errors import EngineError
from mae_cli.prompts.base_prompts import next_question_stops
from mae_cli.prompts.chat_template import open_chat
from mae_cli.recipe.load import load_recipe
from mae_cli.records import Message, Sampling
from tests.conftest import build_tokenizer

GSM8K = "Question: There are 3 cars.\nAnswer: 3 is 3.\n#### 3\n\nQuestion: How many apples?\nAnswer:"
MINERVA = "Problem:\nFind x.\n\nSolution:\nx is 2. Final Answer: 2\n\nProblem:\nFind y.\n\nSolution:"
MMLU = (
    "The following are multiple choice questions (with answers) about anatomy.\n\nWhich?\nA. one\nB. two\nC. three\n"
    "D. four\nAnswer: B\n\nWhat?\nA. one\nB. two\nC. three\nD. four\nAnswer:"
)


def adds_bos_tokenizer() -> Any:
    """As Gemma and Llama have it: BOS before every text that is encoded as a whole."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = build_tokenizer(chat_template=None)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", tokenizer.bos_token_id)]
    )
    return tokenizer


@pytest.mark.parametrize(
    ("text", "stops"),
    [
        (GSM8K, ("\nQuestion:",)),
        ("Question: How many apples?\nAnswer:", ("\nQuestion:",)),
        ("Q: one\nA: 1\n\nQ: two\nA:", ("\nQ:",)),
        ("Q: two\nA: Let's think step by step.", ("\nQ:",)),
        (MINERVA, ("\nProblem:",)),
        ("### Instruction:\na\n\n### Response:\n3\n\n### Instruction:\nb\n\n### Response:\n", ("\n### Instruction:",)),
        ("**Question:** one\n**Answer:** 1\n\n**Question:** two\n**Answer:**", ("\n**Question:",)),
        ("Question 1: one\nAnswer: 1\n\nQuestion 2: two\nAnswer:", ("\nQuestion ",)),
        ("A conversation.\nUser: one plus two\nAssistant: <think>", ("\nUser:",)),
        ("Input: 1 2\nOutput: 3\nInput: 2 2\nOutput:", ("\nInput:",)),
        ("Text: good\nSentiment: positive\n\nText: bad\nSentiment:", ("\nText:",)),
        ("def add(a, b):\n    \"\"\"Add.\n\n    >>> add(1, 2)\n    \"\"\"\n", ("\ndef ",)),
        ("what is one plus two", ()),
        ("Tell me a story. Once upon a time:", ()),
        ("", ()),
        ("Note: be brief.\nwhat is one plus two", ()),
    ],
)  # fmt: skip
def test_an_answer_ends_where_the_next_question_would_begin(text: str, stops: tuple[str, ...]) -> None:
    found = next_question_stops(text)

    assert found[: len(stops)] == stops
    assert bool(found) == bool(stops)


def test_an_empty_line_ends_an_answer_where_questions_have_no_label() -> None:
    assert next_question_stops(MMLU) == ("\n\n",)


@pytest.mark.parametrize("tokenizer", [build_tokenizer(chat_template=None), adds_bos_tokenizer()], ids=["bare", "bos"])
def test_a_prompt_is_sent_as_it_stands(tokenizer: Any) -> None:
    chat = open_chat(tokenizer, template="none")

    assert chat.is_raw
    # What the tokenizer itself makes of the text, as a harness does that sends raw prompts.
    assert chat.render([Message("user", GSM8K)]) == tokenizer.encode(GSM8K)


def test_bos_stands_once_where_the_prompt_has_it_already() -> None:
    tokenizer = adds_bos_tokenizer()

    ids = open_chat(tokenizer, template="none").render([Message("user", "<|endoftext|>one plus two")])

    assert ids.count(tokenizer.bos_token_id) == 1


def test_a_model_with_a_template_is_prompted_without_it() -> None:
    assert open_chat(build_tokenizer(), template="none").text([Message("user", "one plus")]) == "one plus"


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([("user", "one"), ("system", "be brief")], "be brief\n\none"),
        ([("system", "be brief"), ("user", "Q: one\nA:"), ("assistant", "1"), ("user", "Q: two\nA:")],
         "be brief\n\nQ: one\nA: 1\n\nQ: two\nA:"),
        ([("user", "Answer:\n"), ("assistant", "1")], "Answer:\n1"),
        ([("user", "Answer:"), ("assistant", " 1")], "Answer: 1"),
        ([("assistant", "1"), ("user", "two")], "1\n\ntwo"),
    ],
)  # fmt: skip
def test_messages_are_joined_by_one_rule(messages: list[tuple[Any, str]], text: str) -> None:
    chat = open_chat(build_tokenizer(chat_template=None), template="none")

    assert chat.text([Message(*message) for message in messages]) == text


def test_stop_strings_are_those_of_the_rows_own_prompt(tiny_model_dir: Any) -> None:
    from mae_cli.models.load import load_tokenizer

    recipe = load_recipe(None, ["chat_template=none", "solve.stop=[END]"])
    texts = TokenTexts(recipe, tiny_model_dir, load_tokenizer(tiny_model_dir))
    asked, free = (texts.prompt((Message("user", text),)) for text in (GSM8K, "one plus two"))
    sampling = recipe.solve.sampling()
    ids = texts.tokenizer.encode(" ten\n\nQuestion: one", add_special_tokens=False)

    assert texts.stops(sampling, [asked]) == ["END", "\nQuestion:"]
    assert texts.stops(sampling, [free]) == ["END"]
    assert texts.completion(asked, ids, sampling, stopped=True).raw == " ten\n"
    assert texts.completion(free, ids, Sampling(9), stopped=True).raw == " ten\n\nQuestion: one"


def test_none_is_a_template_and_null_is_the_models_own() -> None:
    assert load_recipe(None, ["chat_template=none"]).chat_template == "none"
    assert load_recipe(None, [], {"chat_template": "none"}).chat_template == "none"
    assert load_recipe(None, ["chat_template=null"]).chat_template is None
    assert load_recipe(None, ["revision=none"]).revision is None


def test_a_model_without_a_template_says_what_a_prompt_looks_like_and_names_the_way_out() -> None:
    (notice,) = open_chat(build_tokenizer(chat_template=None)).notices

    assert "### User:" in notice
    assert "chat_template: none" in notice


def test_a_model_trained_without_a_template_keeps_prompting_so() -> None:
    tokenizer = build_tokenizer(chat_template=None)
    tokenizer.chat_template = open_chat(tokenizer, template="none").template

    again = open_chat(tokenizer)

    assert again.is_raw
    assert again.turn_end().text == "<|endoftext|>"


def test_a_tokenizer_without_words_is_refused(tiny_model_dir: Any) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    empty = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), unk_token="<unk>", eos_token="</s>")

    with pytest.raises(EngineError, match=r"2 tokens, all of them special; tokenizer\.json"):
        TokenTexts(load_recipe(None, []), tiny_model_dir, empty)


def test_bos_before_a_prompt_hides_no_label(tiny_model_dir: Any) -> None:
    texts = TokenTexts(load_recipe(None, ["chat_template=none"]), tiny_model_dir, adds_bos_tokenizer())

    assert texts.prompt((Message("user", GSM8K),)).stops == ("\nQuestion:",)
