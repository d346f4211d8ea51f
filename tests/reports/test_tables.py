"""Figures of roles, and how numbers and tables are shown."""

from mae_cli.cli.listing import recipe_keys
from mae_cli.recipe.files import shipped_dir
from mae_cli.records.trained_row import TrainedRow
from mae_cli.reports.role_figures import role_figures
from mae_cli.reports.tables import p_text, table
from tests.support import eval_rows


def test_small_p_values_are_written_with_an_exponent():
    assert [p_text(p) for p in (1.0, 0.05, 0.00012, 1.23e-12)] == ["1", "0.05", "1.2e-04", "1.2e-12"]


def test_role_figures_count_unknown_rewards_apart():
    rows = eval_rows([0.0, 1.0, 1.0])
    for row, reward in zip(rows, (0.0, 1.0, None), strict=True):
        row.purpose, row.reward, row.kept = "train", reward, reward == 1.0

    trained = [TrainedRow("a", "solver", advantage=-1.0), TrainedRow("b", "solver", advantage=1.0)]
    (figure,) = role_figures(rows, trained)

    # Mean of 0 and 1 is 0.5, population spread 0.5; the third row is unknown, one of three is kept.
    assert (figure.reward_mean, figure.reward_spread, figure.unknown) == (0.5, 0.5, 1)
    assert (figure.kept_share, figure.trained, figure.advantage_mean) == (1 / 3, 2, 0.0)


def test_tables_have_no_trailing_blanks():
    assert all(line == line.rstrip() for line in table(("a", "b"), [("x", "1"), ("long name", "")]).splitlines())


def test_the_recipe_page_lists_every_key_as_the_code_has_it():
    assert recipe_keys() in (shipped_dir("recipes") / "README.md").read_text("utf-8")
