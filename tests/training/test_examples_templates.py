"""What is trained: an answer behind its prompt, up to where its text ended, with the end of its template's turn."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
import pytest

from mae_cli.data.formats import read_foreign, rows_of
from mae_cli.prompts.chat_template import Chat, open_chat
from mae_cli.records import Message, Row
from mae_cli.training.examples import RefusedRowError, TrainingExample, read_examples
from tests.conftest import build_tokenizer

from .conftest import make_row

LLAMA2 = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% else %} {{ m['content'] }} {{ eos_token }}{% endif %}{% endfor %}"
)
ZEPHYR = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
MISTRAL = LLAMA2.replace(" {{ eos_token }}", "{{ eos_token }}")
TURNS = [("user", "one plus two"), ("assistant", "three"), ("user", "plus four"), ("assistant", "The answer is seven.")]


def blank_first_tokenizer(template: str) -> Any:
    """As sentencepiece tokenizers do it: every text that is encoded by itself begins with a blank of its own."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    singles = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    letters = sorted({letter for letter in "abcdefghijklmnopqrstuvwxyzTINST[]/|<>.,:?0123456789"})
    vocabulary = {token: place for place, token in enumerate([*singles, *letters])}
    merges = []
    for word in ("▁the", "▁one", "▁two", "▁plus", "three", "▁three"):
        piece = word[0]
        for letter in word[1:]:
            if piece + letter not in vocabulary:
                vocabulary[piece + letter] = len(vocabulary)
                merges.append((piece, letter))
            piece += letter
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    fast.chat_template = template
    return fast


def ends_of(chat: Chat) -> frozenset[int]:
    return frozenset([chat.tokenizer.eos_token_id, *chat.turn_end().ids])


def read(chat: Chat, *rows: Row) -> list[TrainingExample]:
    found = read_examples(list(rows), chat, ends=ends_of(chat), max_length=4096, needs_reward=False)
    assert not found.dropped
    return found.examples


def imported(tmp_path: Any, *trees: dict[str, Any]) -> list[Row]:
    path = tmp_path / "t.jsonl"
    path.write_bytes(b"".join(msgspec.json.encode(tree) + b"\n" for tree in trees))
    file = read_foreign(path)
    assert file is not None
    return rows_of(file)


def chat_tree(turns: list[tuple[str, str]] = TURNS) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": text} for role, text in turns]}


@pytest.mark.parametrize("template", [ZEPHYR, LLAMA2, MISTRAL], ids=["zephyr", "llama2", "mistral"])
@pytest.mark.parametrize("kind", [build_tokenizer, blank_first_tokenizer], ids=["bytes", "blank_first"])
def test_every_turn_is_trained_on_the_ids_it_has_in_the_whole_chat(kind: Any, template: str, tmp_path: Any) -> None:
    chat = open_chat(kind(chat_template=template) if kind is build_tokenizer else kind(template))

    examples = read(chat, *imported(tmp_path, chat_tree()))

    for example, count in zip(examples, (2, 4), strict=True):
        turns = [{"role": role, "content": text} for role, text in TURNS[:count]]
        whole = chat.tokenizer.apply_chat_template(turns, tokenize=False).rstrip("\n")
        assert [*example.prompt, *example.completion] == chat.tokenizer.encode(whole, add_special_tokens=False)
        front = chat.tokenizer.apply_chat_template(turns[:-1], tokenize=False, add_generation_prompt=True)
        assert list(example.prompt) == chat.tokenizer.encode(front, add_special_tokens=False)
        assert example.completion[-1] == chat.tokenizer.eos_token_id


def test_both_sides_of_a_pair_and_labelled_rows_stand_behind_their_prompt(tmp_path: Any) -> None:
    chat = open_chat(blank_first_tokenizer(ZEPHYR))
    pair = {"prompt": "one plus two", "chosen": "three", "rejected": "two"}
    labelled = {"prompt": "one plus two", "completion": "three", "label": True}
    text = "<|user|>\none plus two</s>\n<|assistant|>\n"

    (better, worse), (only,) = imported(tmp_path, pair), imported(tmp_path, labelled)

    front = chat.tokenizer.encode(text, add_special_tokens=False)
    for row, answer in ((better, "three"), (worse, "two"), (only, "three")):
        (example,) = read(chat, row)
        whole = chat.tokenizer.encode(f"{text}{answer}</s>", add_special_tokens=False)
        assert list(example.completion) == whole[len(front) :]


def test_a_servers_row_is_trained_as_it_was_written_behind_its_prompt() -> None:
    chat = open_chat(blank_first_tokenizer(ZEPHYR))
    row = make_row(chat, "one plus two", "three")
    row.prompt_token_ids = row.completion_token_ids = None

    (example,) = read(chat, row)

    assert chat.tokenizer.convert_ids_to_tokens(list(example.completion)) == ["three", "</s>"]


def test_options_are_scored_on_the_ids_they_have_behind_their_prompt(tiny_model_dir: Any) -> None:
    from mae_cli.engines.token_texts import TokenTexts
    from mae_cli.recipe.load import load_recipe

    tokenizer = blank_first_tokenizer(ZEPHYR)
    texts = TokenTexts(load_recipe(None, []), tiny_model_dir, tokenizer)

    ids = texts.option_ids((Message("user", "one plus two"),), "three")

    assert tokenizer.convert_ids_to_tokens(ids) == ["three"]


@pytest.mark.parametrize("template", [None, ZEPHYR], ids=["plain", "zephyr"])
@pytest.mark.parametrize("behind", ["\n### User:", "\n### User: one", "###", "\n\nQuestion:"])
def test_what_stands_behind_a_stop_string_is_not_trained(template: str | None, behind: str) -> None:
    chat = open_chat(build_tokenizer(chat_template=template))
    row = make_row(chat, "one plus two", " the answer is three")
    row.completion_token_ids = chat.tokenizer.encode(f"{row.raw}{behind}", add_special_tokens=False)

    (example,) = read(chat, row)

    assert chat.tokenizer.decode(list(example.completion)) == " the answer is three<|endoftext|>"


def test_a_stop_string_inside_a_token_leaves_the_text_before_it_alone(caplog: pytest.LogCaptureFixture) -> None:
    chat = open_chat(build_tokenizer(chat_template=ZEPHYR))
    row = make_row(chat, "one plus two", " the ans")  # " answer" is one token
    row.completion_token_ids = chat.tokenizer.encode(" the answer", add_special_tokens=False)

    with caplog.at_level(logging.INFO):
        (example,) = read(chat, row)

    assert chat.tokenizer.decode(list(example.completion)) == " the ans<|endoftext|>"
    assert any("stop string" in record.message for record in caplog.records)


def test_a_row_that_hit_no_stop_string_keeps_its_ids_and_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    chat = open_chat(build_tokenizer())
    row = make_row(chat, "one plus two", " three")
    ids = list(row.completion_token_ids or [])

    with caplog.at_level(logging.INFO):
        (example,) = read(chat, row)

    assert list(example.completion) == ids
    assert not caplog.records


def test_think_tags_that_are_special_tokens_hide_no_stop_string() -> None:
    chat = open_chat(build_tokenizer(specials=("<think>", "</think>")))
    row = make_row(chat, "one plus two", "<think> one</think> three")
    row.completion_token_ids = chat.tokenizer.encode(f"{row.raw}\nQ:", add_special_tokens=False)

    (example,) = read(chat, row)

    assert chat.tokenizer.decode(list(example.completion)) == "<think> one</think> three<|im_end|>"


def test_an_end_of_turn_of_several_tokens_is_trained_whole_and_once() -> None:
    template = ZEPHYR.replace("{{ eos_token }}", "<|over|>")
    chat = open_chat(build_tokenizer(chat_template=template))
    row = make_row(chat, "one plus two", " three")
    row.completion_token_ids = chat.tokenizer.encode(" three", add_special_tokens=False)
    again = msgspec.structs.replace(row, id="x")
    again.completion_token_ids = chat.tokenizer.encode(" three<|over|>", add_special_tokens=False)

    for example in read(chat, row, again):
        assert chat.tokenizer.decode(list(example.completion)) == " three<|over|>"


def test_a_refused_row_is_named() -> None:
    template = ZEPHYR.replace("{% for m in messages %}", "{% for m in messages if m['role'] != 'tool' %}")
    chat = open_chat(build_tokenizer(chat_template=template))
    row = make_row(chat, "one plus two", " three")
    row.messages = [*row.messages, Message("assistant", "CALL"), Message("tool", "four")]
    row.prompt_token_ids = row.completion_token_ids = None

    with pytest.raises(RefusedRowError, match="role tool") as raised:
        read(chat, row)

    assert raised.value.row is row


@pytest.mark.parametrize("prompt", ["The sky is", "2+2=", "Question: one plus two\nAnswer:"])
@pytest.mark.parametrize("completion", ["4", " blue.", " three"])
def test_prompt_and_completion_without_a_template_are_one_text_as_trl_makes_it(
    prompt: str, completion: str, tmp_path: Any
) -> None:
    chat = open_chat(build_tokenizer(chat_template=None), template="none")

    (example,) = read(chat, *imported(tmp_path, {"prompt": prompt, "completion": completion}))

    tokenizer = chat.tokenizer
    eos = tokenizer.eos_token_id
    # TRL, SFTTrainer: ids of prompt + completion, the mask begins behind the ids of the prompt, EOS behind.
    whole = tokenizer.encode(prompt + completion, add_special_tokens=False)
    assert [*example.prompt, *example.completion] == [*whole, eos]


def test_chats_without_a_template_are_trained_as_later_turns_show_them(tmp_path: Any) -> None:
    chat = open_chat(build_tokenizer(chat_template=None), template="none")

    first, second = read(chat, *imported(tmp_path, chat_tree()))

    decode = chat.tokenizer.decode
    assert decode(first.prompt) + "|" + decode(first.completion) == "one plus two| three<|endoftext|>"
    assert decode(second.prompt) == "one plus two three\n\nplus four"
    assert decode(second.completion) == " The answer is seven.<|endoftext|>"
