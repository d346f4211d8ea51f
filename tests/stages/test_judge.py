from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mae_cli.plugins.rewards.mae import recompute
from mae_cli.records import Term
from tests.support import a_problem, a_row, here, read_json_lines, write_json_lines, write_rows, write_sums

ENGINE = ("--engine", "scripted")


def by_role(rows: list[dict[str, Any]], role: str, purpose: str = "train") -> list[dict[str, Any]]:
    return [row for row in rows if (row["role"], row["purpose"]) == (role, purpose)]


@pytest.fixture
def rollouts(tmp_path: Path) -> Path:
    """A small MAE round up to its rollouts."""
    seeds = write_sums(tmp_path / "seeds.jsonl")
    here("propose", seeds, "-o", tmp_path / "1.jsonl", *ENGINE, "--num-problems", 8)
    here(
        *("solve", tmp_path / "1.jsonl", "-o", tmp_path / "2.jsonl", *ENGINE, "--pool", seeds, "--num-problems", 6),
        *("--rollouts-per-problem", 1, "--difficulty-samples", 3, "--no-train-on-proposals"),
    )
    return tmp_path / "2.jsonl"


def judge(rollouts: Path, *more: object) -> list[dict[str, Any]]:
    out = rollouts.with_name("3.jsonl")
    assert here("judge", rollouts, "-o", out, *ENGINE, "--max-unparsed", 1, *more) == 0
    return read_json_lines(out)


def test_all_rows_pass_through_and_gradings_are_never_for_training(rollouts: Path) -> None:
    rows = judge(rollouts, "--votes", 2)

    given = read_json_lines(rollouts)
    assert [row["id"] for row in rows[: len(given)]] == [row["id"] for row in given]
    assert {row["purpose"] for row in rows[len(given) :]} == {"grade"}
    assert all(row["reward"] is None for row in rows if row["purpose"] != "train")


def test_every_problem_and_answer_gets_its_votes(rollouts: Path) -> None:
    rows = judge(rollouts, "--votes", 4, "--answer-votes", 2, "--difficulty-votes", 1)

    asked = Counter(row["parents"][0] for row in by_role(rows, "judge", "grade"))
    for row in by_role(rows, "solver"):
        assert asked[row["id"]] == 2
        assert sum(v["kind"] == "judge" for v in row["verdicts"]) == 2
    for row in by_role(rows, "solver", "difficulty"):
        assert asked[row["id"]] == 1
    for row in by_role(rows, "proposer"):
        assert len(row["verdicts"]) == (4 if row["problem"] else 0)


def test_rewards_recompute_exactly_from_their_terms(rollouts: Path) -> None:
    rows = judge(rollouts, "--votes", 3, "--num-own-pairs", 4)

    trained = [row for row in rows if row["purpose"] == "train"]
    assert {row["role"] for row in trained} == {"proposer", "solver", "judge"}
    for row in trained:
        terms = [msgspec.convert(term, Term) for term in row["reward_terms"]]
        assert recompute(row["role"], terms) == row["reward"]
    assert len({row["reward"] for row in trained}) > 3


def test_unparsed_judgements_are_null_left_out_of_means_and_counted(
    rollouts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = rollouts.with_name("half.jsonl")
    here(
        *("judge", rollouts, "-o", out, "--engine", "scripted:malformed=0.5", "--max-unparsed", 1),
        *("--answer-votes", 4, "--solver-reward", "mae_solver", "--json"),
    )

    rows, summary = read_json_lines(out), msgspec.json.decode(capsys.readouterr().out.splitlines()[-1])
    unparsed = [v for row in rows if row["role"] != "judge" for v in row["verdicts"] if v["status"] == "unparsed"]
    assert unparsed
    assert all(verdict["score"] is None for verdict in unparsed)
    assert summary["details"]["verdicts_unparsed"] == len(unparsed)
    mixed = 0
    for row in by_role(rows, "solver"):
        known = [v["score"] for v in row["verdicts"] if v["score"] is not None]
        value = {term["name"]: term["value"] for term in row["reward_terms"]}["answer_score"]
        assert value == (sum(known) / len(known) if known else None)
        mixed += 0 < len(known) < 4
    assert mixed


def test_when_every_vote_is_unknown_the_reward_is_null_and_counted(
    rollouts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = rollouts.with_name("none.jsonl")
    here("judge", rollouts, "-o", out, "--engine", "scripted:malformed=1", "--max-unparsed", 1, "--json")

    rows, summary = read_json_lines(out), msgspec.json.decode(capsys.readouterr().out.splitlines()[-1])
    assert all(row["reward"] is None for row in by_role(rows, "solver"))
    # Without a question there is nothing unknown: that is what the proposer wrote.
    assert {row["reward"] for row in by_role(rows, "proposer") if row["problem"] is None} <= {0.0}
    assert all(row["reward"] is None for row in by_role(rows, "proposer") if row["problem"])
    assert summary["details"]["solver"]["unknown"] == len(by_role(rows, "solver"))


def test_a_turn_that_failed_has_no_reward_and_is_not_asked_about(tmp_path: Path) -> None:
    failed: dict[str, Any] = {"status": "error", "error": "boom", "raw": None, "completion": None}
    given = write_rows(
        tmp_path / "2.jsonl",
        [
            a_row("proposer", **failed),
            a_row("solver", problem=a_problem(), **failed),
            a_row("solver", problem=a_problem(), index=1, answer="7", completion="<answer>7</answer>"),
        ],
    )

    rows = judge(given, "--verifier", "numeric")

    assert [(row["reward"], row["reward_terms"]) for row in rows[:2]] == [(None, [])] * 2
    assert rows[2]["reward"] is not None
    assert {row["parents"][0] for row in by_role(rows, "judge", "grade")} == {rows[2]["id"]}


def test_the_program_and_the_judge_both_speak_and_the_judge_only_where_needed(rollouts: Path) -> None:
    both = judge(rollouts, "--verifier", "numeric")
    rollouts.with_name("3.jsonl").rename(rollouts.with_name("both.jsonl"))
    rollouts.with_name("3.jsonl.meta.json").unlink()
    fallback = judge(rollouts, "--verifier", "numeric", "--fallback-only")

    assert {v["kind"] for row in by_role(both, "solver") for v in row["verdicts"]} == {"verifier", "judge"}
    for row in by_role(fallback, "solver"):
        kinds = [v["kind"] for v in row["verdicts"] if v["score"] is not None]
        assert kinds == ["verifier"]


def test_training_rows_of_the_judge_are_drawn_from_the_pair_pool(rollouts: Path, tmp_path: Path) -> None:
    pool = tmp_path / "pairs.jsonl"
    pool.write_text(
        "".join(f'{{"question": "What is {n} + 1?", "answer": "{n + 1}", "candidate": "5"}}\n' for n in range(6))
    )

    rows = judge(rollouts, "--pool", pool, "--num-pairs", 4)

    drawn = by_role(rows, "judge")
    assert len(drawn) == 4
    assert all("===== answer" in row["messages"][0]["content"] for row in drawn)
    # Nothing graded by a training row counts for anybody's reward.
    graded = {row["id"] for row in drawn}
    assert not any(v["judge_id"] in graded for row in rows for v in row["verdicts"])


RIGHT_PAIRS = [
    ("math", {"reference_answer": "(8,-2)", "candidate": "(8,-2)"}),
    ("math", {"reference_answer": r"2\sqrt{5}", "candidate": r"\sqrt{20}"}),
    ("exact_match", {"reference_answer": "[1, 2, 3]", "candidate": "[1, 2, 3]"}),
    ("exact_match", {"reference_answer": "def f(x): return x + 1", "candidate": "def f(x): return x + 1"}),
    ("choice", {"reference_answer": "Rome", "candidate": "Rome", "choices": ["Paris", "Rome"]}),
    # Whole completions, as the pool holds them where no answer was marked.
    ("numeric", {"reference_answer": "7", "candidate": "We add 3 and 4. The answer is 7."}),
    ("numeric", {"reference_answer": "7", "candidate": r"So \boxed{7}, since 3 + 4 = 7, not 8"}),
    ("choice", {"reference_answer": "B", "candidate": "It must be (B), not\nmore", "choices": ["Paris", "Rome"]}),
    (
        "python_tests",
        {
            "candidate": "Like so:\n```python\ndef f(x):\n    return x + 1\n```\nThen f(1) is 2.",
            "entry_point": "f",
            "tests": ["assert f(1) == 2"],
        },
    ),
]
WRONG_PAIRS = [
    ("math", {"reference_answer": "(8,-2)", "candidate": "(8,-3)"}),
    ("exact_match", {"reference_answer": "Rome", "candidate": "Paris"}),
    ("numeric", {"reference_answer": "7", "candidate": "8"}),
    ("numeric", {"reference_answer": "7", "candidate": "3 + 4 makes 8"}),
    ("numeric", {"reference_answer": "7", "candidate": "The answer is 8, not 7"}),
    ("choice", {"reference_answer": "B", "candidate": "It must be (A)", "choices": ["Paris", "Rome"]}),
]
UNKNOWN_PAIRS = [
    # A marked answer that is wrong, or a completion that ends in the right number: the text does not tell.
    ("numeric", {"reference_answer": "-2", "candidate": "(8,-2)"}),
    ("numeric", {"reference_answer": "7", "candidate": "3 + 4 makes 7"}),
    ("numeric", {"reference_answer": "(8,-2)", "candidate": "-2"}),
]


@pytest.mark.parametrize(
    ("verifier", "entry", "score"),
    [
        *((*pair, 1.0) for pair in RIGHT_PAIRS),
        *((*pair, 0.0) for pair in WRONG_PAIRS),
        *((*pair, None) for pair in UNKNOWN_PAIRS),
    ],
)
def test_a_pair_of_the_pool_is_checked_by_the_answer_it_states_and_never_by_a_number_inside_it(
    tmp_path: Path, verifier: str, entry: dict[str, Any], score: float | None
) -> None:
    pool = write_json_lines(tmp_path / "pairs.jsonl", [{"question": "Which?", **entry}])
    given = write_rows(tmp_path / "2.jsonl", [a_row(problem=a_problem(), answer="7", completion="7")])
    paid = ("--num-pairs", 1, "--set", "judge.judge_reward=checked_judge")

    (row,) = by_role(judge(given, "--pool", pool, "--verifier", verifier, *paid), "judge")

    assert {term["name"]: term["value"] for term in row["reward_terms"]}["checked_score"] == score


def test_shuffled_rewards_are_the_same_rewards_in_each_role(rollouts: Path) -> None:
    plain = judge(rollouts, "--num-own-pairs", 3)
    for name in ("3.jsonl", "3.jsonl.meta.json"):
        rollouts.with_name(name).unlink()
    shuffled = judge(rollouts, "--num-own-pairs", 3, "--shuffle-rewards")

    for role in ("proposer", "solver", "judge"):
        before, after = ([row["reward"] for row in by_role(rows, role)] for rows in (plain, shuffled))
        assert Counter(before) == Counter(after)
    assert [row["reward"] for row in plain] != [row["reward"] for row in shuffled]
    assert {term["name"] for row in by_role(shuffled, "solver") for term in row["reward_terms"]} == {"shuffled"}


def test_a_judged_file_is_not_judged_into_doubles(rollouts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judge(rollouts)
    again = ("judge", rollouts.with_name("3.jsonl"), "-o", rollouts.with_name("4.jsonl"), *ENGINE)

    assert here(*again) == 2
    assert "give it the file of the stage before" in capsys.readouterr().err


def test_a_vote_on_one_question_counts_for_every_proposal_of_it(tmp_path: Path) -> None:
    twins = [a_row("proposer", problem=a_problem(), index=index) for index in range(2)]

    rows = judge(write_rows(tmp_path / "2.jsonl", twins), "--votes", 2)

    assert len(by_role(rows, "judge", "grade")) == 2
    assert rows[0]["verdicts"] == rows[1]["verdicts"]
    assert len(rows[0]["verdicts"]) == 2
