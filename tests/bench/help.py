"""What `mae X --help` costs: CPU time of the process against `python -c 'import typer'`, for every command.

For each command the two sides take turns TURNS times, and the smallest user + system time of each side counts, so
another job on the machine hardly shows. Every command's ratio must be at most LIMIT: where one is above, this file (on
its own, `python -m tests.bench.help`, or as `make bench WORKLOAD=help`) ends with 1.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from tests.cli.test_commands import COMMANDS, SUBCOMMANDS
from tests.support import child_environment, command

TURNS, LIMIT = 7, 2.6
BARE = [sys.executable, "-c", "import typer"]


def cpu_seconds(line: Sequence[str]) -> float:
    """User and system time of one process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(line, capture_output=True, check=True, env=child_environment())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def measure(name: Sequence[str]) -> tuple[float, float]:
    """Seconds of the bare import, and of the help of a command."""
    line = command([*name, "--help"])
    turns = [(cpu_seconds(BARE), cpu_seconds(line)) for _ in range(TURNS)]
    return min(bare for bare, _ in turns), min(ours for _, ours in turns)


def run() -> list[dict[str, Any]]:
    """The row of the table: the command whose help costs most beside the bare import."""
    found = []
    for name in (*COMMANDS, *SUBCOMMANDS):
        bare, ours = measure(name)
        found.append((ours / bare, " ".join(("mae", *name)), bare, ours))
        print(
            f"{found[-1][1] + ' --help':28} {ours * 1000:4.0f} ms, bare {bare * 1000:3.0f} ms: {ours / bare:.2f} times"
        )
    times, slowest, bare, ours = max(found)
    row = {
        "workload": "help",
        "what": f"CPU time of --help, the slowest of {len(found)} commands",
        "other": "python -c 'import typer'",
        "theirs": f"{bare * 1000:.0f} ms",
        "ours": f"{ours * 1000:.0f} ms",
        "ratio": bare / ours,
        "bar": f">= {1 / LIMIT:.2f}",
        "note": f"{slowest}: {times:.2f} times the CPU time, at most {LIMIT:g}; the smallest of {TURNS} turns",
        "failed": times > LIMIT,
    }
    return [row]


def main() -> None:
    """Run and print; the exit code says whether the bar holds."""
    (row,) = run()
    print(row["note"])
    sys.exit(int(row["failed"]))


if __name__ == "__main__":
    main()
