"""Chat templates: messages to prompt token ids, and a model's text to reasoning and completion.

Training and generation both come through `Chat.text`, so a row is trained on the ids it was generated from. Pure: no
torch, no network; the tokenizer is an argument. A turn whose text does not reach the prompt is refused. Where a
template forces a change (system text folded into the user turn, or no template at all), `Chat.notices` says so for the
manifest and one log line.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import msgspec

from mae_cli.answers.reasoning import REASONING_TAGS
from mae_cli.errors import ConfigError, EngineError, one_line
from mae_cli.prompts.answer_ids import Answered, split_at_answer
from mae_cli.prompts.base_prompts import NO_TEMPLATE, RAW_TEMPLATES, adds_bos, raw_template
from mae_cli.prompts.turn_ends import TurnEnd, added_tokens, find_turn_end
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
    """PLAIN_TEMPLATE is used, because the model ships no template or was trained with this one."""
    is_raw: bool = False
    """Prompts are sent as they stand (`chat_template: none`)."""

    def text(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> str:
        """The prompt as text, special tokens included.

        Raises:
            EngineError: the template refuses these messages (say, two user turns in a row), or leaves a turn out.
        """
        turns = fold_system(messages) if self.folds_system else messages
        turns = [Message(turn.role, self._harmless(turn.content)) for turn in turns]
        text = self._apply(turns, add_generation_prompt)
        self._refuse_lost_turn(tuple(turn.role for turn in turns))
        return text

    def _apply(self, turns: Sequence[Message], add_generation_prompt: bool = False) -> str:
        return _apply(self.tokenizer, self.template, turns, self.kwargs, add_generation_prompt)

    def _refuse_lost_turn(self, roles: tuple[Any, ...]) -> None:
        """Refuse roles in an order that the template does not write out whole; each order is tried once."""
        if roles not in self._lost:
            turns = [Message(role, f"7c1f{place}x") for place, role in enumerate(roles)]
            try:
                text = self._apply(turns, True)
            except EngineError:
                text = "".join(turn.content for turn in turns)  # it refuses the trial, not these messages
            self._lost[roles] = next((place for place, turn in enumerate(turns) if turn.content not in text), None)
        place = self._lost[roles]
        if place is not None:
            raise EngineError(
                f"the chat template leaves out the text of message {place + 1} (role {roles[place]}) of "
                f"{', '.join(roles)}"
            )

    @functools.cached_property
    def _lost(self) -> dict[tuple[Any, ...], int | None]:
        return {}

    def turn_end(self, ends: frozenset[int] = frozenset()) -> TurnEnd:
        """What ends an assistant's turn here; see `turn_ends.find_turn_end`."""
        return find_turn_end(self.tokenizer, self._apply, ends)

    def _harmless(self, content: str) -> str:
        """Text with the tokenizer's special tokens broken up: only the template may open or close a turn."""
        if self.is_raw:
            return content  # sent as it stands
        for token in self._specials:
            if token in content:
                content = content.replace(token, f"{token[0]} {token[1:]}")
        return content

    @functools.cached_property
    def _specials(self) -> tuple[str, ...]:
        # Llama 3 names two of its special tokens; those that open and close its turns stand among the added ones alone.
        added = [token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special]
        # Added tokens that are not special stand around turns too, where a model's own files forgot to say so.
        written = self._written_tokens()
        known = dict.fromkeys([*self.tokenizer.all_special_tokens, *added, *written])
        return tuple(token for token in known if len(token) > 1)

    def _written_tokens(self) -> list[str]:
        """Added tokens that the template itself writes around a question and an answer."""
        try:
            text = self._apply([Message("user", "a"), Message("assistant", "b")])
        except EngineError:
            return []
        tags = {f"<{slash}{name}>" for name in REASONING_TAGS for slash in ("", "/")}
        return [token for token in added_tokens(self.tokenizer) if token in text and token not in tags]

    def render(self, messages: Sequence[Message]) -> list[int]:
        """Prompt token ids with the generation prompt.

        Raises:
            EngineError: the template refuses these messages (say, two user turns in a row).
        """
        return encode(self.tokenizer, self.text(messages))

    def answered(
        self, messages: Sequence[Message], answer: str, *, end: str = "", by_template: bool = False
    ) -> Answered:
        """Prompt and answer as token ids, each answer behind its prompt.

        Args:
            messages: what is answered.
            answer: its text, as generated.
            end: text that ends the turn (`turn_end`); it stands behind the answer.
            by_template: put around the answer what the template puts around it (a blank before it, an empty think
                block), as for chats that no model of ours wrote; an answer the template would change stays as it is.

        Raises:
            EngineError: as `text`.
        """
        prompt = self.text(messages)
        whole = self._written_answer(messages, prompt, answer, end) if by_template else None
        if whole is None:
            whole = prompt + (_without_opened_block(prompt, answer) if by_template else answer) + end
        return split_at_answer(encode(self.tokenizer, prompt), encode(self.tokenizer, whole))

    def _written_answer(self, messages: Sequence[Message], prompt: str, answer: str, end: str) -> str | None:
        """The chat with its answer as the template writes it, up to the end of the turn; null where it changes it."""
        told = answer.strip()
        try:
            text = self.text([*messages, Message("assistant", answer)], add_generation_prompt=False)
        except EngineError:
            return None
        if not told or not text.startswith(prompt) or told not in text[len(prompt) :]:
            return None
        place = text.rindex(told) + len(told)
        blank = answer[len(answer.rstrip()) :]
        if blank and text.startswith(blank, place):
            place += len(blank)
        behind = text[place:]
        if not end:
            return text[:place]
        return text[:place] + (behind[: behind.index(end) + len(end)] if end in behind else end)

    @property
    def notices(self) -> list[str]:
        """The changes that were made so that this template works, in words."""
        notes = []
        if self.is_plain and not getattr(self.tokenizer, "chat_template", None):
            notes.append(
                "the model has no chat template: the plain template is used, a prompt reads "
                f"{json.dumps(self._apply([Message('user', '...')], True), ensure_ascii=False)}; "
                "chat_template: none sends prompts as they stand"
            )
        if self.is_raw:
            bos = f", {self.tokenizer.bos_token} once before them" if self.template == RAW_TEMPLATES[0] else ""
            notes.append(
                f"chat_template: none: prompts are sent as they stand{bos}; an answer ends at EOS or where the next "
                "question of the prompt's form would begin"
            )
        if self.folds_system:
            notes.append("system text folded into the first user turn: the chat template takes no system role")
        return [*notes, *self._surprises()]

    def _surprises(self) -> list[str]:
        """What a template does that changes scores and is easily overlooked."""
        notes = []
        asked = [Message("user", "7c1fq")]
        closed, opened = self._apply(asked), self._apply(asked, True)
        head = self._answer_head(closed) if closed == opened else ""
        if head:
            notes.append(
                "the chat template writes no generation prompt: a prompt ends behind the user's turn, and the model "
                f"has to begin its answer with {json.dumps(head, ensure_ascii=False)}"
            )
        if adds_bos(self.tokenizer) and encode(self.tokenizer, opened)[:1] != [self.tokenizer.bos_token_id]:
            notes.append(
                f"the chat template writes no {self.tokenizer.bos_token}, which this tokenizer puts before every text"
            )
        if "strftime_now" in self.template and "date_string" not in self.kwargs:
            notes.append(
                "the chat template may write today's date into prompts, so tomorrow's differ; "
                "chat_template_kwargs: {date_string: ...} fixes it where the template reads that name"
            )
        return notes

    def _answer_head(self, closed: str) -> str:
        """What the template writes between a question and its answer."""
        try:
            text = self._apply([Message("user", "7c1fq"), Message("assistant", "7c1fa")])
        except EngineError:
            return ""
        front = text.partition("7c1fa")[0]
        return front.removeprefix(closed) if front.startswith(closed) and front.strip() != closed.strip() else ""

    @property
    def digest(self) -> str:
        """16 hex digits that change whenever the same messages could render differently."""
        return template_digest(self.template, self.kwargs)


def open_chat(tokenizer: Any, kwargs: Mapping[str, Any] | None = None, template: str | None = None) -> Chat:
    """A chat with the given template, else the tokenizer's own, else a plain one; the changes it needed are said once.

    Args:
        tokenizer: a transformers tokenizer.
        kwargs: options handed to the template.
        template: Jinja source, or "none" to send prompts as they stand.

    Raises:
        EngineError: the template is not valid, or refuses even a single user turn.
        ConfigError: the model has several templates and none of them is the default.
    """
    own = template if template is not None else _own_template(tokenizer)
    used = PLAIN_TEMPLATE if own is None else raw_template(tokenizer) if own == NO_TEMPLATE else own
    options = dict(kwargs or {})
    _apply(tokenizer, used, [Message("user", "probe")], options, True)
    folds = _refuses_system(tokenizer, used, options)
    chat = Chat(tokenizer, used, options, folds, used == PLAIN_TEMPLATE, used in RAW_TEMPLATES)
    for notice in chat.notices:
        log.info("%s", notice)
    return chat


def named_chat(tokenizer: Any, name: str | None, kwargs: Mapping[str, Any] | None = None) -> Chat:
    """A chat with what the key `chat_template` names: a file, one of the model's own templates, none, or nothing.

    Raises:
        EngineError: see `open_chat`.
        ConfigError: the file cannot be read, or the model has several templates and none of them is the default.
    """
    own = getattr(tokenizer, "chat_template", None)
    if name is None or name == NO_TEMPLATE:
        return open_chat(tokenizer, kwargs, name)
    if isinstance(own, dict) and name in own and not Path(name).is_file():
        return open_chat(tokenizer, kwargs, str(own[name]))
    return open_chat(tokenizer, kwargs, read_template(name))


def end_of_turn(tokenizer: Any, template: str, ends: frozenset[int]) -> TurnEnd:
    """What ends an assistant's turn in a template, without options; see `turn_ends.find_turn_end`."""
    return find_turn_end(tokenizer, lambda turns: _apply(tokenizer, template, turns, {}, False), ends)


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
        return Path(path).read_text("utf-8-sig")
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
    own = getattr(tokenizer, "chat_template", None)
    if isinstance(own, dict) and own:
        if "default" not in own:
            raise ConfigError(
                f"the model has {len(own)} chat templates and none is called default ({', '.join(sorted(own))}); "
                "--chat-template takes one of these names, or a file"
            )
        own = own["default"]
    return str(own).removeprefix("\ufeff") if own else None


def _without_opened_block(prompt: str, answer: str) -> str:
    """The answer without the tag of a think block that the prompt has opened already."""
    opened = _OPENED.search(prompt)
    if opened is None or not answer.lstrip().startswith(opened[1]):
        return answer
    return answer.lstrip().removeprefix(opened[1]).lstrip("\n")


_OPENED = re.compile(rf"(<(?:{'|'.join(REASONING_TAGS)})>)\s*$")


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
    except Exception as error:
        # A template is a program of the model's authors: whatever it raises is its way to refuse.
        roles = ", ".join(message.role for message in messages)
        raise EngineError(f"the chat template refuses messages with roles {roles}: {one_line(error)}") from error
    return text
