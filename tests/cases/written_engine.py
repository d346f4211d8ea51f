"""An engine that gives written completions: `tests.cases.written_engine:open_engine:FILE`, a JSON object of texts by question."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mae_cli.plugins.contracts import EngineFacts
from mae_cli.records import Completion, Policy, Request, Sampling, Usage


class WrittenEngine:
    facts = EngineFacts(deterministic=True)

    def __init__(self, path: str) -> None:
        self.policy = Policy(model="written")
        self._texts: dict[str, str] = json.loads(Path(path).read_text("utf-8"))

    def plan(self, requests: Sequence[Request], batch_size: int) -> list[list[int]]:
        return [list(range(len(requests)))]

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        return [self._answer(str(request.messages[-1].content)) for request in requests]

    def _answer(self, prompt: str) -> Completion:
        found = [text for question, text in self._texts.items() if question.strip() in prompt]
        assert len(found) == 1, (len(found), prompt)
        return Completion(raw=found[0], completion=found[0], finish_reason="stop", usage=Usage(1, 1))

    def close(self) -> None:
        return


def open_engine(recipe: Any, argument: str) -> WrittenEngine:
    return WrittenEngine(argument)
