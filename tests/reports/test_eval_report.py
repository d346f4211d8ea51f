"""What is printed about evaluated policies."""

from __future__ import annotations

from mae_cli.reports.eval_figures import by_policy, figures_of, plain
from mae_cli.reports.eval_report import details_text, final_line, power_line, progress_table, unchanged_line
from tests.support import eval_rows


def test_the_final_line_states_both_shares_the_items_and_the_exact_p() -> None:
    # 1 of 10 against 9 of 10, eight won, none lost: two-sided exact p = 2 * 0.5**8 = 0.0078125.
    line = final_line([("base", eval_rows([1.0] + [0.0] * 9)), ("round-001", eval_rows([1.0] * 9 + [0.0]))])

    assert line == "final: base 10.0 % -> round-001 90.0 %, n = 10, p = 0.0078"


def test_a_run_that_accepted_nothing_ends_with_the_base() -> None:
    assert unchanged_line(("base", eval_rows([1.0, 0.0]))) == "final: base 50.0 %, n = 2; no round was accepted"


def test_the_progress_table_has_both_readings_and_no_p_for_the_base() -> None:
    text = progress_table([("base", eval_rows([0.0, 1.0])), ("round-001", eval_rows([1.0, 1.0]))], 0.95)

    lines = text.splitlines()
    assert lines[0].split()[:3] == ["policy", "items", "strict"]
    assert "flexible" in lines[0]
    assert lines[2].split()[-4:] == ["-", "-", "0", "0"]


def test_bounds_are_printed_where_a_checker_failed_for_the_share_and_for_the_difference() -> None:
    text = details_text(figures_of([("a", eval_rows([1.0, None])), ("b", eval_rows([1.0, 1.0]))], 0.95))

    assert (
        "a (flexible): 1 of 2 unknown, the checker or the engine failed; between 50.0 % and 100.0 % with them" in text
    )
    assert "1 items left out, the checker or the engine failed: between +0.0 and +50.0 points with them" in text


def test_what_is_unknown_altogether_is_said_and_is_no_number() -> None:
    sides = [("a", eval_rows([None, None])), ("b", eval_rows([1.0, 0.0]))]
    figures = figures_of(sides, 0.95)
    text = details_text(figures)

    assert "a -> b (flexible): unknown, no item has a known verdict on both sides" in text
    assert "  2 items left out, the checker or the engine failed: between -50.0 and +50.0 points with them" in text
    assert next(line for line in text.splitlines() if line.startswith("a (flexible)")).split()[2:] == [
        "0",
        "-",
        "-",
        "2",
    ]
    assert plain(figures)["accuracy"][0]["share"] is None
    assert unchanged_line(sides[0]) == "final: a unknown, n = 0; no round was accepted"


def test_several_samples_print_pass_and_majority_figures() -> None:
    text = details_text(figures_of([("a", eval_rows([[1.0, 0.0], [0.0, 0.0]]))], 0.95))

    # Votes are counted over the answers that the flexible reading found.
    assert "a (strict): mean of 2 25.0 %, pass@1 25.0 %, pass@2 50.0 %\n" in text
    assert "a (flexible): mean of 2 25.0 %, pass@1 25.0 %, pass@2 50.0 %, maj@2 25.0 %" in text


def test_missing_answers_are_told_apart_from_wrong_ones() -> None:
    rows = eval_rows([0.0] * 6)
    for row, status in zip(rows, ("truncated", "unparsed", "unparsed", "error", "too_long"), strict=False):
        row.status = status  # type: ignore[assignment]
    sides = [("a", rows), ("b", eval_rows([1.0] * 6))]

    text = details_text(figures_of(sides, 0.95))

    assert "a: counted as wrong: 1 cut off, 2 without an answer, 1 never asked: the prompt is too long" in text
    assert "b: counted as wrong" not in text
    assert "a: counted as wrong: 1 never asked: the prompt is too long" in progress_table(sides, 0.95)
    # What the engine could not answer is unknown, and counted apart.
    assert plain(figures_of(sides, 0.95))["failed"] == {"a": 1, "b": 0}


def test_groups_are_a_table_of_their_own() -> None:
    text = details_text(figures_of([("a", eval_rows([1.0], level=3))], 0.95, ["level"]))

    assert "group (flexible)" in text
    assert "a: level=3" in text


def test_the_power_line_says_what_cannot_be_seen() -> None:
    line = power_line("p", 50, alpha=0.05, confidence=0.95, paired=True)

    assert line.startswith("p: 50 items: one accuracy near 50 % is known to +-13.4 points; smallest difference")
    # If one answer in ten changes, 50 items show nothing at all.
    assert "in points: 17.6 (if 20% of the answers change), 25.4 (if 40% of the answers change)" in line
    few = power_line("p", 6, alpha=0.05, confidence=0.95, paired=True)
    assert few.endswith("too few to find any difference with 80 % power")
    assert "difference" not in power_line("p", 50, alpha=0.05, confidence=0.95, paired=False)


def test_rows_of_several_policies_are_taken_apart_by_their_weights() -> None:
    rows = eval_rows([1.0])

    assert [label for label, _ in by_policy(rows, {rows[0].policy.weights: "mine"})] == ["mine"]
    assert [label for label, _ in by_policy(rows, {})] == ["base"]
