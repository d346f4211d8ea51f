"""`mae judge`: verdicts on problems and answers, then rewards.

Programs check answers; model judges grade proposed problems and answers, or compare the answers of a group (purpose
`grade`, never trained), and pairs drawn as training rows of the judge role (purpose `train`). Verdicts land on the rows
they are about. A verdict that cannot be read is unknown: null, left out of every mean, counted. Rewards are computed
last, for train rows (`rewarding.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from mae_cli import contracts, pools
from mae_cli.errors import ConfigError, GateError
from mae_cli.metrics import mean_and_spread
from mae_cli.records import Row, Verdict, seed_from, verdicts_on
from mae_cli.stages import Session, StageSummary, generate, limit_rows
from mae_cli.stages.grading import Candidate, Panel, aggregated
from mae_cli.stages.rewarding import Rewarder
from mae_cli.workfiles import is_worker_file


def run_judge(session: Session, input_path: Path, output_path: Path, *, pool_path: Path | None = None) -> StageSummary:
    """Grade the input's rollouts and proposals; see `JudgeSection` for the options.

    Raises:
        GateError: more judgements are unparsed than `max_unparsed` allows; the file is written all the same.
    """
    section = session.recipe.judge
    # A worker's rewards are thrown away: its parent computes them over all rows.
    if session.shard is not None and section.shuffle_rewards and not is_worker_file(output_path):
        raise ConfigError("judge.shuffle_rewards shuffles among all rows, and a shard has only its own; no --shard")
    data = session.read(input_path)
    if data.problems:
        raise ConfigError(f"{input_path}: plain problems cannot be judged; expected records of propose or solve")
    panel, rewarder = Panel(session), Rewarder(session)
    rewarder.check(data.rows)
    pairs = pools.read_pairs(pool_path) if pool_path else []
    drawn = pools.draw(pairs, section.num_pairs, session.recipe.seed, "judge", session.round_number)
    planned = _plan(session, panel, data.rows, drawn) if panel.judges else []
    limited = None
    if session.limit is not None:
        within = {row.id for row in limit_rows(session, data.rows)} | {pair.from_row for pair in drawn}
        limited = [row for row in planned if within.issuperset(row.parents)]
    options = _fingerprint(session, panel, rewarder)
    with session.output("judge", output_path, options, input_path) as output:
        for notice in output.notices:
            session.progress.say(notice)
        made = generate(
            session,
            output,
            planned,
            passed=data.rows,
            finish=panel.finish,
            role="judge",
            limited=limited,
            answer=panel,
            command=["judge", input_path, *(["--pool", pool_path] if pool_path else [])],
        )
        add_verdicts(made.passed, made.rows, panel, session)
        rows = [*made.passed, *made.rows]
        rewarder.reward(rows, panel, drawn)
        if not output.is_current(rows):
            output.finish(rows)
        summary = made.summary("judge", output_path, read=len(data.rows), written=len(rows))
        graded = [panel.reading(row) for row in made.rows if row.purpose == "grade"]
        summary.details = {**_details(rows), **reading_details(graded)}
        _say_unknown(session, rows)
    if session.shard is None:
        gate_unparsed(session, summary)
    return summary


def _fingerprint(session: Session, panel: Panel, rewarder: Rewarder) -> dict[str, Any]:
    section = session.recipe.judge
    own = {
        **rewarder.fingerprint(),
        "judges": panel.fingerprint(),
        "aggregate": section.aggregate,
        "votes": section.votes,
        "answer_votes": section.answer_votes,
        "difficulty_votes": section.difficulty_votes,
        "num_opponents": section.num_opponents,
        "fallback_only": section.fallback_only,
        "num_pairs": section.num_pairs,
        "num_own_pairs": section.num_own_pairs,
        "shuffle_rewards": section.shuffle_rewards,
    }
    if not panel.judges:
        return own
    return {**session.policy_fingerprint(panel.policy, "judge"), "sampling": section.sampling(), **own}


# ---- planning


def _candidate(row: Row) -> Candidate:
    return Candidate(row.id, pools.candidate_text(row), row.completion or "")


def _needs_judge(row: Row, fallback_only: bool) -> bool:
    known = any(v.kind == "verifier" and v.score is not None for v in verdicts_on(row, "answer"))
    return not (fallback_only and known)


def _plan(session: Session, panel: Panel, rows: Sequence[Row], drawn: Sequence[pools.Pair]) -> list[Row]:
    section = session.recipe.judge
    planned: list[Row] = []
    asked: set[str] = set()
    for row in rows:
        if row.problem is None or row.status in ("error", "too_long"):
            continue
        if row.role == "proposer" and row.problem.id not in asked:
            asked.add(row.problem.id)
            planned += _grades(panel, "problem", row, section.votes)
        elif row.role == "solver" and row.completion is not None and _needs_judge(row, section.fallback_only):
            votes = section.difficulty_votes if row.purpose == "difficulty" else section.answer_votes
            planned += _grades(panel, "answer", row, votes)
    for first, second in pairs_of(session, rows):
        planned += _comparisons(panel, first, second, section.answer_votes)
    graders = panel.of("answer")
    if not graders:
        return planned
    # The judge's role is trained on the questions of the first judge that grades answers.
    own = [row for row in rows if row.role == "solver" and row.purpose == "train" and row.status == "ok"]
    # Drawn by a rank of each row's own, so that the choice does not hang on the order or number of the others.
    own.sort(key=lambda row: seed_from(session.recipe.seed, "own pairs", session.round_number, row.id))
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


def pairs_of(session: Session, rows: Sequence[Row]) -> list[tuple[Row, Row]]:
    """The train rollouts that are compared: all pairs of a group, or each with its next `num_opponents`.

    Who is next to whom follows from the rows' own ranks, not from their order in the file.
    """
    section = session.recipe.judge
    groups: dict[str, list[Row]] = {}
    for row in rows:
        is_rollout = row.role == "solver" and row.purpose == "train" and row.problem is not None
        if is_rollout and row.completion is not None and row.status not in ("error", "too_long"):
            groups.setdefault(row.group_id, []).append(row)
    found = []
    for group in groups.values():
        group.sort(key=lambda row: seed_from(session.recipe.seed, "opponents", row.id))
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


# ---- verdicts


def add_verdicts(passed: Sequence[Row], made: Sequence[Row], panel: Panel, session: Session) -> None:
    """Put the judges' verdicts on the rows they are about; pure given the replies."""
    by_id = {row.id: row for row in passed}
    proposals: dict[str, list[Row]] = {}
    for row in passed:
        if row.role == "proposer" and row.problem is not None:
            proposals.setdefault(row.problem.id, []).append(row)
        row.verdicts = [v for v in row.verdicts if v.kind != "judge" or not _is_replaced(v.name, panel)]
    votes: dict[str, list[Verdict]] = {}
    comparisons: dict[tuple[int | None, frozenset[str]], list[Row]] = {}
    for row in made:
        target = by_id.get(row.parents[0])
        if row.purpose != "grade" or target is None:
            continue
        if len(row.parents) == 2:
            comparisons.setdefault((panel.judge_of(row), frozenset(row.parents)), []).append(row)
        else:
            votes.setdefault(target.id, []).append(panel.verdict(row, _about(target)))
    for target_id, found in votes.items():
        target = by_id[target_id]
        verdicts = aggregated(found, session.recipe.judge.aggregate, _about(target))
        is_proposal = target.role == "proposer" and target.problem is not None
        for row in proposals[target.problem.id] if is_proposal and target.problem else [target]:
            row.verdicts = [*row.verdicts, *verdicts]
    if not panel.of("pair") or not session.recipe.judge.answer_votes:
        return
    for first, second in pairs_of(session, passed):
        for index in panel.of("pair"):
            rows = comparisons.get((index, frozenset((first.id, second.id))))
            for mine, other in ((first, second), (second, first)):
                if rows:
                    verdict = panel.pair_verdict(index, rows, mine.id, other.id)
                elif _are_equal(panel, index, first, second):
                    reason = f"against {other.id}: the same text"
                    verdict = Verdict(panel.names[index], "judge", "pair", 0.5, "ok", reason, other.id)
                else:
                    continue  # beyond --limit
                mine.verdicts = [*mine.verdicts, verdict]


def _is_replaced(name: str, panel: Panel) -> bool:
    """Judged again: new verdicts take the place of these judges' old ones and of any aggregate, old votes in one."""
    return name in panel.names or (bool(panel.judges) and name.startswith("judges/"))


def _about(target: Row) -> Literal["problem", "answer"]:
    return "problem" if target.role == "proposer" else "answer"


# ---- the summary


def _details(rows: Sequence[Row]) -> dict[str, Any]:
    details: dict[str, Any] = {}
    for role in ("proposer", "solver", "judge"):
        group = [row for row in rows if row.role == role and row.purpose == "train"]
        known = [row.reward for row in group if row.reward is not None]
        if group:
            mean, spread = mean_and_spread(known) if known else (None, None)
            details[role] = {
                "rows": len(group),
                "unknown": len(group) - len(known),
                "reward_mean": mean if mean is None else round(mean, 4),
                "reward_spread": spread if spread is None else round(spread, 4),
            }
    verdicts = [v for row in rows for v in row.verdicts if row.role != "judge"]
    for status in ("unparsed", "timeout", "unsupported", "unsure", "error"):
        count = sum(v.status == status for v in verdicts)
        if count:
            details[f"verdicts_{status}"] = count
    pairs = [v for v in verdicts if v.target == "pair"]
    if pairs:
        # Every pair stands on both of its rows.
        disagree = sum((v.reason or "").partition(": ")[2].startswith("the orders disagree") for v in pairs)
        known_pairs = sum(v.score is not None for v in pairs)
        details["pairs"] = {"compared": len(pairs) // 2, "known": known_pairs // 2, "orders_disagree": disagree // 2}
    return details


def reading_details(readings: Sequence[contracts.Reading]) -> dict[str, Any]:
    """How many judgements were asked for, and which share of them says nothing that can be read."""
    if not readings:
        return {}
    silent = sum(reading.status in ("unparsed", "error") for reading in readings)
    return {"judgements": len(readings), "unparsed_share": round(silent / len(readings), 4)}


def _say_unknown(session: Session, rows: Sequence[Row]) -> None:
    """Name the commonest reason why rewards are unknown, role by role."""
    for role in ("proposer", "solver", "judge"):
        group = [row for row in rows if row.role == role and row.purpose == "train"]
        unknown = [row for row in group if row.reward is None]
        if not unknown:
            continue
        reasons = Counter(_plain_reason(v) for row in unknown for v in row.verdicts if v.score is None)
        why = f", most often: {reasons.most_common(1)[0][0]}" if reasons else ", no verdict about them"
        session.progress.say(f"judge: the reward of {len(unknown)} of {len(group)} {role} rows is unknown{why}")


def _plain_reason(verdict: Verdict) -> str:
    reason = verdict.reason or verdict.status
    # Whom it was compared with, and with which votes, is each pair's own.
    return reason.partition(": ")[2].partition(":")[0] if verdict.target == "pair" else reason


def gate_unparsed(session: Session, summary: StageSummary) -> None:
    """Refuse a judge that mostly says nothing.

    Raises:
        GateError: the share of unreadable or failed judgements is above `judge.max_unparsed`.
    """
    share, limit = summary.details.get("unparsed_share", 0.0), session.recipe.judge.max_unparsed
    if share > limit:
        raise GateError(
            f"{summary.path}: {share:.0%} of the judgements are unparsed, the gate is {limit:.0%} "
            f"(judge.max_unparsed); the file is written, look at its rows with verdict status unparsed"
        )
