"""Programs in problems and completions: which problems ask for one, where it stands in a text.

Place in the flow: `solve` and `eval` read the program out of a completion with `extract_code`; the verifiers
`python_tests` and `python_call` put it together with what the problem brings (`unit_tests` reads that). Contract: pure
functions over text, never raising on any; nothing is run here.
"""

from __future__ import annotations

import re
from typing import Final

from mae_cli.checking.sandbox import is_python
from mae_cli.checking.unit_tests import TEST_KEYS, entry_point_of
from mae_cli.extraction import NOT_FOUND, Extraction, split_reasoning, tag_spans
from mae_cli.records import Problem

_FENCE = re.compile(
    r"^(?P<indent>[ \t]{0,3})(?P<mark>```+|~~~+)[ \t]*(?P<language>[\w+-]*)[^\n]*\n(?P<code>.*?)^[ \t]{0,3}(?P=mark)",
    re.MULTILINE | re.DOTALL,
)
_PYTHON: Final = frozenset({"", "python", "python3", "py"})


def is_code_problem(problem: Problem) -> bool:
    """Whether the answer to a problem is a program."""
    meta = problem.meta
    return entry_point_of(problem) is not None or any(meta.get(key) for key in TEST_KEYS)


def head_of(problem: Problem) -> str | None:
    """The question, where it is itself the head of a program (HumanEval)."""
    question = problem.question.rstrip()
    return question if "def " in question and is_python(question) else None


def whole_program(problem: Problem, code: str) -> str:
    """The program an answer stands for: where the question is itself Python (HumanEval), it comes first.

    A model may write the body alone or the whole function again; both work behind the head, and a helper or import of
    the head is there for both.
    """
    head = head_of(problem)
    # Code that does not parse behind the head (it holds a syntax error) is run as it stands: its own fault shows.
    if head is not None and is_python(joined := f"{head}\n{code}"):
        return joined
    return code


def defines(code: str, name: str) -> bool:
    """Whether a program binds a name at its top level, by the look of its lines."""
    return re.search(rf"^(?:async )?(?:def|class) {re.escape(name)}\b|^{re.escape(name)}\s*=", code, re.M) is not None


def extract_code(text: str, entry_point: str | None = None) -> Extraction:
    """Extract a program from a completion.

    Order: the last fenced Python block inside the last answer tag, or the tag's content (`answer_tag`); the last fenced
    block that defines the entry point, else the last fenced block (`code_fence`); the whole text where it is Python and
    holds more than a name or a number (`code_text`). Fences of other languages are passed over.

    Source: our cascade; AZR (arXiv:2505.03335) takes the last fence.
    """
    visible = split_reasoning(text).visible
    spans = tag_spans(visible, "answer")
    if spans and spans[-1].strip():
        inside = _fenced(spans[-1], entry_point)
        return Extraction(inside or spans[-1].strip("\n").rstrip(), "answer_tag")
    fenced = _fenced(visible, entry_point)
    if fenced:
        return Extraction(fenced, "code_fence")
    plain = visible.strip("\n").rstrip()
    if re.search(r"^\s*(?:def|return|import|from|class|for|while|if)\b", plain, re.MULTILINE) and (
        is_python(plain) or is_python(f"def f():\n{plain}")
    ):
        return Extraction(plain, "code_text")
    return NOT_FOUND


def _fenced(text: str, entry_point: str | None) -> str | None:
    blocks = [
        match["code"].rstrip()
        for match in _FENCE.finditer(text)
        if match["language"].lower() in _PYTHON and match["code"].strip()
    ]
    named = [code for code in blocks if entry_point and defines(code, entry_point)]
    return (named or blocks or [None])[-1]
