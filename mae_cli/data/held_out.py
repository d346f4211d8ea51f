"""Evaluation items that must not be trained on, found again in any dress.

Place in the flow: the filter `decontaminate`, the filter step of a recipe, its seeds and its trainings compare problems
with them. Contract: an item is found by its question whatever its dress (`answers.questions.bare_key`); where both have
choices, these have to be the same too, in any order. Left out: other wordings of one question.
"""

from __future__ import annotations

from collections.abc import Iterable

from mae_cli.answers.questions import bare_key, question_key
from mae_cli.records import Problem, choices_of, digest


class HeldOut:
    """Items of benchmarks and gates, by their keys."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self._whole: set[str] = set()
        self._questions: dict[str, bool] = {}
        for problem in problems:
            question, whole = item_keys(problem)
            self._whole.add(whole)
            has_choices = question != whole
            self._questions[question] = self._questions.get(question, True) and has_choices

    def __len__(self) -> int:
        return len(self._whole)

    def holds(self, problem: Problem) -> bool:
        """Whether a problem is one of the items."""
        question, whole = item_keys(problem)
        if whole in self._whole:
            return True
        # A question with choices and one without are one item; two lists of choices make two items.
        return question in self._questions and (question == whole or not self._questions[question])

    @property
    def digest(self) -> str:
        """Digest of the items, for fingerprints."""
        return digest(sorted(self._whole))


def item_keys(problem: Problem) -> tuple[str, str]:
    """(key of the question, key of the question with its choices) of an item, whatever its dress."""
    question = bare_key(problem.question)
    choices = choices_of(problem)
    if not choices:
        return question, question
    return question, digest(question, sorted(bare_key(choice) for choice in choices))


class ExactlyHeldOut(HeldOut):
    """The same by exact questions, as runs that began before dress was seen through compare them."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self._whole = {question_key(problem.question) for problem in problems}

    def holds(self, problem: Problem) -> bool:
        """Whether the question of a problem is that of an item, but for blanks and case."""
        return question_key(problem.question) in self._whole
