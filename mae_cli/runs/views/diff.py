"""`mae diff`: what changed between two runs, two eval files, or the policies of one file.

Place in the flow: reads what `mae run` and `mae eval` wrote; writes nothing. Of a run folder the last accepted round
counts (the base where none was), of a file with several policies the last one; a file alone is its first policy
against its last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from mae_cli.errors import ConfigError, DataError
from mae_cli.records import Row
from mae_cli.records.file_names import beside
from mae_cli.records.read import read_json, read_rows, refuse_incomplete
from mae_cli.reports.accuracy import readings_in
from mae_cli.reports.comparison import Comparison, PairedItem, compare_all, known_pairs, paired_items
from mae_cli.reports.eval_figures import main_reading
from mae_cli.reports.eval_report import comparison_line
from mae_cli.runs.layout import MANIFEST, PROMOTION, evaluations_in, round_label
from mae_cli.runs.manifest import all_settings

SHOWN_CHARACTERS = 160


class Example(msgspec.Struct):
    """One item on both sides."""

    question: str
    reference_answer: str | None
    first: str | None
    second: str | None
    """What each side answered, of its first sample."""


class Difference(msgspec.Struct):
    """Difference between two evaluated policies."""

    first: str
    second: str
    settings: dict[str, tuple[Any, Any]]
    """Dotted key to the values on both sides; null where a side has no such key."""
    comparisons: list[Comparison]
    only_first: int
    """Items that only the first side has, or only the second: they are compared with nothing."""
    only_second: int
    examples: dict[str, list[Example]]
    """Won, lost, both, neither: items under the main reading."""


class Source(msgspec.Struct):
    """An evaluated policy and the settings that made it."""

    label: str
    rows: list[Row]
    settings: dict[str, Any]


def difference(first: Path, second: Path | None, *, num_examples: int) -> Difference:
    """Compare two runs or eval files, or the first and last policy of one file.

    Raises:
        ConfigError: a run without any evaluation, or a file alone with one policy.
        DataError: not an eval file, or no item in common.
    """
    if second is None:
        sides = policies_of(first)
        if len(sides) < 2:
            raise ConfigError(f"{first}: one policy; give a second file or run to compare it with")
        before, after = sides[0], sides[-1]
    else:
        before, after = policies_of(first)[-1], policies_of(second)[-1]
        if before.label == after.label:
            before.label, after.label = f"{first}: {before.label}", f"{second}: {after.label}"
    comparisons = compare_all((before.label, before.rows), (after.label, after.rows))
    reading = main_reading([r for r in readings_in(after.rows) if r in readings_in(before.rows)])
    pairs = paired_items(before.rows, after.rows, reading)
    if not pairs:
        raise DataError(f"{first}, {second or first}: no item in common")
    return Difference(
        first=before.label,
        second=after.label,
        settings=changed(before.settings, after.settings),
        comparisons=[comparison for comparison in comparisons if comparison.items or comparison.unknown],
        only_first=len(_ids(before.rows) - _ids(after.rows)),
        only_second=len(_ids(after.rows) - _ids(before.rows)),
        examples=_examples(known_pairs(pairs), before.rows, after.rows, num_examples),
    )


def policies_of(path: Path) -> list[Source]:
    """The evaluated policies of a run folder or an eval file, in order."""
    if path.is_dir():
        return _policies_of_run(path)
    refuse_incomplete(path)
    rows = [row for row in read_rows(path) if row.purpose == "eval"]
    if not rows:
        raise DataError(f"{path}: holds no evaluated row; give a file of mae eval, or a run folder")
    meta = beside(path, ".meta.json")
    settings = read_json(meta).get("fingerprint", {}) if meta.exists() else {}
    labels = settings.pop("policies", {})
    groups: dict[str, list[Row]] = {}
    for row in rows:
        policy = row.policy
        key = policy.weights if policy.weights in labels else policy.adapter or "base"
        groups.setdefault(key, []).append(row)
    return [Source(labels.get(key, key), group, settings) for key, group in groups.items()]


def _policies_of_run(run_dir: Path) -> list[Source]:
    manifest = run_dir / MANIFEST
    if not manifest.exists():
        raise DataError(f"{run_dir}: not a run folder, it has no {MANIFEST}")
    settings = read_json(manifest)["recipe"]
    found = []
    folders = sorted(run_dir.glob("round-*"))
    # A run from before there were decisions has none at all; in any other a round without one was not finished.
    decides = any((folder / PROMOTION).exists() for folder in folders)
    for folder in folders:
        decision = folder / PROMOTION
        is_accepted = read_json(decision)["accepted"] if decision.exists() else not decides
        evaluated = evaluations_in(folder)
        is_base = folder.name == round_label(0)
        if evaluated and (is_base or is_accepted):
            found.append(Source("base" if is_base else folder.name, read_rows(evaluated[-1]), settings))
    if not found:
        raise ConfigError(f"{run_dir}: nothing was evaluated; its recipe needs eval.benchmarks")
    return found


def changed(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The settings that differ, by dotted key."""
    before, after = all_settings(first), all_settings(second)
    return {
        key: (before.get(key), after.get(key))
        for key in sorted({**before, **after})
        if before.get(key) != after.get(key)
    }


def _ids(rows: Sequence[Row]) -> set[str]:
    return {row.problem.id for row in rows if row.problem}


def _examples(
    pairs: Sequence[PairedItem], first: Sequence[Row], second: Sequence[Row], count: int
) -> dict[str, list[Example]]:
    answers = [{row.problem.id: row for row in reversed(rows) if row.problem} for rows in (first, second)]
    kinds: dict[str, list[Example]] = {"won": [], "lost": [], "both": [], "neither": []}
    for pair in pairs:
        if pair.difference:
            kind = "won" if pair.difference > 0 else "lost"
        else:
            kind = "both" if pair.first.correct else "neither"
        if len(kinds[kind]) < count:
            problem = pair.first.problem
            told = [_told(side[problem.id]) for side in answers]
            kinds[kind].append(Example(problem.question, problem.reference_answer, *told))
    return kinds


def _told(row: Row) -> str | None:
    if row.status == "truncated":
        return "(cut off)"
    return row.answer if row.answer is not None or row.completion is None else "(no answer)"


def difference_text(found: Difference) -> str:
    """The difference for people."""
    lines = [f"{key}: {_short(before)} -> {_short(after)}" for key, (before, after) in found.settings.items()]
    parts = ["changed settings: " + ("none" if not lines else ""), *(f"  {line}" for line in lines)]
    parts += [comparison_line(comparison) for comparison in found.comparisons]
    main = found.comparisons[0] if found.comparisons else None
    for comparison in found.comparisons:
        if comparison.benchmark is None and comparison.reading == main_reading([c.reading for c in found.comparisons]):
            main = comparison
    if found.only_first or found.only_second:
        parts.append(f"not compared: {found.only_first} items only in the first, {found.only_second} in the second")
    counts = {"won": main.wins, "lost": main.losses, "both": main.both, "neither": main.neither} if main else {}
    for kind, examples in found.examples.items():
        parts.append(f"{kind} ({main.reading if main else '-'}): {counts.get(kind, 0)}")
        for example in examples:
            parts.append(f"  {_short(example.question)}")
            parts.append(
                f"    {found.first}: {_short(example.first)}; {found.second}: {_short(example.second)}; "
                f"reference: {_short(example.reference_answer)}"
            )
    return "\n".join(parts)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    text = " ".join(text.split())
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 3] + "..."
