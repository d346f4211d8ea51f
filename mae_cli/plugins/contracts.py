"""The contract of each kind of plugin: the Protocols of the extension points, and the structures they exchange.

A plugin is a frozen msgspec Struct whose fields are its options and whose methods are those of its Protocol. An engine
is opened by a function instead. `registry.py` lists the shipped plugins. Stable for plugin authors (CONTRIBUTING, "Your
own plugin"): the names in `__all__`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, Protocol

import msgspec

from mae_cli.plugins.engine_contracts import (
    AttachingEngine,
    CheckingEngine,
    Engine,
    EngineFacts,
    ScoringEngine,
    StreamingEngine,
    TrainableEngine,
    can_attach,
    can_check,
    can_score,
    can_stream,
    can_train,
)
from mae_cli.records import Message, Problem, Row, Term, Verdict, VerdictStatus
from mae_cli.records.rewarded import Rewarded

if TYPE_CHECKING:
    import torch


__all__ = [
    "Ask",
    "AttachingEngine",
    "BatchVerifier",
    "CheckingEngine",
    "Draw",
    "Engine",
    "EngineFacts",
    "Filter",
    "Judge",
    "Needs",
    "Objective",
    "ObjectiveBatch",
    "ObjectiveOutput",
    "Option",
    "PairComparison",
    "PairJudge",
    "Plan",
    "Proposer",
    "Reading",
    "Reward",
    "RewardContext",
    "RewardReading",
    "ScoringEngine",
    "Selection",
    "StreamingEngine",
    "TrainableEngine",
    "Unit",
    "Verifier",
    "can_attach",
    "can_check",
    "can_score",
    "can_stream",
    "can_train",
    "check_answers",
]


class Draw(msgspec.Struct, frozen=True):
    """One planned proposal: its prompt's variables and the problems it refers to."""

    prompt: str
    """The prompt to use: "zero" or "reference"."""
    references: tuple[Problem, ...] = ()


class Proposer(Protocol):
    """Chooses the references that a proposal prompt shows, and which prompt that is."""

    def draw(self, rng: random.Random, pool: Sequence[Problem]) -> Draw:
        """Draw the references of one proposal from the pool of this round."""


class Verifier(Protocol):
    """A deterministic program check with a hard time limit.

    A verifier that can check a problem without an answer also has `check_problem(problem) -> Verdict`. One that works
    without a reference answer says so by a class attribute `needs_reference = False`. See `BatchVerifier` too.
    """

    def check(self, problem: Problem, answer: str | None) -> Verdict:
        """The verdict on an extracted answer; a missing answer is a wrong one, never an unknown one."""


class BatchVerifier(Verifier, Protocol):
    """A verifier that wants many answers at once: to compare those of a group, or to keep a worker process busy."""

    def check_many(
        self, problems: Sequence[Problem], answers: Sequence[str | None], groups: Sequence[str]
    ) -> list[Verdict]:
        """One verdict per answer, in order. Answers with one group name are rollouts compared with each other."""


def check_answers(
    verifier: Verifier, problems: Sequence[Problem], answers: Sequence[str | None], groups: Sequence[str]
) -> list[Verdict]:
    """The verdicts on many answers, in order, at once where the verifier can."""
    many = getattr(verifier, "check_many", None)
    if many is not None:
        return list(many(problems, answers, groups))
    return [verifier.check(problem, answer) for problem, answer in zip(problems, answers, strict=True)]


class Option(msgspec.Struct, frozen=True):
    """One verdict a judge may give: the text in its tags, and its score in [0, 1]."""

    text: str
    score: float


class Ask(msgspec.Struct, frozen=True):
    """One prompt for a model judge, with all verdicts it may answer with."""

    messages: tuple[Message, ...]
    options: tuple[Option, ...]


class Reading(NamedTuple):
    """A judgement as it was read: a score in [0, 1] or null, its status, and the reason."""

    score: float | None
    status: VerdictStatus
    reason: str


class PairComparison(NamedTuple):
    """One answer against another: 1 won, 0 lost, 0.5 a tie, null unknown."""

    score: float | None
    status: VerdictStatus
    reason: str
    orders_disagree: bool = False
    """Whether the verdict depends on which of the two was shown first."""


class Judge(Protocol):
    """A model-graded check: it writes the prompt and reads the reply; the stage calls the engine."""

    targets: ClassVar[frozenset[str]]
    """Things it grades, by the number of candidates given: `problem` (none), `answer` (one), `pair` (two)."""
    read: Literal["sampled", "probability"]
    """A verdict is read out of a generated reply, or expected over the probabilities of its options."""

    def shown(self, answer: str, completion: str) -> str:
        """The text of a rollout that this judge is shown: its answer or its completion."""

    def ask(self, problem: Problem, candidates: Sequence[str], nonce: str) -> Ask:
        """The prompt that grades the candidates, or the problem itself when there are none."""

    def read_reply(self, reply: str, options: Sequence[Option]) -> Reading:
        """The verdict in one reply without its reasoning block."""

    def read_logprobs(self, logprobs: Sequence[float | None], options: Sequence[Option]) -> Reading:
        """The verdict expected from the log-probability of each option, in their order."""

    def reply_of(self, option: Option) -> str:
        """The whole reply that gives this verdict: what is scored, or decoded under a constraint."""

    def format_score(self, reply: str) -> float:
        """How well the reply keeps the judge's own format, in [0, 1]."""


class PairJudge(Judge, Protocol):
    """A judge whose targets hold `pair`: it is asked about two answers, in both orders."""

    def combine(self, shown_first: Sequence[Reading], shown_second: Sequence[Reading]) -> PairComparison:
        """Return one answer against another, from the votes where it was shown first and those where it was second."""


class RewardContext(msgspec.Struct):
    """Facts that a reward may use besides its row."""

    problem_verdicts: list[Verdict]
    """Verdicts about the row's problem (quality, program checks)."""
    answer_verdicts: list[Verdict]
    """Verdicts about the row's own answer; for a judge row, those about the answer it graded."""
    solve_verdicts: list[list[Verdict]]
    """Verdicts about each rollout that estimates the difficulty of the row's problem."""
    judge_format: float | None = None
    """Format score of a judge row, in [0, 1]; null for other roles."""
    pair_verdicts: list[Verdict] = []
    """Verdicts on the row's answer against each other answer of its group."""


class RewardReading(msgspec.Struct, frozen=True):
    """A reward with the terms it was computed from; a null reward is unknown and is never trained."""

    reward: float | None
    terms: tuple[Term, ...]


class Reward(Protocol):
    """Turns the verdicts on a row into a number; pure, with formula and source in the docstring."""

    def score(self, row: Row, context: RewardContext) -> RewardReading:
        """The reward of a train row; recomputes exactly from its terms."""


class Selection(msgspec.Struct, frozen=True):
    """A filter's decision on one row: `reason` drops it from training, `stored` names the pool it goes to.

    Both are null where the filter has nothing to say.
    """

    reason: str | None = None
    stored: str | None = None


class Filter(Protocol):
    """Decides which rows are dropped from training and which are stored; pure, and each drop has a reason."""

    def select(self, rows: Sequence[Row]) -> list[Selection]:
        """One selection per row, in order; rows of another purpose or role get an empty one."""


class Unit(msgspec.Struct, frozen=True):
    """The smallest part of a training, never split over steps or micro-batches: one row, or a pair."""

    rows: tuple[int, ...]
    """Index of the row; of a pair, chosen before rejected."""
    value: float
    """The number the loss reads of it: an advantage, a weight, a label or a margin."""
    part: int = 0
    """Index of the objective of a mix that it belongs to."""


class Plan(msgspec.Struct, frozen=True):
    """The plan of an objective before training: the units, and the rows and roles left out."""

    units: tuple[Unit, ...]
    skipped: tuple[str, ...] = ()
    """Roles whose rewards hardly differ: none of their rows is trained."""
    dropped: dict[str, int] = {}
    """Rows in no unit, by reason: the trainer spends no forward pass on them."""


class Needs(msgspec.Struct, frozen=True):
    """The inputs of a loss besides the policy's log-probabilities; the trainer computes no others."""

    reward: bool = False
    """A row without a reward cannot be trained."""
    entropy: bool = False
    behaviour: bool = False
    """Log-probabilities from before the first update."""
    reference: bool = False
    """Log-probabilities of the frozen policy that `finetune.reference` names."""
    mismatched: bool = False
    """Distance of the policy from the reference on completions of other prompts (KTO's z)."""


class ObjectiveBatch(msgspec.Struct):
    """Tensors of one micro-batch of U units of one part. B rows (U, or 2U for pairs), T positions, right padded.

    logprobs: (B, T) natural log, of the policy, with gradient, 0 where masked. mask: (B, T) 1.0 where a token is
    trained. values: (U,) of the units. behaviour_logprobs, reference_logprobs: (B, T) without gradient, and entropy:
    (B, T) in nats with gradient, each only where the objective needs it. divergence: () nats, for `mismatched`. The
    rows of a pair stand next to each other, chosen first.
    """

    logprobs: torch.Tensor
    mask: torch.Tensor
    values: torch.Tensor
    behaviour_logprobs: torch.Tensor | None = None
    reference_logprobs: torch.Tensor | None = None
    entropy: torch.Tensor | None = None
    divergence: torch.Tensor | None = None
    part: int = 0


class ObjectiveOutput(msgspec.Struct):
    """The loss of each unit, and sums for the log with the counts they are divided by in the end."""

    losses: torch.Tensor
    """(U,) with gradient."""
    metrics: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    """Name to (sum, count), both without gradient."""


class Objective(Protocol):
    """Turns rewards into units, and log-probabilities into a loss; pure functions.

    The loss of an optimizer step is the sum over its units of scale * loss.
    """

    @property
    def needs(self) -> Needs:
        """The inputs that the trainer has to compute."""

    def plan(self, rows: Sequence[Rewarded], *, min_spread: float) -> Plan:
        """The units to train; a baseline with a reward spread under `min_spread` is never divided by."""

    def scales(self, units: Sequence[Unit], tokens: Sequence[int]) -> list[float]:
        """The weight of each unit's loss in its step; `tokens` are the trained tokens of each unit."""

    def loss(self, batch: ObjectiveBatch) -> ObjectiveOutput:
        """The loss of each unit, to be minimised."""
