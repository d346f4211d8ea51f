"""The questions that `mae judge` puts to its judges, as planned rows.

Place in the flow: `judge` plans here, generates, and reads the replies in `votes`. Contract: a plan is a function of
the input rows, the recipe and the seed, so a resumed command plans the same rows. Left out: prompts and replies
(`panel`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from mae_cli.answers import stated
from mae_cli.data import pools
from mae_cli.records import Row, seed_from, verdicts_on
from mae_cli.stages.generation.job import Job
from mae_cli.stages.judging.panel import Candidate, Panel


def _candidate(row: Row) -> Candidate:
    return Candidate(row.id, stated.candidate_text(row), row.completion or "")


def _needs_judge(row: Row, fallback_only: bool) -> bool:
    known = any(v.kind == "verifier" and v.score is not None for v in verdicts_on(row, "answer"))
    return not (fallback_only and known)


def _plan(job: Job, panel: Panel, rows: Sequence[Row], drawn: Sequence[pools.Pair]) -> list[Row]:
    section = job.recipe.judge
    planned: list[Row] = []
    asked: set[str] = set()
    for row in rows:
        if row.problem is None or row.status in ("error", "too_long"):
            continue
        if row.is_proposal and row.problem.id not in asked:
            asked.add(row.problem.id)
            planned += _grades(panel, "problem", row, section.votes)
        elif row.is_answer and row.completion is not None and _needs_judge(row, section.fallback_only):
            votes = section.difficulty_votes if row.purpose == "difficulty" else section.answer_votes
            planned += _grades(panel, "answer", row, votes)
    for first, second in pairs_of(job, rows):
        planned += _comparisons(panel, first, second, section.answer_votes)
    graders = panel.of("answer")
    if not graders:
        return planned
    # The judge's role is trained on the questions of the first judge that grades answers.
    own = [row for row in rows if row.is_answer and row.purpose == "train" and row.status == "ok"]
    # Drawn by a rank of each row's own, so that the choice does not hang on the order or number of the others.
    own.sort(key=lambda row: seed_from(job.recipe.seed, "own pairs", job.round_number, row.id, *job.draw_key))
    for row in own[: section.num_own_pairs]:
        assert row.problem is not None
        planned.append(panel.question(graders[0], row.problem, [_candidate(row)], target=row.id, purpose="train"))
    for pair in drawn:
        candidate = Candidate(pair.from_row, pair.candidate, pair.candidate)
        planned.append(panel.question(graders[0], pair.problem, [candidate], target=pair.from_row, purpose="train"))
    return planned


def _grades(panel: Panel, target: str, row: Row, votes: int) -> list[Row]:
    assert row.problem is not None
    candidates = [_candidate(row)] if target == "answer" else []
    return [
        panel.question(index, row.problem, candidates, target=row.id, purpose="grade")
        for index in panel.of(target)
        for _ in range(panel.votes(index, votes))
    ]


def pairs_of(job: Job, rows: Sequence[Row]) -> list[tuple[Row, Row]]:
    """The train rollouts that are compared: all pairs of a group, or each with its next `num_opponents`.

    Who is next to whom follows from the rows' own ranks, not from their order in the file.
    """
    section = job.recipe.judge
    groups: dict[str, list[Row]] = {}
    for row in rows:
        is_rollout = row.is_answer and row.purpose == "train" and row.problem is not None
        if is_rollout and row.completion is not None and row.status not in ("error", "too_long"):
            groups.setdefault(row.group_id, []).append(row)
    found = []
    for group in groups.values():
        group.sort(key=lambda row: seed_from(job.recipe.seed, "opponents", row.id))
        size = len(group)
        for first, second in combinations(range(size), 2):
            apart = min(second - first, size - (second - first))
            if section.num_opponents and apart > section.num_opponents:
                continue
            pair = group[first], group[second]
            if any(_needs_judge(row, section.fallback_only) for row in pair):
                found.append(pair)
    return found


def _comparisons(panel: Panel, first: Row, second: Row, votes: int) -> list[Row]:
    """Both orders of a pair; two equal texts need no judge."""
    assert first.problem is not None
    questions = []
    for index in panel.of("pair"):
        if _are_equal(panel, index, first, second):
            continue
        for one, other in ((first, second), (second, first)):
            for _ in range(panel.votes(index, votes)):
                shown = [_candidate(one), _candidate(other)]
                questions.append(panel.question(index, first.problem, shown, target=one.id, purpose="grade"))
    return questions


def _are_equal(panel: Panel, index: int, first: Row, second: Row) -> bool:
    judge = panel.judges[index]
    texts = {judge.shown(c.answer, c.completion).strip() for c in (_candidate(first), _candidate(second))}
    return len(texts) == 1
