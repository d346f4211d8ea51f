"""`mae judge`: verdicts on problems and answers, then rewards.

Programs check answers; the model judge grades proposed problems and answers (purpose `grade`, never trained) and
pairs drawn as training rows of the judge role (purpose `train`). Verdicts land on the rows they are about. A verdict
that cannot be read is unknown: null, left out of every mean, counted. Rewards are computed last, for train rows.
"""

from __future__ import annotations

import functools
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from mae_cli import pools, registry
from mae_cli.errors import ConfigError, GateError
from mae_cli.metrics import mean_and_spread
from mae_cli.prompting import fence_nonce
from mae_cli.records import (
    Message,
    Policy,
    Problem,
    Purpose,
    Row,
    Term,
    Verdict,
    digest,
    new_row,
    seed_from,
    verdicts_on,
)
from mae_cli.stages import Session, StageSummary, generate, limit_rows


class _Plugins:
    """The stage's plugins, built and checked before any work."""

    def __init__(self, session: Session) -> None:
        section = session.recipe.judge
        self.verifier: registry.Verifier | None = (
            registry.build("verifiers", section.verifier) if section.verifier else None
        )
        self.judge: registry.Judge | None = registry.build("judges", section.judge) if section.judge else None
        self.judge_name = registry.spec_name(section.judge) if section.judge else ""
        self._session = session
        self.rewards: dict[str, registry.Reward] = {
            "proposer": registry.build("rewards", section.proposer_reward),
            "solver": registry.build("rewards", section.solver_reward),
            "judge": registry.build("rewards", section.judge_reward),
        }

    @functools.cached_property
    def policy(self) -> Policy:
        """The policy that judges; its engine is opened only where something is judged."""
        return self._session.engine_for("judge").policy

    def fingerprint(self, session: Session) -> dict[str, Any]:
        section = session.recipe.judge
        digests = self.judge.prompt_digests() if self.judge and hasattr(self.judge, "prompt_digests") else []
        return {
            "verifier": registry.resolved("verifiers", section.verifier) if section.verifier else None,
            "judge": registry.resolved("judges", section.judge) if section.judge else None,
            "rubrics": digests,
            "rewards": {
                "proposer": registry.resolved("rewards", section.proposer_reward),
                "solver": registry.resolved("rewards", section.solver_reward),
                "judge": registry.resolved("rewards", section.judge_reward),
            },
            "votes": section.votes,
            "answer_votes": section.answer_votes,
            "difficulty_votes": section.difficulty_votes,
            "fallback_only": section.fallback_only,
            "num_pairs": section.num_pairs,
            "num_own_pairs": section.num_own_pairs,
            "shuffle_rewards": section.shuffle_rewards,
        }


def run_judge(session: Session, input_path: Path, output_path: Path, *, pool_path: Path | None = None) -> StageSummary:
    """Grade the input's rollouts and proposals; see `JudgeSection` for the options.

    Raises:
        GateError: more judgements are unparsed than `max_unparsed` allows; the file is written all the same.
    """
    section = session.recipe.judge
    data = session.read(input_path)
    if data.problems:
        raise ConfigError(f"{input_path}: plain problems cannot be judged; expected records of propose or solve")
    plugins = _Plugins(session)
    _check(data.rows, plugins)
    pairs = pools.read_pairs(pool_path) if pool_path else []
    drawn = pools.draw(pairs, section.num_pairs, session.recipe.seed, "judge", session.round_number)
    planned = _plan(session, plugins, data.rows, drawn)
    limited = None
    if session.limit is not None:
        within = {row.id for row in limit_rows(session, data.rows)}
        limited = [row for row in planned if row.parents[0] in within or row.parents[0] in {p.from_row for p in drawn}]
    options = plugins.fingerprint(session)
    if plugins.judge:
        policy = session.policy_fingerprint(plugins.policy, "judge")
        options = {**policy, "sampling": section.sampling(), **options}
    with session.output("judge", output_path, options, input_path) as output:
        for notice in output.notices:
            session.progress.say(notice)

        def finish(row: Row) -> Row:
            return read_judgement(row, plugins)

        made = generate(session, output, planned, passed=data.rows, finish=finish, role="judge", limited=limited)
        rows = assemble(data.rows, made.rows, plugins, session, drawn)
        if not output.is_current(rows):
            output.finish(rows)
        summary = made.summary("judge", output_path, read=len(data.rows), written=len(rows))
        summary.details = _details(rows, made.rows)
        _say_unknown(session, rows)
    _gate(session, summary)
    return summary


def _check(rows: Sequence[Row], plugins: _Plugins) -> None:
    """Let the program check every rollout's answer, once."""
    if plugins.verifier is None:
        return
    checked = [
        (row, row.problem)
        for row in rows
        if row.role == "solver" and row.problem is not None and row.status not in ("error", "too_long")
    ]
    verdicts = registry.check_answers(
        plugins.verifier,
        [problem for _, problem in checked],
        [row.answer for row, _ in checked],
        [row.group_id for row, _ in checked],
    )
    for (row, _), verdict in zip(checked, verdicts, strict=True):
        verdict.rollout_id = row.rollout_id
        row.verdicts = [v for v in row.verdicts if v.name != verdict.name] + [verdict]


def _needs_judge(row: Row, section: Any) -> bool:
    known = any(v.kind == "verifier" and v.score is not None for v in verdicts_on(row, "answer"))
    return not (section.fallback_only and known)


def _plan(session: Session, plugins: _Plugins, rows: Sequence[Row], drawn: Sequence[pools.Pair]) -> list[Row]:
    if plugins.judge is None:
        return []
    section = session.recipe.judge
    planned: list[Row] = []
    asked: set[str] = set()
    for row in rows:
        if row.problem is None or row.status in ("error", "too_long"):
            continue
        if row.role == "proposer" and row.problem.id not in asked:
            asked.add(row.problem.id)
            planned += _asks(session, plugins, row, None, "grade", section.votes)
        elif row.role == "solver" and row.completion is not None and _needs_judge(row, section):
            votes = section.difficulty_votes if row.purpose == "difficulty" else section.answer_votes
            planned += _asks(session, plugins, row, pools.candidate_text(row), "grade", votes)
    own = [row for row in rows if row.role == "solver" and row.purpose == "train" and row.status == "ok"]
    # Drawn by a rank of each row's own, so that the choice does not hang on the order or number of the others.
    own.sort(key=lambda row: seed_from(session.recipe.seed, "own pairs", session.round_number, row.id))
    for row in own[: section.num_own_pairs]:
        planned += _asks(session, plugins, row, pools.candidate_text(row), "train", 1)
    for pair in drawn:
        planned.append(_judge_row(session, plugins, pair.problem, pair.candidate, pair.from_row, "train", 0))
    return _distinct(session, planned)


def _distinct(session: Session, planned: list[Row]) -> list[Row]:
    """Give equal prompts different sample indices: a prompt file without the nonce may ask one thing of two answers."""
    seen: dict[tuple[str, str], int] = {}
    result = []
    for row in planned:
        key = (row.purpose, digest(row.problem and row.problem.id, row.messages))
        index = seen[key] = seen.get(key, -1) + 1
        if index != row.sample_index:
            row = new_row(
                "judge",
                role="judge",
                purpose=row.purpose,
                round_number=row.round,
                run_seed=session.recipe.seed,
                messages=row.messages,
                sampling=row.sampling,
                policy=row.policy,
                problem=row.problem,
                sample_index=index,
                group=row.parents[0],
                parents=row.parents,
            )
        result.append(row)
    return result


def _asks(
    session: Session, plugins: _Plugins, target: Row, answer: str | None, purpose: Purpose, votes: int
) -> list[Row]:
    assert target.problem is not None
    return [_judge_row(session, plugins, target.problem, answer, target.id, purpose, vote) for vote in range(votes)]


def _judge_row(
    session: Session,
    plugins: _Plugins,
    problem: Problem,
    answer: str | None,
    target_id: str,
    purpose: Purpose,
    vote: int,
) -> Row:
    assert plugins.judge is not None
    # A grading and a training question about one rollout are two rows, so their purposes stay apart in the id.
    ask = plugins.judge.ask(problem, answer, fence_nonce(session.recipe.seed, target_id))
    messages: list[Message] = list(ask.messages)
    return new_row(
        "judge",
        role="judge",
        purpose=purpose,
        round_number=session.round_number,
        run_seed=session.recipe.seed,
        messages=messages,
        sampling=session.recipe.judge.sampling(),
        policy=plugins.policy,
        problem=problem,
        sample_index=vote,
        group=target_id,
        parents=[target_id],
    )


def read_judgement(row: Row, plugins: _Plugins) -> Row:
    """Read the score out of a judge's reply into the row's own format and answer fields."""
    assert plugins.judge is not None
    if row.completion is None:
        return row
    score, status, reason = plugins.judge.read(row.completion)
    row.answer, row.answer_source = (None if score is None else repr(score)), reason
    if row.status == "ok" and status != "ok":
        row.status = "unparsed"
    return row


def _reading(row: Row, plugins: _Plugins, target: str) -> Verdict:
    """One judgement as a verdict about its target; a reply cut off before its score is as unreadable as any other."""
    assert plugins.judge is not None
    verdict = Verdict(name=plugins.judge_name, kind="judge", target="answer", rollout_id=row.id)
    verdict.target = "problem" if target == "problem" else "answer"
    if row.completion is None:
        verdict.status, verdict.reason = "error", row.error or row.status
        return verdict
    verdict.score, verdict.status, verdict.reason = plugins.judge.read(row.completion)
    return verdict


def assemble(
    passed: Sequence[Row], made: Sequence[Row], plugins: _Plugins, session: Session, drawn: Sequence[pools.Pair]
) -> list[Row]:
    """All rows with verdicts and rewards; pure given the judgements."""
    by_id = {row.id: row for row in passed}
    by_problem: dict[str, list[Row]] = {}
    for row in passed:
        if row.role == "proposer" and row.problem is not None:
            by_problem.setdefault(row.problem.id, []).append(row)
    for row in passed:
        # Judged again by the same judge: its new verdicts take the place of the old ones.
        row.verdicts = [v for v in row.verdicts if v.kind != "judge" or v.name != plugins.judge_name]
    for row in made:
        if row.purpose != "grade":
            continue
        target = by_id.get(row.parents[0])
        if target is None or target.problem is None:
            continue
        if target.role == "proposer":
            for sibling in by_problem[target.problem.id]:
                sibling.verdicts = [*sibling.verdicts, _reading(row, plugins, "problem")]
        else:
            target.verdicts = [*target.verdicts, _reading(row, plugins, "answer")]
    rows = [*passed, *made]
    _reward(rows, plugins, {pair.from_row: pair for pair in drawn}, by_id)
    if session.recipe.judge.shuffle_rewards:
        _shuffle(rows, session)
    return rows


def _reward(rows: Sequence[Row], plugins: _Plugins, pairs: dict[str, pools.Pair], by_id: dict[str, Row]) -> None:
    solves = _solve_verdicts(rows)
    for row in rows:
        if row.purpose != "train" or (row.role == "judge" and plugins.judge is None):
            continue  # without a judge nobody here can read a judge's row: its reward stays as it was
        if row.status in ("error", "too_long"):
            # Nothing was generated, so there is nothing to reward: unknown, never the zero of a malformed text.
            row.reward, row.reward_terms = None, []
            continue
        problem_id = row.problem.id if row.problem else None
        answer_verdicts = verdicts_on(row, "answer")
        if row.role == "judge":
            answer_verdicts = _pair_verdicts(row, plugins, pairs, by_id)
        context = registry.RewardContext(
            problem_verdicts=verdicts_on(row, "problem"),
            answer_verdicts=answer_verdicts,
            solve_verdicts=solves.get(problem_id, []) if problem_id else [],
        )
        judged = plugins.judge.format_score(row.completion or "") if plugins.judge and row.role == "judge" else None
        reading = plugins.rewards[row.role].score(row, msgspec.structs.replace(context, judge_format=judged))
        row.reward, row.reward_terms = reading.reward, list(reading.terms)


def _pair_verdicts(row: Row, plugins: _Plugins, pairs: dict[str, pools.Pair], by_id: dict[str, Row]) -> list[Verdict]:
    """What a program says about the answer this judge row graded."""
    target = by_id.get(row.parents[0])
    if target is not None:
        return [v for v in verdicts_on(target, "answer") if v.kind == "verifier"]
    pair = pairs.get(row.parents[0])
    if pair is None or plugins.verifier is None:
        return []
    from mae_cli.extraction import extract_answer

    answer = extract_answer(pair.candidate).answer or pair.candidate
    return [plugins.verifier.check(pair.problem, answer)]


def _solve_verdicts(rows: Iterable[Row]) -> dict[str, list[list[Verdict]]]:
    """Verdicts on each answer that measures a problem's difficulty, rollout by rollout.

    Those are its difficulty rollouts; where there are none, its train rollouts of this file.
    """
    found: dict[str, dict[str, list[list[Verdict]]]] = {"difficulty": {}, "train": {}}
    for row in rows:
        if row.role == "solver" and row.problem is not None and row.purpose in found:
            found[row.purpose].setdefault(row.problem.id, []).append(verdicts_on(row, "answer"))
    return {**found["train"], **found["difficulty"]}


def _shuffle(rows: Sequence[Row], session: Session) -> None:
    """Control run: permute the rewards among the train rows of each role; terms say that they no longer explain it."""
    for role in ("proposer", "solver", "judge"):
        group = [row for row in rows if row.role == role and row.purpose == "train"]
        rewards = [row.reward for row in group]
        random.Random(seed_from(session.recipe.seed, "shuffle", role, session.round_number)).shuffle(rewards)
        for row, reward in zip(group, rewards, strict=True):
            row.reward, row.reward_terms = reward, [Term("shuffled", reward)]


def _details(rows: Sequence[Row], made: Sequence[Row]) -> dict[str, Any]:
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
    asked = [v for v in verdicts if v.kind == "judge"]
    if asked:
        details["judgements"] = len(asked)
        details["unparsed_share"] = round(sum(v.status == "unparsed" for v in asked) / len(asked), 4)
    return details


def _say_unknown(session: Session, rows: Sequence[Row]) -> None:
    """Name the commonest reason why rewards are unknown, role by role."""
    for role in ("proposer", "solver", "judge"):
        group = [row for row in rows if row.role == role and row.purpose == "train"]
        unknown = [row for row in group if row.reward is None]
        if not unknown:
            continue
        reasons = Counter(v.reason or v.status for row in unknown for v in row.verdicts if v.score is None)
        why = f", most often: {reasons.most_common(1)[0][0]}" if reasons else ", no verdict about them"
        session.progress.say(f"judge: the reward of {len(unknown)} of {len(group)} {role} rows is unknown{why}")


def _gate(session: Session, summary: StageSummary) -> None:
    share, limit = summary.details.get("unparsed_share", 0.0), session.recipe.judge.max_unparsed
    if share > limit:
        raise GateError(
            f"{summary.path}: {share:.0%} of the judgements are unparsed, the gate is {limit:.0%} "
            f"(judge.max_unparsed); the file is written, look at its rows with verdict status unparsed"
        )
