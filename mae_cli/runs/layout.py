"""Layout of a run folder: the names of its files, said once, and how a reader finds them.

    runs/NAME/  recipe.resolved.yaml  manifest.json  events.jsonl  summary.json  report.html
      latest -> round-002   accepted -> round-002   best -> round-001
      round-000/            the base, evaluated once
      round-001/            0_questions.jsonl 0_pairs.jsonl, a file or folder per step, promotion.json, roles.json

A step's file is called POSITION_NAME: for a step named like its stage the names of the default round (`1_problems`,
`2_rollouts`, `3_judged`, `4_selected`, `5_adapter`, `6_eval`), else the step's own. Contract: who writes knows the
recipe and uses `Round`; who reads a finished folder goes by the meta files, which say the stage, and needs no recipe.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from mae_cli.errors import ConfigError
from mae_cli.recipe.steps import Stage, Step
from mae_cli.records.read import read_json

MANIFEST = "manifest.json"
RESOLVED_RECIPE = "recipe.resolved.yaml"
EVENTS = "events.jsonl"
SUMMARY = "summary.json"
STATE = "run.state.json"
"""Where the run is now, and how its last start ended; with times, like the events."""
OWNER = "run.owner.json"
"""The process that works on it; taken away when it ends."""
PAGE = "report.html"
ROLES = "roles.json"
PROMOTION = "promotion.json"
BENCHMARKS = "benchmarks"
LATEST, ACCEPTED, BEST, VERIFIED = "latest", "accepted", "best", "verified"
LINKS = (LATEST, ACCEPTED, BEST, VERIFIED)
NOUNS: dict[Stage, str] = {
    "propose": "problems",
    "solve": "rollouts",
    "judge": "judged",
    "filter": "selected",
    "finetune": "adapter",
    "eval": "eval",
}
"""What a step's file is called where the step is named like its stage."""
_NUMBERED = re.compile(r"(\d+)_\w+")


def round_label(number: int) -> str:
    """Return the name of a round's folder."""
    return f"round-{number:03d}"


class Round:
    """The files of one round, by the steps that write them."""

    def __init__(self, folder: Path, number: int, steps: Sequence[Step]) -> None:
        self.number, self.folder, self.label, self.steps = number, folder, folder.name, steps
        self.calibration = folder / "0_calibration.jsonl"
        self.questions = folder / "0_questions.jsonl"
        self.pairs = folder / "0_pairs.jsonl"
        self.self_seeds = folder / "0_seeds.jsonl"
        self.promotion = folder / PROMOTION
        self.roles = folder / ROLES

    @property
    def name(self) -> str:
        """Name of its policy in tables."""
        return "base" if self.number == 0 else self.label

    def stem(self, step: Step) -> str:
        """Return a step's file name without its ending."""
        return f"{step.position}_{step.name if step.is_named else NOUNS[step.stage]}"

    def output(self, step: Step) -> Path:
        """Return the file a step writes; of finetune the folder."""
        return self.folder / f"{self.stem(step)}{'' if step.stage == 'finetune' else '.jsonl'}"

    def dropped(self, step: Step) -> Path:
        """Return the file of the rows that a filter step drops."""
        return self._beside(step, "dropped")

    def gate(self, step: Step) -> Path:
        """Return the file of the gate set's rows of an eval step."""
        return self._beside(step, "gate")

    def _beside(self, step: Step, what: str) -> Path:
        stem = f"{self.stem(step)}_{what}" if step.is_named else f"{step.position}_{what}"
        return self.folder / f"{stem}.jsonl"

    def of_stage(self, stage: Stage) -> list[Step]:
        """Return the steps of one stage, in order."""
        return [step for step in self.steps if step.stage == stage]

    @property
    def adapters(self) -> list[Path]:
        """The folders of the adapters that this round has trained so far, in order."""
        return [path for step in self.of_stage("finetune") if (path := self.output(step)).exists()]


# ---- reading a folder without its recipe


def rounds_of(run_dir: Path) -> list[Path]:
    """Return the round folders of a run, in order.

    Raises:
        ConfigError: no run there.
    """
    folders = sorted(run_dir.glob("round-*"))
    if not folders:
        raise ConfigError(f"{run_dir}: no run there (no round-NNN folder); give --run-dir")
    return folders


def outputs_of(round_dir: Path, stage: str) -> list[Path]:
    """Return the outputs of one stage in a round's folder, in the order of the steps, by what their meta files say."""
    found = []
    for meta in round_dir.glob("*.meta.json"):
        path = meta.with_name(meta.name.removesuffix(".meta.json"))
        if path.exists() and position_of(path) is not None and read_json(meta).get("stage") == stage:
            found.append(path)
    return sorted(found, key=lambda path: (position_of(path) or 0, path.name))


def adapters_in(round_dir: Path) -> list[Path]:
    """Return the adapters (or models) that a round trained, in order; also one whose weights were retired."""
    found = [path for path in round_dir.iterdir() if path.is_dir() and _NUMBERED.fullmatch(path.name)]
    return sorted(found, key=lambda path: position_of(path) or 0)


def evaluations_in(round_dir: Path) -> list[Path]:
    """Return the files of a round's reported items, without those of its gate."""
    return [path for path in outputs_of(round_dir, "eval") if not re.search(r"_gate\.jsonl(\.gz)?$", path.name)]


def row_files_in(round_dir: Path) -> list[Path]:
    """Return all files with rows in a round's folder, those that know most about a row first, evaluations last."""
    evaluated = set(outputs_of(round_dir, "eval"))
    found = [
        path
        for path in round_dir.glob("*.jsonl")
        if (position_of(path) or 0) > 0 and not path.name.endswith(".dropped.jsonl") and path not in evaluated
    ]
    # A filter's dropped rows stand beside the kept ones: neither holds a row of the other.
    found.sort(key=lambda path: (-(position_of(path) or 0), "dropped" in path.name, path.name))
    return [*found, *sorted(evaluated, key=lambda path: (position_of(path) or 0, path.name))]


def position_of(path: Path) -> int | None:
    """Return the position in front of a step's file name; null where there is none."""
    match = _NUMBERED.match(path.name)
    return int(match[1]) if match else None
