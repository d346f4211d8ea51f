"""The question pool D and the pair pool P: one immutable snapshot per round.

Snapshot files are plain problem files (a question a line), so any stage can read them. A pool entry that came from a
run names its row in `from_row`; one without is a seed. Source of the two pools: MAE, arXiv:2510.23595, section 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from mae_cli.answers.stated import candidate_text
from mae_cli.errors import DataError
from mae_cli.records import Problem, Row
from mae_cli.records.atomic import write_atomically
from mae_cli.records.lines import decode_object, read_lines
from mae_cli.records.problems import own_problem_from

QUESTIONS = "questions"
PAIRS = "pairs"


class Pair(msgspec.Struct, frozen=True):
    """A question with a candidate answer to be judged."""

    problem: Problem
    candidate: str
    from_row: str
    """The rollout that wrote the candidate, or the problem's id for a reference answer."""


def _entry(problem: Problem, **more: Any) -> dict[str, Any]:
    # The first names a reader looks for, and not the problem's own spare ones: what is read back is what was written.
    own = {"question": problem.question, "reference_answer": problem.reference_answer}
    return {**own, **{key: value for key, value in problem.meta.items() if key not in own}, **more}


def read_questions(path: Path) -> list[Problem]:
    """The question pool of a snapshot; may be empty, unlike a stage's input."""
    found: dict[str, Problem] = {}
    for number, line in read_lines(path):
        problem = own_problem_from(decode_object(path, number, line), f"{path}:{number}")
        found.setdefault(problem.id, problem)
    return list(found.values())


def read_pairs(path: Path) -> list[Pair]:
    """The pair pool of a snapshot.

    Raises:
        DataError: an entry has no candidate.
    """
    pairs = []
    for number, line in read_lines(path):
        tree = decode_object(path, number, line)
        candidate, from_row = tree.pop("candidate", None), tree.pop("from_row", None)
        if not isinstance(candidate, str):
            raise DataError(f'{path}:{number}: field "candidate" is missing; expected an answer to judge')
        problem = own_problem_from(tree, f"{path}:{number}")
        pairs.append(Pair(problem=problem, candidate=candidate, from_row=from_row or problem.id))
    return pairs


def write_questions(path: Path, problems: Iterable[Problem]) -> None:
    """Write a question pool snapshot."""
    write_atomically(path, b"".join(msgspec.json.encode(_entry(p)) + b"\n" for p in problems))


def write_pairs(path: Path, pairs: Iterable[Pair]) -> None:
    """Write a pair pool snapshot."""
    entries = (_entry(p.problem, candidate=p.candidate, from_row=p.from_row) for p in pairs)
    write_atomically(path, b"".join(msgspec.json.encode(entry) + b"\n" for entry in entries))


def grow_questions(pool: Sequence[Problem], rows: Iterable[Row], limit: int) -> list[Problem]:
    """The next question pool: this one and the questions stored in this round, each once, order kept.

    Above `limit` (0 is none) the oldest entries that are not seeds leave first.
    """
    grown = {problem.id: problem for problem in pool}
    for row in rows:
        if QUESTIONS in row.stored and row.problem is not None and row.problem.id not in grown:
            meta = {**row.problem.meta, "from_row": row.id}
            grown[row.problem.id] = msgspec.structs.replace(row.problem, meta=meta)
    entries = list(grown.values())
    return _capped(entries, [not problem.meta.get("from_row") for problem in entries], limit)


def grow_pairs(pool: Sequence[Pair], rows: Iterable[Row], limit: int) -> list[Pair]:
    """The next pair pool: this one and the pairs stored in this round, good or bad, order kept."""
    stored = [
        Pair(problem=row.problem, candidate=candidate_text(row), from_row=row.id)
        for row in rows
        if PAIRS in row.stored and row.problem is not None
    ]
    entries = [*pool, *stored]
    return _capped(entries, [pair.from_row == pair.problem.id for pair in entries], limit)


def seed_pairs(seeds: Iterable[Problem]) -> list[Pair]:
    """The seeds with their own reference answers as pairs; the released MAE code starts its pair pool with them."""
    return [
        Pair(problem=problem, candidate=problem.reference_answer, from_row=problem.id)
        for problem in seeds
        if problem.reference_answer
    ]


def _capped(entries: list[Any], is_seed: list[bool], limit: int) -> list[Any]:
    surplus = len(entries) - limit if limit else 0
    if surplus <= 0:
        return entries
    removable = [index for index, seed in enumerate(is_seed) if not seed][:surplus]
    gone = set(removable)
    return [entry for index, entry in enumerate(entries) if index not in gone]
