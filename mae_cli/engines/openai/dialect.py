"""Requests and refusals in the form that an OpenAI-compatible server understands: addresses, keys, bodies, errors.

Servers agree on the main fields and differ in the rest. `Dialect` remembers the fields that one has refused; they are
left out from then on, and the user is told once. Pure but for the environment variable that holds the key; no network.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import msgspec

from mae_cli.engines.openai.schemas import FIELDS as SCHEMA_FIELDS
from mae_cli.engines.openai.schemas import schema_fields
from mae_cli.errors import ConfigError, EngineError
from mae_cli.prompts.chat_template import fold_system
from mae_cli.records import Request, Sampling
from mae_cli.records.text_schema import text_schema

DEFAULT_KEY_ENV = "OPENAI_API_KEY"
DEFAULT_URL_ENV = "OPENAI_BASE_URL"
MESSAGE_LIMIT = 300
"""Characters of a server's own words that go into a row or an error."""
# A row records its sampling, and servers fill fields left out from the model's generation_config (vLLM) or from
# defaults of their own (llama.cpp: top_k 40, min_p 0.05), so every one of them is sent at the value that is off.
_OFF: dict[str, Any] = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
# Left out with a notice where refused: no text is another one's for it.
_OPTIONAL = ("seed", "return_token_ids", *_OFF)
_CONTEXT = re.compile(r"context (?:length|window|size)\D{0,20}?(\d+)", re.IGNORECASE)
_PROMPT = re.compile(
    r"(\d+) (?:input tokens|prompt tokens|in the messages|of text input)|prompt contains at least (\d+)", re.IGNORECASE
)
_OVERFLOW = re.compile(
    r"context_length_exceeded|exceed_context_size|maximum context length|model's context|context (?:length|size|window)"
    r"|(?:prompt|input) is too long|input validation error: `inputs`|maximum (?:input|prompt) length",
    re.IGNORECASE,
)
_SYSTEM_ROLE = re.compile(r"system role|only user and assistant roles", re.IGNORECASE)


def base_urls(told: str | Sequence[str] | None) -> list[str]:
    """The servers' addresses, each ending at the version (`http://host:8000/v1`), each once.

    Raises:
        ConfigError: none is told, or one is no address; an address that carries a password is refused unrepeated.
    """
    given = [told] if isinstance(told, str) else list(told or [])
    given = given or [os.environ.get(DEFAULT_URL_ENV, "")]
    found = []
    for text in filter(None, (address.strip() for address in given)):
        parts = urlsplit(text)
        if parts.username is not None or parts.password is not None or parts.query:
            raise ConfigError(
                "--base-url: an address with a password or a query would be stored; name the variable of the key "
                "with --api-key-env"
            )
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"--base-url {text}: expected an address such as http://localhost:8000/v1")
        path = parts.path.rstrip("/").removesuffix("/chat/completions") or "/v1"
        found.append(f"{parts.scheme}://{parts.netloc}{path}")
    if not found:
        raise ConfigError("engine openai: no server; give --base-url, for example http://localhost:8000/v1")
    return list(dict.fromkeys(found))


def api_key(variable: str | None) -> str | None:
    """The key in an environment variable; none where nothing is asked for and OPENAI_API_KEY is not set.

    Raises:
        ConfigError: the variable is not set. What was given is not repeated: it may be the key itself.
    """
    key = os.environ.get(variable or DEFAULT_KEY_ENV, "").strip()
    if variable and not key:
        raise ConfigError(
            "--api-key-env: no environment variable of that name is set; expected the name of the variable that holds "
            "the key, never the key"
        )
    if not (key.isascii() and key.isprintable()):
        raise ConfigError("--api-key-env: the variable holds characters that no HTTP header can carry")
    return key or None


def retry_after_seconds(headers: Mapping[str, str], now: Callable[[], float] = time.time) -> float | None:
    """Seconds that a server asks to wait; none where it says nothing that can be read.

    `Retry-After` is a number of seconds (fractions are taken too) or an HTTP date, RFC 9110 section 10.2.3;
    `retry-after-ms` is read first where it is given. A moment that is past is 0.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    text = (headers.get("retry-after") or "").strip()
    seconds = _number(text)
    if seconds is not None or not text:
        return seconds
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    # A date without a zone is in UTC: HTTP knows no other.
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, moment.timestamp() - now())


def _number(text: str | None) -> float | None:
    if text is None or not re.fullmatch(r"\s*\d{1,12}(\.\d{1,12})?\s*", text, re.ASCII):
        return None
    return float(text)


class Refusal(msgspec.Struct, frozen=True):
    """A server's refusal (a 4xx answer) in its own words, shortened and without the key."""

    status: int
    message: str
    code: str | None = None

    @property
    def is_overflow(self) -> bool:
        """Whether prompt and completion do not fit into the model's context."""
        return self.status in (400, 413, 422) and bool(_OVERFLOW.search(f"{self.code} {self.message}"))

    @property
    def prompt_tokens(self) -> int | None:
        """Tokens of the prompt, where an overflow tells them."""
        found = _PROMPT.search(self.message)
        return int(found[1] or found[2]) if found else None

    @property
    def room(self) -> int | None:
        """New tokens that would still fit, where the server told both numbers; below 1 the prompt alone is too long."""
        context, prompt = _CONTEXT.search(self.message), self.prompt_tokens
        return None if context is None or prompt is None else int(context[1]) - prompt

    def names(self, field: str) -> bool:
        """Whether the message is about a field of the request."""
        return re.search(rf"(?<!\w){re.escape(field)}(?!\w)", self.message) is not None


def read_refusal(status: int, body: bytes, key: str | None) -> Refusal:
    """A refusal from any of the shapes that servers give it: `error.message`, `message`, `detail`, or plain text."""
    message, code = body.decode("utf-8", "replace"), None
    try:
        tree = msgspec.json.decode(body)
    except msgspec.DecodeError:
        tree = None
    if isinstance(tree, dict):
        error = tree.get("error")
        inner = error if isinstance(error, dict) else tree
        told = inner.get("message") or inner.get("detail") or inner.get("error") or inner
        message = told if isinstance(told, str) else msgspec.json.encode(told).decode()
        code = next((str(inner[name]) for name in ("code", "type") if isinstance(inner.get(name), str)), None)
    message = " ".join(message.split())
    if key:
        message = message.replace(key, "***")
    return Refusal(status, message[:MESSAGE_LIMIT] or f"HTTP {status}", code)


class Dialect:
    """The form of request that a server accepts; it changes with each refusal."""

    def __init__(self, template_kwargs: Mapping[str, Any], say: Callable[[str], None]) -> None:
        self.template_kwargs = dict(template_kwargs)
        self.dropped: set[str] = set()
        self.version = 0
        """Grows with every change, so that a refusal of an older form is known as such."""
        self._limit_field = "max_tokens"
        self._folds_system = False
        self._say = say

    def body(
        self, model: str, request: Request, sampling: Sampling, *, max_new_tokens: int, number: int = 1, **more: Any
    ) -> bytes:
        """The JSON of one request; `number` above 1 asks for that many answers with one seed.

        Raises:
            EngineError: it needs a field that the server has refused before, for a request that did not need it.
        """
        if sampling.top_k and "top_k" in self.dropped:
            raise EngineError("the server refuses top_k, which the recipe sets")
        messages: Sequence[Any] = fold_system(request.messages) if self._folds_system else request.messages
        ask: dict[str, Any] = {
            "model": model,
            "messages": messages,
            self._limit_field: max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            **_OFF,
            "return_token_ids": True,
            **more,
        }
        if sampling.top_k:
            ask["top_k"] = sampling.top_k
        if sampling.stop:
            ask["stop"] = sampling.stop
        if sampling.temperature > 0:
            # 31 bits: some servers keep a seed in a signed 32-bit integer.
            ask["seed"] = request.seed % 2**31
        if isinstance(sampling.schema, str):
            ask |= schema_fields(text_schema(sampling.schema))
        if number > 1:
            ask["n"] = number
        if self.template_kwargs:
            ask["chat_template_kwargs"] = self.template_kwargs
        for field in self.dropped:
            ask.pop(field, None)
        return msgspec.json.encode(ask)

    def learn(self, refusal: Refusal, sampling: Sampling, *, number: int, spoken: int) -> bool:
        """Whether the request can be asked again in another form; `spoken` is the version it was sent in.

        Raises:
            EngineError: the server refuses what the recipe asks for and what no other field can say.
        """
        if refusal.status not in (400, 422, 501):
            return False
        if self.version > spoken:
            return True  # another answer has taught it meanwhile
        if refusal.names("max_completion_tokens") and self._limit_field == "max_tokens":
            self._limit_field = "max_completion_tokens"
            self.version += 1
            return True
        if _SYSTEM_ROLE.search(refusal.message) and not self._folds_system:
            self._folds_system = True
            self.version += 1
            self._say("system text folded into the first user turn: the server's chat template takes no system role")
            return True
        if isinstance(sampling.schema, str) and any(refusal.names(field) for field in SCHEMA_FIELDS):
            raise EngineError(f"the server refuses the schema: {refusal.message}")
        for field in ("top_k", "chat_template_kwargs"):
            asked = sampling.top_k if field == "top_k" else self.template_kwargs
            if asked and refusal.names(field):
                raise EngineError(f"the server refuses {field}, which the recipe sets: {refusal.message}")
        named = [field for field in _OPTIONAL if field not in self.dropped and refusal.names(field)]
        if number > 1 and refusal.names("n"):
            named.append("n")
        for field in named:
            self.drop(field, "refuses")
        return bool(named)

    def drop(self, field: str, how: str) -> None:
        """Leave a field out from now on; said once."""
        if field in self.dropped:
            return
        self.dropped.add(field)
        self.version += 1
        consequence = {
            "seed": "its samples cannot be repeated",
            "n": "each sample is a request of its own",
            "return_token_ids": "rows have no token ids; training tokenises their text again",
        }.get(field, "the server's own default holds")
        self._say(f"the server {how} {field}: left out, {consequence}")
