"""Files of a run folder as a list of steps: which are finished, which is begun, what the next start begins with.

Place in the flow: `mae status` and the outcome of `mae run` read a folder with it. Contract: it reads small files and
sizes only (recipe, markers, the last bytes of a growing file), takes no lock and changes nothing, so it may look at a
run under way, at one that was killed, and at a copy from another machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from mae_cli.errors import MaeError
from mae_cli.recipe.sections import Recipe
from mae_cli.recipe.steps import Step, recipe_of_step, steps_of, steps_of_round
from mae_cli.records.file_names import beside
from mae_cli.runs.layout import BENCHMARKS, LINKS, MANIFEST, Round, round_label

Condition = Literal["done", "begun", "waiting"]
COUNTED = 4 << 20
"""Bytes up to which the lines of a growing file are counted; of a larger one they are estimated from its beginning."""


class StepFile(msgspec.Struct, kw_only=True):
    """One step of one round."""

    round: str
    step: str
    stage: str
    stem: str
    """Name of its file without the ending."""
    state: Condition
    rows: int | None = None
    """Finished so far; null where the step writes no rows or they are not known."""


class RunFiles(msgspec.Struct, kw_only=True):
    """The steps of a run by their files."""

    rounds_done: int
    rounds_wanted: int
    steps: list[StepFile]
    """Of all rounds that are begun and of the next one, in order."""
    next: StepFile | None
    """The first step that is not finished; null where all rounds are done, or only a decision is left."""
    links: dict[str, str]

    @property
    def is_finished(self) -> bool:
        """Whether all rounds are done."""
        return self.rounds_done >= self.rounds_wanted

    @property
    def next_text(self) -> str | None:
        """Round and step that the next start begins with."""
        if self.next is not None:
            return f"{self.next.round} {self.next.step}"
        return None if self.is_finished else f"{round_label(self.rounds_done + 1)} promotion"


def read_run(run_dir: Path, recipe: Recipe | None = None) -> RunFiles:
    """Return the steps of a run; without a recipe those of its manifest's."""
    recipe = recipe or recipe_in(run_dir)
    links = {name: os.readlink(run_dir / name) for name in LINKS if (run_dir / name).is_symlink()}
    if recipe is None:
        done = len(list(run_dir.glob("round-*/promotion.json")))
        return RunFiles(rounds_done=done, rounds_wanted=done, steps=[], next=None, links=links)
    found: list[StepFile] = []
    done = 0
    for number in range(recipe.rounds + 1):
        current = Round(run_dir / round_label(number), number, steps_of(recipe))
        is_decided = current.promotion.exists()
        done += is_decided and number > 0
        is_begun = current.folder.is_dir()
        found += list(_steps_of(run_dir, recipe, current, is_decided=is_decided))
        if number and not is_begun and not is_decided:
            break  # the rounds behind it look the same
    waiting = next((step for step in found if step.state != "done"), None)
    return RunFiles(rounds_done=done, rounds_wanted=recipe.rounds, steps=found, next=waiting, links=links)


def recipe_in(run_dir: Path) -> Recipe | None:
    """Return the recipe that a run was made with; null where there is none that this version understands."""
    tree = json_in(run_dir / MANIFEST).get("recipe")
    try:
        return msgspec.convert(tree, Recipe) if tree else None
    except msgspec.ValidationError:
        return None


def json_in(path: Path) -> dict[str, Any]:
    """Return a small JSON file; empty where there is none or it is not whole."""
    try:
        found = msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def _steps_of(run_dir: Path, recipe: Recipe, current: Round, *, is_decided: bool) -> Iterator[StepFile]:
    for step in _due(recipe, current):
        outputs = _outputs_of(run_dir, recipe, current, step)
        states = [_state_of(path) for path in outputs]
        done = all(state == "done" for state in states) or is_decided
        begun = any(state != "waiting" for state in states)
        yield StepFile(
            round=current.label,
            step=step.name,
            stage=step.stage,
            stem=current.stem(step),
            state="done" if done else "begun" if begun else "waiting",
            rows=_rows_of(outputs, step),
        )


def _due(recipe: Recipe, current: Round) -> list[Step]:
    """The steps that run in a round; of the base its evaluations."""
    if current.number == 0:
        return current.of_stage("eval")
    try:
        return [one.step for one in steps_of_round(recipe, current.steps, current.number)]
    except MaeError:
        return list(current.steps)


def _outputs_of(run_dir: Path, recipe: Recipe, current: Round, step: Step) -> list[Path]:
    """The files that a step writes; none where it has nothing to evaluate."""
    if step.stage != "eval":
        return [current.output(step)]
    section = recipe_of_step(recipe, step).eval
    last = current.of_stage("eval")[-1]
    gates = run_dir / BENCHMARKS / "gate"
    has_gate = step is last and section.gate is not None and (not gates.is_dir() or any(gates.iterdir()))
    found = [current.output(step), *([current.gate(step)] if has_gate else [])]
    return found if section.benchmarks else []


def _state_of(path: Path) -> Condition:
    if path.exists() and json_in(beside(path, ".meta.json")).get("complete"):
        return "done"
    is_begun = path.exists() or beside(path, ".partial").exists() or beside(path, ".meta.json").exists()
    return "begun" if is_begun else "waiting"


def _rows_of(paths: list[Path], step: Step) -> int | None:
    if step.stage == "finetune":
        return None
    counts = [_finished_rows(path) for path in paths]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _finished_rows(path: Path) -> int | None:
    meta = json_in(beside(path, ".meta.json"))
    if meta.get("complete"):
        rows = meta.get("rows")
        return int(rows) if rows is not None else None
    folder = beside(path, ".shards")
    partials = [beside(path, ".partial"), *(sorted(folder.glob("*.partial")) if folder.is_dir() else [])]
    counts = [count for one in partials if (count := lines_in(one)) is not None]
    return sum(counts) if counts else None


def lines_in(path: Path) -> int | None:
    """Return the whole lines of a growing file, of a large one about; null where there is none."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(COUNTED)
    except OSError:
        return None
    lines = start.count(b"\n")
    return lines if size <= len(start) or not lines else round(lines * size / len(start))
