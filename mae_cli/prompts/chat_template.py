"""Chat templates: messages to prompt token ids, and a model's text to reasoning and completion.

Training and generation both come through `Chat.render`, so a row is trained on the ids it was generated from. Pure: no
torch, no network; the tokenizer is an argument. Where a template forces a change (system text folded into the user
turn, or no template at all), `Chat.notices` says so for the manifest and one log line.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import msgspec

from mae_cli.errors import ConfigError, EngineError
from mae_cli.records import Message

log = logging.getLogger(__name__)
PLAIN_TEMPLATE = (
    "{{ bos_token or '' }}"
    "{% for message in messages %}"
    "### {{ message['role'] | capitalize }}:\n{{ message['content'] }}"
    "{{ (eos_token or '') if message['role'] == 'assistant' else '' }}\n\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}### Assistant:\n{% endif %}"
)
"""Used for base models that ship no chat template: a heading per turn, BOS once, EOS after an assistant turn."""
PLAIN_STOP = ("\n### User:", "\n### System:", "\n### Assistant:")
"""Stop strings that go with PLAIN_TEMPLATE: a base model likes to write the next turn as well."""
_PROBE = "7c1f system probe"


class Chat(msgspec.Struct, frozen=True, dict=True):
    """A tokenizer with the template it is used with."""

    tokenizer: Any
    template: str
    kwargs: dict[str, Any]
    folds_system: bool
    """The template refuses or drops system text; it is put before the first user turn."""
    is_plain: bool
    """The model ships no template; PLAIN_TEMPLATE is used."""

    def text(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> str:
        """The prompt as text, special tokens included."""
        turns = fold_system(messages) if self.folds_system else messages
        turns = [Message(turn.role, self._harmless(turn.content)) for turn in turns]
        return _apply(self.tokenizer, self.template, turns, self.kwargs, add_generation_prompt)

    def _harmless(self, content: str) -> str:
        """Text with the tokenizer's special tokens broken up: only the template may open or close a turn."""
        for token in self._specials:
            if token in content:
                content = content.replace(token, f"{token[0]} {token[1:]}")
        return content

    @functools.cached_property
    def _specials(self) -> tuple[str, ...]:
        # Llama 3 names two of its special tokens; those that open and close its turns stand among the added ones alone.
        added = [token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special]
        return tuple(token for token in dict.fromkeys([*self.tokenizer.all_special_tokens, *added]) if len(token) > 1)

    def render(self, messages: Sequence[Message]) -> list[int]:
        """Prompt token ids with the generation prompt.

        Raises:
            EngineError: the template refuses these messages (say, two user turns in a row).
        """
        return encode(self.tokenizer, self.text(messages))

    @property
    def notices(self) -> list[str]:
        """The changes that were made so that this template works, in words."""
        notes = []
        if self.is_plain:
            notes.append("the model has no chat template: the plain template is used ")
        if self.folds_system:
            notes.append("system text folded into the first user turn: the chat template takes no system role")
        return notes

    @property
    def digest(self) -> str:
        """16 hex digits that change whenever the same messages could render differently."""
        return template_digest(self.template, self.kwargs)


def open_chat(tokenizer: Any, kwargs: Mapping[str, Any] | None = None, template: str | None = None) -> Chat:
    """A chat with the given template, else the tokenizer's own, else a plain one; the changes it needed are said once.

    Raises:
        EngineError: the template is not valid, or refuses even a single user turn.
    """
    own = template if template is not None else _own_template(tokenizer)
    used = own if own is not None else PLAIN_TEMPLATE
    options = dict(kwargs or {})
    _apply(tokenizer, used, [Message("user", "probe")], options, True)
    chat = Chat(tokenizer, used, options, _refuses_system(tokenizer, used, options), own is None)
    for notice in chat.notices:
        log.info("%s", notice)
    return chat


def encode(tokenizer: Any, text: str) -> list[int]:
    """Token ids of rendered text, which carries its own special tokens; a doubled BOS is taken out.

    Some templates write BOS twice (`bos_token` and its literal text), and training and generation must agree on one.
    """
    ids: list[int] = list(tokenizer.encode(text, add_special_tokens=False))
    bos = tokenizer.bos_token_id
    # A tokenizer whose BOS also opens every turn (SmolLM2) never writes it twice in a row, so this is safe there.
    while bos is not None and len(ids) > 1 and ids[0] == bos and ids[1] == bos:
        del ids[0]
    return ids


def fold_system(messages: Sequence[Message]) -> list[Message]:
    """The messages with all leading system text put before the first user turn, a blank line between."""
    system = "\n\n".join(message.content for message in messages if message.role == "system")
    rest = [message for message in messages if message.role != "system"]
    if not system:
        return rest
    for index, message in enumerate(rest):
        if message.role == "user":
            rest[index] = Message("user", f"{system}\n\n{message.content}")
            return rest
    return [Message("user", system), *rest]


def template_digest(template: str, kwargs: Mapping[str, Any] | None = None) -> str:
    """16 hex digits of a template and the options handed to it."""
    data = json.dumps([template, dict(kwargs or {})], sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(data.encode(), digest_size=8).hexdigest()


def read_template(path: str | Path) -> str:
    """The template in a `--chat-template` file; whether it is valid shows in `open_chat`.

    Raises:
        ConfigError: the file cannot be read.
    """
    try:
        return Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"chat template {path}: {getattr(error, 'strerror', None) or error}") from error


def hidden_token_ids(tokenizer: Any, tags: Sequence[str]) -> frozenset[int]:
    """Ids of special tokens that decoded text leaves out; think tags stay visible."""
    return frozenset(
        token_id
        for token_id, token in tokenizer.added_tokens_decoder.items()
        if token.special and token.content not in tags
    )


def decode(tokenizer: Any, token_ids: Sequence[int], hidden: frozenset[int]) -> str:
    """The text of generated ids without the hidden special tokens."""
    visible = [token_id for token_id in token_ids if token_id not in hidden]
    text: str = tokenizer.decode(visible, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text


def _own_template(tokenizer: Any) -> str | None:
    if not getattr(tokenizer, "chat_template", None):
        return None
    template: str = tokenizer.get_chat_template()
    return template


def _refuses_system(tokenizer: Any, template: str, kwargs: Mapping[str, Any]) -> bool:
    probe = [Message("system", _PROBE), Message("user", "probe")]
    try:
        text = _apply(tokenizer, template, probe, kwargs, True)
    except EngineError:
        return True
    # Dropping the text without a word is worse than refusing it.
    return _PROBE not in text


def _apply(
    tokenizer: Any, template: str, messages: Sequence[Message], kwargs: Mapping[str, Any], add_generation_prompt: bool
) -> str:
    turns = [{"role": message.role, "content": message.content} for message in messages]
    try:
        text: str = tokenizer.apply_chat_template(
            turns, chat_template=template, tokenize=False, add_generation_prompt=add_generation_prompt, **kwargs
        )
    except jinja2.TemplateSyntaxError as error:
        raise EngineError(f"the chat template is not valid Jinja: line {error.lineno}: {error.message}") from error
    except (jinja2.TemplateError, ValueError, TypeError, KeyError) as error:
        roles = ", ".join(message.role for message in messages)
        raise EngineError(f"the chat template refuses messages with roles {roles}: {error}") from error
    return text
