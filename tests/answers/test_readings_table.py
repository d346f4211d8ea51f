"""The examples of `mae_cli/answers/README.md` are read as its tables say."""

from __future__ import annotations

import re

import pytest

from mae_cli.answers.choices import extract_choice
from mae_cli.answers.extract import Extraction, extract_answer
from mae_cli.answers.programs import extract_code
from mae_cli.plugins.judges.score_tag import parse_score
from tests.support import ROOT

PAGE = (ROOT / "mae_cli" / "answers" / "README.md").read_text("utf-8")
READERS = {
    "Choices": lambda text: extract_choice(text, "ABCD", ("Paris", "London", "Rome", "Berlin")),
    "Numbers and texts": extract_answer,
    "Programs": lambda text: extract_code(text, "f"),
}


def section(heading: str) -> str:
    return PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]


def rows() -> list[tuple[str, str, Extraction]]:
    found = []
    for heading in READERS:
        source = None
        for line in section(heading).splitlines():
            cells = [cell.strip() for cell in line[1:].split("|")]
            if not line.startswith("| ") or cells[0] == "reading":
                continue
            source = cells[1].strip("`") or source
            text, answer = (re.sub(r"^(`+) ?(.*?) ?\1$", r"\2", cell).replace("\\n", "\n") for cell in cells[2:4])
            wanted = Extraction(None, None) if answer == "nothing" else Extraction(answer, source)
            found.append((heading, text, wanted))
    return found


@pytest.mark.parametrize(("heading", "text", "wanted"), rows(), ids=lambda part: repr(part)[:40])
def test_an_example_is_read_as_its_row_says(heading: str, text: str, wanted: Extraction) -> None:
    assert READERS[heading](text) == wanted


def test_every_table_has_its_rows() -> None:
    assert {heading for heading, _, _ in rows()} == READERS.keys()
    assert len(rows()) >= 40


def test_the_scores_that_are_said_to_be_read_are_read() -> None:
    told, refused = section("Judges' replies").split("Not read:")
    read = [text for text in re.findall(r"`([^`]+)`", told) if "8" in text]

    assert len(read) >= 8
    assert [text for text in read if parse_score(f"<score>{text}</score>").score not in (8.0, 8.5)] == []
    assert [text for text in re.findall(r"`([^`]+)`", refused) if parse_score(f"<score>{text}</score>").score] == []
