"""The `scripted` engine: answers by rule and needs no weights; for tests, demos of a recipe, and bug reports.

Copy this file to write a new engine: an object with `policy`, `facts`, `plan`, `generate` and `close`
(the Protocol `Engine` in `plugins/contracts.py`), an `open_engine(recipe, argument)`, and one line in
`plugins/registry.py`.

Every answer is a function of the request's seed and messages. The role is read off the tags the prompt asks for.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from mae_cli.answers.arithmetic import Expression, read_question
from mae_cli.engines.scripted_judge import Habit, verdict_of
from mae_cli.plugins.contracts import EngineFacts
from mae_cli.plugins.registry import engine_options
from mae_cli.recipe.sections import Recipe, Share
from mae_cli.records import Completion, Policy, Request, Sampling, Usage, seed_from

# Half of the duplicates must meet another, so few sums serve them all.
DUPLICATES = ("What is 2 + 2?", "What is 7 + 5?")
LIKELY = 0.9
"""Probability of the verdict that the judge would write; the other options share the rest."""


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options after the colon, as in `scripted:accuracy=0.7,delay=0.01`."""

    accuracy: Share = 0.7
    """Chance that the solver's answer is right."""
    malformed: Share = 0.05
    """Chance that a reply lacks the tags it was asked for."""
    truncated: Share = 0.05
    """Chance that the solver runs into the token limit."""
    duplicate: Share = 0.1
    """Chance that a proposal is one of two that come up again and again."""
    delay: Annotated[float, Meta(ge=0.0)] = 0.0
    """Seconds per segment, so that a test can kill the process in the middle."""
    judge: Habit = "sound"
    """Rule of its verdicts: the right answer, or a bias that `mae calibrate` should find."""


class ScriptedEngine:
    """Answers by rule; see the module."""

    facts = EngineFacts(deterministic=True, scores=True, constrains=True)

    def __init__(self, options: Options) -> None:
        self.options = options
        self.batch_sizes_used: list[int] = []
        # The delay changes no text, so it is no part of what names the policy.
        told = [
            f"{name}={value if isinstance(value, str) else format(value, 'g')}"
            for name, value in msgspec.structs.asdict(options).items()
            if name != "delay" and (name, value) != ("judge", "sound")
        ]
        self.policy = Policy(model="scripted:" + ",".join(told))

    def plan(self, requests: Sequence[Request], batch_size: int) -> list[list[int]]:
        """Segments of `batch_size` in input order."""
        return [
            list(range(start, min(start + batch_size, len(requests)))) for start in range(0, len(requests), batch_size)
        ]

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """Answer one segment, order kept."""
        self.batch_sizes_used.append(len(requests))
        if self.options.delay:
            time.sleep(self.options.delay)
        return [self._answer(request, sampling) for request in requests]

    def score(self, requests: Sequence[Request], options: Sequence[Sequence[str]]) -> list[list[float | None]]:
        """Log-probabilities of the options: high for the verdict it would write, the rest shared by the others."""
        found: list[list[float | None]] = []
        for request, texts in zip(requests, options, strict=True):
            rng = random.Random(seed_from("score", request.messages))
            prompt = "\n".join(message.content for message in request.messages)
            chosen = self._judge(rng, prompt, tuple(texts))
            rest = (1.0 - LIKELY) / max(1, len(texts) - 1)
            found.append([math.log(LIKELY if text == chosen else rest) for text in texts])
        return found

    def close(self) -> None:
        """Nothing to free."""

    def _answer(self, request: Request, sampling: Sampling) -> Completion:
        prompt = "\n".join(message.content for message in request.messages)
        # Greedy samples of one prompt are equal, as they are for a model.
        rng = random.Random(seed_from(request.seed if sampling.temperature > 0 else 0, request.messages))
        cut = False
        if "<score>" in prompt:
            text = self._judge(rng, prompt, sampling.choices)
        elif "<question>" in prompt:
            text = self._propose(rng)
        else:
            text, cut = self._solve(rng, prompt)
        words = text.split()
        if len(words) > sampling.max_new_tokens:
            text, cut = " ".join(words[: sampling.max_new_tokens]), True
        return Completion(
            raw=text,
            completion=text,
            status="truncated" if cut else "ok",
            finish_reason="length" if cut else "stop",
            usage=Usage(len(prompt.split()), len(text.split())),
        )

    def _propose(self, rng: random.Random) -> str:
        question = f"What is {rng.randint(1, 99)} + {rng.randint(1, 99)}?"
        if rng.random() < self.options.duplicate:
            question = rng.choice(DUPLICATES)
        if rng.random() < self.options.malformed:
            return f"Here is a task: {question}"
        return f"<question>{question}</question>"

    def _solve(self, rng: random.Random, prompt: str) -> tuple[str, bool]:
        expression = _find_expression(prompt)
        value = expression.value if expression else 0
        if rng.random() >= self.options.accuracy:
            value += rng.choice((-10, -1, 1, 10))
        if rng.random() < self.options.truncated:
            return f"Step by step, the numbers give {value}, and then", True
        if rng.random() < self.options.malformed:
            return "I would rather not say.", False
        return f"Step by step, the numbers give {value}. <answer>{value}</answer>", False

    def _judge(self, rng: random.Random, prompt: str, choices: Sequence[str]) -> str:
        if rng.random() < self.options.malformed and not choices:
            return "It looks good to me."
        verdict = verdict_of(self.options.judge, prompt, rng, _find_expression)
        tagged = f"<score>{verdict}</score>"
        if choices:
            return tagged if tagged in choices else choices[0]
        return f"<think>I worked it out myself.</think>{tagged}"


def _find_expression(prompt: str) -> Expression | None:
    """The last line of a prompt that is a readable sum; the question comes after the instructions."""
    for line in reversed(prompt.splitlines()):
        expression = read_question(line.strip().removeprefix("Task:").strip())
        if expression is not None:
            return expression
    return None


def open_engine(recipe: Recipe, argument: str) -> ScriptedEngine:
    """Answers by rule, without weights: for tests and demonstrations.

    Raises:
        ConfigError: an unknown option or a value out of range.
    """
    return ScriptedEngine(engine_options("scripted", argument, Options))
