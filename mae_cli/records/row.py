"""The one record that grows through the stages, its ids, and what engines are asked and answer.

A row is one model turn. `propose` makes it, `solve` and `judge` add rows and fields, `filter` decides, `finetune`
reads. Every row carries every key (null where unknown) and nothing volatile: no times, hosts or absolute paths.
The contract is described in README "Files"; this module is its only definition.
"""

from __future__ import annotations

import hashlib
import math
import random
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec

SCHEMA_VERSION = 1
Role = Literal["proposer", "solver", "judge"]
Purpose = Literal["train", "difficulty", "grade", "eval"]
Status = Literal["ok", "unparsed", "truncated", "too_long", "error"]
VerdictStatus = Literal["ok", "unparsed", "timeout", "unsupported", "unsure", "error"]
FinishReason = Literal["stop", "length", "error"]


class Message(msgspec.Struct, frozen=True):
    """One chat message."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str


class Problem(msgspec.Struct, forbid_unknown_fields=True):
    """One task. `reference_answer` comes only from seeds, imports or generators, never from a proposer."""

    id: str
    question: str
    reference_answer: str | None = None
    meta: dict[str, Any] = {}


class Usage(msgspec.Struct):
    """Token counts of one model turn."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class Sampling(msgspec.Struct, frozen=True):
    """Effective sampling of one turn; temperature 0 is greedy, top_k 0 is off.

    `choices`: the completion is one of these texts; empty is free text. Only given to engines that `constrain`.
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    stop: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()


class Policy(msgspec.Struct, frozen=True):
    """What wrote a turn: a name for people and digests for machines; null where there is none."""

    model: str
    revision: str | None = None
    adapter: str | None = None
    template: str | None = None

    @property
    def weights(self) -> str:
        """What tells states of one training from each other: the adapter, or a model that was trained as a whole."""
        return self.adapter or self.model


class Term(msgspec.Struct, frozen=True):
    """One named number a reward was computed from."""

    name: str
    value: float | None


class Verdict(msgspec.Struct):
    """What one verifier or judge said; a null score is unknown and stays out of every mean.

    Target `pair`: how this answer did against another of its group, 1 won, 0 lost, 0.5 a tie.
    """

    name: str
    kind: Literal["verifier", "judge"]
    target: Literal["problem", "answer", "format", "pair"]
    score: float | None = None
    status: VerdictStatus = "ok"
    reason: str | None = None
    rollout_id: str | None = None


class Row(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One model turn with everything later stages learnt about it."""

    schema: int = SCHEMA_VERSION
    id: str
    problem: Problem | None = None
    seed: int
    round: int = 0
    role: Role
    purpose: Purpose
    rollout_id: str
    turn: int = 0
    group_id: str
    sample_index: int = 0
    parents: list[str] = []
    messages: list[Message]
    raw: str | None = None
    reasoning: str | None = None
    completion: str | None = None
    answer: str | None = None
    answer_source: str | None = None
    prompt_token_ids: list[int] | None = None
    completion_token_ids: list[int] | None = None
    option_logprobs: list[Term] = []
    """Where nothing was generated but options were scored: each option and its natural log-probability."""
    status: Status = "ok"
    error: str | None = None
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    sampling: Sampling
    policy: Policy
    verdicts: list[Verdict] = []
    reward: float | None = None
    reward_terms: list[Term] = []
    kept: bool | None = None
    reasons: list[str] = []
    stored: list[str] = []
    extra: dict[str, Any] = {}


class Request(msgspec.Struct, frozen=True):
    """One question to an engine: the chat so far and the seed of this row's own sampling noise."""

    id: str
    messages: tuple[Message, ...]
    seed: int
    max_new_tokens: int | None = None
    """This row's own limit, where it is below that of the sampling."""
    sample_index: int = 0
    """Which of the samples of one prompt it is."""


class Completion(msgspec.Struct):
    """One answer of an engine.

    `raw` is the text as generated, `reasoning` what stood in a think block, `completion` the rest. An engine that
    fails on one request answers it with status "error" (or "too_long") and goes on with the others.
    """

    raw: str | None = None
    reasoning: str | None = None
    completion: str | None = None
    prompt_token_ids: list[int] | None = None
    completion_token_ids: list[int] | None = None
    option_logprobs: list[Term] = []
    status: Literal["ok", "truncated", "too_long", "error"] = "ok"
    error: str | None = None
    finish_reason: FinishReason | None = None
    usage: Usage | None = None


def digest(*parts: object) -> str:
    """20 hex digits of BLAKE2b over the parts as canonical JSON; equal parts give equal digests."""
    data = msgspec.json.encode(parts, order="deterministic")
    return hashlib.blake2b(data, digest_size=10).hexdigest()


def seed_from(*parts: object) -> int:
    """An integer in [0, 2**52) drawn from the parts; small enough for every JSON reader's numbers."""
    data = msgspec.json.encode(parts, order="deterministic")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big") >> 12


def normalise_question(text: str) -> str:
    """The question as its id sees it: Unicode NFC (5² is not 52), runs of white space folded, ends trimmed."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def problem_id(question: str, choices: Sequence[str] = ()) -> str:
    """Digest of the normalised question, and of its choices where it has any."""
    if choices:
        return digest(normalise_question(question), [normalise_question(c) for c in choices])
    return digest(normalise_question(question))


def choices_of(problem: Problem) -> list[str]:
    """The choices of a problem, in order; empty where it has none."""
    raw = problem.meta.get("choices")
    return [str(choice) for choice in raw] if isinstance(raw, list) else []


def row_id(
    stage: str,
    *,
    role: Role,
    purpose: Purpose,
    round_number: int,
    problem: str | None,
    messages: Sequence[Message],
    sample_index: int,
    turn: int,
    policy: Policy,
) -> str:
    """The id of a turn, known before it is generated; it never depends on the completion."""
    return digest(stage, role, purpose, round_number, problem, messages, sample_index, turn, policy)


def new_row(
    stage: str,
    *,
    role: Role,
    purpose: Purpose,
    round_number: int,
    run_seed: int,
    messages: Sequence[Message],
    sampling: Sampling,
    policy: Policy,
    problem: Problem | None = None,
    sample_index: int = 0,
    turn: int = 0,
    group: object = None,
    parents: Sequence[str] = (),
) -> Row:
    """A planned turn: everything known before generating, its id and seed included.

    `group` names the rollouts compared with each other; by default those of one problem, role, purpose and round.
    """
    problem_key = problem.id if problem else None
    identity = row_id(
        stage,
        role=role,
        purpose=purpose,
        round_number=round_number,
        problem=problem_key,
        messages=messages,
        sample_index=sample_index,
        turn=turn,
        policy=policy,
    )
    group_key = group if group is not None else (problem_key or identity)
    return Row(
        id=identity,
        problem=problem,
        seed=seed_from(run_seed, identity),
        round=round_number,
        role=role,
        purpose=purpose,
        rollout_id=identity,
        turn=turn,
        group_id=digest(stage, role, purpose, round_number, group_key),
        sample_index=sample_index,
        parents=list(parents),
        messages=list(messages),
        sampling=sampling,
        policy=policy,
    )


def request_of(row: Row) -> Request:
    """What an engine is asked to complete a planned row."""
    return Request(id=row.id, messages=tuple(row.messages), seed=row.seed, sample_index=row.sample_index)


def complete_row(row: Row, completion: Completion) -> Row:
    """The row with what the engine answered; parsing the answer is the stage's business."""
    row.raw = completion.raw
    row.reasoning = completion.reasoning
    row.completion = completion.completion
    row.prompt_token_ids = completion.prompt_token_ids
    row.completion_token_ids = completion.completion_token_ids
    row.option_logprobs = completion.option_logprobs
    row.status = completion.status
    row.error = completion.error
    row.finish_reason = completion.finish_reason
    row.usage = completion.usage
    return row


def verdicts_on(row: Row, target: str) -> list[Verdict]:
    """The row's verdicts about one target, unknown ones included."""
    return [verdict for verdict in row.verdicts if verdict.target == target]


def mean_score(verdicts: Sequence[Verdict]) -> float | None:
    """Mean of the known scores, in [0, 1], whatever their order; null when every score is unknown."""
    return mean_of_known(verdict.score for verdict in verdicts)


def why_unknown(found: Iterable[tuple[VerdictStatus, str | None]]) -> tuple[VerdictStatus, str | None]:
    """The commonest status and reason of unknown verdicts, at least one; the first by name among equals."""
    counts = Counter((status, reason or "") for status, reason in found)
    status, reason = min(counts, key=lambda one: (-counts[one], one))
    return status, reason or None


def mean_of_known(scores: Iterable[float | None]) -> float | None:
    """Mean of the values that are not null, the same float in any order; null when there is none."""
    known = [score for score in scores if score is not None]
    return math.fsum(known) / len(known) if known else None


def draw(pool: Sequence[Any], count: int, *parts: object) -> list[Any]:
    """Up to `count` entries without replacement, in drawn order; a pure function of the parts."""
    return random.Random(seed_from(*parts)).sample(list(pool), min(count, len(pool)))
