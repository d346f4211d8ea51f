"""`mae trace`: a row back to the prompts that made it, and forward to the adapters that were trained on it.

Reads the files of a run folder; writes nothing. A row is shown as the latest file of its round has it, so with all
that later stages learnt.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from mae_cli.errors import ConfigError
from mae_cli.models.lineage import trained_rows
from mae_cli.records import Row
from mae_cli.records.read import iterate_rows
from mae_cli.runs.layout import rounds_of, row_files_in
from mae_cli.runs.views.adapters import Entry, adapters_of, descends_from


class Found(msgspec.Struct):
    """A row and the file it was found in."""

    file: str
    row: Row


class Training(msgspec.Struct):
    """An adapter that saw a row."""

    round: str
    adapter: str | None
    advantage: float | None
    passes: int


class Trace(msgspec.Struct):
    """All there is to know about one row."""

    row: Found
    parents: list[Found]
    """What it was made from, nearest first, all generations."""
    children: list[str]
    """Ids of the rows made from it."""
    judgements: list[Found]
    """Rows of judges that its verdicts come from."""
    trained: list[Training]
    inherited: list[Entry]
    """Adapters that continue one of these."""
    is_whole: bool = False
    """Whether a model of this run that was trained as a whole wrote the row."""


def trace_row(run_dir: Path, identity: str) -> Trace:
    """Follow one row.

    Raises:
        ConfigError: no run there, no row of that id, or several that begin so.
        DataError: a file of the run cannot be read.
    """
    everything: dict[str, Found] = {}
    for found in _rows(run_dir):
        everything.setdefault(found.row.id, found)
    matches = [known for known in everything if known.startswith(identity)] if identity else []
    if identity in everything:
        matches = [identity]
    if len(matches) != 1:
        several = f"{len(matches)} rows begin so, {', '.join(matches[:3])} ...; give more of the id"
        raise ConfigError(f'{run_dir}: row "{identity}": {several if matches else "no row of that id"}')
    own = everything[matches[0]]
    entries = adapters_of(run_dir)
    trained = list(_trainings(run_dir, entries, own.row.id))
    family = {id(entry): entry for seen in trained for entry in descends_from(entries, seen.adapter)}
    direct = {seen.round for seen in trained}
    judges = dict.fromkeys(verdict.judge_id for verdict in own.row.verdicts if verdict.judge_id)
    return Trace(
        row=own,
        parents=_ancestors(everything, own.row),
        children=[found.row.id for found in everything.values() if own.row.id in found.row.parents],
        judgements=[everything[name] for name in judges if name in everything],
        trained=trained,
        inherited=[entry for entry in family.values() if entry.round not in direct],
        is_whole=any(entry.adapter == own.row.policy.model for entry in entries),
    )


def _rows(run_dir: Path) -> Iterator[Found]:
    for folder in rounds_of(run_dir):
        # The later file knows more about a row, so it is read first.
        for path in row_files_in(folder):
            for row in iterate_rows(path):
                yield Found(f"{folder.name}/{path.name}", row)


def _ancestors(everything: dict[str, Found], row: Row) -> list[Found]:
    found: dict[str, Found] = {}
    waiting = list(row.parents)
    while waiting:
        name = waiting.pop(0)
        if name in everything and name not in found:
            found[name] = everything[name]
            waiting += everything[name].row.parents
    return list(found.values())


def _trainings(run_dir: Path, entries: list[Entry], identity: str) -> Iterator[Training]:
    for entry in entries:
        line = trained_rows(run_dir / entry.round / entry.folder).get(identity)
        if line is not None:
            yield Training(entry.round, entry.adapter, line.advantage, line.passes)


def trace_text(trace: Trace) -> str:
    """The trace for people: newest facts last, so that it reads as a story."""
    row = trace.row.row
    written_by = row.policy.adapter or ("every parameter trained" if trace.is_whole else "the base")
    lines = [
        f"row {row.id} ({row.role}, {row.purpose}, round {row.round}) in {trace.row.file}",
        f"written by {row.policy.model} with {'adapter ' + written_by if row.policy.adapter else written_by}",
        "",
    ]
    for found in reversed(trace.parents):
        lines += [f"made from {_short(found)}", *_quoted(found.row.completion)]
    if row.problem is not None:
        reference = row.problem.reference_answer
        lines += [f"problem {row.problem.id}" + (f", reference answer {reference}" if reference is not None else "")]
        lines += _quoted(row.problem.question)
    for message in row.messages:
        lines += [f"prompt ({message.role})", *_quoted(message.content)]
    ended = f"{row.status}, {row.finish_reason}"
    lines += [f"completion ({ended}; answer {row.answer!r})", *_quoted(row.raw if row.raw is not None else row.error)]
    for verdict in row.verdicts:
        score = "unknown" if verdict.score is None else f"{verdict.score:g}"
        why = f": {verdict.reason}" if verdict.reason else ""
        lines.append(f"verdict {verdict.kind} {verdict.name} on {verdict.target}: {score} ({verdict.status}){why}")
    for found in trace.judgements:
        lines += [f"judged in {_short(found)}", *_quoted(found.row.completion)]
    terms = ", ".join(f"{t.name} {'unknown' if t.value is None else format(t.value, 'g')}" for t in row.reward_terms)
    reward = "unknown" if row.reward is None else f"{row.reward:g}"
    lines.append(f"reward {reward}" + (f" ({terms})" if terms else ""))
    kept = {True: "kept for training", False: "not kept", None: "not filtered"}[row.kept]
    lines.append(kept + (f": {'; '.join(row.reasons)}" if row.reasons else ""))
    if row.stored:
        lines.append(f"stored in {', '.join(row.stored)}")
    if trace.children:
        lines.append(f"rows made from it: {', '.join(trace.children)}")
    for seen in trace.trained:
        weight = "" if seen.advantage is None else f", advantage {seen.advantage:g}"
        lines.append(f"trained by {seen.round} (adapter {seen.adapter or 'retired'}{weight}, {seen.passes} passes)")
    for entry in trace.inherited:
        lines.append(f"and so in {entry.round} (adapter {entry.adapter or 'retired'}), which continues it")
    if not trace.trained:
        lines.append("no adapter of this run was trained on it")
    return "\n".join(lines)


def _short(found: Found) -> str:
    return f"{found.row.id} ({found.row.role}) in {found.file}"


def _quoted(text: str | None) -> list[str]:
    return [f"    {line}" for line in (text or "").splitlines()]
