"""Speed as a ratio, both sides in one run: `make bench`, or `make bench WORKLOAD=judge`.

Generation (judge, solve, mixed, choice): the `hf` engine against plain transformers, BENCH_ROWS (32) rows at a time,
each side in a process of its own with its peak memory, start-up left out. The sides take turns `--repeats` times and
the middle ratio counts, since the machine is shared. Every other workload is a module beside this file whose `run()`
returns rows of the table. Prints the table and writes it to RESULTS.md, on a machine with a GPU to RESULTS-GPU.md; ends
with 1 where a row says that it `failed` its bar (help, limits: what no test asserts, since a test machine is busy).
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from tests.bench.workloads import BATCH, ROOT, questions

HAS_GPU = torch.cuda.is_available()
RESULTS = Path(__file__).with_name("RESULTS-GPU.md" if HAS_GPU else "RESULTS.md")
WHAT = {
    "judge": ("tokens/s", "128 prompts, shared rubric, 24 new tokens", 4.0),
    "solve": ("tokens/s", "32 problems x 8 samples, 48 new tokens", 2.0),
    "mixed": ("tokens/s", "96 prompts of 30-600 tokens, 4-64 new tokens", 2.5),
    "choice": ("options/s", "100 items x 4 options", 3.0),
}
OTHER_ENGINES = {"paged": "hf:paged", "vllm": "vllm"}
MODULES = ("help", "limits", "openai_client", "verdicts", "training")


def side(workload: str, name: str) -> dict[str, float]:
    """What one side took, in its own process; BENCH_PYTHON_<SIDE> names the interpreter that has its packages."""
    done = subprocess.run(
        [
            os.environ.get(f"BENCH_PYTHON_{name.upper()}", sys.executable),
            "-m",
            "tests.bench.generation",
            workload,
            name,
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"{workload} {name}: {done.stderr.strip().splitlines()[-1]}")
    result: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    result["speed"] = result["count"] / result["seconds"]
    return result


def generation(workload: str, repeats: int, others: list[str], ours: str) -> list[dict[str, Any]]:
    """Table rows of one generation workload: our engine against each other side, in turns."""
    unit, what, bar = WHAT[workload]
    if ours != "mae":
        what = f"{OTHER_ENGINES[ours]}: {what}"
    if BATCH != 32:
        what = f"{what}, {BATCH} rows at a time"
    rows = []
    for other in ("plain", *others):
        pairs = []
        for turn in range(repeats):
            order = (other, ours) if turn % 2 == 0 else (ours, other)
            made = {name: side(workload, name) for name in order}
            pairs.append((made[ours]["speed"] / made[other]["speed"], made))
            print(f"{workload} against {other}: ratio {pairs[-1][0]:.2f} {made}", flush=True)
        ratio, made = sorted(pairs, key=lambda pair: pair[0])[len(pairs) // 2]
        rows.append(
            {
                "workload": workload,
                "what": what,
                "other": "transformers generate" if other == "plain" else other,
                "theirs": f"{made[other]['speed']:.1f} {unit}",
                "ours": f"{made[ours]['speed']:.1f} {unit}",
                "ratio": ratio,
                "bar": f">= {bar}" if other == "plain" and not HAS_GPU else "",
                # vLLM's memory is another process's.
                "memory": "" if ours == "vllm" else f"{made[ours]['peak_mib'] / made[other]['peak_mib']:.2f}",
                "note": f"{repeats} turns: " + ", ".join(f"{pair[0]:.2f}" for pair in pairs),
            }
        )
    return rows


COLUMNS = ("workload", "what", "other", "theirs", "ours", "ratio", "bar", "memory", "note")
HEADER = ("workload", "what", "against", "theirs", "ours", "ratio", "bar", "peak memory, ours / theirs", "note")


def write(rows: list[dict[str, Any]]) -> None:
    """Replace these workloads' rows in RESULTS.md and keep the others."""
    kept: dict[tuple[str, str, str], str] = {}
    if RESULTS.exists():
        for line in RESULTS.read_text().splitlines():
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if line.startswith("|") and len(cells) == len(COLUMNS) and cells[0] not in ("workload", "---"):
                kept[(cells[0], cells[1], cells[2])] = line
    for row in rows:
        shown = {**row, "ratio": f"{row['ratio']:.2f}" if isinstance(row.get("ratio"), float) else row.get("ratio", "")}
        cells = [re.sub(r"\s*\n\s*", " ", str(shown.get(column, ""))) for column in COLUMNS]
        kept[(cells[0], cells[1], cells[2])] = "| " + " | ".join(cells) + " |"
    machine = f"{os.cpu_count()} CPU cores ({platform.machine()}), torch {torch.__version__}"
    dtype = "float32"
    if HAS_GPU:
        dtype = "bfloat16"
        machine = f"{torch.cuda.get_device_name()}, {machine}"
    head = [
        "# Measured speed",
        "",
        "Written by `make bench`; do not edit. Ratios are ours / theirs, both sides in one run; above 1 is faster.",
        f"Machine of the last run: {machine}. Generation: smollm2-135m, {dtype}, 32 rows at a time unless named.",
        f"Questions of the last run: {questions()[1]}.",
        "",
        "| " + " | ".join(HEADER) + " |",
        "|" + " --- |" * len(HEADER),
    ]
    RESULTS.write_text("\n".join([*head, *kept.values()]) + "\n")


def main() -> None:
    """Run the asked workloads and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [*WHAT, *(name for name in MODULES if Path(__file__).with_name(f"{name}.py").exists())]
    parser.add_argument("workloads", nargs="*", default=known, help=", ".join(known))
    parser.add_argument("--repeats", type=int, default=1, help="turns of each pair; the middle ratio counts")
    parser.add_argument("--against", action="append", default=[], help="also measure this side, e.g. distilabel")
    parser.add_argument("--ours", choices=("mae", *OTHER_ENGINES), default="mae", help="our engine: hf, or another")
    arguments = parser.parse_args()
    failed = []
    for workload in arguments.workloads:
        if workload == "choice" and arguments.ours != "mae":
            parser.error("choice measures hf only")
        if workload in WHAT:
            rows = generation(workload, arguments.repeats, arguments.against, arguments.ours)
        elif workload in known:
            made = importlib.import_module(f"tests.bench.{workload}").run()
            rows = made if isinstance(made, list) else [{"workload": workload, **made}]
        else:
            parser.error(f"unknown workload {workload}; known: {', '.join(known)}")
        write(rows)
        for row in rows:
            print(f"{row['workload']}: {row.get('theirs')} -> {row.get('ours')}, ratio {row.get('ratio')}")
        failed += [row for row in rows if row.get("failed")]
    if failed:
        raise SystemExit("\n".join(f"{row['workload']}: {row['note']}; the bar is {row['bar']}" for row in failed))


if __name__ == "__main__":
    main()
