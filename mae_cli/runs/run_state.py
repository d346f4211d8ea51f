"""State of a run: where it is now and how its last start ended, in `run.state.json`.

Place in the flow: `Supervision` keeps it while `mae run` works; `mae status` and the next start read it. Contract: it
is replaced as a whole, at most every few seconds, and a run never fails because of it; it holds times and what was
spent over all starts. Nothing that is generated or trained depends on it.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Literal

import msgspec

from mae_cli.errors import (
    BROKEN_PIPE,
    INTERRUPTED,
    TERMINATED,
    BudgetError,
    CollapseError,
    GateError,
    LockedError,
    TemporaryError,
    exit_code_for,
)
from mae_cli.records.atomic import write_json
from mae_cli.runs.layout import STATE

Ending = Literal[
    "running",
    "finished",
    "stopped",
    "budget",
    "gate",
    "collapse",
    "locked",
    "temporary",
    "refused",
    "crashed",
    "interrupted",
    "terminated",
    "broken_pipe",
]
_ENDINGS: dict[int, Ending] = {
    2: "refused",
    GateError.exit_code: "gate",
    CollapseError.exit_code: "collapse",
    LockedError.exit_code: "locked",
    BudgetError.exit_code: "budget",
    TemporaryError.exit_code: "temporary",
    INTERRUPTED: "interrupted",
    BROKEN_PIPE: "broken_pipe",
    TERMINATED: "terminated",
}


class StepState(msgspec.Struct, kw_only=True):
    """The step that a run is in, or was in when it ended."""

    round: str
    step: str
    stage: str | None = None
    """What the work is called where it counts rows (of finetune: optimizer steps); null before that is known."""
    done: int = 0
    """Of this start."""
    total: int = 0
    """Left to do when this start came to the step."""
    tokens: int = 0
    seconds: float = 0.0


class RunState(msgspec.Struct, kw_only=True):
    """Where a run is, and what it has spent."""

    state: Ending = "running"
    exit_code: int | None = None
    reason: str | None = None
    """Of an ending that was none of success, in one line."""
    starts: int = 0
    started: float = 0.0
    """Unix seconds of the last start."""
    updated: float = 0.0
    tokens: int = 0
    """Generated and trained, over all starts."""
    seconds: float = 0.0
    """Worked, over all starts."""
    tokens_here: int = 0
    """Of the last start."""
    seconds_here: float = 0.0
    restarts: int = 0
    """How often a start was begun anew because nothing moved (`--stall-minutes`)."""
    step: StepState | None = None


class RunOutcome(msgspec.Struct, kw_only=True):
    """How a start ended: what `mae run --json` says in any case."""

    state: Ending
    exit_code: int
    reason: str | None
    rounds_done: int
    rounds_wanted: int
    next_step: str | None
    """Round and step that the next start begins with; null where nothing is left."""
    best: str | None
    accepted: str | None
    tokens: int
    """Of this start."""
    seconds: float
    """Of this start."""
    tokens_of_run: int
    run_dir: str


def ending_of(error: BaseException) -> tuple[Ending, int]:
    """Return the name and the exit code of how a command ends with this error."""
    code = exit_code_for(error)
    return _ENDINGS.get(code, "crashed"), code


def read_state(run_dir: Path) -> RunState | None:
    """Return the state a folder holds; null where there is none, or none that can be read."""
    try:
        return msgspec.json.decode((run_dir / STATE).read_bytes(), type=RunState)
    except (OSError, msgspec.DecodeError):
        return None


def write_state(run_dir: Path, state: RunState) -> None:
    """Replace the state; where the disk is full or the folder is gone, it stays what it was."""
    with contextlib.suppress(OSError):
        write_json(run_dir / STATE, state)
