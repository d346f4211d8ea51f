"""The answers of known worth that a calibration shows to the judges.

Place in the flow: `calibrate` collects them before it asks. Some are planted (`planted_answers`), others are real
rollouts that a verifier has checked or a person has labelled. Contract: the selection and its order are a function of
the inputs and the seed; an answer whose worth is unknown is left out and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec

from mae_cli.answers import stated
from mae_cli.plugins import contracts, registry
from mae_cli.records import Problem, Row, digest, draw, mean_score, seed_from, verdicts_on
from mae_cli.records.read import read_problems
from mae_cli.stages.calibration import figures as calibration
from mae_cli.stages.calibration import planted_answers as planting
from mae_cli.stages.calibration.labels import AnswerLabel, read_labels
from mae_cli.stages.generation.job import Job
from mae_cli.stages.judging.panel import Candidate, Panel


class KnownAnswer(msgspec.Struct, frozen=True):
    """One answer of known worth."""

    candidate: Candidate
    problem: Problem
    kind: str
    is_right: bool
    source: str
    """Who knows: `planted`, `verifier` or `human`."""


def collect_answers(
    job: Job, panel: Panel, problems_path: Path | None, rollouts_path: Path | None, labels_path: Path | None
) -> tuple[list[KnownAnswer], Counter[str]]:
    """Planted and real answers of known worth in a seeded order, and what was left out why."""
    section = job.recipe.calibrate
    verifier: contracts.Verifier | None = registry.build("verifiers", section.verifier) if section.verifier else None
    skipped: Counter[str] = Counter()
    labels = {label.id: label for label in read_labels(labels_path)} if labels_path else {}
    items: list[KnownAnswer] = []
    if problems_path is not None:
        items += _planted(job, panel, read_problems(problems_path), verifier, skipped)
    if rollouts_path is not None:
        rows = [row for row in job.read(rollouts_path).rows if row.is_answer and row.completion]
        for row in draw(rows, section.num_rollouts or len(rows), job.recipe.seed, "calibrate"):
            item = _real(row, labels.pop(row.id, None), verifier)
            items += [item] if item else []
            skipped["real answers that nobody could tell right from wrong"] += item is None
    items += [_labelled(label) for label in labels.values() if label.label is not None]
    unique = {item.candidate.id: item for item in items}
    ordered = sorted(unique.values(), key=lambda item: seed_from(job.recipe.seed, "calibrate", item.candidate.id))
    return ordered, +skipped


def _planted(
    job: Job,
    panel: Panel,
    problems: Sequence[Problem],
    verifier: contracts.Verifier | None,
    skipped: Counter[str],
) -> list[KnownAnswer]:
    seed, section = job.recipe.seed, job.recipe.calibrate
    usable = []
    for problem in problems:
        if problem.reference_answer is None:
            skipped["problems without a reference answer"] += 1
        elif verifier is not None and verifier.check(problem, problem.reference_answer).score == 0.0:
            skipped["reference answers that the verifier refuses"] += 1
        else:
            usable.append(problem)
    best = _best_verdict(panel)
    items = []
    for problem in draw(usable, section.num_problems or len(usable), seed, "calibrate"):
        wrong = planting.wrong_answer(problem, usable, seed, verifier)
        if wrong is None:
            skipped["problems without a plausible wrong answer"] += 1
            continue
        for planted in planting.plant(problem, wrong, best):
            identity = digest("planted", problem.id, planted.kind, planted.text)
            candidate = Candidate(identity, planted.text, planted.text)
            items.append(KnownAnswer(candidate, problem, planted.kind, planted.is_right, "planted"))
    return items


def _best_verdict(panel: Panel) -> str:
    """What stands in the first judge's tags where it is most pleased."""
    judge = panel.judges[(panel.of("answer") or panel.of("pair"))[0]]
    example = Problem(id="example", question="1 + 1?")
    candidates = ["2"] if "answer" in judge.targets else ["2", "3"]
    return max(judge.ask(example, candidates, "0000").options, key=lambda option: option.score).text


def _real(row: Row, label: AnswerLabel | None, verifier: contracts.Verifier | None) -> KnownAnswer | None:
    """A real rollout whose worth a person or else a program has told."""
    assert row.problem is not None
    candidate = Candidate(row.id, stated.candidate_text(row), row.completion or "")
    if label is not None and label.label is not None:
        return KnownAnswer(candidate, row.problem, calibration.REAL, label.label == "right", "human")
    score = mean_score([v for v in verdicts_on(row, "answer") if v.kind == "verifier"])
    if score is None and verifier is not None and row.problem.reference_answer is not None:
        score = verifier.check(row.problem, row.answer).score
    if score is None:
        return None
    return KnownAnswer(candidate, row.problem, calibration.REAL, calibration.is_right(score), "verifier")


def _labelled(label: AnswerLabel) -> KnownAnswer:
    candidate = Candidate(label.id, label.answer, label.completion)
    return KnownAnswer(candidate, label.as_problem(), calibration.REAL, label.label == "right", "human")


_COMPARED = (
    (planting.RIGHT, planting.WRONG),
    (planting.PADDED_RIGHT, planting.PADDED_WRONG),
    *calibration.LENGTH,
    *((planting.RIGHT, kind) for kind in (planting.REMARKED, *planting.INJECTED, planting.TRUNCATED)),
)


def pairs_to_compare(items: Sequence[KnownAnswer]) -> list[tuple[KnownAnswer, KnownAnswer]]:
    """The planted answers of each problem that are compared, and one right and one wrong real answer to it."""
    found = []
    groups: dict[str, dict[str, KnownAnswer]] = {}
    real: dict[str, dict[bool, KnownAnswer]] = {}
    for item in items:
        if item.kind == calibration.REAL:
            real.setdefault(item.problem.id, {}).setdefault(item.is_right, item)
        else:
            groups.setdefault(item.problem.id, {})[item.kind] = item
    for kinds in groups.values():
        found += [(kinds[one], kinds[other]) for one, other in _COMPARED]
    found += [(worth[True], worth[False]) for worth in real.values() if len(worth) == 2]
    return found
