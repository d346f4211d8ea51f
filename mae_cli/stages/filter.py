"""`mae filter`: what is trained and what is stored.

Two decisions in two fields. `kept` (with `reasons`) says whether a train row is trained; `stored` names the pools a
row goes to. Rows of other purposes are no candidates: they pass through undecided. A candidate that is neither kept
nor stored leaves the file for the dropped file, with its reasons.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mae_cli.data.held_out import Items
from mae_cli.errors import ConfigError, GateError
from mae_cli.plugins import registry
from mae_cli.plugins.filters.decontaminate import REASON, select_held_out
from mae_cli.recipe.sections import Spec
from mae_cli.records import Row, roles_in
from mae_cli.records.file_names import STDIO
from mae_cli.stages.evaluation.held_out import HELD_OUT, held_out_of
from mae_cli.stages.generation.generate import dropped_path_for, limit_rows
from mae_cli.stages.generation.job import Job
from mae_cli.stages.generation.summary import StageSummary

ROWS_PER_APPEND = 256
NOT_STORED = "none"


def run_filter(
    job: Job, inputs: Sequence[Path], output_path: Path, *, dropped_path: Path | None = None
) -> StageSummary:
    """Apply the recipe's filters in order.

    Raises:
        GateError: no row was kept; the funnel says at which filter they went. The files are written all the same.
    """
    specs = [_as_begun(job, spec) for spec in job.recipe.filter.filters]
    built = [(registry.spec_name(spec), registry.build("filters", spec)) for spec in specs]
    if output_path == STDIO and dropped_path is None:
        raise ConfigError("-o - needs --dropped FILE for the rows that are not kept")
    data = job.read(*inputs)
    rows = limit_rows(job, data.rows)
    if not rows:
        raise ConfigError(
            f"{inputs[0]}: plain problems cannot be filtered; expected records of propose, solve or judge"
        )
    held_out = held_out_of(job)
    options: dict[str, Any] = {"filters": [registry.resolved("filters", spec) for spec in specs]}
    if held_out is not None:
        options[HELD_OUT] = held_out.digest
    dropped_to = dropped_path or dropped_path_for(output_path)
    with job.output("filter", output_path, options, *inputs, companion=dropped_to) as output:
        for notice in output.notices:
            job.progress.say(notice)
        funnel = select_rows(rows, built, held_out)
        output.figures = {HELD_OUT: sum(REASON in row.reasons for row in rows)}
        selected = [row for row in rows if row.kept is not False or row.stored]
        dropped = [row for row in rows if row.kept is False and not row.stored]
        given = {row.id for row in data.rows}
        lost = [identity for identity in output.known if identity not in given]
        if lost:
            raise ConfigError(
                f"{output_path}: {len(lost)} of its rows (first {lost[0]}) are not in the input any more; "
                f"use --overwrite (moves it aside) or another -o"
            )
        is_same = output.is_current(selected) and (dropped_to.exists() or not dropped)
        if not is_same:
            output.begin([])
            for start in range(0, len(selected), ROWS_PER_APPEND):
                output.append(selected[start : start + ROWS_PER_APPEND])
            output.finish(selected, dropped=dropped, dropped_path=dropped_to)
    summary = StageSummary(
        stage="filter",
        path="stdout" if output_path == STDIO else str(output_path),
        read=len(rows),
        written=len(selected),
        skipped=len(selected) if is_same else 0,
        details={"funnel": funnel, **_counts(rows)},
    )
    if not any(row.kept for row in rows):
        steps = ", ".join(f"{name} {count}" for name, count in funnel.items())
        raise GateError(f"{summary.path}: no row was kept; left behind each filter: {steps}")
    return summary


def _as_begun(job: Job, spec: Spec) -> Spec:
    """A filter as it worked when the run was begun, where the run says how."""
    if job.sees_dress or registry.spec_name(spec) not in ("decontaminate", "dedup"):
        return spec
    return {"match": "exact", **(spec if isinstance(spec, dict) else {"name": spec})}


def select_rows(
    rows: Sequence[Row], filters: Sequence[tuple[str, Any]], held_out: Items | None = None
) -> dict[str, int]:
    """Decide every train row in place; returns the funnel: candidates, then those left after each filter.

    Args:
        rows: all rows.
        filters: (name, plugin) in order.
        held_out: items that no trained row may ask; looked at before all filters.
    """
    for row in rows:
        row.kept = True if row.purpose == "train" else None
        row.reasons, row.stored = [], []
    barred: set[str] = set()
    funnel = {"candidates": sum(row.kept is True for row in rows)}
    if held_out is not None:
        _drop_held_out(rows, held_out, barred)
        if barred:
            funnel[HELD_OUT] = sum(row.kept is True for row in rows)
    for position, (name, plugin) in enumerate(filters):
        for row, selection in zip(rows, plugin.select(rows), strict=True):
            if selection.reason is not None and row.kept is not None and selection.reason not in row.reasons:
                row.kept = False
                row.reasons = [*row.reasons, selection.reason]
            if selection.stored == NOT_STORED:
                barred.add(row.id)
            elif selection.stored is not None and selection.stored not in row.stored:
                row.stored = [*row.stored, selection.stored]
        label = name if name not in funnel else f"{name}#{position + 1}"
        funnel[label] = sum(row.kept is True for row in rows)
    for row in rows:
        if row.id in barred:
            row.stored = []
    return funnel


def _drop_held_out(rows: Sequence[Row], held_out: Items, barred: set[str]) -> None:
    for row, selection in zip(rows, select_held_out(rows, held_out), strict=True):
        if selection.reason is not None:
            row.kept, row.reasons = False, [selection.reason]
            barred.add(row.id)


def _counts(rows: Sequence[Row]) -> dict[str, Any]:
    return {
        role: {
            "candidates": sum(row.role == role and row.kept is not None for row in rows),
            "unknown": sum(row.role == role and row.kept is not None and row.reward is None for row in rows),
            "kept": sum(row.role == role and row.kept is True for row in rows),
            "stored": sum(row.role == role and bool(row.stored) for row in rows),
        }
        for role in roles_in(rows)
        if any(row.role == role and row.kept is not None for row in rows)
    }
