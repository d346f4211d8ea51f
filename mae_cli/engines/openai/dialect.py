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

from mae_cli.engines.openai.constraints import FIELDS, FORMS, choice_fields, tokens_for
from mae_cli.engines.openai.refusal import Refusal
from mae_cli.engines.openai.schemas import FIELDS as SCHEMA_FIELDS
from mae_cli.engines.openai.schemas import schema_fields
from mae_cli.errors import ConfigError, EngineError
from mae_cli.prompts.chat_template import fold_system
from mae_cli.records import Request, Sampling
from mae_cli.records.text_schema import text_schema

DEFAULT_KEY_ENV = "OPENAI_API_KEY"
DEFAULT_URL_ENV = "OPENAI_BASE_URL"
# A row records its sampling, and servers fill fields left out from the model's generation_config (vLLM) or from
# defaults of their own (llama.cpp: top_k 40, min_p 0.05), so every one of them is sent at the value that is off.
_OFF: dict[str, Any] = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
# Left out with a notice where refused: no text is another one's for it.
_OPTIONAL = ("seed", "return_token_ids", "stream", *_OFF)
# Some hosted models take no other value of these than 1, and refuse the field even then.
_FIXED = ("temperature", "top_p")
_ONLY_ONE_VALUE = re.compile(r"only the default|not support", re.IGNORECASE)
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
        path = parts.path.rstrip("/")
        for end in ("/chat/completions", "/chat", "/completions", "/models", "/responses"):
            path = path.removesuffix(end)
        # A client that appends the version itself was told an address without it; here it stands once.
        path = re.sub(r"(/v1)+$", "/v1", path) or "/v1"
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


class Dialect:
    """The form of request that a server accepts; it changes with each refusal."""

    def __init__(self, template_kwargs: Mapping[str, Any], say: Callable[[str], None]) -> None:
        self.template_kwargs = dict(template_kwargs)
        self.dropped: set[str] = set()
        self.version = 0
        """Grows with every change, so that a refusal of an older form is known as such."""
        self._limit_field = "max_tokens"
        self._folds_system = False
        self._choice_form = 0
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
            "stream": False,
            **more,
        }
        if sampling.choices:
            ask.update(choice_fields(FORMS[self._choice_form], sampling.choices))
            ask[self._limit_field] = max(max_new_tokens, tokens_for(sampling.choices))
        if sampling.top_k:
            ask["top_k"] = sampling.top_k
        if sampling.stop and not sampling.choices:
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
        if sampling.choices and any(refusal.names(field) for field in FIELDS):
            self.next_choice_form(refusal.message)
            return True
        if isinstance(sampling.schema, str) and any(refusal.names(field) for field in SCHEMA_FIELDS):
            raise EngineError(f"the server refuses the schema: {refusal.message}")
        self._refuse_what_is_set(refusal, sampling)
        optional = (*_OPTIONAL, *(_FIXED if _ONLY_ONE_VALUE.search(refusal.message) else ()))
        named = [field for field in optional if field not in self.dropped and refusal.names(field)]
        if number > 1 and refusal.names("n"):
            named.append("n")
        for field in named:
            self.drop(field, "refuses")
        return bool(named)

    def _refuse_what_is_set(self, refusal: Refusal, sampling: Sampling) -> None:
        """End the command where the refused field is one that the recipe sets, which no other field can say."""
        asked: dict[str, Any] = {
            "top_k": sampling.top_k,
            "chat_template_kwargs": self.template_kwargs,
        }
        if _ONLY_ONE_VALUE.search(refusal.message):
            asked |= {"temperature": sampling.temperature != 1.0, "top_p": sampling.top_p != 1.0}
        for field in (field for field, is_set in asked.items() if is_set and refusal.names(field)):
            raise EngineError(f"the server refuses {field}, which the recipe sets: {refusal.message}")

    def next_choice_form(self, why: str) -> None:
        """Ask for one of several replies in another form from now on.

        Raises:
            EngineError: the server has refused or passed over every form.
        """
        if self._choice_form + 1 >= len(FORMS):
            raise EngineError(
                f"the server does not keep to the allowed replies: {why}; set constrain: false, or use --engine hf"
            )
        self._choice_form += 1
        self.version += 1

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
