"""Items that are told apart by what they ask, in any dress: evaluation items, and questions that were trained on.

Place in the flow: the filter `decontaminate`, the filter step of a recipe and its trainings compare problems with the
held-out items; `eval` compares its items with the questions an adapter was trained on. Contract: an item is found by
its question whatever its dress (`answers.questions.bare_key`); where both have choices, these have to be the same too,
in any order. Left out: other wordings of one question.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Self

import msgspec

from mae_cli.answers.questions import bare_key, question_key
from mae_cli.errors import DataError
from mae_cli.records import Problem, Row, choices_of, digest, problem_id
from mae_cli.records.contamination import Contamination

TRAINED_QUESTIONS = "trained_questions.json"
"""File in an adapter's folder with what it was trained on."""


class Items:
    """A set of items, by digests of their keys."""

    def __init__(self, keys: Iterable[tuple[str, str]] = ()) -> None:
        self._whole: set[str] = set()
        self._questions: dict[str, bool] = {}
        for question, whole in keys:
            self._whole.add(whole)
            # Whether every item with this question has choices.
            self._questions[question] = self._questions.get(question, True) and question != whole

    @classmethod
    def of(cls, problems: Iterable[Problem]) -> Self:
        """Return the items of problems."""
        return cls(map(item_keys, problems))

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


class ExactItems(Items):
    """The same by exact questions, as runs that began before dress was seen through compare them."""

    @classmethod
    def of(cls, problems: Iterable[Problem]) -> Self:
        """Return the items of problems."""
        return cls((key, key) for problem in problems if (key := question_key(problem.question)))

    def holds(self, problem: Problem) -> bool:
        """Whether the question of a problem is that of an item, but for blanks and case."""
        return question_key(problem.question) in self._whole


def item_keys(problem: Problem) -> tuple[str, str]:
    """(digest of the question, digest of it with its choices) of an item, whatever its dress; equal without choices."""
    question = digest(bare_key(problem.question))
    choices = choices_of(problem)
    if not choices:
        return question, question
    return question, digest(question, sorted(bare_key(choice) for choice in choices))


def asked_by(row: Row) -> Problem | None:
    """The problem of a row; of a sample from another tool's file what its last user message asks."""
    if row.problem is not None or row.stage != "import":
        return row.problem
    said = [message.content for message in row.messages if message.role == "user"]
    return Problem(problem_id(said[-1]), said[-1]) if said else None


class TrainedQuestions(msgspec.Struct):
    """What an adapter was trained on: the file `TRAINED_QUESTIONS` in its folder."""

    questions: list[tuple[str, str]]
    """`item_keys` of the questions, sorted."""
    removed: int = 0
    """Rows that were about a held-out item and therefore not trained."""

    @classmethod
    def grown(cls, earlier: TrainedQuestions | None, problems: Iterable[Problem], removed: int) -> TrainedQuestions:
        """Return those of a training that goes on from an earlier one."""
        before = earlier or cls([])
        keys = {(one, other) for one, other in before.questions} | {item_keys(problem) for problem in problems}
        return cls(sorted(keys), before.removed + removed)

    def overlap(self, problems: Iterable[Problem]) -> Contamination:
        """Return how many of the problems are among them."""
        trained, items = Items(self.questions), list(problems)
        return Contamination(len(items), sum(trained.holds(problem) for problem in items), self.removed)


def read_trained_questions(folder: Path) -> TrainedQuestions | None:
    """What an adapter was trained on; null where its folder does not say.

    Raises:
        DataError: the file is not what it should be.
    """
    path = folder / TRAINED_QUESTIONS
    if not path.is_file():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=TrainedQuestions)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise DataError(f"{path}: not a list of trained questions: {error}") from error
