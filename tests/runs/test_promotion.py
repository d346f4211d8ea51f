"""Which rounds are accepted and called best: the sets, the decision, and how often it errs."""

from __future__ import annotations

from pathlib import Path

import pytest

from mae_cli.answers.questions import question_key
from mae_cli.errors import ConfigError
from mae_cli.recipe.sections import EvalSection
from mae_cli.runs.gate import read_sets
from mae_cli.runs.promotion import Promotion, decide, promotion_line
from tests.bench.gate_simulation import Loops, simulate
from tests.support import eval_rows, write_json_lines, write_sums


def verdict(
    candidate: list[float | None],
    accepted: list[float | None],
    best: list[float | None] | None = None,
    number: int = 1,
) -> Promotion:
    parent = ("round-001", eval_rows(accepted))
    leader = parent if best is None else ("base", eval_rows(best))
    return decide(
        ("round-002", eval_rows(candidate)), parent, leader, decision=number, harm_alpha=0.05, best_alpha=0.05
    )


def keys(benchmarks: list[object]) -> set[str]:
    return {question_key(p.question) for b in benchmarks for p in b.problems}  # type: ignore[attr-defined]


# ---- the sets


def test_one_set_is_split_in_halves_that_share_no_problem_in_any_wording(tmp_path: Path) -> None:
    rows = [{"question": f"What is {a} + {a + 7}?", "answer": "1"} for a in range(20)]
    rows += [{"question": f"{a + 7} + {a} = ?", "answer": "1"} for a in range(20)]

    sets = read_sets(EvalSection(benchmarks=[str(write_json_lines(tmp_path / "b.jsonl", rows))]))

    assert [len(b.problems) for b in (*sets.reported, *sets.gate)] == [20, 20]
    assert len(keys(sets.reported)) == len(keys(sets.gate)) == 10
    assert not keys(sets.reported) & keys(sets.gate)


def test_the_split_depends_on_the_problems_alone(tmp_path: Path) -> None:
    forwards = write_sums(tmp_path / "a.jsonl", 12)
    backwards = tmp_path / "b.jsonl"
    backwards.write_bytes(b"".join(reversed(forwards.read_bytes().splitlines(keepends=True))))

    one, other = (read_sets(EvalSection(benchmarks=[str(path)])) for path in (forwards, backwards))

    assert keys(one.gate) == keys(other.gate)
    assert len(keys(read_sets(EvalSection(benchmarks=[str(forwards)], gate_share=0.25)).gate)) == 3


def test_reported_items_are_taken_out_of_a_gate_file(tmp_path: Path) -> None:
    reported = write_sums(tmp_path / "r.jsonl", 4)
    gate = write_json_lines(
        tmp_path / "g.jsonl",
        [{"question": "4 + 3 = ?", "answer": "7"}, {"question": "What is 50 + 1?", "answer": "51"}],
    )

    sets = read_sets(EvalSection(benchmarks=[str(reported)], gate=str(gate), limit=3))

    # The first sum of the file is 3 + 4: the same problem in other words.
    assert [p.question for p in sets.gate[0].problems] == ["What is 50 + 1?"]
    assert (sets.removed, len(sets.reported[0].problems)) == (1, 3)
    with pytest.raises(ConfigError, match=r"every item is among eval.benchmarks"):
        read_sets(EvalSection(benchmarks=[str(reported)], gate=str(reported)))


def test_without_a_gate_everything_is_reported(tmp_path: Path) -> None:
    items = write_sums(tmp_path / "r.jsonl", 4)

    assert not read_sets(EvalSection(benchmarks=[str(items)], gate=None)).gate
    assert not read_sets(EvalSection()).reported


# ---- the decision


def test_a_clear_loss_is_not_accepted() -> None:
    # 6 lost, none won: 1/64 = 0.016 <= 0.05.
    found = verdict([0.0] * 6 + [1.0] * 4, [1.0] * 10)

    assert (found.accepted, found.best, found.reason) == (False, False, "worse than round-001")


def test_a_loss_that_may_be_chance_is_accepted() -> None:
    # 4 lost, none won: 1/16 = 0.0625 > 0.05.
    assert verdict([0.0] * 4 + [1.0] * 6, [1.0] * 10).accepted


def test_a_gain_is_best_only_at_the_level_its_round_may_spend() -> None:
    # 6 won, none lost: 1/64 = 0.0156; round 1 may spend 0.0304, round 2 0.0076.
    better, plain = [1.0] * 6 + [0.0] * 4, [0.0] * 10

    assert verdict(better, plain, number=1).best
    assert not verdict(better, plain, number=2).best
    assert verdict(better, plain, number=2).reason == "no harm shown, not shown better than round-001"


def test_many_small_losses_add_up_to_harm_against_the_best() -> None:
    # Against the parent 2 lost; against the base 7 lost of 7, 1/128 = 0.0078 <= 0.025.
    base, parent, candidate = [1.0] * 10, [1.0] * 5 + [0.0] * 5, [1.0] * 3 + [0.0] * 7

    found = verdict(candidate, parent, base)

    assert (found.accepted, found.reason) == (False, "worse than base")


def test_an_item_the_checker_failed_on_decides_nothing() -> None:
    found = verdict([None] * 6 + [1.0], [1.0] * 7)

    assert (found.accepted, found.best, found.outcomes[0].items) == (True, False, 1)


def test_a_round_of_which_nothing_is_known_is_not_accepted() -> None:
    found = verdict([None] * 6, [1.0] * 6)

    assert (found.accepted, found.best, found.outcomes[0].items) == (False, False, 0)
    assert found.reason == "the checker failed on every item, so nothing is known against round-001"


def test_pairs_the_checker_failed_on_are_counted_in_the_line_of_the_decision() -> None:
    # Four pairs known, one won; the checker failed on two, once on either side.
    found = verdict([1.0, 0.0, 0.0, 1.0, None, 1.0], [0.0, 0.0, 0.0, 1.0, 1.0, None])

    assert (found.outcomes[0].items, found.outcomes[0].unknown) == (4, 2)
    assert promotion_line(found).endswith("(against round-001 won 1, lost 0 of 4, 2 unknown)")


def test_a_decision_is_told_in_counts_and_without_a_p_value() -> None:
    line = promotion_line(verdict([1.0] * 6 + [0.0] * 4, [0.0] * 10))

    assert line == (
        "gate: round-002 accepted, best: no harm shown, better than round-001 (against round-001 won 6, lost 0 of 10)"
    )


# ---- how often it errs


def test_the_simulated_decision_is_the_product_s() -> None:
    loops = Loops(count=40, rounds=3, items=30, effect=0.05, seed=3)

    for history in simulate(loops).histories():
        accepted = best = 0
        for number in range(1, 4):
            sides = [(str(i), eval_rows([float(x) for x in history.outcomes[i]])) for i in range(4)]
            found = decide(
                sides[number], sides[accepted], sides[best], decision=number, harm_alpha=0.05, best_alpha=0.05
            )
            assert (found.accepted, found.best) == (history.accepted[number - 1], history.best[number - 1])
            accepted = number if found.accepted else accepted
            best = number if found.best else best


@pytest.mark.parametrize("effect", [0.0, -0.02])
def test_no_more_runs_than_stated_call_a_round_best_that_is_not(effect: float) -> None:
    result = simulate(Loops(count=1500, rounds=6, items=100, effect=effect, seed=1))

    # At most 5 % of the runs, whose standard error over 1500 runs is 0.6 points.
    assert result.false_best <= 0.05 + 0.006


def test_a_question_two_benchmarks_hold_is_on_one_side_only(tmp_path: Path) -> None:
    shared = [f"What is {a} + {a + 7}?" for a in range(30)]
    first = [{"question": text, "answer": "1"} for text in [*shared, *(f"What is {a} * 3?" for a in range(9))]]
    second = [{"question": text.lower(), "answer": "1"} for text in [*shared, *(f"{a} - 40 = ?" for a in range(120))]]
    paths = [str(write_json_lines(tmp_path / f"{name}.jsonl", rows)) for name, rows in (("a", first), ("b", second))]

    sets = read_sets(EvalSection(benchmarks=paths))

    assert sets.removed > 0
    assert keys(sets.gate)
    assert not keys(sets.reported) & keys(sets.gate)
