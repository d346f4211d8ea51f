"""The judges of a recipe at work: their questions as planned rows, their replies as verdicts.

A question is a row of role `judge`, so it is stored and resumed like every other. `Panel` remembers which judge asked
what in each row; a row's text alone does not tell how many steps a solution has or which scale was meant.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from mae_cli.errors import ConfigError
from mae_cli.plugins import registry
from mae_cli.plugins.contracts import Ask, Judge, Reading, can_score
from mae_cli.prompts.prompt_files import fence_nonce
from mae_cli.recipe.roles import recipe_for
from mae_cli.records import (
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
from mae_cli.stages.generation.session import Session


class Candidate(msgspec.Struct, frozen=True):
    """An answer to be graded: whose it is, the answer it marked, and all of it."""

    id: str
    answer: str
    completion: str


class Panel:
    """The judges of a recipe, built and checked; plans their questions and reads their replies."""

    def __init__(self, session: Session) -> None:
        spec = session.recipe.judge.judge
        self._session = session
        self._specs: list[registry.Spec] = spec if isinstance(spec, list) else [spec] if spec else []
        self.judges: list[Judge] = [registry.build("judges", one) for one in self._specs]
        self.names: list[str] = []
        for one in self._specs:
            name = registry.spec_name(one)
            # Two rubrics are two voices.
            self.names.append(name if name not in self.names else f"{name}#{len(self.names) + 1}")
        self._asked: dict[str, tuple[int, Ask]] = {}
        self._used: dict[tuple[str, str], int] = {}

    def fingerprint(self) -> list[dict[str, Any]]:
        """Each judge's options and rubric files; refuses rubric files that do not do."""
        return [
            {
                **registry.resolved("judges", spec),
                "rubrics": judge.prompt_digests() if hasattr(judge, "prompt_digests") else [],
            }
            for spec, judge in zip(self._specs, self.judges, strict=True)
        ]

    def of(self, target: str) -> list[int]:
        """The positions of the judges that grade this: `problem`, `answer` or `pair`."""
        return [index for index, judge in enumerate(self.judges) if target in judge.targets]

    def votes(self, index: int, wanted: int) -> int:
        """How often one question is put: once where the answer is a probability, which no draw changes."""
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
        nonce = fence_nonce(self._session.recipe.seed, ":".join(parents))
        ask = judge.ask(problem, [judge.shown(c.answer, c.completion) for c in candidates], nonce)
        # Equal prompts are one more sample each: a rubric file without the nonce may ask one thing of two answers.
        key = (purpose, digest(problem.id, ask.messages))
        sample_index = self._used[key] = self._used.get(key, -1) + 1
        row = new_row(
            "judge",
            role="judge",
            purpose=purpose,
            round_number=self._session.round_number,
            run_seed=self._session.recipe.seed,
            messages=list(ask.messages),
            sampling=self._sampling(judge, ask, purpose),
            policy=self.policy,
            problem=problem,
            sample_index=sample_index,
            group=":".join(sorted(parents)),
            parents=parents,
        )
        self._asked[row.id] = (index, ask)
        return row

    @functools.cached_property
    def policy(self) -> Policy:
        """The policy that judges; its engine is opened only where something is judged."""
        return self._session.engine_for("judge").policy

    @functools.cached_property
    def _constrains(self) -> bool:
        return self._session.engine_for("judge").facts.constrains

    def _sampling(self, judge: Judge, ask: Ask, purpose: Purpose) -> Sampling:
        sampling = self._session.recipe.judge.sampling()
        replies = tuple(judge.reply_of(option) for option in ask.options)
        if purpose != "grade":
            return sampling  # what is trained is the policy's own free text
        if judge.read == "probability":
            return msgspec.structs.replace(sampling, temperature=0.0, choices=replies)
        if getattr(judge, "constrain", False) and self._constrains:
            return msgspec.structs.replace(sampling, choices=replies)
        return sampling

    def judge_of(self, row: Row) -> int | None:
        """Which judge asked this row's question; null for a row of an earlier command."""
        asked = self._asked.get(row.id)
        return asked[0] if asked else None

    def answer(self, rows: Sequence[Row]) -> list[Completion]:
        """What the engine says to a segment of questions: replies, or scores of the options.

        Raises:
            ConfigError: probabilities are wanted of an engine that has none to give.
        """
        scored = [row for row in rows if self.knows(row)]
        sampled = [row for row in rows if not self.knows(row)]
        engine = self._session.engine_for("judge")
        found: dict[str, Completion] = {}
        if scored:
            if not can_score(engine):
                name = recipe_for(self._session.recipe, "judge").engine
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
        return row.purpose == "grade" and self.judges[self._asked[row.id][0]].read == "probability"

    def reading(self, row: Row) -> Reading:
        """What a finished question's reply says; a reply cut off before its verdict is as unreadable as any other."""
        index, ask = self._asked[row.id]
        if row.option_logprobs:
            return self.judges[index].read_logprobs([term.value for term in row.option_logprobs], ask.options)
        if row.completion is None:
            return Reading(None, "error", row.error or row.status)
        return self.judges[index].read_reply(row.completion, ask.options)

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
        index, _ = self._asked[row.id]
        score, status, reason = self.reading(row)
        return Verdict(self.names[index], "judge", target, score, status, reason, row.id)

    def pair_verdict(self, index: int, rows: Sequence[Row], mine: str, other: str) -> Verdict:
        """One answer against another, from all votes of one judge on the two, in both orders."""
        judge: Any = self.judges[index]
        first = [self.reading(row) for row in rows if row.parents == [mine, other]]
        second = [self.reading(row) for row in rows if row.parents == [other, mine]]
        score, status, reason = judge.combine(first, second)
        return Verdict(self.names[index], "judge", "pair", score, status, f"against {other}: {reason}", other)
