"""Log-probabilities of whole texts on servers that can be made to tell them exactly: vLLM and llama.cpp.

Place in the flow: `send.py` hands over a request that asks how likely options are behind a prompt. Contract: the
prompt is rendered by the server, the option has the tokens that it has behind it (as in `hf`), and the value is the sum
of their natural log-probabilities by the raw distribution, before temperature and filters. Left out: servers that list
the likeliest first tokens only (`reply.option_logprobs`).

How: vLLM gives `prompt_logprobs` of a completion request whose prompt is a list of token ids. llama.cpp has no such
field, but takes a grammar that names tokens by number, and tells the raw log-probability of each token forced.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from mae_cli.engines.openai.jobs import Done, RequestOutcome
from mae_cli.records import Message

EXACT_KINDS = ("vllm", "llamacpp")
"""Servers, by what they write as the owner of their models, whose scores are exact."""
MOST_PROMPTS = 4096
"""Rendered prompts that are remembered: the options of one prompt come one after another."""

Call = Callable[[str, Mapping[str, Any]], Awaitable[Any]]
"""Posts a body to a path below the server's root: the decoded answer, or a `RequestOutcome` that stands for it."""


class PromptTokens(msgspec.Struct, frozen=True):
    """A prompt as the server renders it: its text, and its token ids."""

    text: str
    ids: list[int]


class OptionScores:
    """Asks servers for scores; remembers how a server renders a prompt."""

    def __init__(self, template_kwargs: Mapping[str, Any]) -> None:
        self._template = {"chat_template_kwargs": dict(template_kwargs)} if template_kwargs else {}
        self._prompts: dict[tuple[str, tuple[Message, ...]], PromptTokens] = {}

    async def ask(
        self, call: Call, kind: str, model: str, messages: tuple[Message, ...], options: Sequence[str]
    ) -> RequestOutcome:
        """The scores of a prompt's options: `Done` with one float each, or None where an option cannot be fed.

        One after another: together they would have the server read the same prompt once for each.
        """
        prompt = await self._prompt(call, kind, model, messages)
        if isinstance(prompt, RequestOutcome):
            outcome: RequestOutcome = prompt
            return outcome
        found: list[float | None] = []
        for option in options:
            ids = await self._option_ids(call, kind, model, prompt, option)
            told = ids
            if not isinstance(ids, RequestOutcome):
                ask = _of_vllm if kind == "vllm" else _of_llama
                told = await ask(call, model, messages, prompt, ids, self._template)
            if isinstance(told, RequestOutcome):
                return told
            found.append(told if told is None or math.isfinite(told) else None)
        return Done(found)

    async def _prompt(self, call: Call, kind: str, model: str, messages: tuple[Message, ...]) -> Any:
        key = (model, messages)
        if key in self._prompts:
            return self._prompts[key]
        if kind == "vllm":
            ask = {"model": model, "messages": messages, "add_generation_prompt": True, **self._template}
            tree = await call("/tokenize", ask)
            if isinstance(tree, RequestOutcome):
                return tree
            ids = tree["tokens"]
            tree = await call("/detokenize", {"model": model, "tokens": ids})
            text = tree if isinstance(tree, RequestOutcome) else tree["prompt"]
        else:
            tree = await call("/apply-template", {"messages": messages, **self._template})
            if isinstance(tree, RequestOutcome):
                return tree
            text = tree["prompt"]
            ids = await _tokens(call, kind, model, text)
        if isinstance(text, RequestOutcome) or isinstance(ids, RequestOutcome):
            return text if isinstance(text, RequestOutcome) else ids
        if len(self._prompts) >= MOST_PROMPTS:
            self._prompts.clear()
        self._prompts[key] = PromptTokens(text, ids)
        return self._prompts[key]

    async def _option_ids(self, call: Call, kind: str, model: str, prompt: PromptTokens, option: str) -> Any:
        """The tokens of the option behind the prompt; by itself where a token would span the border."""
        whole = await _tokens(call, kind, model, prompt.text + option)
        if isinstance(whole, RequestOutcome):
            return whole
        count = len(prompt.ids)
        if whole[:count] == prompt.ids and len(whole) > count:
            return whole[count:]
        return await _tokens(call, kind, model, option)


async def _tokens(call: Call, kind: str, model: str, text: str) -> Any:
    if kind == "vllm":
        tree = await call("/tokenize", {"model": model, "prompt": text, "add_special_tokens": False})
    else:
        # llama.cpp adds the first token of the text where the model wants one, as it does with a rendered chat.
        tree = await call("/tokenize", {"content": text, "add_special": True, "parse_special": True})
    return tree if isinstance(tree, RequestOutcome) else tree["tokens"]


async def _of_vllm(
    call: Call, model: str, messages: Sequence[Message], prompt: PromptTokens, ids: list[int], template: dict[str, Any]
) -> Any:
    ask = {
        "model": model,
        "prompt": [*prompt.ids, *ids],
        "max_tokens": 1,
        "temperature": 0.0,
        "prompt_logprobs": 0,
        "add_special_tokens": False,
    }
    tree = await call("/v1/completions", ask)
    if isinstance(tree, RequestOutcome):
        return tree
    places = tree["choices"][0]["prompt_logprobs"]
    # Place i tells the log-probability of token i given those before it, under the token's number.
    told = [places[len(prompt.ids) + index][str(token)]["logprob"] for index, token in enumerate(ids)]
    return math.fsum(told)


async def _of_llama(
    call: Call, model: str, messages: Sequence[Message], prompt: PromptTokens, ids: list[int], template: dict[str, Any]
) -> Any:
    ask = {
        "model": model,
        "messages": messages,
        "max_tokens": len(ids),
        "temperature": 0.0,
        "grammar": "root ::= " + " ".join(f"<[{token}]>" for token in ids),
        "logprobs": True,
        "top_logprobs": 1,  # with 0 it tells none at all
        **template,
    }
    tree = await call("/v1/chat/completions", ask)
    if isinstance(tree, RequestOutcome):
        return tree
    places = tree["choices"][0]["logprobs"]["content"]
    if [place["id"] for place in places] != ids:
        return None
    return math.fsum(place["logprob"] for place in places)


def is_one_token_at_most(option: str) -> bool:
    """Whether an option may be a single token: letters, digits or one mark, with at most a blank before it."""
    text = option.removeprefix(" ")
    return bool(text) and (text.isalnum() or len(text) == 1)
