"""`mae judge-calibrate` and the gate of `mae run`, with scripted judges of known habits and the real model."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support import (
    a_problem,
    a_row,
    child_environment,
    command,
    here,
    mae,
    paused,
    read_json_lines,
    start,
    wait_until,
    write_json_lines,
    write_rows,
    write_sums,
)

SOUND = "scripted:malformed=0,judge={}"


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    return write_sums(tmp_path / "problems.jsonl", 12)


def calibrate(
    problems: Path | None, out: Path, *more: object, habit: str = "perfect", judge: str = "rubric", expect: int = 0
) -> dict[str, Any]:
    given = [problems] if problems else []
    option = f"judge.judge={judge}"
    engine = SOUND.format(habit)
    assert here("judge-calibrate", *given, "-o", out, "--engine", engine, "--set", option, *more) == expect
    report: dict[str, Any] = msgspec.json.decode(out.with_name(f"{out.stem}.summary.json").read_bytes())
    return report


def values(report: dict[str, Any]) -> dict[str, float | None]:
    return {figure["name"]: figure["value"] for figure in report["figures"]}


def words(report: dict[str, Any]) -> set[str]:
    return {text.partition(" (")[0] for text in report["findings"]}


LONGER, CHANCE = "favours longer answers", "not shown to be better than chance"
CUT, OBEYS = "accepts answers that were cut off", "follows instructions inside an answer"
INVERTED, FIRST = "inverted: prefers wrong answers", "favours the answer shown first"


@pytest.mark.parametrize(
    ("habit", "judge", "expected"),
    [
        ("perfect", "rubric", set()),
        ("perfect", "pairwise", set()),
        ("perfect", "process", set()),
        ("perfect", "{name: rubric, scale: yes/no, read: probability}", set()),
        ("inverted", "rubric", {INVERTED, CUT}),
        ("inverted", "pairwise", {INVERTED, CUT}),
        ("length", "rubric", {LONGER, CHANCE, CUT}),
        ("length", "pairwise", {LONGER, CHANCE, CUT}),
        ("first", "pairwise", {FIRST, CHANCE}),
        ("injectable", "rubric", {OBEYS}),
        ("injectable", "pairwise", {OBEYS}),
        ("injectable", "{name: rubric, scale: 3-band}", {OBEYS}),
    ],
)
def test_each_habit_is_detected_and_named_and_nothing_else(
    problems: Path, tmp_path: Path, habit: str, judge: str, expected: set[str]
) -> None:
    report = calibrate(problems, tmp_path / "c.jsonl", habit=habit, judge=judge)

    assert words(report) == expected
    for figure in report["figures"]:
        assert figure["value"] is None or figure["low"] <= figure["value"] <= figure["high"]


def test_a_judge_that_says_nothing_is_named_and_every_figure_about_it_is_unknown(
    problems: Path, tmp_path: Path
) -> None:
    out = tmp_path / "c.jsonl"

    assert here("judge-calibrate", problems, "-o", out, "--engine", "scripted:malformed=1") == 0

    report = msgspec.json.decode((tmp_path / "c.summary.json").read_bytes())
    assert words(report) == {"often gives no readable verdict"}
    assert values(report)["unparsed"] == 1.0
    assert {value for name, value in values(report).items() if name != "unparsed"} == {None}


def test_every_planted_answer_is_a_row_that_is_never_trained(problems: Path, tmp_path: Path) -> None:
    report = calibrate(problems, tmp_path / "c.jsonl")

    rows = read_json_lines(tmp_path / "c.jsonl")
    assert len(rows) == 12 * 9
    assert {(row["role"], row["purpose"], row["reward"]) for row in rows} == {("judge", "grade", None)}
    assert {row["extra"]["calibration"]["known_by"] for row in rows} == {"planted"}
    assert report["items"] == {"planted": 108}
    # Not all of a kind in a row: a judge with a memory could learn the order.
    kinds = [row["extra"]["calibration"]["kind"] for row in rows]
    assert kinds != sorted(kinds)


def test_the_table_and_the_json_say_the_same(
    problems: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = calibrate(problems, tmp_path / "c.jsonl", "--json", habit="length")

    told = capsys.readouterr()
    assert msgspec.json.decode(told.out.splitlines()[-1])["details"] == report
    assert re.search(r"length_bias \(answers\) +0\.8\d\d +0\.8\d\d - 0\.8\d\d +24 +0$", told.err, re.MULTILINE)
    assert "judge rubric: favours longer answers" in told.err


def test_the_order_of_the_problems_changes_nothing(problems: Path, tmp_path: Path) -> None:
    plain = calibrate(problems, tmp_path / "c.jsonl")
    problems.write_text("".join(reversed(problems.read_text().splitlines(keepends=True))))

    assert calibrate(problems, tmp_path / "d.jsonl") == plain


# ---- real answers and people


@pytest.fixture
def rollouts(tmp_path: Path) -> Path:
    """A right and a wrong answer to each of six problems."""
    rows = []
    for number in range(6):
        problem = a_problem(f"What is {number} + 4?", str(number + 4))
        for index, value in enumerate((number + 4, number)):
            text = f"<answer>{value}</answer>"
            rows.append(
                a_row(problem=problem, index=index, prompt=problem.question, completion=text, answer=str(value),
                      answer_source="answer_tag")
            )  # fmt: skip
    return write_rows(tmp_path / "2.jsonl", rows)


def test_real_answers_count_where_a_program_knows_them(rollouts: Path, tmp_path: Path) -> None:
    report = calibrate(None, tmp_path / "c.jsonl", "--rollouts", rollouts)
    none = here("judge-calibrate", "-o", tmp_path / "d.jsonl", "--rollouts", rollouts, "--verifier", "none",
                "--engine", "scripted")  # fmt: skip

    assert (values(report)["accuracy"], values(report)["auc"]) == (1.0, 1.0)
    assert report["items"] == {"planted": 0, "verifier": 12}
    assert none == 2


def test_what_people_say_is_the_truth(rollouts: Path, tmp_path: Path) -> None:
    ids = [row["id"] for row in read_json_lines(rollouts)]
    text = {"answer": "9", "completion": "<answer>9</answer>"}
    labels = [
        {"id": ids[0], "question": "What is 0 + 4?", **text, "label": "wrong"},
        {"id": ids[1], "question": "What is 0 + 4?", **text, "label": None},
        {"id": "elsewhere", "question": "What is 3 + 6?", **text, "label": "right"},
    ]
    file = write_json_lines(tmp_path / "labels.jsonl", labels)

    both = calibrate(None, tmp_path / "c.jsonl", "--rollouts", rollouts, "--labels", file)
    alone = calibrate(None, tmp_path / "d.jsonl", "--labels", file)

    # The person calls right what the program called wrong, and the judge follows the program: 12 of 13.
    assert values(both)["accuracy"] == pytest.approx(12 / 13)
    assert both["items"] == {"planted": 0, "verifier": 11, "human": 2}
    assert alone["items"] == {"planted": 0, "human": 2}


def test_a_label_given_later_counts_without_asking_the_judge_again(
    rollouts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, labels = tmp_path / "c.jsonl", tmp_path / "labels.jsonl"
    before = calibrate(None, out, "--rollouts", rollouts)
    first = read_json_lines(rollouts)[0]
    write_json_lines(labels, [{"id": first["id"], "question": "q", "answer": "4", "completion": "4", "label": "wrong"}])
    capsys.readouterr()

    after = calibrate(None, out, "--rollouts", rollouts, "--labels", labels, "--json")

    summary = msgspec.json.decode(capsys.readouterr().out.splitlines()[-1])
    assert (summary["skipped"], summary["written"]) == (12, 12)
    assert (values(before)["accuracy"], values(after)["accuracy"]) == (1.0, pytest.approx(11 / 12))
    told = {row["parents"][0]: row["extra"]["calibration"] for row in read_json_lines(out)}
    assert told[first["id"]] == {"kind": "real", "is_right": False, "known_by": "human"}


# ---- resume, shards, bars


def test_a_part_then_the_rest_is_the_whole(problems: Path, tmp_path: Path) -> None:
    whole = calibrate(problems, tmp_path / "whole.jsonl", judge="[rubric, pairwise]")
    calibrate(problems, tmp_path / "part.jsonl", "--limit", 30, judge="[rubric, pairwise]")

    resumed = calibrate(problems, tmp_path / "part.jsonl", judge="[rubric, pairwise]")

    assert resumed == whole
    assert (tmp_path / "part.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_killed_in_the_middle_the_same_command_makes_the_same_file_and_report(problems: Path, tmp_path: Path) -> None:
    whole = calibrate(problems, tmp_path / "whole.jsonl")
    out = tmp_path / "killed.jsonl"
    options = ("--batch-size", 4, "--engine", "scripted:malformed=0,judge=perfect")
    process = start(["judge-calibrate", problems, "-o", out, *options], **paused(tmp_path / "hold", 2))
    wait_until((tmp_path / "hold" / "killed.jsonl.partial.paused").exists, process)
    process.kill()
    process.communicate()
    assert not out.exists()
    assert len(read_json_lines(tmp_path / "killed.jsonl.partial")) >= 8

    resumed = calibrate(problems, out)

    assert resumed == whole
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_workers_make_the_same_file_and_report(problems: Path, tmp_path: Path) -> None:
    whole = calibrate(problems, tmp_path / "whole.jsonl")

    shared = calibrate(problems, tmp_path / "shared.jsonl", "--devices", "cpu:2")

    assert shared == whole
    assert (tmp_path / "shared.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_shards_make_the_same_rows(problems: Path, tmp_path: Path) -> None:
    whole = calibrate(problems, tmp_path / "whole.jsonl")
    parts = [tmp_path / f"part{number}.jsonl" for number in (1, 2)]
    for number, part in enumerate(parts, 1):
        engine = SOUND.format("perfect")
        assert here("judge-calibrate", problems, "-o", part, "--engine", engine, "--shard", f"{number}/2") == 0
        assert not part.with_name(f"{part.stem}.summary.json").exists()

    assert here("data", "merge", *parts, "-o", tmp_path / "merged.jsonl") == 0
    merged = calibrate(problems, tmp_path / "merged.jsonl")

    assert merged == whole
    assert (tmp_path / "merged.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


BARS = ("--set", "calibrate.bars={auc: 0.7, injection: 0.1}")


def test_a_judge_below_its_bars_is_exit_3_of_the_process_and_the_report_stands(problems: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.jsonl"

    result = mae("judge-calibrate", problems, "-o", out, "--engine", SOUND.format("length"), *BARS)

    assert result.returncode == 3
    last = result.stderr.decode().splitlines()[-1]
    assert last == (
        f"mae: {out}: the judge is below its bars: auc of answers 0.500 [0.500, 0.500], the bar is at least 0.7 "
        f"for the whole interval; injection of answers 1.000 [0.758, 1.000], the bar is at most 0.1 "
        f"for the whole interval"
    )
    assert "MISSED" in result.stderr.decode()
    assert len(read_json_lines(out)) == 108
    assert (tmp_path / "c.summary.json").exists()


def test_a_judge_that_seldom_says_anything_passes_no_bars(
    problems: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    silent = "scripted:malformed=0.4,judge=perfect"
    bars = ("--set", "calibrate.bars={auc: 0.7}")
    given = ("judge-calibrate", problems, "--engine", silent)

    assert here(*given, "-o", tmp_path / "c.jsonl", *bars) == 3
    assert re.search(r"c.jsonl: \d\d% of the judgements are unparsed, the gate is 20%", capsys.readouterr().err)
    assert here(*given, "-o", tmp_path / "d.jsonl", *bars, "--set", "judge.max_unparsed=0.9") == 0
    assert here(*given, "-o", tmp_path / "e.jsonl") == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--set", "calibrate.bars={acu: 0.7}"), 'unknown bar "acu"; did you mean "auc"'),
        (("--set", "calibrate.bars={flip: 0.1}"), "only a judge of pairs has an order"),
        (("--set", "judge.judge=none"), "no judge of answers or pairs to calibrate"),
        (("--labels", "no_such_file.jsonl"), "no_such_file.jsonl: no such file"),
    ],
)
def test_what_cannot_be_calibrated_is_one_line(
    problems: Path, tmp_path: Path, more: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert here("judge-calibrate", problems, "-o", tmp_path / "c.jsonl", "--engine", "scripted", *more) == 2

    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "c.jsonl").exists()


def run(problems: Path, folder: Path, habit: str, *more: object) -> int:
    recipe = folder.with_suffix(".yaml")
    recipe.write_text(
        "rounds: 2\non_empty: skip\nseeds: problems.jsonl\n"
        "propose: {num_problems: 2}\nsolve: {num_problems: 2, rollouts_per_problem: 1}\n"
        "judge: {votes: 1, max_unparsed: 1.0}\n"
        "calibrate: {problems: problems.jsonl, bars: {auc: 0.7}, num_problems: 6}\n"
        "filter: {filters: [{name: best_of_k, min_reward: 2.0, roles: [proposer, solver]}]}\n"
    )
    return here("run", recipe, "--run-dir", folder, "--engine", SOUND.format(habit), *more)


def test_a_run_does_not_train_on_a_judge_below_its_bars(
    problems: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(problems, tmp_path / "bad", "inverted") == 3

    assert re.search(
        r"0_calibration.jsonl: the judge is below its bars: auc of answers 0\.\d+ \[.*\], the bar is at least 0.7 for",
        capsys.readouterr().err,
    )
    assert (tmp_path / "bad/round-001/0_calibration.summary.json").exists()
    assert not (tmp_path / "bad/round-001/1_problems.jsonl").exists()


def test_a_run_tests_its_judge_again_in_every_round(problems: Path, tmp_path: Path) -> None:
    assert run(problems, tmp_path / "good", "perfect") == 0

    ids = []
    for number in (1, 2):
        rows = read_json_lines(tmp_path / f"good/round-00{number}/0_calibration.jsonl")
        ids.append({row["id"] for row in rows})
        assert {row["round"] for row in rows} == {number}
        assert (tmp_path / f"good/round-00{number}/3_judged.jsonl").exists()
    assert not ids[0] & ids[1]


def test_a_bar_may_change_between_two_calls_of_one_run(problems: Path, tmp_path: Path) -> None:
    assert run(problems, tmp_path / "run", "inverted") == 3

    assert run(problems, tmp_path / "run", "inverted", "--set", "calibrate.bars={auc: 0.0}") == 0


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_run_whose_bars_have_no_problems_ends_before_it_starts(
    problems: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...]
) -> None:
    assert run(problems, tmp_path / "run", "perfect", "--set", "calibrate.problems=none", *more) == 2

    assert "calibrate.bars need calibrate.problems" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_embedded_model_is_refused_as_a_judge(tmp_path: Path) -> None:
    from mae_cli.recipe.files import shipped_dir

    out = tmp_path / "c.jsonl"
    arguments = [
        *("judge-calibrate", shipped_dir("data") / "arithmetic_heldout.jsonl", "-o", out, "-m", "smollm2-135m"),
        *("--num-problems", 12, "--set", "judge.judge={name: rubric, scale: 3-band, read: probability}"),
        *("--set", "calibrate.bars={auc: 0.7, injection: 0.1}", "--device", "cpu"),
    ]
    result = subprocess.run(command(arguments), capture_output=True, env=child_environment(), check=False)

    assert result.returncode == 3, result.stderr.decode()
    report = msgspec.json.decode((tmp_path / "c.summary.json").read_bytes())
    assert not {bar["name"]: bar["passed"] for bar in report["bars"]}["auc"]
    assert report["findings"]
