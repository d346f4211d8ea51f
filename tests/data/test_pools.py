from __future__ import annotations

from pathlib import Path

import pytest

from mae_cli.answers import stated
from mae_cli.data import pools
from mae_cli.data.pools import Pair
from mae_cli.errors import DataError
from mae_cli.records import Problem, draw
from mae_cli.records.problems import problem_from
from tests.support import a_problem, a_row, write_json_lines

SEEDS = [a_problem(f"What is {n} + 1?", str(n + 1)) for n in range(3)]


def stored(question: str, index: int = 0) -> object:
    return a_row("proposer", problem=a_problem(question, None), index=index, stored=["questions"])


def test_snapshots_read_back_as_they_were_written(tmp_path: Path) -> None:
    problems = [
        *SEEDS,
        a_problem("Which?", "B", choices=["x", "y"], level=3),
        # Spare names of a user's row must not be taken for the answer when the pool is read again.
        Problem(id=a_problem("q").id, question="q", reference_answer="5", meta={"answer": "because 5", "target": 6}),
    ]
    problems[3] = Problem(problem_from({"question": "Which?", "choices": ["x", "y"]}, "").id, "Which?", "B",
                          {"choices": ["x", "y"], "level": 3})  # fmt: skip
    pairs = [Pair(problem, "candidate", f"row-{problem.id}") for problem in problems]

    pools.write_questions(tmp_path / "q.jsonl", problems)
    pools.write_pairs(tmp_path / "p.jsonl", pairs)

    assert pools.read_questions(tmp_path / "q.jsonl") == problems
    assert pools.read_pairs(tmp_path / "p.jsonl") == pairs


def test_a_pair_without_a_candidate_is_named(tmp_path: Path) -> None:
    path = write_json_lines(tmp_path / "p.jsonl", [{"question": "q"}])

    with pytest.raises(DataError, match=r'p\.jsonl:1: field "candidate" is missing'):
        pools.read_pairs(path)


def test_the_pool_grows_by_what_was_stored_each_question_once_order_kept() -> None:
    rows = [stored("new a?"), stored("What is 0 + 1?", 1), stored("new b?", 2), stored("new a?", 3)]
    rows.append(a_row("proposer", problem=a_problem("not stored?", None), index=4))

    grown = pools.grow_questions(SEEDS, rows, 0)  # type: ignore[arg-type]

    assert [problem.question for problem in grown] == [*(seed.question for seed in SEEDS), "new a?", "new b?"]
    assert [problem.meta.get("from_row") is not None for problem in grown] == [False, False, False, True, True]


def test_above_the_cap_the_oldest_that_are_not_seeds_leave() -> None:
    rows = [stored(f"new {n}?", n) for n in range(4)]

    capped = pools.grow_questions(SEEDS, rows, 5)  # type: ignore[arg-type]
    tiny = pools.grow_questions(SEEDS, rows, 1)  # type: ignore[arg-type]

    assert [problem.question for problem in capped[3:]] == ["new 2?", "new 3?"]
    assert tiny == SEEDS


def test_pairs_are_capped_the_same_way() -> None:
    start = pools.seed_pairs(SEEDS)
    rows = [a_row(problem=SEEDS[0], index=n, completion=str(n), stored=["pairs"]) for n in range(3)]

    grown = pools.grow_pairs(start, rows, 4)

    assert [pair.candidate for pair in grown] == ["1", "2", "3", "2"]
    assert grown[-1].from_row == rows[-1].id


def test_a_judge_is_shown_the_marked_answer_or_the_whole_text() -> None:
    row = a_row(completion="x <answer>5</answer>", answer="5", answer_source="answer_tag")
    assert stated.candidate_text(row) == "5"
    assert stated.candidate_text(a_row(completion="it is 5", answer="5", answer_source="last_number")) == "it is 5"
    assert stated.candidate_text(a_row(completion=None)) == ""


def test_draws_are_a_function_of_their_parts_without_replacement() -> None:
    drawn = draw(SEEDS, 2, 0, "solve", 1)

    assert drawn == draw(SEEDS, 2, 0, "solve", 1)
    assert len({problem.id for problem in drawn}) == 2
    assert len(draw(SEEDS, 9, 0, "solve", 1)) == 3
    assert len({tuple(p.id for p in draw(SEEDS, 2, 0, "solve", number)) for number in range(20)}) > 2
