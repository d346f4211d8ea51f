"""Tables and verdict lines over hand-made eval rows."""

from mae_cli.catalogue import recipe_keys
from mae_cli.config import shipped_dir
from mae_cli.records import Message, Policy, Problem, Row, Sampling, Verdict, new_row, problem_id
from mae_cli.report import READINGS, accuracy, compare, final_line, p_text, progress_table, role_figures, table


def eval_rows(outcomes: list[float | None]) -> list[Row]:
    rows = []
    for index, outcome in enumerate(outcomes):
        question = f"item {index}"
        row = new_row(
            "eval",
            role="solver",
            purpose="eval",
            round_number=0,
            run_seed=0,
            messages=[Message("user", question)],
            sampling=Sampling(max_new_tokens=1),
            policy=Policy("m"),
            problem=Problem(id=problem_id(question), question=question, reference_answer="1"),
        )
        status = "ok" if outcome is not None else "error"
        row.verdicts = [Verdict(f"numeric/{r}", "verifier", "answer", score=outcome, status=status) for r in READINGS]
        rows.append(row)
    return rows


def test_a_failing_checker_leaves_both_sides_of_the_pair():
    before = eval_rows([1.0, 0.0, None, 0.0])
    after = eval_rows([1.0, 1.0, 1.0, None])

    versus = compare(("a", before), ("b", after), "flexible")

    # Items 0 and 1 are known on both sides: one win, no loss.
    assert (versus.items, versus.wins, versus.losses, versus.difference) == (2, 1, 0, 0.5)
    assert accuracy("a", before, "flexible", 0.95).unknown == 1


def test_the_final_line_states_both_shares_the_items_and_the_exact_p():
    # 1 of 10 against 9 of 10, eight won, none lost: two-sided exact p = 2 * 0.5**8 = 0.0078125.
    line = final_line([("base", eval_rows([1.0] + [0.0] * 9)), ("round-001", eval_rows([1.0] * 9 + [0.0]))])

    assert line == "final: base 10.0 % -> round-001 90.0 %, n = 10, p = 0.0078"


def test_small_p_values_are_written_with_an_exponent():
    assert [p_text(p) for p in (1.0, 0.05, 0.00012, 1.23e-12)] == ["1", "0.05", "1.2e-04", "1.2e-12"]


def test_the_progress_table_has_both_readings_and_no_p_for_the_base():
    text = progress_table([("base", eval_rows([0.0, 1.0])), ("round-001", eval_rows([1.0, 1.0]))], 0.95)

    lines = text.splitlines()
    assert lines[0].split()[:3] == ["policy", "items", "strict"]
    assert "flexible" in lines[0]
    assert lines[2].split()[-4:] == ["-", "-", "0", "0"]


def test_role_figures_count_unknown_rewards_apart():
    rows = eval_rows([0.0, 1.0, 1.0])
    for row, reward in zip(rows, (0.0, 1.0, None), strict=True):
        row.purpose, row.reward, row.kept = "train", reward, reward == 1.0

    (figure,) = role_figures(rows, [{"role": "solver", "advantage": -1.0}, {"role": "solver", "advantage": 1.0}])

    # Mean of 0 and 1 is 0.5, population spread 0.5; the third row is unknown, one of three is kept.
    assert (figure.reward_mean, figure.reward_spread, figure.unknown) == (0.5, 0.5, 1)
    assert (figure.kept_share, figure.trained, figure.advantage_mean) == (1 / 3, 2, 0.0)


def test_tables_have_no_trailing_blanks():
    assert all(line == line.rstrip() for line in table(("a", "b"), [("x", "1"), ("long name", "")]).splitlines())


def test_the_recipe_page_lists_every_key_as_the_code_has_it():
    assert recipe_keys() in (shipped_dir("recipes") / "README.md").read_text("utf-8")
