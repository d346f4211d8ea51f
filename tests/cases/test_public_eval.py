"""Sixty items of six public sets, imported as published and evaluated: each scores what a person gave it by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support import here, read_json_lines

ITEMS: list[dict[str, Any]] = [
    json.loads(line) for line in (Path(__file__).parent / "public_eval.jsonl").read_text("utf-8").splitlines()
]
SETS = sorted({item["set"] for item in ITEMS})
VERIFIERS = {"gsm8k": "numeric", "math": "math"}
"""Of the sets that do not show by their form how they are checked."""


def test_there_are_ten_items_of_each_of_six_sets() -> None:
    assert [sum(item["set"] == name for item in ITEMS) for name in SETS] == [10] * 6


@pytest.mark.parametrize("name", SETS)
def test_an_eval_scores_what_a_person_scores(name: str, tmp_path: Path) -> None:
    items = [item for item in ITEMS if item["set"] == name]
    published, imported = tmp_path / f"{name}_published.jsonl", tmp_path / f"{name}.jsonl"
    published.write_text("".join(json.dumps(item["item"]) + "\n" for item in items), "utf-8")
    assert here("data", "import", published, "-o", imported) == 0
    texts = {
        problem["question"]: item["completion"] for problem, item in zip(read_json_lines(imported), items, strict=True)
    }
    (tmp_path / "texts.json").write_text(json.dumps(texts), "utf-8")
    engine = f"tests.cases.written_engine:open_engine:{tmp_path / 'texts.json'}"
    chosen = ["--verifier", VERIFIERS[name]] if name in VERIFIERS else []

    assert here("eval", imported, "-o", tmp_path / "e.jsonl", "--engine", engine, *chosen) == 0

    scored = {
        row["problem"]["question"]: verdict["score"] or 0.0
        for row in read_json_lines(tmp_path / "e.jsonl")
        for verdict in row["verdicts"]
        if verdict["reading"] == "flexible"
    }
    assert [(question, scored[question]) for question in texts] == [
        (question, item["score"]) for question, item in zip(texts, items, strict=True)
    ]
