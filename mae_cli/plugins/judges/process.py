"""A model judge that looks for the first wrong step of a solution."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar, Literal

from mae_cli.plugins.contracts import Ask, Option
from mae_cli.plugins.judges.tagged import Tagged, checked_prompts
from mae_cli.prompts.prompt_files import load_prompt, quoted
from mae_cli.records import Problem

MAX_STEPS = 40


class Process(Tagged, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Name the first wrong step of a solution: 1 where none is wrong, else half the share of the steps before it.

    With k the first wrong one of n steps the score is (k - 1) / (2 n), in [0, 0.5): a later mistake is worth more, and
    none calls the solution right. Source: the task of ProcessBench, arXiv:2412.06559, section 2 (there steps count
    from 0 and -1 is none); the score is ours.
    """

    targets: ClassVar[frozenset[str]] = frozenset({"answer"})

    prompt: str = "judge_steps"
    show: Literal["answer", "completion"] = "completion"

    def ask(self, problem: Problem, candidates: Sequence[str], nonce: str) -> Ask:
        """The prompt that shows a solution step by step."""
        steps = split_steps(candidates[0])
        shown = "\n".join(f"({number}) {quoted(step)}" for number, step in enumerate(steps, 1))
        values = {**self.values(problem, nonce), "steps": shown, "num_steps": len(steps)}
        return Ask(messages=tuple(load_prompt(self.prompt).render(**values)), options=step_options(len(steps)))

    def prompt_digests(self) -> list[str]:
        """Digest of the rubric file, for the fingerprint; see `checked_prompts` for what is refused."""
        wanted = [self.prompt] if self.reference else []
        return [p.digest for p in checked_prompts("process", [self.prompt], with_reference=wanted)]


def split_steps(text: str) -> list[str]:
    """The steps of a solution: its paragraphs, or its lines where it is one paragraph; at least one.

    Above `MAX_STEPS` the last one holds the rest.
    """
    paragraphs = [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]
    steps = paragraphs if len(paragraphs) > 1 else [line.strip() for line in text.splitlines() if line.strip()]
    if len(steps) > MAX_STEPS:
        steps = [*steps[: MAX_STEPS - 1], "\n".join(steps[MAX_STEPS - 1 :])]
    return steps or [""]


def step_options(num_steps: int) -> tuple[Option, ...]:
    """No wrong step ("0"), then every step as the first wrong one."""
    wrong = (Option(str(step), (step - 1) / (2 * num_steps)) for step in range(1, num_steps + 1))
    return Option("0", 1.0), *wrong
