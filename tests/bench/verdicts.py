"""What checking costs: `math` against math-verify without protection, `mae judge` against reading and writing the file.

Both sides of each ratio run in this process, one after the other, on the same rows, several times in turn; the smaller
time of each counts. `math`: 1,000 distinct pairs, each a gold answer in one of its other spellings or a near miss;
importing is left out on both sides. `judge`: 20,000 rollouts of sums read, checked by `numeric`, rewarded, written;
the other side decodes and encodes the same lines with the json module alone, both in this process and as commands.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from mae_cli.answers.extract import extract_answer
from mae_cli.plugins.verifiers.math import Math
from mae_cli.recipe.load import load_recipe
from mae_cli.stages.generation.job import open_job
from mae_cli.stages.generation.progress import Progress
from mae_cli.stages.judge import run_judge
from tests.plugins.verifiers.math_forms import different, same
from tests.plugins.verifiers.test_math import GOLDS
from tests.support import a_problem, a_row, command, write_rows

PAIRS, ROWS, TURNS = 1000, 20_000, 3


def best_of(turns: int, *sides: Callable[[], object]) -> list[float]:
    """Smallest seconds of each side over some turns, the sides one after the other in each turn."""
    seconds: list[list[float]] = [[] for _ in sides]
    for _ in range(turns):
        for times, side in zip(seconds, sides, strict=True):
            start = time.perf_counter()
            side()
            times.append(time.perf_counter() - start)
    return [min(times) for times in seconds]


def math_pairs() -> list[tuple[str, str]]:
    """Distinct (reference, answer) pairs, right and wrong, of every kind of gold; numbers are varied to get enough."""
    rng = random.Random(0)
    golds = [*GOLDS, *(str(rng.randrange(10_000)) for _ in range(20)),
             *(f"\\frac{{{rng.randrange(1, 50)}}}{{{rng.randrange(2, 50)}}}" for _ in range(20)),
             *(f"{rng.randrange(2, 30)}\\sqrt{{{rng.choice([2, 3, 5, 7])}}}" for _ in range(20)),
             *(f"({rng.randrange(9)}, -{rng.randrange(1, 9)})" for _ in range(20))]  # fmt: skip
    right = {(gold, extract_answer(text).answer or "") for gold in golds for _, text in same(gold)}
    wrong = {(gold, answer) for gold in golds for _, answer in different(gold, rng)}
    half = PAIRS // 2
    pairs = rng.sample(sorted(right), min(half, len(right)))
    return pairs + rng.sample(sorted(wrong - right), PAIRS - len(pairs))


def math_sides() -> list[float]:
    """Seconds of in-process math-verify, which parses each reference once too, and of `math`."""
    import logging

    logging.disable(logging.CRITICAL)
    from math_verify import parse, verify

    pairs = math_pairs()
    assert len(set(pairs)) == PAIRS
    verifier = Math()

    def plain() -> None:
        parsed = {gold: parse(f"${gold}$", parsing_timeout=None) for gold in {gold for gold, _ in pairs}}
        for gold, answer in pairs:
            verify(parsed[gold], parse(f"${answer}$", parsing_timeout=None), timeout_seconds=None)

    def ours() -> None:
        verifier.compare(pairs)

    verifier.compare(pairs[:5])
    seconds = best_of(TURNS, plain, ours)
    logging.disable(logging.NOTSET)
    return seconds


def judge_sides(folder: Path) -> list[float]:
    """Seconds of the json module and of the stage in this process, and of both as commands."""
    rng = random.Random(0)
    rows = []
    for index in range(ROWS):
        a, b = rng.randrange(1000), rng.randrange(1000)
        answer = str(a + b + (index % 3 == 0))
        text = f"Adding {a} and {b} step by step gives {answer}. <answer>{answer}</answer>"
        problem = a_problem(f"What is {a} + {b}? (item {index})", str(a + b))
        tokens = list(range(40))
        rows.append(a_row(problem=problem, index=index, completion=text, raw=text, answer=answer,
                          answer_source="answer_tag", prompt_token_ids=tokens,
                          completion_token_ids=tokens))  # fmt: skip
    source = write_rows(folder / "rollouts.jsonl", rows)
    number = iter(range(1000))
    overrides = ["judge.verifier=numeric", "judge.judge=null", "judge.solver_reward=checked_solver"]

    def plain() -> None:
        with source.open() as lines, (folder / f"plain-{next(number)}.jsonl").open("w") as out:
            for line in lines:
                out.write(json.dumps(json.loads(line)) + "\n")

    def ours() -> None:
        session = open_job(load_recipe(None, overrides), progress=Progress(quiet=True))
        run_judge(session, source, folder / f"judged-{next(number)}.jsonl")

    code = "import json, sys\nout = open(sys.argv[2], 'w')\nfor line in open(sys.argv[1]):\n"
    code += "    out.write(json.dumps(json.loads(line)) + '\\n')\n"
    flags = ["--verifier", "numeric", "--judge", "none", "--solver-reward", "checked_solver", "--quiet"]

    def plain_command() -> None:
        target = folder / f"plain-{next(number)}.jsonl"
        subprocess.run([sys.executable, "-c", code, source, target], check=True)

    def ours_command() -> None:
        target = folder / f"judged-{next(number)}.jsonl"
        subprocess.run(command(["judge", source, "-o", target, *flags]), check=True, capture_output=True)

    return best_of(TURNS, plain, ours, plain_command, ours_command)


def run() -> list[dict[str, Any]]:
    """Rows of the table: speeds, so that above 1 is faster; the bars are 1.5 and 4 times the other side's time."""
    with tempfile.TemporaryDirectory() as folder:
        library, own = math_sides()
        json_side, stage, json_command, stage_command = judge_sides(Path(folder))
    return [
        _row("verdicts: math", "1,000 distinct pairs", "math-verify in process", "pairs/s", PAIRS, library, own, 1.5),
        _row("verdicts: judge", f"{ROWS} rows, numeric", "json module", "rows/s", ROWS, json_side, stage, 4.0),
        _row("verdicts: mae judge", f"{ROWS} rows, numeric, start-up included", "python with json", "rows/s", ROWS,
             json_command, stage_command, 4.0),
    ]  # fmt: skip


def _row(
    workload: str, what: str, other: str, unit: str, count: int, theirs: float, ours: float, bar: float
) -> dict[str, Any]:
    return {
        "workload": workload,
        "what": what,
        "other": other,
        "theirs": f"{count / theirs:.0f} {unit}",
        "ours": f"{count / ours:.0f} {unit}",
        "ratio": theirs / ours,
        "bar": f">= {1 / bar:.2f}",
        "note": f"{ours:.2f} s against {theirs:.2f} s: {ours / theirs:.2f} times the time, at most {bar:g}",
    }


def main() -> None:
    """Run and print."""
    for row in run():
        print(f"{row['workload']}: {row['note']}")


if __name__ == "__main__":
    main()
