"""An OpenAI-compatible server's answer read into completions, and its log-probabilities into option scores."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import msgspec

from mae_cli.answers.reasoning import split_reasoning, think_pairs
from mae_cli.engines.openai.constraints import chosen
from mae_cli.records import Completion, FinishReason, Usage

# Names in use, in small letters: OpenAI, vLLM, SGLang, llama.cpp ("stop", "length"); TGI ("eos_token",
# "stop_sequence"); Together ("eos"); Mistral ("model_length"); Gemini ("STOP", "MAX_TOKENS"); Cohere ("COMPLETE").
_STOPPED = ("stop", "eos", "eos_token", "stop_sequence", "end_turn", "complete")
_CUT = ("length", "max_tokens", "model_length", "max_length")
_UNTOLD = ("", "null", "none")
_BROKEN_OFF = ("abort", "aborted", "cancelled", "canceled", "error", "timeout", "insufficient_system_resource")
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

    @property
    def text(self) -> str:
        """The text of the answer, without reasoning that the server has split off."""
        return _text(self.message.content) or ""


class _Usage(msgspec.Struct):
    prompt_tokens: int | float | None = None
    completion_tokens: int | float | None = None


class Reply(msgspec.Struct):
    """The parts of a chat completion that are read; the rest is passed over."""

    choices: list[ReplyChoice]
    usage: _Usage | None = None
    prompt_token_ids: list[int] | None = None

    @property
    def is_broken_off(self) -> bool:
        """Whether the server gave up in the middle, so that the same request may succeed."""
        return not self.choices or any(_plain(choice.finish_reason) in _BROKEN_OFF for choice in self.choices)

    @property
    def num_tokens(self) -> int:
        """Generated tokens as the server counts them; 1 where it does not tell. A measure of work, never stored."""
        return int((self.usage.completion_tokens if self.usage else None) or 1)


_DECODER = msgspec.json.Decoder(Reply)


def read_reply(body: bytes) -> Reply | None:
    """The answer, or none where the body is no whole chat completion (cut off, or an error under status 200)."""
    try:
        return _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    try:
        # Servers in Python write NaN and Infinity where a log-probability is none; no JSON, but whole.
        return msgspec.convert(json.loads(body), Reply)
    except (ValueError, RecursionError, msgspec.ValidationError):
        return None


def read_completions(
    reply: Reply, think_tags: Sequence[str], *, limit: int | None = None, choices: Sequence[str] = ()
) -> list[Completion]:
    """One completion per choice, reasoning apart, whether the server split it off or left it in the text.

    Args:
        reply: the answer.
        think_tags: the recipe's tags around reasoning.
        limit: new tokens that were asked for: a server that does not say how it ended has reached it or not.
        choices: the only texts that were allowed, where there were any.
    """
    found = [_completion(reply, choice, think_tags, limit) for choice in reply.choices]
    for completion in found if choices else ():
        completion.completion = chosen(completion.completion or "", choices) or completion.completion
    return found


def _completion(reply: Reply, choice: ReplyChoice, think_tags: Sequence[str], limit: int | None) -> Completion:
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
    usage = _usage(reply, choice)
    finish = _finish_reason(choice.finish_reason)
    if _plain(choice.finish_reason) in _UNTOLD and usage is not None and usage.completion_tokens == limit:
        finish = "length"
    completion = Completion(
        raw=raw,
        reasoning=parts.reasoning,
        completion=parts.completion,
        prompt_token_ids=reply.prompt_token_ids,
        completion_token_ids=choice.token_ids,
        status="ok" if finish == "stop" and parts.closed else "truncated",
        finish_reason=finish,
        usage=usage,
    )
    if not raw and usage is not None and usage.completion_tokens == 0:
        # Even an answer that ends at once costs its end token: nothing was generated (LM Studio, prompt too long).
        completion.status, completion.finish_reason = "error", "error"
        completion.error = "the server: an answer of 0 tokens; is the prompt longer than its context?"
    elif finish == "error" or (text is None and not told):
        reason = f"ended with {choice.finish_reason}" + ("" if text else " and without a text")
        completion.status, completion.error, completion.finish_reason = "error", f"the server: {reason}", "error"
    return completion


def _text(content: str | list[dict[str, Any]] | None) -> str | None:
    if not isinstance(content, list):
        return content
    return "".join(str(part.get("text") or "") for part in content)


def _finish_reason(told: str | None) -> FinishReason:
    name = _plain(told)
    if name in _CUT:
        return "length"
    return "stop" if name in (*_STOPPED, *_UNTOLD) else "error"


def _plain(told: str | None) -> str:
    return (told or "").strip().lower()


def _usage(reply: Reply, choice: ReplyChoice) -> Usage | None:
    """Token counts of one choice. Of several the server tells only the sum, which is no row's."""
    counts = reply.usage
    prompt = counts.prompt_tokens if counts else None
    completion = counts.completion_tokens if counts and len(reply.choices) == 1 else None
    if choice.token_ids is not None:
        completion = len(choice.token_ids)
    return Usage(int(prompt), int(completion)) if prompt is not None and completion is not None else None


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
