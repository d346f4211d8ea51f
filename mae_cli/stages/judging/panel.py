"""The judges of a recipe at work: their questions as planned rows, their replies as verdicts.

A question is a row of its own, so it is stored and resumed like every other. It says which judge asked and which
verdicts it leaves open (`asked`): the text alone does not tell how many steps a solution has or which scale was meant.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal, cast

import msgspec

from mae_cli.errors import ConfigError
from mae_cli.plugins import registry
from mae_cli.plugins.contracts import Ask, Judge, Option, PairComparison, PairJudge, Reading, can_score
from mae_cli.prompts.prompt_files import fence_nonce
from mae_cli.recipe.roles import recipe_for
from mae_cli.records import (
    Asked,
    Completion,
    Policy,
    Problem,
    Purpose,
    Row,
    Sampling,
    Term,
    Verdict,
    digest,
    new_row,
    request_of,
)
from mae_cli.stages.generation.job import Job


class Candidate(msgspec.Struct, frozen=True):
    """An answer to be graded: whose it is, the answer it marked, and all of it."""

    id: str
    answer: str
    completion: str


class Panel:
    """The judges of a recipe, built and checked; plans their questions and reads their replies."""

    def __init__(self, job: Job) -> None:
        spec = job.recipe.judge.judge
        self._job = job
        self._role = job.recipe.judge.role
        self._specs: list[registry.Spec] = spec if isinstance(spec, list) else [spec] if spec else []
        self.judges: list[Judge] = [registry.build("judges", one) for one in self._specs]
        self.names: list[str] = []
        for one in self._specs:
            name = registry.spec_name(one)
            # Two rubrics are two voices.
            self.names.append(name if name not in self.names else f"{name}#{len(self.names) + 1}")
        self._settings = [registry.resolved("judges", one) for one in self._specs]
        self._used: dict[tuple[str, str], int] = {}

    def fingerprint(self) -> list[dict[str, Any]]:
        """Each judge's options and rubric files; refuses rubric files that do not do."""
        return [
            {
                **settings,
                "rubrics": judge.prompt_digests() if hasattr(judge, "prompt_digests") else [],
            }
            for settings, judge in zip(self._settings, self.judges, strict=True)
        ]

    def of(self, target: str) -> list[int]:
        """The positions of the judges that grade this: `problem`, `answer` or `pair`."""
        return [index for index, judge in enumerate(self.judges) if target in judge.targets]

    def votes(self, index: int, wanted: int) -> int:
        """Return how often one question is put: once where the answer is a probability, which no draw changes."""
        return min(wanted, 1) if self.judges[index].read == "probability" else wanted

    def question(
        self, index: int, problem: Problem, candidates: Sequence[Candidate], *, target: str, purpose: Purpose
    ) -> Row:
        """One planned question of one judge.

        Args:
            index: which judge.
            problem: what the candidates answer; itself the candidate where there are none.
            candidates: none, one, or two in the order they are shown.
            target: the row that is graded where there is no candidate.
            purpose: `grade`, or `train` for a row that trains the judge's role.
        """
        judge = self.judges[index]
        # A grading and a training question about one rollout are two rows: their purposes stay apart in the id.
        parents = [candidate.id for candidate in candidates] or [target]
        nonce = fence_nonce(self._job.recipe.seed, ":".join(parents))
        ask = judge.ask(problem, [judge.shown(c.answer, c.completion) for c in candidates], nonce)
        # Equal prompts are one more sample each: a rubric file without the nonce may ask one thing of two answers.
        key = (purpose, digest(problem.id, ask.messages))
        sample_index = self._used[key] = self._used.get(key, -1) + 1
        row = new_row(
            "judge",
            role=self._role,
            step=self._job.step or "",
            purpose=purpose,
            round_number=self._job.round_number,
            run_seed=self._job.recipe.seed,
            messages=list(ask.messages),
            sampling=self._sampling(judge, ask, purpose),
            policy=self.policy,
            problem=problem,
            sample_index=sample_index,
            group=":".join(sorted(parents)),
            parents=parents,
            asked=Asked(
                judge=self.names[index],
                settings=self._settings[index],
                about=_ABOUT[len(candidates)],
                options=[Term(option.text, option.score) for option in ask.options],
            ),
        )
        return row

    @functools.cached_property
    def policy(self) -> Policy:
        """The policy that judges; its engine is opened only where something is judged."""
        return self._job.engines.of(self._role).policy

    @functools.cached_property
    def _constrains(self) -> bool:
        return self._job.engines.of(self._role).facts.constrains

    def _sampling(self, judge: Judge, ask: Ask, purpose: Purpose) -> Sampling:
        sampling = self._job.recipe.judge.sampling()
        replies = tuple(judge.reply_of(option) for option in ask.options)
        if purpose != "grade":
            return sampling  # what is trained is the policy's own free text
        if judge.read == "probability":
            return msgspec.structs.replace(sampling, temperature=0.0, choices=replies)
        if getattr(judge, "constrain", False) and self._constrains:
            return msgspec.structs.replace(sampling, choices=replies)
        return sampling

    def judge_of(self, row: Row) -> int | None:
        """Return the position of the judge that asked this row's question; null for another judge's, or of schema 1."""
        if row.asked is None or row.asked.judge not in self.names:
            return None
        index = self.names.index(row.asked.judge)
        return index if self._settings[index] == row.asked.settings else None

    def answer(self, rows: Sequence[Row]) -> list[Completion]:
        """Return the engine's answers to a segment of questions: replies, or scores of the options.

        Raises:
            ConfigError: probabilities are wanted of an engine that has none to give.
        """
        scored = [row for row in rows if self.knows(row)]
        sampled = [row for row in rows if not self.knows(row)]
        engine = self._job.engines.of(self._role)
        found: dict[str, Completion] = {}
        if scored:
            if not can_score(engine):
                name = recipe_for(self._job.recipe, self._role).engine
                raise ConfigError(f'engine "{name}" gives no token probabilities; use read: sampled')
            options = [row.sampling.choices for row in scored]
            for row, values in zip(scored, engine.score([request_of(row) for row in scored], options), strict=True):
                terms = [Term(text, value) for text, value in zip(row.sampling.choices, values, strict=True)]
                found[row.id] = Completion(option_logprobs=terms, finish_reason="stop")
        if sampled:
            completions = engine.generate([request_of(row) for row in sampled], sampled[0].sampling)
            found.update((row.id, completion) for row, completion in zip(sampled, completions, strict=True))
        return [found[row.id] for row in rows]

    def knows(self, row: Row) -> bool:
        """Whether a question is answered by the probabilities of its options, not by a text."""
        index = self.judge_of(row)
        return row.purpose == "grade" and index is not None and self.judges[index].read == "probability"

    def reading(self, row: Row) -> Reading:
        """Return what the reply to a question says; see `read_reply`."""
        index = self.judge_of(row)
        return read_reply(row, None if index is None else self.judges[index])

    def finish(self, row: Row) -> Row:
        """Read the verdict out of a judge's reply into the row's own answer fields."""
        if row.completion is None and not row.option_logprobs:
            return row
        reading = self.reading(row)
        row.answer, row.answer_source = (None if reading.score is None else repr(reading.score)), reading.reason
        if row.status == "ok" and reading.status != "ok":
            row.status = "unparsed"
        return row

    def verdict(self, row: Row, target: Literal["problem", "answer"]) -> Verdict:
        """One vote as a verdict about what was graded."""
        score, status, reason = self.reading(row)
        name = row.asked.judge if row.asked else "judge"
        return Verdict(name, "judge", target, score, status, reason, judge_id=row.id)

    def comparison(self, index: int, rows: Sequence[Row], mine: str, other: str) -> PairComparison:
        """Return one answer against another, from all votes of one judge on the two, in both orders."""
        judge = cast(PairJudge, self.judges[index])
        first = [self.reading(row) for row in rows if row.parents == [mine, other]]
        second = [self.reading(row) for row in rows if row.parents == [other, mine]]
        return judge.combine(first, second)

    def pair_verdict(self, index: int, found: PairComparison, other: str) -> Verdict:
        """Return a comparison as the verdict of the compared row about its opponent."""
        reason = f"against {other}: {found.reason}"
        return Verdict(self.names[index], "judge", "pair", found.score, found.status, reason, opponent_id=other)


_ABOUT: tuple[Literal["problem", "answer", "pair"], ...] = ("problem", "answer", "pair")
"""What a question is about, by the number of candidates it shows."""


def judge_in(row: Row) -> Judge | None:
    """Return the judge that a row says has asked it, built from the row alone; null where it does not say."""
    if row.asked is None:
        return None
    settings = {key: value for key, value in row.asked.settings.items() if key != "source"}
    built: Judge = registry.build("judges", settings)
    return built


def read_reply(row: Row, judge: Judge | None = None) -> Reading:
    """Return what the reply in a judge's row says; a reply cut off before its verdict is as unreadable as any other.

    Args:
        row: finished, with `asked`.
        judge: who asked it; built from the row where it is not at hand, so a judged file can be read alone.
    """
    judge = judge or judge_in(row)
    if row.asked is None or judge is None:
        return Reading(None, "error", "the row does not say which judge asked (schema 1)")
    options = [Option(term.name, term.value or 0.0) for term in row.asked.options]
    if row.option_logprobs:
        return judge.read_logprobs([term.value for term in row.option_logprobs], options)
    if row.completion is None:
        return Reading(None, "error", row.error or row.status)
    return judge.read_reply(row.completion, options)
