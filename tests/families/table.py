"""`make families`: every family through every stage, written to tests/FAMILIES.md.

    python -m tests.families.table [FAMILY ...]

Each family runs in a process of its own, so that a crash is a cell. With names, the cells are printed and the file is
left as it is.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["TQDM_DISABLE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
TABLE = Path(__file__).parent.parent / "FAMILIES.md"
SECONDS = 240
"""After which a family's process is ended."""
SHORT = 46
"""Characters of a cell in the table; the whole line stands below it."""


def one_family(family: str, results: Path) -> None:
    """Write a family's cells, one a line, as they become known."""
    import torch

    from tests.families.stages import cells

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, results.open("w") as file:
        os.environ["MAE_CACHE"] = f"{folder}/cache"
        for stage, cell in cells(family, Path(folder)):
            file.write(f"{stage}\t{cell}\n")
            file.flush()


def run_all(families: list[str], processes: int) -> dict[str, dict[str, str]]:
    """The cells of all families, so many at a time; libraries are loaded once and the processes forked."""
    import peft  # noqa: F401
    import transformers  # noqa: F401

    import tests.families.stages  # noqa: F401

    found: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        running: dict[int, tuple[str, float]] = {}
        waiting = list(families)
        while waiting or running:
            while waiting and len(running) < processes:
                family = waiting.pop(0)
                child = os.fork()
                if child == 0:
                    one_family(family, Path(folder) / family.replace("/", "-"))
                    os._exit(0)
                running[child] = (family, time.monotonic())
            child, status = os.waitpid(-1, os.WNOHANG)
            for process, (_, begin) in running.items():
                if time.monotonic() - begin > SECONDS:
                    os.kill(process, 9)
            if child == 0:
                time.sleep(0.05)
                continue
            family, begin = running.pop(child)
            path = Path(folder) / family.replace("/", "-")
            lines = path.read_text().splitlines() if path.is_file() else []
            found[family] = dict(line.split("\t", 1) for line in lines)
            if status:
                found[family].setdefault("load", "ok")
                found[family]["crash"] = f"WRONG: the process ended on {status} behind its last cell"
            print(f"{family} {time.monotonic() - begin:.0f} s {found[family]}", file=sys.stderr, flush=True)
    return found


def markdown(found: dict[str, dict[str, str]], seconds: float) -> str:
    """The table with the whole lines of shortened cells below it."""
    from importlib.metadata import version

    from tests.families.stages import STAGES

    whole = [name for name, cells in found.items() if set(cells) == set(STAGES) and not _odd(cells)]
    wrong = [name for name, cells in found.items() if any(cell.startswith("WRONG") for cell in cells.values())]
    refused = [name for name, cells in found.items() if cells.get("load", "").startswith(("refused", "not built"))]
    notes: list[str] = []
    rows = []
    for name, cells in sorted(found.items()):
        shown = [_short(cells.get(stage, ""), notes) for stage in STAGES]
        extra = cells.get("crash")
        rows.append(f"| {name} | " + " | ".join(shown) + " |" + (f" {extra}" if extra else ""))
    heads = "| family | " + " | ".join(STAGES) + " |"
    return "\n".join(
        [
            "# Families of models",
            "",
            "Written by `make families`: tiny random models of each family that the library builds from a config, the",
            "`hf` engine, training and export against the plain library model (one row, no cache). A cell is `ok`, how",
            "the family is decoded instead, the line it is refused with, or WRONG. What each column does stands in",
            "`tests/families/stages.py`.",
            "",
            f"transformers {version('transformers')}, torch {version('torch')}, peft {version('peft')}; "
            f"{len(found)} families in {seconds / 60:.0f} min: {len(whole)} whole, {len(refused)} refused at load, "
            f"{len(wrong)} with a wrong cell{': ' + ', '.join(sorted(wrong)) if wrong else ''}.",
            "",
            heads,
            "|" + "---|" * (len(STAGES) + 1),
            *rows,
            "",
            *notes,
            "",
        ]
    )


def _odd(cells: dict[str, str]) -> bool:
    return any(cell.startswith(("WRONG", "refused", "not built")) for cell in cells.values())


def _short(cell: str, notes: list[str]) -> str:
    cell = cell.replace("|", "/").replace("<", "&lt;")
    if len(cell) <= SHORT:
        return cell
    line = f"- {cell}"
    known = next((number for number, note in enumerate(notes, 1) if note.endswith(line[1:])), None)
    if known is None:
        notes.append(f"{len(notes) + 1}. {cell}")
        known = len(notes)
    return f"{cell.partition(':')[0]} ({known})"


def main() -> None:
    """Run the named families, or all and write the table."""
    from tests.families.build import FAMILIES

    names = sys.argv[1:]
    begin = time.monotonic()
    found = run_all(names or list(FAMILIES), min(2, os.cpu_count() or 1))
    if not names:
        TABLE.write_text(markdown(found, time.monotonic() - begin))
    sys.exit(any(cell.startswith("WRONG") for cells in found.values() for cell in cells.values()))


if __name__ == "__main__":
    main()
