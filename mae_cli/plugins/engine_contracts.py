"""Contracts of engines: the Protocol every engine has, its facts, and the abilities that the facts promise.

Place in the flow: stages ask an engine for nothing that its facts do not say. Contract: see each Protocol. Everything
here is also a name of `plugins.contracts`, from which plugin authors import it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

import msgspec

from mae_cli.records import Completion, Policy, Request, Sampling

if TYPE_CHECKING:
    from mae_cli.prompts.chat_template import Chat


class EngineFacts(msgspec.Struct, frozen=True):
    """What an engine can do beyond generating, and what of it changes texts. Nothing else is asked about an engine.

    A fact that promises an ability (`attaches`, `scores`, `streams`, `checks`, `trains`) means that the engine has the
    methods of the Protocol beside it.
    """

    deterministic: bool
    """Whether a row's text is a function of the row alone, in the sense of the records contract."""
    attaches: bool = False
    """It puts LoRA adapters on its model: `AttachingEngine`."""
    scores: bool = False
    """It tells how likely a text is: `ScoringEngine`."""
    streams: bool = False
    """It works on many segments at once: `StreamingEngine`."""
    checks: bool = False
    """It can find out before the first row whether it can work: `CheckingEngine`."""
    trains: bool = False
    """It holds weights in this process that can be trained: `TrainableEngine`."""
    constrains: bool = False
    """`generate` honours `Sampling.choices`."""
    schemas: bool = False
    """`generate` honours `Sampling.schema`."""
    numerics: str = "none"
    """What changes a text besides policy and sampling (type of the weights, decode loop); part of fingerprints."""
    notices: tuple[str, ...] = ()
    """What a person should know of how it works, so far."""


class Engine(Protocol):
    """Turns prompts into completions. What else an engine can do stands in its facts."""

    policy: Policy

    @property
    def facts(self) -> EngineFacts:
        """What it can do; a class attribute where it is always the same."""

    def plan(self, requests: Sequence[Request], batch_size: int) -> list[list[int]]:
        """Split requests into segments (indices), a pure function of the requests and the micro-batch.

        Every index stands in exactly one segment. A segment is generated, stored and redone as a whole.
        """

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """Answer one segment, order kept; one failing request never loses the others."""

    def close(self) -> None:
        """Free the model and its caches."""


class AttachingEngine(Engine, Protocol):
    """An engine that puts adapters on its model (`facts.attaches`)."""

    def attach(self, adapter: Path | None) -> None:
        """Generate with an adapter from now on, or with none; `policy` follows."""

    def adapter_digest(self, adapter: Path) -> str:
        """What `policy.adapter` is while this adapter is on."""


class StreamingEngine(Engine, Protocol):
    """An engine that works on many segments at once (`facts.streams`); others get one segment after another."""

    def stream(
        self, segments: Iterable[Sequence[Request]], sampling: Sampling
    ) -> Iterator[tuple[int, list[Completion]]]:
        """Yield (number of the segment, its completions) for each segment as soon as it is whole, in any order.

        Segments are taken from the iterable only as there is room for them. Closing the iterator drops what is in
        flight.
        """


class ScoringEngine(Engine, Protocol):
    """An engine that can compute the log-probability of given texts (`facts.scores`)."""

    def score(self, requests: Sequence[Request], options: Sequence[Sequence[str]]) -> list[list[float | None]]:
        """Natural log-probability of each option text as the continuation of the rendered prompt.

        One list per request, in order, one value per option of it, each <= 0; null where it could not be computed.
        """


class CheckingEngine(Engine, Protocol):
    """An engine that `--dry-run` can try without generating a row (`facts.checks`)."""

    def check(self) -> None:
        """Find out whether it can work; an EngineError says why not."""


class TrainableEngine(AttachingEngine, Protocol):
    """An engine whose weights `finetune` can train (`facts.trains`)."""

    model: Any
    """The torch module, with the adapter that is attached."""
    chat: Chat
    """Its tokenizer and chat template."""
    end_ids: frozenset[int]
    """Ids that end a completion."""
    folder: Path
    """Where the model's files lie."""

    def release_caches(self) -> None:
        """Give memory back that generating keeps."""


def can_attach(engine: Engine) -> TypeGuard[AttachingEngine]:
    """Whether the engine takes adapters."""
    return engine.facts.attaches


def can_score(engine: Engine) -> TypeGuard[ScoringEngine]:
    """Whether the engine gives log-probabilities of texts."""
    return engine.facts.scores


def can_stream(engine: Engine) -> TypeGuard[StreamingEngine]:
    """Whether the engine works on many segments at once."""
    return engine.facts.streams


def can_check(engine: Engine) -> TypeGuard[CheckingEngine]:
    """Whether the engine can be tried without generating."""
    return engine.facts.checks


def can_train(engine: Engine) -> TypeGuard[TrainableEngine]:
    """Whether the engine's weights can be trained."""
    return engine.facts.trains
