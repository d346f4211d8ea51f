"""Labels that people gave answers: the file that `mae review` writes and `mae calibrate` reads.

One JSON object a line, complete in itself: the answer, the question it answers, and right, wrong or skipped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from mae_cli.errors import DataError
from mae_cli.records import Problem, problem_id
from mae_cli.records.atomic import write_atomically
from mae_cli.records.lines import decode_object, read_lines


class AnswerLabel(msgspec.Struct, kw_only=True):
    """One answer and what a person said about it."""

    id: str
    """Of the rollout."""
    question: str
    reference_answer: str | None = None
    choices: list[str] = []
    answer: str
    """What a judge is shown of the rollout: the answer it marked, or all of it."""
    completion: str
    label: Literal["right", "wrong"] | None
    """Null where the person left it open."""

    def as_problem(self) -> Problem:
        """The problem that is answered."""
        meta: dict[str, Any] = {"choices": self.choices} if self.choices else {}
        identity = problem_id(self.question, self.choices)
        return Problem(id=identity, question=self.question, reference_answer=self.reference_answer, meta=meta)


def read_labels(path: Path) -> list[AnswerLabel]:
    """The labels of a file; of several for one answer the last counts.

    Raises:
        DataError: the file is missing or a line is no label; the message names file and line.
    """
    found: dict[str, AnswerLabel] = {}
    for number, line in read_lines(path):
        try:
            label = msgspec.convert(decode_object(path, number, line), AnswerLabel)
        except msgspec.ValidationError as error:
            raise DataError(f"{path}:{number}: {error}; expected a label of mae review") from error
        found[label.id] = label
    return list(found.values())


def write_labels(path: Path, labels: list[AnswerLabel]) -> None:
    """Write the whole file, so that a reader sees the old or the new one, never a part."""
    write_atomically(path, b"".join(msgspec.json.encode(label) + b"\n" for label in labels))
