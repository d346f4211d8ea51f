"""The pages that lead a reader: short where they promise to be, complete, and with paths and names that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mae_cli import records
from mae_cli.cli.app import app
from mae_cli.plugins import contracts
from tests.support import ROOT

PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not {".venv", "runs", "build", "dist", ".pytest_cache"} & set(path.relative_to(ROOT).parts)
)
ROOMS = ("engines", "plugins", "records", "reports", "stages", "training")


def text_of(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def section(name: str, heading: str) -> str:
    """The text under a heading of a page."""
    return text_of(name).partition(f"## {heading}\n")[2].partition("\n## ")[0]


def rows(table: str) -> list[list[str]]:
    """The cells of the lines of a Markdown table, without its head."""
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def commands() -> set[str]:
    """The words of the command line that are shown to users."""
    shown = [command for command in app.registered_commands if not command.hidden]
    names = {command.name or command.callback.__name__ for command in shown if command.callback is not None}
    return names | {str(group.name) for group in app.registered_groups}


def test_the_readme_is_short() -> None:
    assert len(text_of("README.md").splitlines()) <= 180


def test_every_command_is_in_the_readme_and_no_other() -> None:
    named = set(re.findall(r"^\| `mae ([a-z]+)", section("README.md", "Commands"), re.MULTILINE))

    assert named == commands()


def test_the_tree_of_the_readme_is_the_folder() -> None:
    tree = section("README.md", "The code")
    named = set(re.findall(r"^    mae_cli/([a-z_]+(?:/|\.py))\s", tree, re.MULTILINE))

    there = {
        path.name + ("/" if path.is_dir() else "")
        for path in (ROOT / "mae_cli").iterdir()
        if path.is_dir() or path.suffix == ".py"
    }
    assert named == {name for name in there if not name.startswith("_")}


def test_the_map_answers_at_least_twenty_five_questions_with_paths_that_exist() -> None:
    answers = rows(section("CONTRIBUTING.md", "Where is it?"))
    paths = [(question, path) for question, answer in answers for path in re.findall(r"`([^`]+)`", answer)]

    assert len(answers) >= 25
    assert {question for question, _ in answers} == {question for question, _ in paths}
    assert [path for _, path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8"))

    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("room", ROOMS)
def test_a_page_beside_the_code_names_only_commands_that_exist(room: str) -> None:
    text = text_of(f"mae_cli/{room}/README.md")

    used = set(re.findall(r"(?:^    (?:\$ )?|\| |`)mae ([a-z-]+)", text, re.MULTILINE))

    assert used - commands() == set()


def test_every_stage_has_its_paragraph() -> None:
    headings = set(re.findall(r"^## mae ([a-z]+)$", text_of("mae_cli/stages/README.md"), re.MULTILINE))

    assert headings == {path.stem for path in (ROOT / "mae_cli" / "stages").glob("[a-z]*.py")}


def test_every_field_of_a_row_is_described() -> None:
    text = text_of("mae_cli/records/README.md")

    assert [name for name in records.Row.__struct_fields__ if f"`{name}`" not in text] == []


@pytest.mark.parametrize("module", [records, contracts], ids=lambda module: module.__name__)
def test_the_stable_names_exist(module: object) -> None:
    names = vars(module)["__all__"]

    assert [name for name in names if not hasattr(module, name)] == []
