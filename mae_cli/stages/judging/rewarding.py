"""The second half of `mae judge`: program checks and rewards; pure given the judges' verdicts."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any

from mae_cli.data import pools
from mae_cli.plugins import contracts, registry
from mae_cli.recipe.roles import roles_of
from mae_cli.recipe.sections import JudgeSection, Spec
from mae_cli.records import Row, Term, Verdict, seed_from, verdicts_on
from mae_cli.stages.generation.job import Job
from mae_cli.stages.judging.panel import Panel, judge_in
from mae_cli.stages.judging.program_checks import _check_pair


class Rewarder:
    """The verifier and the rewards of a recipe, built and checked before any work."""

    def __init__(self, job: Job) -> None:
        section = job.recipe.judge
        self._job = job
        self.verifier: contracts.Verifier | None = (
            registry.build("verifiers", section.verifier) if section.verifier else None
        )
        self._specs = {
            **{role: spec for role, (_, spec) in rewards_by_stage(section).items()},
            **section.rewards,
        }
        self._rewards: dict[str, contracts.Reward] = {
            role: registry.build("rewards", spec) for role, spec in self._specs.items()
        }
        self._by_stage = {stage: self._rewards[role] for role, (stage, _) in rewards_by_stage(section).items()}

    def fingerprint(self) -> dict[str, Any]:
        """The plugins with all their options."""
        verifier = self._job.recipe.judge.verifier
        return {
            "verifier": registry.resolved("verifiers", verifier) if verifier else None,
            "rewards": {role: registry.resolved("rewards", spec) for role, spec in self._specs.items()},
        }

    def check(self, rows: Sequence[Row]) -> None:
        """Let the program check every rollout's answer, once."""
        if self.verifier is None:
            return
        checked = [
            (row, row.problem)
            for row in rows
            if row.is_answer and row.problem is not None and row.status not in ("error", "too_long")
        ]
        verdicts = contracts.check_answers(
            self.verifier,
            [problem for _, problem in checked],
            [row.answer for row, _ in checked],
            [row.group_id for row, _ in checked],
        )
        for (row, _), verdict in zip(checked, verdicts, strict=True):
            row.verdicts = [v for v in row.verdicts if v.name != verdict.name] + [verdict]

    def reward(self, rows: Sequence[Row], panel: Panel, drawn: Sequence[pools.Pair]) -> None:
        """Reward every train row, in place."""
        pairs = {pair.from_row: pair for pair in drawn}
        by_id = {row.id: row for row in rows}
        solves = _solve_verdicts(rows)
        for row in rows:
            judge = _judge_of(row, panel) if row.is_judgement else None
            if row.purpose != "train" or (row.is_judgement and judge is None):
                continue  # nobody here can read a judge's row that does not say who asked: its reward stays as it was
            if row.status in ("error", "too_long"):
                # Nothing was generated, so there is nothing to reward: unknown, never the zero of a malformed text.
                row.reward, row.reward_terms = None, []
                continue
            context = contracts.RewardContext(
                problem_verdicts=verdicts_on(row, "problem"),
                answer_verdicts=self._graded(row, pairs, by_id) if row.is_judgement else verdicts_on(row, "answer"),
                solve_verdicts=solves.get(row.problem.id, []) if row.problem else [],
                pair_verdicts=verdicts_on(row, "pair"),
                judge_format=judge.format_score(row.completion or "") if judge else None,
            )
            reading = self._reward_of(row).score(row, context)
            row.reward, row.reward_terms = reading.reward, list(reading.terms)
        if self._job.recipe.judge.shuffle_rewards:
            self._shuffle(rows)

    def _reward_of(self, row: Row) -> contracts.Reward:
        """The reward of the row's role, else the one for what the row does."""
        if row.role in self._rewards:
            return self._rewards[row.role]
        return self._by_stage["propose" if row.is_proposal else "judge" if row.is_judgement else "solve"]

    def _graded(self, row: Row, pairs: dict[str, pools.Pair], by_id: dict[str, Row]) -> list[Verdict]:
        """What a program says about the answer this judge row graded."""
        target = by_id.get(row.parents[0])
        if target is not None:
            return [v for v in verdicts_on(target, "answer") if v.kind == "verifier"]
        pair = pairs.get(row.parents[0])
        if pair is None or self.verifier is None:
            return []
        return [_check_pair(self.verifier, pair)]

    def _shuffle(self, rows: Sequence[Row]) -> None:
        """Control run: permute the rewards among the train rows of each role; terms no longer explain them."""
        job = self._job
        for role in roles_of(job.recipe):
            group = [row for row in rows if row.role == role and row.purpose == "train"]
            rewards = [row.reward for row in group]
            random.Random(seed_from(job.recipe.seed, "shuffle", role, job.round_number)).shuffle(rewards)
            for row, reward in zip(group, rewards, strict=True):
                row.reward, row.reward_terms = reward, [Term("shuffled", reward)]


def rewards_by_stage(section: JudgeSection) -> dict[str, tuple[str, Spec]]:
    """Return the rewards of rows by what they do, by the predefined role that does it: (stage, reward)."""
    return {
        "proposer": ("propose", section.proposer_reward),
        "solver": ("solve", section.solver_reward),
        "judge": ("judge", section.judge_reward),
    }


def _judge_of(row: Row, panel: Panel) -> contracts.Judge | None:
    """Return who asked a judge's row; of schema 1, which does not say, the first judge of the recipe."""
    index = panel.judge_of(row)
    if index is not None:
        return panel.judges[index]
    return judge_in(row) or next(iter(panel.judges), None)


def _solve_verdicts(rows: Iterable[Row]) -> dict[str, list[list[Verdict]]]:
    """Verdicts on each answer that measures a problem's difficulty, rollout by rollout.

    Those are its difficulty rollouts; where there are none, its train rollouts of this file.
    """
    found: dict[str, dict[str, list[list[Verdict]]]] = {"difficulty": {}, "train": {}}
    for row in rows:
        if row.is_answer and row.problem is not None and row.purpose in found:
            found[row.purpose].setdefault(row.problem.id, []).append(verdicts_on(row, "answer"))
    return {**found["train"], **found["difficulty"]}
