"""The question of a proposal, read out of its text, and the key by which two questions count as the same.

Place in the flow: `propose` extracts the question; filters and problem sets compare keys. Contract: pure functions
over text; a question inside a reasoning block is never taken.
"""

from __future__ import annotations

import functools
import re

from mae_cli.answers.arithmetic import canonical_key
from mae_cli.answers.bare_text import bare_text, plain_text
from mae_cli.answers.reasoning import split_named_reasoning
from mae_cli.answers.tags import tag_spans
from mae_cli.records import normalise_question


def extract_question(text: str) -> str | None:
    """Return the last `<question>..</question>` span outside reasoning, stripped; None if empty.

    Source: MAE, arXiv:2510.23595, released code: the last span counts.
    """
    spans = tag_spans(split_named_reasoning(text).visible, "question")
    return (spans[-1].strip() or None) if spans else None


def question_key(question: str) -> str:
    """Key by which a run's benchmarks are split into reported and gate items; it never changes, or old runs would."""
    return canonical_key(question) or normalise_question(question).casefold()


@functools.lru_cache(maxsize=1 << 14)
def bare_key(question: str) -> str:
    """Key of a question whatever its dress: two questions with equal keys are one item.

    One arithmetic problem up to the order of its operands, number words and template is one item, too.
    """
    plain = plain_text(question)
    stem = re.sub(r"[\s?.!]+$", "", plain)
    sums = (canonical_key(question), *(canonical_key(f"{stem}{end}") for end in ("?", ".", "")))
    found = next((key for key in sums if key), None)
    return found or bare_text(question) or normalise_question(question).casefold()
