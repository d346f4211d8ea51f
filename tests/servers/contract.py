"""The contract of a real server with `hf`: prompts, reference rows, and how rows are compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

from mae_cli.engines.hf.engine import HfEngine
from mae_cli.engines.hf.engine import open_engine as open_hf
from mae_cli.engines.openai.engine import OpenAiEngine, open_engine
from mae_cli.recipe.sections import Recipe
from mae_cli.records import Completion, Message, Request, Sampling

MODEL = "smollm2-135m"
QUESTIONS = (
    *("What is 3 + 4?", "Name a river in Europe.", "Write a haiku about rain.", "Is 17 a prime number?"),
    *("Translate 'good morning' into French.", "List three colours.", "Why is the sky blue?", "Count from 1 to 5."),
    *("What is the capital of Italy?", "Spell the word 'cat'.", "What is 12 * 12?", "Name a fruit that is yellow."),
    *("Who wrote Hamlet?", "How many legs has a spider?", "What is water made of?", "Say hello in Spanish."),
    *(
        "What comes after Tuesday?",
        "Name an animal that can fly.",
        "What is 100 - 1?",
        "Give me a word that rhymes with day.",
    ),
)
GREEDY = Sampling(max_new_tokens=24, temperature=0.0)
NEAR_TIE = 1e-3
"""Logits nearer to each other than this may be ordered otherwise by other kernels."""


def requests(count: int, start: int = 0) -> list[Request]:
    return [
        Request(f"q{index}", (Message("user", QUESTIONS[index]),), 1000 + index)
        for index in range(start, start + count)
    ]


def samples(count: int, question: int = 2) -> list[Request]:
    """One prompt, `count` seeds."""
    return [Request(f"s{index}", (Message("user", QUESTIONS[question]),), 7000 + index) for index in range(count)]


@cache
def local() -> HfEngine:
    """The model here, in float32."""
    return open_hf(Recipe(model=MODEL, device="cpu", dtype="float32"), "")


@contextmanager
def opened(url: str | Sequence[str], argument: str = "", **recipe: Any) -> Iterator[OpenAiEngine]:
    """An engine for the servers."""
    address = url if isinstance(url, str) else list(url)
    engine = open_engine(Recipe(**{"model": MODEL, "base_url": address, **recipe}), argument)
    try:
        yield engine
    finally:
        engine.close()


def differing(asked: Sequence[Request], ours: Sequence[Completion], theirs: Sequence[Completion]) -> list[str]:
    """Rows whose texts differ although the reference was not near a tie where they part."""
    found = []
    for request, one, other in zip(asked, ours, theirs, strict=True):
        if one.raw != other.raw and not _is_near_tie(one, other):
            found.append(f"{request.id}: {one.raw!r} is not {other.raw!r}")
    return found


def _is_near_tie(reference: Completion, other: Completion) -> bool:
    """Whether the reference's two likeliest tokens were nearer than `NEAR_TIE` where the texts part."""
    tokenizer = local().tokenizer
    mine = list(reference.completion_token_ids or [])
    theirs = other.completion_token_ids or tokenizer.encode(other.raw or "", add_special_tokens=False)
    place = next((i for i, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), min(len(mine), len(theirs)))
    ids = [*(reference.prompt_token_ids or []), *mine[:place]]
    with torch.no_grad():
        first, second = local().model(torch.tensor([ids])).logits[0, -1].float().topk(2).values.tolist()
    return first - second < NEAR_TIE
