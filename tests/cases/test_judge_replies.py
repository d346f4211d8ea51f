"""Every line of the judges' replies: the score in [0, 1] that a reply gives, or none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mae_cli.plugins.contracts import Option, Reading
from mae_cli.plugins.judges.pairwise import Pairwise
from mae_cli.plugins.judges.process import Process, step_options
from mae_cli.plugins.judges.rubric import Rubric
from tests.support import read_json_lines

HERE = Path(__file__).parent
NAMES = ("judge_replies", "judge_replies_more")
LINES = [(f"{name}:{n}", line) for name in NAMES for n, line in enumerate(read_json_lines(HERE / f"{name}.jsonl"), 1)]


def read(kind: str, reply: str) -> Reading:
    if kind == "rubric 1-10":
        return Rubric().read_reply(reply, ())
    if kind == "yes/no":
        return Rubric(scale="yes/no").read_reply(reply, (Option("yes", 1.0), Option("no", 0.0)))
    if kind == "pairwise":
        return Pairwise().read_reply(reply, (Option("A", 1.0), Option("B", 0.0), Option("tie", 0.5)))
    assert kind == "process, 4 steps"
    return Process().read_reply(reply, step_options(4))


@pytest.mark.parametrize(("where", "line"), LINES, ids=[f"{where}: {line['kind']}" for where, line in LINES])
def test_the_score_is_read(where: str, line: dict[str, Any]) -> None:
    reading = read(line["kind"], line["reply"])

    if line["expected"] is None:
        assert reading.score is None, (line["reply"], reading)
        assert reading.status == "unparsed"
    else:
        assert reading.score == pytest.approx(line["expected"], abs=1e-4), (line["reply"], reading)
