"""An OpenAI-compatible server's answer read into completions, and its log-probabilities into option scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from mae_cli.answers.reasoning import split_reasoning, think_pairs
from mae_cli.records import Completion, FinishReason, Usage

# Names in use: OpenAI, vLLM, SGLang, llama.cpp ("stop", "length"); TGI ("eos_token", "stop_sequence").
_STOPPED = ("stop", "eos", "eos_token", "stop_sequence", "end_turn")
_CUT = ("length", "max_tokens")
_BROKEN_OFF = ("abort", "cancelled", "error")
"""The server itself gave the answer up; it is asked for again."""


class _Message(msgspec.Struct):
    content: str | list[dict[str, Any]] | None = None
    reasoning_content: str | None = None
    reasoning: Any = None
    refusal: str | None = None


class _Top(msgspec.Struct):
    token: str
    logprob: float | None = None


class _Position(msgspec.Struct):
    token: str = ""
    logprob: float | None = None
    top_logprobs: list[_Top] | None = None


class _Logprobs(msgspec.Struct):
    content: list[_Position] | None = None


class ReplyChoice(msgspec.Struct):
    """One answer of several."""

    message: _Message
    finish_reason: str | None = None
    token_ids: list[int] | None = None
    logprobs: _Logprobs | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Reply(msgspec.Struct):
    """The parts of a chat completion that are read; the rest is passed over."""

    choices: list[ReplyChoice]
    usage: _Usage | None = None
    prompt_token_ids: list[int] | None = None

    @property
    def is_broken_off(self) -> bool:
        """Whether the server gave up in the middle, so that the same request may succeed."""
        return not self.choices or any(choice.finish_reason in _BROKEN_OFF for choice in self.choices)

    @property
    def num_tokens(self) -> int:
        """Generated tokens as the server counts them; 1 where it does not tell. A measure of work, never stored."""
        return (self.usage.completion_tokens if self.usage else None) or 1


_DECODER = msgspec.json.Decoder(Reply)


def read_reply(body: bytes) -> Reply | None:
    """The answer, or none where the body is no whole chat completion (cut off, or an error under status 200)."""
    try:
        return _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def read_completions(reply: Reply, think_tags: Sequence[str]) -> list[Completion]:
    """One completion per choice, reasoning apart, whether the server split it off or left it in the text."""
    return [_completion(reply, choice, think_tags) for choice in reply.choices]


def _completion(reply: Reply, choice: ReplyChoice, think_tags: Sequence[str]) -> Completion:
    message = choice.message
    told = message.reasoning_content or (message.reasoning if isinstance(message.reasoning, str) else None)
    text = _text(message.content)
    # A model that declines has answered, and a wrong answer must not look like a failure of the server.
    text = message.refusal or None if text is None else text
    raw = text or ""
    if told:
        # The server has cut the tags off; a row's raw text is what the model wrote, so they are put back.
        opening, closing = think_pairs(think_tags)[0] if think_tags else ("", "")
        raw = f"{opening}{told}{closing if text is not None else ''}{raw}"
    parts = split_reasoning(raw, think_tags, False)
    if told:
        parts = parts._replace(reasoning=told.strip(), completion=(text or "").strip())
    finish = _finish_reason(choice.finish_reason)
    completion = Completion(
        raw=raw,
        reasoning=parts.reasoning,
        completion=parts.completion,
        prompt_token_ids=reply.prompt_token_ids,
        completion_token_ids=choice.token_ids,
        status="ok" if finish == "stop" and parts.closed else "truncated",
        finish_reason=finish,
        usage=_usage(reply, choice),
    )
    if finish == "error" or (text is None and not told):
        reason = f"ended with {choice.finish_reason}" + ("" if text else " and without a text")
        completion.status, completion.error, completion.finish_reason = "error", f"the server: {reason}", "error"
    return completion


def _text(content: str | list[dict[str, Any]] | None) -> str | None:
    if not isinstance(content, list):
        return content
    return "".join(str(part.get("text") or "") for part in content)


def _finish_reason(told: str | None) -> FinishReason:
    if told in _CUT:
        return "length"
    return "stop" if told in _STOPPED or not told else "error"


def _usage(reply: Reply, choice: ReplyChoice) -> Usage | None:
    """Token counts of one choice. Of several the server tells only the sum, which is no row's."""
    counts = reply.usage
    prompt = counts.prompt_tokens if counts else None
    completion = counts.completion_tokens if counts and len(reply.choices) == 1 else None
    if choice.token_ids is not None:
        completion = len(choice.token_ids)
    return Usage(prompt, completion) if prompt is not None and completion is not None else None


def option_logprobs(reply: Reply, options: Sequence[str]) -> list[float | None] | None:
    """Natural log-probability of each option as the first token; null for one that the server did not list.

    Only a token that reads exactly like the option counts: " A" is another continuation than "A", and of an option of
    several tokens one position cannot tell. None where the server gave no log-probabilities at all.
    """
    logprobs = reply.choices[0].logprobs
    positions = (logprobs.content if logprobs else None) or []
    if not positions:
        return None
    first = positions[0]
    known = {first.token: first.logprob}
    known.update((top.token, top.logprob) for top in first.top_logprobs or [])
    found = [known.get(option) for option in options]
    return [value if value is not None and math.isfinite(value) else None for value in found]
