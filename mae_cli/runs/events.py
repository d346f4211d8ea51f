"""Events of a run: one line per finished step, decision or round without training, with its time.

The one file of a run folder that holds times; nothing reads it back.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec

from mae_cli.runs.layout import EVENTS
from mae_cli.stages.generation.summary import StageSummary


class Events:
    """The event file of a run, written at its end."""

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / EVENTS

    def add(self, round_label: str, what: str, details: Any) -> None:
        """Write one event."""
        event = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "round": round_label, "event": what, "details": details}
        with self._path.open("ab") as file:
            file.write(msgspec.json.encode(event) + b"\n")

    def add_stage(self, round_label: str, summary: StageSummary, step: str | None) -> None:
        """Write what a step did, unless it found everything done before."""
        if not summary.skipped or summary.written > summary.skipped:
            told = msgspec.to_builtins(summary)
            self.add(round_label, summary.stage, told if step in (None, summary.stage) else {"step": step, **told})
