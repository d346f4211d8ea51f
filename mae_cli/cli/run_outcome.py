"""RunOutcome of `mae run`: tables for people, or one JSON object, also where the run ended on an error or a signal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET

from mae_cli.cli.command import print_json
from mae_cli.cli.options import Common

if TYPE_CHECKING:
    from mae_cli.runs.loop import Run
    from mae_cli.runs.run_state import RunOutcome
    from mae_cli.runs.views.summary import RunResult


def carry_out(make: Callable[[], Run], run_dir: Path, common: Common) -> None:
    """Work on a run and say how it ended; an error goes on to where exit codes are made."""
    work: Run | None = None
    try:
        work = make()
        result = work.go()
    except BaseException as error:
        outcome = work.supervision.outcome if work is not None else None
        _say(outcome, common)
        if common.json:
            print_json(outcome or _outcome_of(error, run_dir))
        raise
    _print_result(result, work.supervision.outcome, common)


def announcer(common: Common) -> Callable[[RunOutcome], None]:
    """Return what says an outcome where the process ends without coming back."""

    def announce(outcome: RunOutcome) -> None:
        if common.json:
            print_json(outcome)
            sys.stdout.flush()

    return announce


def _outcome_of(error: BaseException, run_dir: Path) -> RunOutcome:
    """The outcome of a start that never came to work: refused, or locked out."""
    from mae_cli.runs.run_state import RunOutcome, ending_of
    from mae_cli.runs.views.run_files import read_run

    state, code = ending_of(error)
    files = read_run(run_dir)
    return RunOutcome(
        state=state,
        exit_code=code,
        reason=" ".join(str(error).split()) or type(error).__name__,
        rounds_done=files.rounds_done,
        rounds_wanted=files.rounds_wanted,
        next_step=files.next_text,
        best=files.links.get("best"),
        accepted=files.links.get("accepted"),
        tokens=0,
        seconds=0.0,
        tokens_of_run=0,
        run_dir=str(run_dir),
    )


def _say(outcome: RunOutcome | None, common: Common) -> None:
    """One line for people about what was reached; why it ended is said with the exit code."""
    if outcome is None or common.quiet:
        return
    left = f", next {outcome.next_step}" if outcome.next_step else ""
    print(
        f"run: {outcome.state}: {outcome.rounds_done} of {outcome.rounds_wanted} rounds done{left}; "
        f"{outcome.tokens:,} tokens, {outcome.seconds:.1f} s in this start -> {outcome.run_dir}",
        file=sys.stderr,
    )


def _print_result(result: RunResult | None, outcome: RunOutcome | None, common: Common) -> None:
    """Print the tables of a run that ended; one that was stopped by --until has said so."""
    told: dict[str, Any] = msgspec.to_builtins(outcome) if outcome is not None else {}
    if result is not None:
        if not common.quiet:
            for text in (result.table, result.trained_on, result.gate, result.final):
                if isinstance(text, str):
                    print(text, file=sys.stdout if not common.json else sys.stderr)
        # Of a run that is done, the figures of the rounds and those of this start are the same thing.
        told |= msgspec.to_builtins(msgspec.structs.replace(result, table=UNSET, gate=UNSET))
    else:
        _say(outcome, common)
    if common.json:
        print_json(told)
