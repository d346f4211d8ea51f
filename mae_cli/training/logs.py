"""Logs of a training: `train_log.jsonl`, `train_rows.jsonl`, and the report for its stage.

No times, hosts or paths, so that a rerun or a resumed training writes the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from mae_cli.errors import DataError
from mae_cli.plugins.contracts import Unit
from mae_cli.records.atomic import write_atomically
from mae_cli.records.trained_row import TrainedRow
from mae_cli.reports.statistics.spread import mean_of, population_spread
from mae_cli.training.examples import Examples, TrainingExample

LOG = "train_log.jsonl"
ROWS = "train_rows.jsonl"


class RoleNote(msgspec.Struct, frozen=True):
    """One role's rows in a training or a step; means and population spreads, null without rewards."""

    role: str
    rows: int
    tokens: int
    reward_mean: float | None
    reward_spread: float | None
    advantage_mean: float | None
    advantage_spread: float | None
    """Null for pairs, whose rows have no value of their own."""


class DataNote(msgspec.Struct, frozen=True):
    """First line of the log: what is trained and what is not."""

    step: int
    steps: int
    units: int
    """Rows, or pairs, or those of all parts of a mix."""
    rows: int
    trained_tokens: int
    """Of all units once; a row in two pairs counts twice."""
    trained_share: float
    """Trained tokens divided by all tokens of the trained rows."""
    retokenised: int
    """Rows whose engine gave no token ids, so that their text was tokenised again."""
    dropped: dict[str, int]
    skipped: list[str]
    """Roles whose rewards hardly differ."""
    roles: list[RoleNote]


class StepNote(msgspec.Struct, frozen=True):
    """One optimizer step, before its update; the objective decides what loss and metrics are averaged over."""

    step: int
    epoch: int
    loss: float
    nll: float
    """Negative log-likelihood of the trained tokens, in nats per token."""
    learning_rate: float
    grad_norm: float
    """L2, before clipping."""
    units: int
    rows: int
    tokens: int
    roles: list[RoleNote]
    metrics: dict[str, float]


class TrainReport(msgspec.Struct, frozen=True):
    """Report of a training to its stage."""

    steps: int
    resumed_from: int
    """The step a checkpoint was taken up at; 0 is a start from scratch."""
    rows: int
    trained_tokens: int
    """Summed over all steps of this training, those before a resume included."""
    seconds: float
    """Of this process; not written to any file."""
    first_loss: float | None
    last_loss: float | None
    data: DataNote
    micro_batch_tokens: int
    """As asked for, or what memory allowed."""
    left_on: str | None = None
    """Why the adapter could not be taken off the model, which must be read anew then."""


def row_values(units: Sequence[Unit]) -> dict[int, float | None]:
    """The value of each row in the units: null for the sides of pairs; a mix tells that of the first part."""
    values: dict[int, float | None] = {}
    for unit in units:
        for row in unit.rows:
            values.setdefault(row, unit.value if len(unit.rows) == 1 else None)
    return values


def role_notes(examples: Sequence[TrainingExample], advantages: Sequence[float | None]) -> list[RoleNote]:
    """Per role, in the order of the names: rows, tokens, rewards and advantages."""
    notes = []
    for role in sorted({example.role for example in examples}):
        chosen = [index for index, example in enumerate(examples) if example.role == role]
        rewards = [reward for index in chosen if (reward := examples[index].reward) is not None]
        values = [value for index in chosen if (value := advantages[index]) is not None]
        notes.append(
            RoleNote(
                role=role,
                rows=len(chosen),
                tokens=sum(len(examples[index].completion) for index in chosen),
                reward_mean=mean_of(rewards) if rewards else None,
                reward_spread=population_spread(rewards) if rewards else None,
                advantage_mean=mean_of(values) if values else None,
                advantage_spread=population_spread(values) if values else None,
            )
        )
    return notes


def data_note(
    found: Examples, units: Sequence[Unit], *, steps: int, skipped: Sequence[str], dropped: Mapping[str, int]
) -> DataNote:
    """The first line of the log; its roles cover all readable rows, also those that are not trained."""
    sides = [row for unit in units for row in unit.rows]
    values = row_values(units)
    tokens = sum(len(found.examples[row].completion) for row in sides)
    return DataNote(
        step=0,
        steps=steps,
        units=len(units),
        rows=len(values),
        trained_tokens=tokens,
        trained_share=tokens / max(1, sum(found.examples[row].length for row in sides)),
        retokenised=found.retokenised,
        dropped={**found.dropped, **dropped},
        skipped=list(skipped),
        roles=role_notes(found.examples, [values.get(row) for row in range(len(found.examples))]),
    )


def require_rows(found: Examples) -> None:
    """Refuse a training that would learn nothing and look fine.

    Raises:
        DataError: no row has a trained token; the message says why.
    """
    if not found.examples:
        reasons = ", ".join(f"{number} {name}" for name, number in found.dropped.items()) or "the input has no rows"
        raise DataError(f"nothing to train: no row with a trained token ({reasons})")


def trained_rows(
    examples: Sequence[TrainingExample], units: Sequence[Unit], steps: Iterable[Sequence[int]]
) -> list[TrainedRow]:
    """The rows of these steps, each once."""
    passes: dict[int, int] = {}
    for indices in steps:
        for row in dict.fromkeys(row for index in indices for row in units[index].rows):
            passes[row] = passes.get(row, 0) + 1
    values = row_values(units)
    return [
        TrainedRow(
            id=examples[row].id,
            role=examples[row].role,
            reward=examples[row].reward,
            advantage=values[row],
            tokens=len(examples[row].completion),
            passes=number,
        )
        for row, number in passes.items()
    ]


def line(note: msgspec.Struct) -> str:
    """One line of JSON; a value that is not finite becomes null."""
    return msgspec.json.encode(note).decode()


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """A whole file of lines, atomically."""
    write_atomically(path, "".join(f"{text}\n" for text in lines).encode())
