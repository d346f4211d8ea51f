"""README.md of an adapter and of an exported model: front matter that hubs read, lineage, data, scores.

Pure text out of a `Lineage` and the figures of a run's `summary.json`; nothing volatile, so equal inputs give equal
bytes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import msgspec

from mae_cli.models.embedded import EMBEDDED
from mae_cli.models.lineage import Lineage
from mae_cli.records.atomic import write_atomically
from mae_cli.reports.tables import p_text, percent

CARD = "README.md"


class Score(msgspec.Struct, frozen=True):
    """Base against adapter on the same held-out items; shares in [0, 1]."""

    reading: str
    items: int
    base: float
    adapter: float
    low: float
    high: float
    """Interval of the adapter's share."""
    p_value: float


def write_card(folder: Path, lineage: Lineage, scores: Sequence[Score] = ()) -> None:
    """README.md of an adapter's folder, or of a fully fine-tuned model's."""
    is_full = lineage.kind == "full"
    head = _front_matter(
        lineage,
        relation="finetune" if is_full else "adapter",
        library="transformers" if is_full else "peft",
    )
    lines = [
        f"# {lineage.base}, every parameter fine-tuned" if is_full else f"# LoRA adapter for {lineage.base}",
        "",
        "Trained by `mae finetune`. `train_rows.jsonl` lists every trained row by id, `train_log.jsonl` every step,",
        "`lineage.json` the facts below.",
        "",
        *_facts(lineage),
        *_scores(scores),
    ]
    _write(folder, [*head, *lines])


def write_merged_card(
    folder: Path,
    lineages: Sequence[Lineage],
    *,
    base: str,
    run: str | None,
    facts: Sequence[str],
    scores: Sequence[Score],
) -> None:
    """README.md of an exported model.

    Args:
        folder: the model's.
        lineages: the adapter's, then its parents', as far as they are known.
        base: what the model was merged from.
        run: name of the run, where it is known.
        facts: what the export found out, a line each.
        scores: of the adapter in its run.
    """
    own = lineages[0] if lineages else None
    is_full = own is not None and own.kind == "full"
    head = _front_matter(own, relation="finetune", library="transformers", base=base)
    origin = [f"- run: {run}"] if run else []
    rounds = [str(lineage.round) for lineage in reversed(lineages) if lineage.round is not None]
    if rounds:
        origin.append(f"- rounds: {', '.join(rounds)}")
    parents = [lineage.adapter for lineage in lineages[1:]]
    if own is not None and own.parent is not None and own.parent not in parents:
        parents.append(own.parent)
    if parents:
        origin.append(f"- parents of it, nearest first: {', '.join(parents)}")
    lines = [
        f"# {base}, {'every parameter fine-tuned' if is_full else 'merged with a LoRA adapter'}",
        "",
        "Written by `mae export --merge`: a plain model folder that needs neither `mae` nor PEFT.",
        "",
        *origin,
        *(_facts(own) if own else ["- the adapter's folder holds no lineage"]),
        *(f"- {fact}" for fact in facts),
        *_scores(scores),
    ]
    _write(folder, [*head, *lines])


def _front_matter(lineage: Lineage | None, *, relation: str, library: str, base: str | None = None) -> list[str]:
    name = base or (lineage.base if lineage else "")
    embedded = EMBEDDED.get(name.partition("@")[0])
    tags = ["self-improvement", "mae"]
    return [
        "---",
        f"base_model: {json.dumps(name)}",
        f"base_model_relation: {relation}",
        f"library_name: {library}",
        "pipeline_tag: text-generation",
        *([f"license: {embedded.licence.lower()}"] if embedded else []),
        f"tags: [{', '.join(['lora', *tags] if relation == 'adapter' else tags)}]",
        "---",
        "",
    ]


def _facts(lineage: Lineage) -> list[str]:
    roles = ", ".join(f"{count} {role}" for role, count in lineage.roles.items())
    facts: list[tuple[str, object]] = [
        ("base", lineage.base if "@" in lineage.base else f"{lineage.base} (content {lineage.base_digest})"),
        ("model" if lineage.kind == "full" else "adapter", lineage.adapter),
        ("continues", lineage.parent or "nothing, begun anew"),
        ("data", f"{lineage.data}, {lineage.rows} rows ({roles})"),
        ("trained tokens per pass", lineage.trained_tokens),
        ("objective", lineage.objective),
        ("optimizer steps", lineage.steps),
        ("learning rate", lineage.learning_rate),
        ("seed", lineage.seed),
        *lineage.settings.items(),
    ]
    if lineage.base_revision:
        facts.insert(1, ("base revision", lineage.base_revision))
    if lineage.round is not None:
        facts.insert(1, ("round", lineage.round))
    if lineage.stopped:
        facts.append(("stopped early", lineage.stopped))
    return [f"- {name}: {value}" for name, value in facts]


def _scores(scores: Sequence[Score]) -> list[str]:
    if not scores:
        return []
    lines = [
        f"| {score.reading} | {score.items} | {percent(score.base)} | {percent(score.adapter)} "
        f"| {percent(score.low)} to {percent(score.high)} | {p_text(score.p_value)} |"
        for score in scores
    ]
    return [
        "",
        "## Held-out items, base against this",
        "",
        "| reading | items | base | this | interval of this | p (exact, paired) |",
        "|---|---|---|---|---|---|",
        *lines,
    ]


def _write(folder: Path, lines: Sequence[str]) -> None:
    data = ("\n".join(lines) + "\n").encode()
    path = folder / CARD
    if not path.is_file() or path.read_bytes() != data:
        write_atomically(path, data)
