"""The `replay` engine: answers from the rows of an earlier file, so a run or a bug report works without its model.

`--engine replay:FILE` looks a request up by row id; when the id is new (another prompt version or seed), by equal
messages and number of the sample. An answer is a function of the request alone, so a resumed file is the uninterrupted
one; a request nobody has answered gets status "error".
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mae_cli.errors import ConfigError
from mae_cli.plugins.contracts import EngineFacts
from mae_cli.recipe.sections import Recipe
from mae_cli.records import Completion, Message, Policy, Request, Row, Sampling
from mae_cli.records.read import read_rows


class ReplayEngine:
    """Answers from recorded rows; see the module."""

    facts = EngineFacts(deterministic=True)

    def __init__(self, path: Path, rows: Sequence[Row]) -> None:
        self._path = path
        self._by_id = {row.id: row for row in rows}
        self._by_messages: dict[tuple[Message, ...], dict[int, Row]] = {}
        for row in rows:
            # The first of two problems with one text answers for both.
            self._by_messages.setdefault(tuple(row.messages), {}).setdefault(row.sample_index, row)
        self.batch_sizes_used: list[int] = []
        # The recorded policy, because ids depend on it: the same command then plans the same ids.
        self.policy: Policy = rows[0].policy

    def plan(self, requests: Sequence[Request], batch_size: int) -> list[list[int]]:
        """Segments of `batch_size` in input order."""
        return [
            list(range(start, min(start + batch_size, len(requests)))) for start in range(0, len(requests), batch_size)
        ]

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """Answer one segment, order kept."""
        self.batch_sizes_used.append(len(requests))
        return [self._answer(request) for request in requests]

    def close(self) -> None:
        """Nothing to free."""

    def _answer(self, request: Request) -> Completion:
        alike = self._by_messages.get(request.messages, {})
        row = self._by_id.get(request.id) or alike.get(request.sample_index)
        if row is None:
            lacks = f"sample {request.sample_index} of these messages is" if alike else "these messages are"
            reason = f"no recorded answer in {self._path.name}: neither this row id nor {lacks} there"
            return Completion(status="error", error=reason, finish_reason="error")
        return Completion(
            raw=row.raw,
            reasoning=row.reasoning,
            completion=row.completion,
            prompt_token_ids=row.prompt_token_ids,
            completion_token_ids=row.completion_token_ids,
            # Unparsed is what the stage found out from the text; it will find it out again.
            status="ok" if row.status == "unparsed" else row.status,
            error=row.error,
            finish_reason=row.finish_reason,
            usage=row.usage,
        )


def open_engine(recipe: Recipe, argument: str) -> ReplayEngine:
    """Answers from the rows of an earlier file.

    Raises:
        ConfigError: no file is named, or it holds no rows.
        DataError: the file holds something else than records.
    """
    if not argument:
        raise ConfigError("engine replay: name the file to answer from, replay:FILE")
    path = Path(argument)
    if not path.is_file():
        raise ConfigError(f"engine replay: {path}: no such file")
    rows = [row for row in read_rows(path) if row.finish_reason is not None]
    if not rows:
        raise ConfigError(f"engine replay: {path} holds no answered row")
    return ReplayEngine(path, rows)
