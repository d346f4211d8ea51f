"""Checks of a chat template: how the model's prompts begin, end and open the answer, and one prompt as rendered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mae_cli.errors import MaeError, one_line
from mae_cli.prompts.chat_template import Chat, open_chat, read_template
from mae_cli.recipe.sections import Recipe
from mae_cli.records import Message
from mae_cli.stages.doctor.findings import Finding, note, ok, problem

CHECK = "template"
QUESTION = "What is 3 + 4?"
ASKED = [Message("system", "Answer briefly."), Message("user", QUESTION)]
SHOWN = 400


def template(folder: Path, tokens: Any, recipe: Recipe, model: Any = None) -> Iterator[Finding]:
    """The template a model would be used with: system role, BOS, end of turn, generation prompt, think tags.

    Args:
        folder: of the model; named in fixes.
        tokens: its tokenizer.
        recipe: gives another template, its options and the think tags.
        model: without weights; null where it could not be opened.
    """
    given = read_template(recipe.chat_template) if recipe.chat_template else None
    try:
        chat = open_chat(tokens, recipe.chat_template_kwargs, given)
    except MaeError as error:
        place = recipe.chat_template or folder / "chat_template.jinja"
        yield problem(CHECK, one_line(error), f"correct {place}, or give another with --chat-template")
        return
    if chat.is_plain:
        fix = "an instruct model, or a template with --chat-template"
        yield note(CHECK, "the model ships none (a base model): headings like '### User:' are used", fix)
    yield _system(chat)
    yield from _bos(chat, tokens)
    yield from _ends(chat, tokens, model)
    yield from _generation_prompt(chat)
    yield from _think(chat, recipe.think_tags)
    ids = chat.render(ASKED)
    yield ok(CHECK, f"a prompt of {len(ids)} tokens: {shown_text(chat.text(ASKED))}")


def shown_text(text: str) -> str:
    """Rendered text on one line, line breaks spelled out, cut in the middle where it is long."""
    shown = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    return shown if len(shown) <= SHOWN else f"{shown[: SHOWN // 2]} ... {shown[-SHOWN // 2 :]}"


def _system(chat: Chat) -> Finding:
    if chat.folds_system:
        return note(CHECK, "takes no system role: system text is put before the first user turn")
    return ok(CHECK, "takes a system role")


def _bos(chat: Chat, tokens: Any) -> Iterator[Finding]:
    bos = tokens.bos_token_id
    if bos is None:
        yield ok(CHECK, "no BOS: the tokenizer has none")
        return
    ids = chat.render(ASKED)
    count = next((index for index, number in enumerate(ids) if number != bos), len(ids))
    text, written = chat.text(ASKED), 0
    while text.startswith(tokens.bos_token):
        text, written = text.removeprefix(tokens.bos_token), written + 1
    if written > 1:
        told = f"it writes BOS {tokens.bos_token} {written} times; prompts have it {count} times here, elsewhere not so"
        yield note(CHECK, told, "take bos_token out of the template")
        return
    plain: Sequence[int] = tokens("a").input_ids
    adds = bool(plain) and plain[0] == bos
    if count == 0 and adds:
        told = f"prompts begin without BOS, though the tokenizer puts {tokens.bos_token} before other texts"
        yield note(CHECK, told, "if answers are poor: a template with {{ bos_token }}")
        return
    begins = f"begins with BOS {tokens.bos_token} once" if count else "begins without BOS, as its tokenizer does"
    yield ok(CHECK, begins)


def _ends(chat: Chat, tokens: Any, model: Any) -> Iterator[Finding]:
    """What stands behind an answer: it has to be an id that ends a row, or training never teaches the end."""
    from mae_cli.models.load import end_token_ids

    whole = [*ASKED, Message("assistant", "7")]
    text = chat.text(whole, add_generation_prompt=False)
    behind = text.rpartition("7")[2]
    specials = {token.content: number for number, token in tokens.added_tokens_decoder.items() if token.special}
    found = sorted((behind.index(name), -len(name), name) for name in specials if name in behind)
    if "7" not in text.replace(QUESTION, ""):
        yield problem(CHECK, "drops the text of an assistant turn", "give another with --chat-template")
    elif found and model is not None and specials[found[0][2]] not in end_token_ids(model, tokens, chat.template):
        name, number = found[0][2], specials[found[0][2]]
        fix = f"add {number} to eos_token_id in generation_config.json"
        yield problem(CHECK, f"a turn ends on {name} ({number}), which ends no row: answers run to the limit", fix)
    elif found:
        yield ok(CHECK, f"a turn ends on {found[0][2]} ({specials[found[0][2]]})")
    else:
        fix = "a template that writes the end of turn, e.g. {{ eos_token }}, behind an assistant turn"
        yield note(CHECK, "no special token ends an assistant turn: trained rows do not teach where to stop", fix)


def _generation_prompt(chat: Chat) -> Iterator[Finding]:
    with_it, without = chat.text(ASKED), chat.text(ASKED, add_generation_prompt=False)
    if with_it == without:
        fix = "a template that heeds add_generation_prompt"
        yield note(CHECK, "has no generation prompt: the model may go on with the user's turn", fix)
    elif with_it.startswith(without):
        yield ok(CHECK, f"the answer is opened by {shown_text(with_it[len(without) :])}")
    else:
        yield note(
            CHECK, "the prompt is no beginning of the finished conversation: a turn is rendered anew when answered"
        )


def _think(chat: Chat, tags: Sequence[str]) -> Iterator[Finding]:
    if len(tags) != 2 or not all(tags):
        found = ", ".join(tags) or "none"
        yield problem(
            "think tags", f"expected an opening and a closing tag, found {found}", "think_tags: [<think>, </think>]"
        )
        return
    opening, closing = tags
    opened = chat.text(ASKED).rpartition(QUESTION)[2]
    if opening in opened and closing in opened.rpartition(opening)[2]:
        yield ok("think tags", f"the prompt closes {opening} at once: no reasoning")
    elif opening in opened:
        yield ok("think tags", f"the prompt opens {opening}: the answer begins with reasoning")
    elif opening in chat.template:
        yield ok("think tags", f"the template knows {opening}; the model opens it where it wants to")
    elif other := next(
        (tag for tag in ("<think>", "<reasoning>", "[THINK]", "<thought>") if tag in chat.template), None
    ):
        yield problem(
            "think tags", f"the template writes {other}, the recipe names {opening}", f"think_tags with {other}"
        )
    else:
        yield ok("think tags", f"none in the template; {opening} is read where the model writes it")
