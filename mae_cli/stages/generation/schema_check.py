"""Rows under a schema: the engine is asked whether it can, and every text is checked once it is there.

Contract: a text that is not what the schema asks for is a row with a status and a reason, whatever the engine promised;
nothing is repaired. A text cut by its limit stays `truncated`, any other fault is `unparsed`.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import UNSET

from mae_cli.checking import killable
from mae_cli.errors import ConfigError
from mae_cli.plugins import contracts
from mae_cli.records import Problem, Row, problem_id
from mae_cli.records.text_schema import TextSchema, text_schema
from mae_cli.stages.generation.progress import Progress

SECONDS = 10.0
"""Longest check of one text."""
NOTICE = (
    "texts are held to a schema: each token is drawn among the allowed ones only, while policy gradients take a row's "
    "tokens as drawn among all; train them by sft or preferences"
)


def check_schemas(rows: Sequence[Row], engine_name: str) -> None:
    """Refuse a schema that the engine `hf` cannot hold texts to, before a model is loaded.

    Raises:
        ConfigError: it has parts that are not supported; they are named.
    """
    if engine_name.partition(":")[0] == "hf":
        for schema in _schemas_of(rows):
            from mae_cli.engines.hf.constraints import check_schema

            check_schema(text_schema(schema))


def check_engine(engine: contracts.Engine, engine_name: str, rows: Sequence[Row], progress: Progress) -> None:
    """Refuse a schema where the engine takes none, and tell what it means for training.

    Raises:
        ConfigError: it cannot hold texts to a schema.
    """
    if not _schemas_of(rows):
        return
    if not engine.facts.schemas:
        raise ConfigError(
            f'engine "{engine_name}" cannot hold texts to a schema; use hf, openai or vllm, or leave schema out'
        )
    progress.say(NOTICE)


def _schemas_of(rows: Sequence[Row]) -> set[str]:
    return {row.sampling.schema for row in rows if isinstance(row.sampling.schema, str)}


def checked(row: Row) -> Row:
    """The row with its text checked against its schema, where it has one."""
    schema = row.sampling.schema
    if schema is UNSET or row.status in ("error", "too_long"):
        return row
    if row.status == "truncated":
        row.error, row.answer = "cut by the token limit before the text was what the schema asks for", None
    elif (fault := _fault(text_schema(schema), row)) is not None:
        row.status, row.error, row.answer = "unparsed", f"not of the schema: {fault}", None
        if row.is_proposal:
            row.problem = None
    else:
        _read(row, text_schema(schema).kind)
    return row


def _fault(schema: TextSchema, row: Row) -> str | None:
    text = row.completion or ""
    if schema.kind == "choices":
        return None if text in schema.value else "none of the choices"
    if schema.kind == "json":
        target, item = "mae_cli.checking.patterns:schema_fault", [schema.value, text]
    else:
        target, item = "mae_cli.checking.patterns:matches", [schema.value, text, False, True]
    (outcome,) = killable.shared(target).call([item], SECONDS)
    if outcome.status != "ok":
        return outcome.message or outcome.status
    if schema.kind == "regex":
        return None if outcome.value else "another text than the pattern's"
    return None if outcome.value is None else str(outcome.value)


def _read(row: Row, kind: str) -> None:
    """Read question or answer out of a sound text: the field of that name, or as an answer the whole text."""
    text = row.completion or ""
    tree = msgspec.json.decode(text) if kind == "json" else None
    name = "question" if row.is_proposal else "answer"
    value = tree.get(name) if isinstance(tree, dict) else None
    found = str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else None
    if row.is_proposal:
        if found:
            row.problem, row.status = Problem(id=problem_id(found), question=found, meta={}), "ok"
    else:
        row.answer, row.status = found if found is not None else text, "ok"
