"""The end of a turn is read off the template: published families, tokens not special, ends that are no token."""

from __future__ import annotations

from typing import Any

import pytest

from mae_cli.prompts.chat_template import open_chat
from mae_cli.records import Message
from tests.conftest import build_tokenizer
from tests.prompts.turn_end_templates import FAMILIES, Family

CHAT = [Message("user", "what is one plus two"), Message("assistant", "three")]


def tokenizer_of(family: Family) -> Any:
    return build_tokenizer(chat_template=family.template, specials=family.specials)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_end_of_a_turn_is_the_templates(name: str) -> None:
    family = FAMILIES[name]
    tokenizer = tokenizer_of(family)
    ends = frozenset(tokenizer.convert_tokens_to_ids(token) for token in family.ends)

    end = open_chat(tokenizer).turn_end(ends)

    assert end.text == family.end
    assert end.ids == (tokenizer.convert_tokens_to_ids(family.end),)


def test_an_end_that_is_no_token_of_the_tokenizer_is_a_text() -> None:
    tokenizer = build_tokenizer(chat_template=FAMILIES["chatml"].template.replace("im_", "turn_"))

    end = open_chat(tokenizer).turn_end()

    assert end.text == "<|turn_end|>"
    assert list(end.ids) == tokenizer.encode("<|turn_end|>", add_special_tokens=False)
    assert len(end.ids) > 1


def test_an_added_token_that_is_not_special_ends_a_turn_and_cannot_be_written_by_a_question() -> None:
    tokenizer = build_tokenizer(chat_template=FAMILIES["chatml"].template.replace("im_", "turn_"))
    tokenizer.add_tokens(["<|turn_start|>", "<|turn_end|>"])
    chat = open_chat(tokenizer)

    text = chat.text([Message("user", "one<|turn_end|>two")])

    assert chat.turn_end().ids == (tokenizer.convert_tokens_to_ids("<|turn_end|>"),)
    assert text.count("<|turn_end|>") == 1


def test_runs_of_blanks_among_the_added_tokens_end_no_turn() -> None:
    template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}    \n{% endfor %}"
    tokenizer = build_tokenizer(chat_template=template)
    tokenizer.add_tokens(["    "])

    assert open_chat(tokenizer).turn_end().text == "<|endoftext|>"


def test_a_tokenizer_without_eos_and_a_template_without_an_end_end_nothing() -> None:
    tokenizer = build_tokenizer(chat_template=FAMILIES["no_end_at_all"].template)
    tokenizer.eos_token = None

    end = open_chat(tokenizer).turn_end()

    assert (end.text, end.ids) == ("", ())


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in ("qwen3", "deepseek")])
def test_a_chat_of_another_tool_has_the_ids_that_the_library_gives_it(name: str) -> None:
    family = FAMILIES[name]
    tokenizer = tokenizer_of(family)
    ends = frozenset(tokenizer.convert_tokens_to_ids(token) for token in family.ends)
    chat = open_chat(tokenizer)
    end = chat.turn_end(ends)

    found = chat.answered(CHAT[:1], "three", end=end.text, by_template=True)

    turns = [{"role": m.role, "content": m.content} for m in CHAT]
    whole = tokenizer.apply_chat_template(turns, tokenize=False)
    # What follows the end of the turn is not the answer's; a template that writes no end gets one.
    place = whole.rindex("three") + len("three")
    written, behind = whole[:place], whole[place:]
    told = written + (behind[: behind.index(end.text)] if end.text in behind else "") + end.text
    expected = tokenizer.encode(told, add_special_tokens=False)
    assert found.prompt + found.answer == expected
    assert not found.is_joined


def test_an_empty_think_block_that_the_template_writes_is_trained_as_the_library_gives_it() -> None:
    chat = open_chat(tokenizer_of(FAMILIES["qwen3"]))

    found = chat.answered(CHAT[:1], "three", end="<|im_end|>", by_template=True)

    assert chat.tokenizer.decode(found.answer) == "<think>\n\n</think>\n\nthree<|im_end|>"


def test_what_our_own_policy_wrote_gets_no_think_block_put_before_it() -> None:
    chat = open_chat(tokenizer_of(FAMILIES["qwen3"]))

    found = chat.answered(CHAT[:1], "three", end="<|im_end|>")

    assert chat.tokenizer.decode(found.answer) == "three<|im_end|>"


def test_reasoning_that_the_template_would_drop_is_trained_and_its_tag_stands_once() -> None:
    chat = open_chat(tokenizer_of(FAMILIES["deepseek"]))

    found = chat.answered(CHAT[:1], "<think>\none</think>three", end="<｜end▁of▁sentence｜>", by_template=True)

    assert chat.tokenizer.decode(found.prompt).endswith("<｜Assistant｜><think>\n")
    assert chat.tokenizer.decode(found.answer) == "one</think>three<｜end▁of▁sentence｜>"


def test_blanks_that_a_template_trims_are_not_trained() -> None:
    chat = open_chat(tokenizer_of(FAMILIES["gemma"]))

    found = chat.answered(CHAT[:1], "  three\n", end="<end_of_turn>", by_template=True)

    assert chat.tokenizer.decode(found.answer) == "three<end_of_turn>"


def test_a_token_across_the_border_is_counted_and_belongs_to_the_answer() -> None:
    tokenizer = build_tokenizer(chat_template="{% for m in messages %}{{ m['content'] }}{% endfor %}")
    chat = open_chat(tokenizer)

    # " two" is one token: the prompt ends with its blank.
    found = chat.answered([Message("user", "one plus ")], "two")

    assert found.is_joined
    assert found.prompt + found.answer == tokenizer.encode("one plus two", add_special_tokens=False)
    assert tokenizer.decode(found.answer) == " two"


@pytest.mark.parametrize(
    ("condition", "turns", "place"),
    [
        ("m['role'] != 'tool'", ["user", "assistant", "tool"], 3),
        ("m['role'] != 'assistant'", ["user", "assistant", "user"], 2),
        ("loop.last", ["user", "assistant", "user"], 1),
        ("not (m['role'] == 'system' and loop.index0 > 0)", ["user", "assistant", "system", "user"], 3),
        ("m['role'] in ('user', 'assistant')", ["user", "assistant", "tool", "user"], 3),
    ],
)
def test_a_turn_that_the_template_leaves_out_is_refused_with_its_place(
    condition: str, turns: list[Any], place: int
) -> None:
    template = (
        FAMILIES["chatml"]
        .template.replace("{% for m in messages %}", "{% for m in messages %}{% if " + condition + " %}")
        .replace("{% endfor %}", "{% endif %}{% endfor %}")
    )
    chat = open_chat(build_tokenizer(chat_template=template))

    with pytest.raises(Exception, match=rf"leaves out the text of message {place} \(role {turns[place - 1]}\)"):
        chat.text([Message(role, "a") for role in turns])


def test_a_template_that_fails_in_its_own_way_is_one_line() -> None:
    template = "{% if messages | length > 1 %}{{ messages[7].content.x.y }}{% endif %}{{ messages[0].content }}"
    chat = open_chat(build_tokenizer(chat_template=template))

    with pytest.raises(Exception, match="refuses messages with roles user, user"):
        chat.text([Message("user", "a"), Message("user", "b")])


def test_a_template_without_a_generation_prompt_is_told_only_where_answers_have_a_head() -> None:
    chatml = FAMILIES["chatml"].template.partition("{% if add_generation_prompt")[0]

    told = [open_chat(build_tokenizer(chat_template=text)).notices for text in (chatml, FAMILIES["mistral"].template)]

    assert "generation prompt" in told[0][0]
    assert not any("generation prompt" in notice for notice in told[1])


def test_a_date_in_prompts_is_told() -> None:
    chat = open_chat(tokenizer_of(FAMILIES["first_turn_has_a_date"]))

    assert any("date" in notice for notice in chat.notices)
