"""Holding a row's text to a schema: at each step, which tokens may come next (library llguidance).

Place in the flow: `decode` asks for it when `Sampling.schema` is set. Contract: a row's mask is a function of the row's
own tokens, so a row's text stays a function of the row; greedy decoding takes the likeliest allowed token, and a
sampled one is drawn from the policy's distribution among them. An ending token is allowed only where the text is whole.

Shapes: A rows, V vocabulary of the model.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

import torch

from mae_cli.errors import ConfigError, EngineError, MissingDependencyError, one_line
from mae_cli.records.text_schema import TextSchema, text_schema


def check_schema(schema: TextSchema) -> None:
    """Refuse a schema with parts that the library cannot hold texts to; it says which.

    Raises:
        MissingDependencyError: the library is not installed.
        ConfigError: an unsupported or wrong schema.
    """
    if importlib.util.find_spec("llguidance") is None:
        raise MissingDependencyError("a schema with engine hf needs llguidance: pip install 'mae-cli[schema]'")
    from llguidance import LLMatcher

    is_wrong, told = LLMatcher.validate_grammar_with_warnings(_grammar(schema))
    if is_wrong or told:
        raise ConfigError(f"schema: engine hf cannot hold texts to it: {one_line(EngineError(told[0]))}")


class Masks:
    """The tokens that rows under one schema may continue with.

    Args:
        schema: text of `Sampling.schema`.
        tokenizer: a fast one of transformers.
        end_ids: tokens that end a row.
    """

    def __init__(self, schema: str, tokenizer: Any, end_ids: frozenset[int]) -> None:
        self.schema = schema
        self._tokenizer, self._end_ids = tokenizer, sorted(end_ids)
        self._matcher: Any = None
        self._rows: dict[int, Any] = {}

    def open(self, row: int) -> None:
        """Start a row; what it had is forgotten."""
        self._rows[row] = None

    def close(self, row: int) -> None:
        """Forget a row."""
        self._rows.pop(row, None)

    def applied(self, logits: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        """(A, V) logits with -inf at the tokens that must not come next; the given ones are not changed."""
        allowed = torch.stack([self._allowed(row, logits.shape[-1]) for row in rows])
        return logits.masked_fill(~allowed.to(logits.device), float("-inf"))

    def accept(self, rows: Sequence[int], tokens: Sequence[int]) -> None:
        """Take note of the token that each row got; a negative one is none."""
        for row, token in zip(rows, tokens, strict=True):
            if token >= 0 and token not in self._end_ids:
                self._rows[row].consume_token(token)

    def _allowed(self, row: int, vocabulary: int) -> torch.Tensor:
        """(V,) bool; where a matcher gave up on a grammar, its row ends and the stage sees that it is not whole."""
        if self._rows[row] is None:
            self._rows[row] = self._first(vocabulary).deep_copy()
        matcher = self._rows[row]
        allowed = torch.zeros(vocabulary, dtype=torch.bool)
        if matcher.is_error() or matcher.is_stopped():
            allowed[self._end_ids] = True
            return allowed
        words = torch.frombuffer(bytearray(matcher.compute_bitmask()), dtype=torch.uint8)
        bits = (words[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1
        found = bits.flatten()[:vocabulary].bool()
        allowed[: len(found)] = found
        return allowed

    def _first(self, vocabulary: int) -> Any:
        if self._matcher is None:
            from llguidance import LLMatcher, hf

            try:
                tokens = hf.from_tokenizer(self._tokenizer, n_vocab=vocabulary, eos_token=self._end_ids)
            except ValueError as error:
                raise EngineError(f"schema: this model's tokenizer cannot be held to one: {one_line(error)}") from error
            self._matcher = LLMatcher(tokens, _grammar(text_schema(self.schema)), log_level=0)
            if self._matcher.is_error():
                raise EngineError(f"schema: {one_line(EngineError(self._matcher.get_error()))}")
        return self._matcher


class NoMasks:
    """Every token may come next."""

    def open(self, row: int) -> None:
        """Nothing to start."""

    def close(self, row: int) -> None:
        """Nothing to forget."""

    def applied(self, logits: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        """The logits as they are."""
        return logits

    def accept(self, rows: Sequence[int], tokens: Sequence[int]) -> None:
        """Nothing to note."""


def _grammar(schema: TextSchema) -> str:
    from llguidance import LLMatcher, grammar_from

    if schema.kind == "json":
        # Without free blanks a greedy model could write spaces for ever.
        return LLMatcher.grammar_from_json_schema(schema.value, overrides={"whitespace_flexible": False})
    if schema.kind == "regex":
        return LLMatcher.grammar_from_regex(schema.value)
    return grammar_from("choice", schema.value)
