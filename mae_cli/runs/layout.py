"""The files of one round, and the pools it starts from.

Place in the flow: `mae run` and `mae data pools` lay out a round with these; the names are the contract of README
"Files". Contract: a pool is written once per round and is a function of the seeds and of what the round before stored.
"""

from __future__ import annotations

from pathlib import Path


class Round:
    """The files of one round; names are the contract of README "A run"."""

    def __init__(self, folder: Path, number: int) -> None:
        self.number, self.folder, self.label = number, folder, folder.name
        self.calibration = self.folder / "0_calibration.jsonl"
        self.questions = self.folder / "0_questions.jsonl"
        self.pairs = self.folder / "0_pairs.jsonl"
        self.problems = self.folder / "1_problems.jsonl"
        self.rollouts = self.folder / "2_rollouts.jsonl"
        self.judged = self.folder / "3_judged.jsonl"
        self.selected = self.folder / "4_selected.jsonl"
        self.dropped = self.folder / "4_dropped.jsonl"
        self.adapter = self.folder / "5_adapter"
        self.eval = self.folder / "6_eval.jsonl"
        self.gate = self.folder / "6_gate.jsonl"
        self.promotion = self.folder / "promotion.json"

    @property
    def name(self) -> str:
        """What tables call its policy."""
        return "base" if self.number == 0 else self.label
