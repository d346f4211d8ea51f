"""Several judges, votes, pairs, probabilities and constraints, on files and on hand-made votes."""

from __future__ import annotations

import random
from itertools import permutations
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mae_cli.records import Verdict, mean_of_known, mean_score
from mae_cli.stages.judging.votes import aggregated, combined_score
from tests.support import a_problem, a_row, here, read_json_lines, write_json_lines, write_rows

SCORES = st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=8)


def votes(*scores: float | None) -> list[Verdict]:
    return [Verdict("rubric", "judge", "answer", s, "ok" if s is not None else "unparsed") for s in scores]


# ---- votes


@pytest.mark.parametrize(
    ("scores", "mean", "majority", "lowest"),
    [
        ([1.0, 1.0, 0.0], 2 / 3, 1.0, 0.0),
        ([0.9, 0.2, None], 0.55, None, 0.2),  # one for, one against: unsure
        ([0.9, 0.5, None], 0.7, 1.0, 0.5),  # 0.5 abstains
        ([0.4, 0.5, 0.5], 1.4 / 3, 0.0, 0.4),
        ([0.5], 0.5, None, 0.5),
        ([None, None], None, None, None),
        ([], None, None, None),
    ],
)
def test_votes_become_one_score_as_documented(
    scores: list[float | None], mean: float | None, majority: float | None, lowest: float | None
) -> None:
    for how, expected in (("mean", mean), ("majority", majority), ("min", lowest)):
        found = combined_score(votes(*scores), how, "answer")  # type: ignore[arg-type]
        assert found == (None if expected is None else pytest.approx(expected)), how


def test_a_majority_without_one_is_unsure_and_all_unknown_keeps_its_reason() -> None:
    (tied,) = aggregated(votes(1.0, 0.0), "majority", "answer")
    (unknown,) = aggregated(votes(None, None), "min", "answer")

    assert (tied.name, tied.status, tied.score) == ("judges/majority", "unsure", None)
    assert (unknown.name, unknown.status, unknown.score) == ("judges/min", "unparsed", None)


def test_the_reason_of_an_all_unknown_vote_is_the_commonest_in_any_order() -> None:
    told = [("unparsed", "no tag"), ("error", "boom"), ("unparsed", "no tag")]
    found = {
        (verdict.status, verdict.reason)
        for order in permutations(Verdict("rubric", "judge", "answer", None, *why) for why in told)
        for verdict in aggregated(order, "majority", "answer")
    }

    assert found == {("unparsed", "no tag")}


@given(SCORES, st.integers(0, 3), st.randoms(use_true_random=False))
def test_permuting_votes_or_adding_unknown_ones_changes_no_score(
    scores: list[float | None], more: int, rng: random.Random
) -> None:
    mixed = [*scores, *[None] * more]
    rng.shuffle(mixed)

    assert mean_score(votes(*mixed)) == mean_score(votes(*scores))
    assert mean_of_known(mixed) == mean_of_known(scores)
    for how in ("mean", "majority", "min"):
        assert combined_score(votes(*mixed), how, "answer") == combined_score(votes(*scores), how, "answer")  # type: ignore[arg-type]


# ---- the stage


@pytest.fixture
def rollouts(tmp_path: Path) -> Path:
    """Two problems with four answers each, two right and two wrong, one of the wrong ones long."""
    rows = []
    for a, b in ((3, 4), (20, 30)):
        problem = a_problem(f"What is {a} + {b}?", str(a + b))
        texts = [f"<answer>{a + b}</answer>", f"So {a + b}.", f"<answer>{a + b + 1}</answer>", "long " * 60 + f"{a}"]
        rows += [
            a_row(problem=problem, index=index, completion=text, answer=text, prompt=problem.question)
            for index, text in enumerate(texts)
        ]
    return write_rows(tmp_path / "2.jsonl", rows)


def judge(
    source: Path, *more: object, name: str = "3.jsonl", engine: str = "scripted:malformed=0", expect: int = 0
) -> list[dict[str, Any]]:
    out = source.with_name(name)
    assert here("judge", source, "-o", out, "--engine", engine, "--max-unparsed", 1, *more) == expect
    return read_json_lines(out) if expect == 0 else []


def solvers(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["role"] == "solver"]


def scores(row: dict[str, Any], target: str = "answer") -> list[float | None]:
    return [verdict["score"] for verdict in row["verdicts"] if verdict["target"] == target]


PAIRWISE = ("--judge", "pairwise", "--solver-reward", "win_rate")


def test_win_rates_of_a_perfect_judge_are_those_worked_out_by_hand(rollouts: Path) -> None:
    rows = judge(rollouts, *PAIRWISE, engine="scripted:malformed=0,judge=perfect")

    # Two right and two wrong answers: a right one ties with the other and beats both wrong ones, (0.5 + 1 + 1) / 3.
    for group in (solvers(rows)[:4], solvers(rows)[4:]):
        rewards = [row["reward"] for row in group]
        assert rewards == [pytest.approx(2.5 / 3)] * 2 + [pytest.approx(0.5 / 3)] * 2
        assert sum(rewards) == pytest.approx(2.0)
    asked = [row for row in rows if row["role"] == "judge"]
    assert len(asked) == 2 * 6 * 2
    assert {row["purpose"] for row in asked} == {"grade"}
    assert {tuple(row["parents"]) for row in asked} == {tuple(row["parents"][::-1]) for row in asked}


def test_a_judge_that_always_likes_the_first_place_leaves_every_pair_unknown(
    rollouts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = judge(rollouts, *PAIRWISE, "--json", engine="scripted:malformed=0,judge=first")

    told = capsys.readouterr()
    summary = msgspec.json.decode(told.out.splitlines()[-1])
    assert summary["details"]["pairs"] == {"compared": 12, "known": 0, "orders_disagree": 12}
    assert {row["reward"] for row in solvers(rows)} == {None}
    assert summary["details"]["solver"]["unknown"] == 8
    assert summary["details"]["verdicts_unsure"] == 24
    assert "most often: the orders disagree" in told.err


def test_with_ties_for_disagreement_everybody_gets_one_half(rollouts: Path) -> None:
    option = "judge.judge={name: pairwise, disagreement: tie}"

    rows = judge(rollouts, "--set", option, *PAIRWISE[2:], engine="scripted:malformed=0,judge=first")

    assert {row["reward"] for row in solvers(rows)} == {0.5}


def test_equal_answers_tie_without_being_asked_about(tmp_path: Path) -> None:
    twins = [a_row(problem=a_problem(), index=index, completion="<answer>7</answer>", answer="7") for index in range(2)]

    rows = judge(write_rows(tmp_path / "2.jsonl", twins), *PAIRWISE)

    assert len(rows) == 2
    assert [scores(row, "pair") for row in rows] == [[0.5], [0.5]]


def test_fewer_opponents_are_fewer_questions_and_every_answer_meets_somebody(rollouts: Path) -> None:
    rows = judge(rollouts, *PAIRWISE, "--num-opponents", 1)

    # A ring of four: each meets the next and the one before.
    assert sum(row["role"] == "judge" for row in rows) == 2 * 4 * 2
    assert [len(scores(row, "pair")) for row in solvers(rows)] == [2] * 8


PANEL = "judge.judge=[rubric, {name: rubric, scale: yes/no}, process, pairwise]"


def test_several_judges_speak_under_their_own_names(rollouts: Path) -> None:
    rows = judge(rollouts, "--set", PANEL, engine="scripted:malformed=0,judge=perfect")

    for row in solvers(rows):
        assert [v["name"] for v in row["verdicts"]] == ["rubric", "rubric#2", "process", *["pairwise"] * 3]
    right = solvers(rows)[0]
    assert scores(right)[1:] == [1.0, 1.0]
    # The reward of a MAE solver is the mean over the judges of answers; comparisons are no part of it.
    terms = {term["name"]: term["value"] for term in right["reward_terms"]}
    assert terms["answer_score"] == pytest.approx(sum(s for s in scores(right) if s is not None) / 3)


@pytest.mark.parametrize("how", ["majority", "min"])
def test_an_aggregate_is_one_verdict_that_every_reader_sees(rollouts: Path, how: str) -> None:
    rows = judge(rollouts, "--set", PANEL, "--aggregate", how, engine="scripted:malformed=0,judge=perfect")

    for row in solvers(rows):
        (verdict,) = [v for v in row["verdicts"] if v["target"] == "answer"]
        grades = [
            float(grade["answer"]) for grade in rows if grade["role"] == "judge" and grade["parents"] == [row["id"]]
        ]
        assert verdict["name"] == f"judges/{how}"
        assert len(grades) == 3
        assert verdict["score"] == (min(grades) if how == "min" else float(sum(g > 0.5 for g in grades) >= 2))
    aggregates = {scores(row)[0] for row in solvers(rows)}
    assert len(aggregates) > 1


@pytest.mark.parametrize(("before", "after"), [("majority", "mean"), ("min", "majority"), ("mean", "min")])
def test_judged_again_with_another_aggregate_no_old_verdict_of_these_judges_counts(
    rollouts: Path, before: str, after: str
) -> None:
    perfect = "scripted:malformed=0,judge=perfect"
    old = judge(rollouts, "--set", PANEL, "--aggregate", before, engine=perfect)
    again = write_json_lines(rollouts.with_name("again.jsonl"), solvers(old))

    rows = judge(again, "--set", PANEL, "--aggregate", after, name="4.jsonl", engine=perfect)

    fresh = judge(rollouts, "--set", PANEL, "--aggregate", after, name="fresh.jsonl", engine=perfect)
    assert [(row["verdicts"], row["reward"]) for row in rows] == [(row["verdicts"], row["reward"]) for row in fresh]


def test_a_program_that_checks_a_judged_file_leaves_the_judges_aggregate_on_it(rollouts: Path) -> None:
    old = judge(rollouts, "--set", PANEL, "--aggregate", "majority", engine="scripted:malformed=0,judge=perfect")
    again = write_json_lines(rollouts.with_name("again.jsonl"), solvers(old))

    rows = judge(again, "--judge", "none", "--verifier", "numeric", name="4.jsonl")

    for before, after in zip(solvers(old), solvers(rows), strict=True):
        assert [v["name"] for v in after["verdicts"]] == [*(v["name"] for v in before["verdicts"]), "numeric"]


def test_the_order_of_the_input_rows_never_changes_a_verdict_or_a_reward(rollouts: Path) -> None:
    given = rollouts.read_bytes().splitlines(keepends=True)
    mixed = rollouts.with_name("mixed.jsonl")
    random.Random(3).shuffle(given)
    mixed.write_bytes(b"".join(given))
    options = ("--set", PANEL, "--answer-votes", 2, "--num-own-pairs", 3, "--num-opponents", 1, "--verifier", "numeric")
    engine = "scripted:malformed=0.3"

    def by_id(rows: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            row["id"]: {**row, "verdicts": sorted(row["verdicts"], key=lambda v: (v["name"], v["judge_id"] or ""))}
            for row in rows
        }

    assert by_id(judge(rollouts, *options, engine=engine)) == by_id(
        judge(mixed, *options, name="4.jsonl", engine=engine)
    )


def test_a_verdict_read_from_probabilities_is_asked_once_and_written_down(rollouts: Path) -> None:
    option = "judge.judge={name: rubric, scale: yes/no, read: probability}"

    rows = judge(rollouts, "--set", option, "--answer-votes", 3, engine="scripted:malformed=0,judge=perfect")

    # The scripted engine gives the verdict it would write 0.9, the other 0.1.
    assert [scores(row) for row in solvers(rows)[:4]] == [[pytest.approx(s)] for s in (0.9, 0.9, 0.1, 0.1)]
    grades = [row for row in rows if row["role"] == "judge"]
    assert len(grades) == 8
    for grade in grades:
        assert grade["completion"] is None
        assert [term["name"] for term in grade["option_logprobs"]] == ["<score>yes</score>", "<score>no</score>"]
        assert grade["sampling"]["choices"] == ["<score>yes</score>", "<score>no</score>"]


def test_probabilities_of_both_orders_make_a_pair(rollouts: Path) -> None:
    option = "judge.judge={name: pairwise, read: probability}"

    rows = judge(rollouts, "--set", option, *PAIRWISE[2:], engine="scripted:malformed=0,judge=perfect")

    # A is worth 1, B 0, tie 0.5; the likely one has 0.9, the others 0.05 each: a win 0.925, a tie 0.5.
    assert sorted(s for s in scores(solvers(rows)[0], "pair") if s is not None) == pytest.approx([0.5, 0.925, 0.925])


def test_judgements_from_probabilities_resume_like_others(rollouts: Path) -> None:
    options = ("--set", "judge.judge={name: rubric, read: probability}")
    whole = judge(rollouts, *options, name="whole.jsonl")
    part = judge(rollouts, *options, "--limit", 2, name="part.jsonl")

    resumed = judge(rollouts, *options, name="part.jsonl")

    assert sum(row["role"] == "judge" for row in part) == 2
    assert resumed == whole


def test_an_engine_without_probabilities_says_so(rollouts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judge(rollouts)
    option = "judge.judge={name: rubric, read: probability}"

    judge(rollouts, "--set", option, name="4.jsonl", engine=f"replay:{rollouts.with_name('3.jsonl')}", expect=2)

    assert "gives no token probabilities; use read: sampled" in capsys.readouterr().err


def test_a_constrained_judge_writes_nothing_but_a_verdict(rollouts: Path) -> None:
    option = "judge.judge={name: rubric, scale: 3-band, constrain: true}"

    rows = judge(rollouts, "--set", option, "--num-own-pairs", 2, engine="scripted:malformed=1,truncated=0")

    grades = [row for row in rows if row["purpose"] == "grade"]
    assert {row["raw"] for row in grades} <= {f"<score>{band}</score>" for band in (1, 2, 3)}
    assert all(row["status"] == "ok" for row in grades)
    # What trains the judge's role is its own free text.
    trained = [row for row in rows if (row["role"], row["purpose"]) == ("judge", "train")]
    assert [row["sampling"]["choices"] for row in trained] == [[], []]
    assert {row["status"] for row in trained} == {"unparsed"}


def test_an_engine_that_cannot_constrain_is_asked_for_free_text(
    rollouts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mae_cli.engines.scripted import ScriptedEngine

    free = msgspec.structs.replace(ScriptedEngine.facts, constrains=False)
    monkeypatch.setattr(ScriptedEngine, "facts", free)

    rows = judge(rollouts, "--set", "judge.judge={name: rubric, constrain: true}")

    assert all(row["sampling"]["choices"] == [] for row in rows)


def test_a_failed_judgement_is_as_unreadable_as_an_unparsed_one(
    rollouts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mae_cli.engines.scripted import ScriptedEngine
    from mae_cli.records import Completion

    def fail(self: ScriptedEngine, requests: list[object], sampling: object) -> list[Completion]:
        return [Completion(status="error", error="boom") for _ in requests]

    monkeypatch.setattr(ScriptedEngine, "generate", fail)

    assert here("judge", rollouts, "-o", rollouts.with_name("3.jsonl"), "--engine", "scripted") == 3

    assert "100% of the judgements are unparsed" in capsys.readouterr().err
    rows = read_json_lines(rollouts.with_name("3.jsonl"))
    assert {row["reward"] for row in solvers(rows)} == {None}
    assert {v["status"] for row in solvers(rows) for v in row["verdicts"]} == {"error"}


# ---- unknown stays unknown, from the vote to the trained rows


def test_a_row_whose_verdicts_are_all_null_is_not_rewarded_not_trained_and_counted(
    rollouts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mae_cli.plugins import registry
    from mae_cli.records.read import read_rows
    from mae_cli.training.eligible_rows import trainable

    rows = judge(rollouts, "--json", engine="scripted:malformed=1")

    summary = msgspec.json.decode(capsys.readouterr().out.splitlines()[-1])
    assert {row["reward"] for row in solvers(rows)} == {None}
    assert (summary["details"]["solver"]["unknown"], summary["details"]["unparsed_share"]) == (8, 1.0)
    for name in ("grpo", "sft"):  # also where the objective does not look at rewards
        objective = registry.build("objectives", name)
        chosen, left_out = trainable(read_rows(rollouts.with_name("3.jsonl")), ["train"], objective)
        assert chosen == []
        assert left_out["reward unknown"] == 8


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5])
def test_the_gate_is_at_the_share_of_the_recipe(rollouts: Path, share: float) -> None:
    out = rollouts.with_name(f"{share}.jsonl")
    engine = "scripted:malformed=0.4"

    code = here(
        "judge", rollouts, "-o", out, "--engine", engine, "--answer-votes", 5, "--set", f"judge.max_unparsed={share}"
    )

    grades = [row for row in read_json_lines(out) if row["role"] == "judge"]
    unread = sum(row["status"] == "unparsed" for row in grades) / len(grades)
    assert 0.2 < unread < 0.5
    assert code == (3 if unread > share else 0)


@given(SCORES, st.integers(1, 3))
def test_null_verdicts_never_change_a_reward_or_a_solve_rate(known: list[float | None], more: int) -> None:
    from mae_cli.plugins.contracts import RewardContext
    from mae_cli.plugins.filters.solve_rate import solve_rates
    from mae_cli.plugins.rewards.checked import CheckedProposer, CheckedSolver
    from mae_cli.plugins.rewards.mae import MaeProposer, MaeSolver

    plain, padded = votes(*known), votes(*[None] * more, *known, *[None] * more)
    row = a_row(problem=a_problem(), completion="<answer>7</answer>")
    proposal = a_row("proposer", problem=a_problem(), completion="<question>What is 3 + 4?</question>")
    for reward in (MaeSolver(), CheckedSolver()):
        one, two = (reward.score(row, RewardContext([], found, [])).reward for found in (plain, padded))
        assert one == two
        assert (one is None) == all(score is None for score in known)
    for proposer in (MaeProposer(), CheckedProposer()):
        one, two = (proposer.score(proposal, RewardContext(found, [], [found])).reward for found in (plain, padded))
        assert one == two
    rates = [solve_rates([a_row(problem=a_problem(), verdicts=found)]) for found in (plain, padded)]
    assert rates[0] == rates[1]
