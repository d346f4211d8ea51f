"""Refusals of OpenAI-compatible servers, read from every shape and status in which they come.

Place in the flow: `send.py` reads each answer that is no chat completion. Contract: pure; a message is shortened and
never holds the key. An error that comes under HTTP 200 (gateways, LM Studio, some builds of llama.cpp) is read too.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

MESSAGE_LIMIT = 300
"""Characters of a server's own words that go into a row or an error."""
# Where a server tells the context: OpenAI, vLLM, SGLang; llama.cpp; LM Studio; TGI.
_CONTEXT = re.compile(
    r"n_ctx: ?(\d+)|context (?:length|window|size)(?! \(n_keep)\D{0,20}?(\d+)|context length of only (\d+)"
    r"|`inputs` tokens \+ `max_new_tokens` must be <= (\d+)|must have less than (\d+) tokens",
    re.IGNORECASE,
)
# Where a server tells the prompt: OpenAI and vLLM; SGLang; llama.cpp; LM Studio; TGI.
_PROMPT = re.compile(
    r"(\d+) (?:input tokens|prompt tokens|in the messages|of text input|tokens from the input)"
    r"|messages resulted in (\d+) tokens|input \((\d+) tokens\)|request \((\d+) tokens\)|n_keep: ?(\d+)"
    r"|keep the first (\d+) tokens|Given: (\d+)",
    re.IGNORECASE,
)
_AT_LEAST = re.compile(r"prompt contains at least (\d+)", re.IGNORECASE)
_OVERFLOW = re.compile(
    r"context_length_exceeded|exceed_context_size|maximum context length|model's context|context (?:length|size|window)"
    r"|(?:prompt|input) is too long|input validation error: `inputs`|maximum (?:input|prompt) length",
    re.IGNORECASE,
)
_STATUS = re.compile(r"(?:error code|status|HTTP):? (\d{3})\b", re.IGNORECASE)
_LORA = re.compile(r"lora|adapter", re.IGNORECASE)
UNTOLD_STATUS = 502
"""Status of an error under HTTP 200 that names none: something behind the server failed, and may not fail again."""


class Refusal(msgspec.Struct, frozen=True):
    """A server's refusal in its own words, shortened and without the key."""

    status: int
    message: str
    code: str | None = None
    told_prompt: int | None = None
    """Tokens of the prompt, in a field of its own (llama.cpp)."""
    told_context: int | None = None

    @property
    def is_overflow(self) -> bool:
        """Whether prompt and completion do not fit into the model's context."""
        if self.code == "exceed_context_size_error":  # llama.cpp has sent it under 400, 500 and 200
            return True
        return self.status in (400, 413, 422) and bool(_OVERFLOW.search(f"{self.code} {self.message}"))

    @property
    def is_about_adapters(self) -> bool:
        """Whether the message is about LoRA, so that trying again cannot help."""
        return bool(_LORA.search(self.message))

    @property
    def prompt_tokens(self) -> int | None:
        """Tokens of the prompt, where an overflow tells them; none where it tells only a lower bound."""
        if self.told_prompt is not None:
            return self.told_prompt
        return None if _AT_LEAST.search(self.message) else _number_in(_PROMPT, self.message)

    @property
    def room(self) -> int | None:
        """New tokens that would still fit, where the server told both numbers; below 1 the prompt alone is too long."""
        context = self.told_context if self.told_context is not None else _number_in(_CONTEXT, self.message)
        prompt = self.prompt_tokens
        prompt = _number_in(_AT_LEAST, self.message) if prompt is None else prompt
        return None if context is None or prompt is None else context - prompt

    def names(self, field: str) -> bool:
        """Whether the message is about a field of the request."""
        return re.search(rf"(?<!\w){re.escape(field)}(?!\w)", self.message) is not None


def read_refusal(status: int, body: bytes, key: str | None) -> Refusal:
    """A refusal from any of the shapes that servers give it: `error.message`, `message`, `detail`, or plain text."""
    message, code = body.decode("utf-8", "replace"), None
    tree = _decoded(body)
    inner: dict[str, Any] = {}
    if isinstance(tree, dict):
        error = tree.get("error")
        inner = error if isinstance(error, dict) else tree
        told = inner.get("message") or inner.get("detail") or inner.get("error") or inner
        message = told if isinstance(told, str) else msgspec.json.encode(told).decode()
        code = next((str(inner[name]) for name in ("code", "type") if isinstance(inner.get(name), str)), None)
    message = " ".join(message.split())
    if key:
        message = message.replace(key, "***")
    return Refusal(
        status,
        message[:MESSAGE_LIMIT] or f"HTTP {status}",
        code,
        told_prompt=_count(inner.get("n_prompt_tokens")),
        told_context=_count(inner.get("n_ctx")),
    )


def read_hidden_refusal(body: bytes, key: str | None) -> Refusal | None:
    """The refusal that stands under HTTP 200 in place of a chat completion; none where the body is something else.

    Its status is the one it names (`code: 429`, "Error code: 429"), 400 for an overflow, else 502.
    """
    tree = _decoded(body)
    if not isinstance(tree, dict) or tree.get("choices"):
        return None
    error = tree.get("error")
    inner = error if isinstance(error, dict) else tree
    if not error and not ("message" in tree and ("code" in tree or tree.get("object") == "error")):
        return None
    found = read_refusal(400, body, key)
    code = inner.get("code", inner.get("status"))
    told = int(code) if isinstance(code, int | str) and re.fullmatch(r"[45]\d\d", str(code)) else None
    named = _STATUS.search(found.message)
    told = int(named[1]) if told is None and named and named[1][0] in "45" else told
    if told is None and "unexpected endpoint" in found.message.lower():
        told = 404  # LM Studio
    if told is None:
        told = 400 if found.is_overflow else UNTOLD_STATUS
    return msgspec.structs.replace(found, status=told)


def _decoded(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _number_in(pattern: re.Pattern[str], text: str) -> int | None:
    found = pattern.search(text)
    return next((int(group) for group in found.groups() if group), None) if found else None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
