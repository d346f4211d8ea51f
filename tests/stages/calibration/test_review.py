from __future__ import annotations

import io
import os
import pty
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mae_cli.errors import ConfigError, DataError
from mae_cli.records import Row, Verdict
from mae_cli.stages.calibration.labels import read_labels, write_labels
from mae_cli.stages.calibration.review import ReviewSummary, disagreements, run_review
from tests.support import a_problem, a_row, child_environment, command, here, mae, read_json_lines, write_rows


def judged_row(number: int, program: float | None, judge: float | None, **changes: Any) -> Row:
    verdicts = [
        Verdict("numeric", "verifier", "answer", program),
        Verdict("rubric", "judge", "answer", judge),
        Verdict("rubric", "judge", "answer", None, "unparsed"),
    ]
    told = {"completion": f"<answer>{number}</answer>", "answer": str(number), "answer_source": "answer_tag", **changes}
    return a_row(problem=a_problem(f"What is {number} + 0?", str(number)), verdicts=verdicts, index=number, **told)


@pytest.fixture
def judged(tmp_path: Path) -> Path:
    """Three disagreements, one agreement, two of which one side knows nothing."""
    rows = [
        judged_row(0, 1.0, 0.2),
        judged_row(1, 1.0, 0.9),
        judged_row(2, 0.0, 0.8),
        judged_row(3, None, 0.8),
        judged_row(4, 0.0, None),
        judged_row(5, 1.0, 0.5),
    ]
    return write_rows(tmp_path / "judged.jsonl", rows)


def review(judged: Path, keys: str) -> tuple[ReviewSummary, str]:
    screen = io.StringIO()
    summary = run_review(judged, judged.with_name("labels.jsonl"), keys=io.StringIO(keys), screen=screen)
    return summary, screen.getvalue()


def labels_of(judged: Path) -> dict[str, str | None]:
    return {row["question"]: row["label"] for row in read_json_lines(judged.with_name("labels.jsonl"))}


def test_only_disagreements_of_known_verdicts_are_asked_about() -> None:
    rows = [judged_row(0, 1.0, 0.2), judged_row(1, 1.0, 1.0), judged_row(2, None, 0.2), a_row("judge")]

    found, agree, unknown = disagreements(rows)

    assert ([row.id for row in found], agree, unknown) == ([rows[0].id], 1, 1)


def test_a_key_is_a_label_that_stands_alone(judged: Path) -> None:
    summary, screen = review(judged, "r\nw\ns\n")

    assert (summary.disagree, summary.labelled, summary.skipped, summary.left) == (3, 2, 1, 0)
    assert labels_of(judged) == {"What is 0 + 0?": "right", "What is 2 + 0?": "wrong", "What is 5 + 0?": None}
    first = read_labels(judged.with_name("labels.jsonl"))[0]
    assert (first.answer, first.completion, first.as_problem().reference_answer) == ("0", "<answer>0</answer>", "0")
    assert "1 of 3" in screen
    # Who said what would colour what the person says.
    assert "numeric" not in screen
    assert "rubric" not in screen


def test_quitting_keeps_what_was_said_and_the_same_command_goes_on(judged: Path) -> None:
    first, _ = review(judged, "r\nq\n")
    second, screen = review(judged, "w\n")
    third, _ = review(judged, "")

    assert [summary.left for summary in (first, second, third)] == [2, 1, 1]
    assert "2 of 3" in screen
    assert "1 of 3" not in screen
    assert labels_of(judged) == {"What is 0 + 0?": "right", "What is 2 + 0?": "wrong"}


def test_back_gives_another_label_to_the_one_before(judged: Path) -> None:
    summary, _ = review(judged, "r\nb\nw\nr\nr\n")

    assert summary.left == 0
    assert list(labels_of(judged).values()) == ["wrong", "right", "right"]


def test_other_keys_are_asked_again(judged: Path) -> None:
    summary, screen = review(judged, "x\n\nR\n")

    assert summary.labelled == 1
    assert screen.count("r, w, s, b or q > ") == 2


def test_control_characters_of_a_model_do_not_reach_the_terminal(tmp_path: Path) -> None:
    nasty = write_rows(tmp_path / "judged.jsonl", [judged_row(0, 1.0, 0.0, completion="a\x1b[2Jb\rc\u202ed")])

    _, screen = review(nasty, "r\n")

    assert "a?[2Jb?c?d" in screen
    assert "\x1b" not in screen


def test_nothing_judged_by_both_and_standard_input_are_refused(tmp_path: Path, judged: Path) -> None:
    half = write_rows(tmp_path / "half.jsonl", [judged_row(0, None, 0.2)])

    with pytest.raises(DataError, match="no answer has a known verdict of a program and of a judge"):
        review(half, "")
    with pytest.raises(ConfigError, match="reads keys from standard input"):
        run_review(Path("-"), tmp_path / "x.jsonl", keys=io.StringIO(), screen=io.StringIO())
    with pytest.raises(ConfigError, match="input and output are the same file"):
        run_review(judged, judged, keys=io.StringIO(), screen=io.StringIO())


def test_a_damaged_label_file_is_named_with_its_line(judged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = judged.with_name("labels.jsonl")
    labels.write_text('{"id": "a", "question": "q", "answer": "1", "completion": "1", "label": "maybe"}\n')

    assert here("review", judged, "-o", labels) == 2
    assert f"{labels}:1: Invalid enum value 'maybe'" in capsys.readouterr().err


def test_of_two_labels_for_one_answer_the_last_counts(judged: Path) -> None:
    review(judged, "r\n")
    file = judged.with_name("labels.jsonl")
    (label,) = read_labels(file)
    file.write_bytes(file.read_bytes() + file.read_bytes().replace(b'"right"', b'"wrong"'))

    assert [found.label for found in read_labels(file)] == ["wrong"]
    write_labels(file, read_labels(file))
    assert len(file.read_bytes().splitlines()) == 1
    assert label.label == "right"


def test_the_process_reads_keys_from_a_pipe(judged: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels.jsonl"

    result = mae("review", judged, "-o", out, "--json", stdin=b"r\nw\nq\n")

    assert result.returncode == 0
    assert len(read_json_lines(out)) == 2
    assert b'"labelled":2' in result.stdout
    assert b"labelled 2, skipped 0, left 1" in result.stderr


def test_on_a_terminal_a_key_needs_no_enter_and_an_arrow_means_nothing(judged: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    out = tmp_path / "labels.jsonl"
    process = subprocess.Popen(
        command(["review", judged, "-o", out]), stdin=theirs, stderr=theirs, env=child_environment(), close_fds=True
    )
    os.close(theirs)
    screen = b""
    for wanted, keys in ((b"1 of 3", b"\x1b[B"), (b"r, w, s, b or q", b"r"), (b"2 of 3", b"w"), (b"3 of 3", b"q")):
        screen = _read_until(ours, wanted, screen)
        os.write(ours, keys)

    assert process.wait() == 0
    os.close(ours)
    assert [row["label"] for row in read_json_lines(out)] == ["right", "wrong"]


def _read_until(terminal: int, wanted: bytes, screen: bytes) -> bytes:
    """What was read once it holds this; each of them is written in answer to the key before, and no sooner."""
    while wanted not in screen:
        screen += os.read(terminal, 4096)
    return screen
