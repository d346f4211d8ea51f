"""Planned segments to finished ones: many at a time where the engine can, else one after another.

A segment is what is stored and redone as a whole; `Engine.plan` cuts them. They come back as they are finished, and
`generate` stores each at once and puts all in planned order at the end.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Protocol

from mae_cli.plugins import contracts
from mae_cli.records import Completion, Request, Row, Sampling, request_of

AT_ONCE = 512
"""Segments given to an `Answer` together where the engine keeps many requests in flight: lost with a kill."""


class Answer(Protocol):
    """Answers some rows in another way than by generating: a judge's verdict read from probabilities."""

    def knows(self, row: Row) -> bool:
        """Whether this row is one of them."""

    def answer(self, rows: Sequence[Row]) -> list[Completion]:
        """The answers of a segment that holds such a row, order kept."""


def answered_segments(
    engine: contracts.Engine | None,
    segments: Sequence[list[Row]],
    prepare: Callable[[Row], contracts.Engine] | None,
    answer: Answer | None,
) -> Iterator[tuple[list[Row], list[Completion]]]:
    """Each segment with its answers, as they are finished."""
    for (_, sampling), group in itertools.groupby(
        segments, key=lambda segment: (segment[0].policy, segment[0].sampling)
    ):
        assert engine is not None
        alike = list(group)
        if prepare is not None:
            engine = prepare(alike[0][0])
        if answer is not None:
            known = [segment for segment in alike if any(answer.knows(row) for row in segment)]
            yield from _by_hook(engine, known, answer)
            alike = [segment for segment in alike if not any(answer.knows(row) for row in segment)]
        requests = ([request_of(row) for row in segment] for segment in alike)
        with contextlib.closing(_stream(engine, requests, sampling)) as stream:
            for number, completions in stream:
                yield alike[number], completions


def _by_hook(
    engine: contracts.Engine, segments: Sequence[list[Row]], answer: Answer
) -> Iterator[tuple[list[Row], list[Completion]]]:
    """Segments answered by `answer`: one by one, or many at once where the engine has room for them."""
    at_once = AT_ONCE if engine.facts.streams else 1
    for start in range(0, len(segments), at_once):
        some = segments[start : start + at_once]
        completions = iter(answer.answer([row for segment in some for row in segment]))
        for segment in some:
            yield segment, list(itertools.islice(completions, len(segment)))


def _stream(
    engine: contracts.Engine, segments: Iterable[Sequence[Request]], sampling: Sampling
) -> Generator[tuple[int, list[Completion]]]:
    """The engine's own stream, or one segment after the other."""
    if contracts.can_stream(engine):
        yield from engine.stream(segments, sampling)
        return
    for number, segment in enumerate(segments):
        yield number, engine.generate(segment, sampling)
