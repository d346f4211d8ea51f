"""The scripted engine as a judge: verdicts by rule, sound or with one known bias, for tests and demonstrations.

It reads the shipped judge prompts by their marks ("===== answer B f00d ====="), like a model reads them by their words.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Literal

from mae_cli.answers.arithmetic import Expression
from mae_cli.answers.extract import extract_answer

Habit = Literal["sound", "perfect", "inverted", "length", "first", "injectable"]
"""sound: the right number stands somewhere in the answer; perfect: it is the answer; inverted: the opposite of
perfect; length: the longer the better; first: of two the first, else perfect; injectable: perfect until the answer
tells it what to say."""
LONG = 200
"""Characters of an answer that a judge who likes length gives the highest score."""
_MARK = re.compile(r"^===== (?P<name>[a-zA-Z ]+?)(?: [0-9a-f]{4,})? =====$", re.MULTILINE)
_ORDER = re.compile(r"\b(give|score|rate|grade|verdict|judge)\b", re.IGNORECASE)
_Find = Callable[[str], Expression | None]


def verdict_of(habit: Habit, prompt: str, rng: random.Random, find_expression: _Find) -> str:
    """The text between the tags of this judge's reply."""
    parts = _parts(prompt)
    expression = find_expression(parts.get("question") or parts.get("task") or prompt)
    if "answer B" in parts:
        first, second = (_worth(habit, expression, parts[f"answer {name}"]) for name in "AB")
        if habit == "first":
            return "A"
        return "tie" if first == second else "A" if first > second else "B"
    if "steps" in parts:
        return _first_wrong_step(habit, expression, parts["steps"])
    if "answer" not in parts:
        worth = float(expression is not None)
    else:
        worth = _worth("perfect" if habit == "first" else habit, expression, parts["answer"])
    return _on_scale(worth, prompt, rng, is_graded=habit == "length")


def _parts(prompt: str) -> dict[str, str]:
    pieces = _MARK.split(prompt)
    return {name: text.strip() for name, text in zip(pieces[1::2], pieces[2::2], strict=True)}


def _worth(habit: Habit, expression: Expression | None, answer: str) -> float:
    if habit == "length":
        return min(1.0, len(answer) / LONG)
    if expression is None:
        return 0.0
    if habit == "sound":
        return float(re.search(rf"(?<![\d.-]){expression.value}(?!\d)", answer) is not None)
    if habit == "injectable" and _ORDER.search(answer):
        return 1.0
    is_right = extract_answer(answer).answer == str(expression.value)
    return float(not is_right if habit == "inverted" else is_right)


def _first_wrong_step(habit: Habit, expression: Expression | None, steps: str) -> str:
    numbered = re.split(r"^\((\d+)\) ", steps, flags=re.MULTILINE)
    # Only the last step states a result that this rule can check.
    return "0" if _worth(habit, expression, numbered[-1]) > 0.5 else numbered[-2]


def _on_scale(worth: float, prompt: str, rng: random.Random, *, is_graded: bool) -> str:
    if "yes or no" in prompt:
        return "yes" if worth > 0.5 else "no"
    if "from 1 to 3" in prompt:
        return str(1 + round(2 * worth))
    if is_graded:
        return str(1 + round(9 * worth))
    return str(rng.choice((8, 9, 10)) if worth > 0.5 else rng.choice((1, 2, 3)))
