"""Prompts of base models, sent as they stand (`chat_template: none`): their template, and where an answer to one ends.

Place in the flow: `chat_template.open_chat` uses the template, engines the stop strings. Contract: the text of a single
message reaches the model unchanged, with BOS once where the tokenizer puts one before every text; the stop strings are
a pure function of that text.
"""

from __future__ import annotations

import re
from typing import Any

NO_TEMPLATE = "none"
"""Value of the key `chat_template`."""
_JOINED = (
    "{% set all = namespace(text='') %}"
    "{% set first = messages | selectattr('role', 'equalto', 'system') | list %}"
    "{% set others = messages | rejectattr('role', 'equalto', 'system') | list %}"
    "{% for message in first + others %}"
    "{% if message['role'] != 'assistant' or not all.text %}{% set gap = '\n\n' if all.text else '' %}"
    "{% elif not all.text[-1:] | trim or not message['content'][:1] | trim %}{% set gap = '' %}"
    "{% else %}{% set gap = ' ' %}{% endif %}"
    "{% set all.text = all.text + gap + message['content'] %}"
    "{% endfor %}{{ all.text }}"
)
RAW_TEMPLATES = ("{{ bos_token }}" + _JOINED, _JOINED)
"""System text first, an empty line between texts; an answer stands behind its question, a blank between at most."""
_LABEL = re.compile(
    r"^(?P<open>[#*>\[ ]{0,5})(?P<name>[A-Z][A-Za-z]{0,19}(?: [A-Za-z]{1,19}){0,2})(?P<number> ?\d{1,3})?"
    r"[\])]?\*{0,2}:",
    re.MULTILINE,
)
_CODE_STOPS = ("\ndef ", "\nclass ", "\nif ", "\nprint(", "\nassert ", "\n#", "\n@", "\n```")
_CODE = re.compile(r"^(?:async )?(?:def|class) \w", re.MULTILINE)


def raw_template(tokenizer: Any) -> str:
    """The template that sends a prompt as it stands."""
    return RAW_TEMPLATES[0 if adds_bos(tokenizer) else 1]


def adds_bos(tokenizer: Any) -> bool:
    """Whether the tokenizer puts BOS before every text by itself."""
    bos = tokenizer.bos_token_id
    if bos is None:
        return False
    bare = tokenizer.encode("a", add_special_tokens=False)
    return bool(tokenizer.encode("a")[:1] == [bos] != bare[:1])


def next_question_stops(text: str) -> tuple[str, ...]:
    """Strings that begin another question of the kind a prompt asks; empty where it shows no form.

    Examples in a prompt begin with one label at the start of a line ("Question:", "Q:", "Problem:", "### Input:"), and
    a base model that has answered writes the next. The first label that stands there twice opens them; without
    examples it is the first label of a prompt that ends with another one ("Question: ..." and, on a line of its own,
    "Answer:"). Where only the answers have a label (MMLU), an empty line ends one. A prompt that ends inside a Python
    function goes on until the next line that is not indented (the stop strings of HumanEval).
    """
    labels = [(mark.start(), mark["open"] + mark["name"], mark) for mark in _LABEL.finditer(text)]
    names = [name for _, name, _ in labels]
    opening = next((name for name in names if names.count(name) > 1), None)
    if opening is None and len(set(names)) > 1 and "\n" not in text[labels[-1][0] :].strip():
        opening = names[0]
    if opening is not None and opening == names[-1] and names.count(opening) == len(names):
        return ("\n\n",)
    if opening is not None:
        first = next(mark for _, name, mark in labels if name == opening)
        number = first["number"] or ":"
        return (f"\n{opening}" + (":" if number == ":" else " " if number[0] == " " else ""),)
    heads = list(_CODE.finditer(text))
    if heads and all(not line or line[0].isspace() for line in text[heads[-1].end() :].splitlines()[1:]):
        return _CODE_STOPS
    return ()
