"""`mae review`: a person settles what a program and a judge disagree about, one key per answer.

The person sees the question, the reference answer and the answer, and not who said what. Every label is written at
once, so that quitting, or losing the terminal, loses nothing and the same command goes on. Keys come from a terminal
without Enter, and from a pipe one a line.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, TextIO

import msgspec

from mae_cli.answers import stated
from mae_cli.errors import ConfigError, DataError
from mae_cli.prompts.prompt_files import question_with_choices
from mae_cli.records import Row, choices_of, mean_score, verdicts_on
from mae_cli.records.file_names import STDIO
from mae_cli.records.lock import Lock
from mae_cli.records.read import read_input
from mae_cli.stages.calibration.figures import is_right
from mae_cli.stages.calibration.labels import AnswerLabel, read_labels, write_labels

Action = Literal["right", "wrong", "skip", "back", "quit"]
KEYS: dict[str, Action] = {
    "r": "right", "w": "wrong", "s": "skip", "b": "back", "q": "quit",
    "\x04": "quit",  # Ctrl-D
}  # fmt: skip


class ReviewSummary(msgspec.Struct):
    """Counts of one review, over all its runs."""

    path: str
    disagree: int
    """Answers that a program and a judge call differently."""
    agree: int
    unknown: int
    """Answers without a known verdict of both."""
    labelled: int
    skipped: int
    left: int

    def line(self) -> str:
        """The summary in one line."""
        return (
            f"review: {self.disagree} disagreements of {self.disagree + self.agree} answers that a program and a judge "
            f"both know ({self.unknown} others), labelled {self.labelled}, skipped {self.skipped}, left {self.left} "
            f"-> {self.path}"
        )


def disagreements(rows: Sequence[Row]) -> tuple[list[Row], int, int]:
    """The rollouts that the programs call right and the judges wrong or the other way round, in order.

    Returns: them, the number on which both agree, and the number where one of them has no known verdict.
    """
    found, agree, unknown = [], 0, 0
    for row in rows:
        if not row.is_answer or row.problem is None or not row.completion:
            continue
        told = [mean_score([v for v in verdicts_on(row, "answer") if v.kind == kind]) for kind in ("verifier", "judge")]
        if told[0] is None or told[1] is None:
            unknown += 1
        elif is_right(told[0]) == is_right(told[1]):
            agree += 1
        else:
            found.append(row)
    return found, agree, unknown


def run_review(judged_path: Path, output_path: Path, *, keys: TextIO, screen: TextIO) -> ReviewSummary:
    """Ask about every disagreement that has no label yet.

    Raises:
        ConfigError: the judged rows come from standard input, where the keys come from.
        DataError: the file holds no judged rollouts, or the label file is damaged.
    """
    if STDIO in (judged_path, output_path):
        raise ConfigError("mae review reads keys from standard input; give files, not -")
    if output_path.exists() and output_path.samefile(judged_path):
        raise ConfigError(f"{output_path}: input and output are the same file; give another -o")
    queue, agree, unknown = disagreements(read_input(judged_path).rows)
    if not queue and not agree:
        raise DataError(
            f"{judged_path}: no answer has a known verdict of a program and of a judge; judge with both "
            f"(--verifier NAME --judge NAME)"
        )
    with Lock(output_path):
        labels = {label.id: label for label in read_labels(output_path)} if output_path.exists() else {}
        _ask_all(queue, labels, output_path, keys, screen)
    said = [labels[row.id] for row in queue if row.id in labels]
    labelled = sum(label.label is not None for label in said)
    return ReviewSummary(
        path=str(output_path),
        disagree=len(queue),
        agree=agree,
        unknown=unknown,
        labelled=labelled,
        skipped=len(said) - labelled,
        left=len(queue) - len(said),
    )


def _ask_all(queue: Sequence[Row], labels: dict[str, AnswerLabel], path: Path, keys: TextIO, screen: TextIO) -> None:
    position = _next_open(queue, labels, 0)
    with _key_reader(keys) as read_key:
        while position < len(queue):
            _show(queue[position], position, len(queue), screen)
            action = _read_action(read_key, screen)
            if action == "quit":
                return
            if action == "back":
                position = max(0, position - 1)
                continue
            row = queue[position]
            labels[row.id] = _label(row, action)
            write_labels(path, list(labels.values()))
            position = _next_open(queue, labels, position + 1)


def _next_open(queue: Sequence[Row], labels: dict[str, AnswerLabel], start: int) -> int:
    return next((index for index in range(start, len(queue)) if queue[index].id not in labels), len(queue))


def _label(row: Row, action: Action) -> AnswerLabel:
    assert row.problem is not None
    return AnswerLabel(
        id=row.id,
        question=row.problem.question,
        reference_answer=row.problem.reference_answer,
        choices=choices_of(row.problem),
        answer=stated.candidate_text(row),
        completion=row.completion or "",
        label=action if action in ("right", "wrong") else None,
    )


def _show(row: Row, position: int, total: int, screen: TextIO) -> None:
    assert row.problem is not None
    parts = [
        f"--- {position + 1} of {total} ---",
        f"question:  {question_with_choices(row.problem.question, choices_of(row.problem))}",
        *([f"reference: {row.problem.reference_answer}"] if row.problem.reference_answer is not None else []),
        f"answer:    {row.completion}",
    ]
    screen.write(_plain("\n".join(parts)) + "\nr right  w wrong  s skip  b back  q quit > ")
    screen.flush()


def _plain(text: str) -> str:
    """Model text without control characters, which could repaint the terminal."""
    return "".join(character if character.isprintable() or character == "\n" else "?" for character in text)


def _read_action(read_key: _ReadKey, screen: TextIO) -> Action:
    while True:
        key = read_key()
        if key == "":
            screen.write("\n")
            return "quit"
        action = KEYS.get(key.lower())
        if action is not None:
            screen.write(f"{action}\n")
            return action
        screen.write("r, w, s, b or q > ")
        screen.flush()


class _ReadKey:
    """One key at a time; empty at the end of the input."""

    def __init__(self, keys: TextIO, *, is_terminal: bool) -> None:
        self._keys, self._is_terminal = keys, is_terminal
        self._typed = ""

    def __call__(self) -> str:
        """The next key; of a line of a pipe the first character, of a blank line a key that means nothing."""
        if not self._is_terminal:
            line = self._keys.readline()
            return line.strip()[:1] or "\n" if line else ""
        if not self._typed:
            try:
                self._typed = os.read(self._keys.fileno(), 64).decode("utf-8", "replace")
            except OSError:
                return ""  # the terminal is gone
        if self._typed.startswith("\x1b"):
            self._typed = ""  # an arrow is three characters, one of them a b
            return "\n"
        key, self._typed = self._typed[:1], self._typed[1:]
        return key


@contextlib.contextmanager
def _key_reader(keys: TextIO) -> Iterator[_ReadKey]:
    """Keys without Enter and without echo where there is a terminal, which is put back as it was."""
    if not keys.isatty():
        yield _ReadKey(keys, is_terminal=False)
        return
    import termios
    import tty

    before = termios.tcgetattr(keys.fileno())
    try:
        tty.setcbreak(keys.fileno())
        yield _ReadKey(keys, is_terminal=True)
    finally:
        termios.tcsetattr(keys.fileno(), termios.TCSADRAIN, before)


def review_in_terminal(judged_path: Path, output_path: Path) -> ReviewSummary:
    """The review with the process's own keyboard and screen."""
    return run_review(judged_path, output_path, keys=sys.stdin, screen=sys.stderr)
