"""Programs in problems and completions: which problems ask for one, where it stands in a text, what tests it.

Place in the flow: `solve` and `eval` read the program out of a completion with `extract_code`; the verifiers
`python_tests` and `python_call` put it together with what the problem brings. Contract: pure functions over text,
never raising on any; nothing is run here. Understood are the fields of HumanEval (`test`, `entry_point`, the question
is the head of the program), of MBPP (`test_list`, `test_setup_code`) and our own `tests`.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterable
from typing import Final

import msgspec

from mae_cli.checking.sandbox import is_python, parse
from mae_cli.extraction import NOT_FOUND, Extraction, split_reasoning, tag_spans
from mae_cli.records import Problem

_FENCE = re.compile(
    r"^(?P<indent>[ \t]{0,3})(?P<mark>```+|~~~+)[ \t]*(?P<language>[\w+-]*)[^\n]*\n(?P<code>.*?)^[ \t]{0,3}(?P=mark)",
    re.MULTILINE | re.DOTALL,
)
_PYTHON: Final = frozenset({"", "python", "python3", "py"})
TEST_KEYS: Final = ("tests", "test", "test_list")


class UnitTests(msgspec.Struct, frozen=True):
    """What a problem's program is tested with."""

    source: str
    """Statements that raise where the program is wrong; with `check`, they only define `check(candidate)`."""
    entry_points: tuple[str, ...]
    """Functions of the program that the tests call."""
    takes_candidate: bool
    """Whether the tests are one function `check(candidate)` (HumanEval) instead of plain asserts (MBPP)."""


def is_code_problem(problem: Problem) -> bool:
    """Whether the answer to a problem is a program."""
    meta = problem.meta
    return entry_point_of(problem) is not None or any(meta.get(key) for key in TEST_KEYS)


def entry_point_of(problem: Problem) -> str | None:
    """The function a problem asks for, by name."""
    name = problem.meta.get("entry_point")
    return name if isinstance(name, str) and name.isidentifier() else None


def unit_tests_of(problem: Problem) -> UnitTests | None:
    """The unit tests a problem brings; null where it has none that can be read."""
    meta = problem.meta
    found = next((meta[key] for key in TEST_KEYS if meta.get(key)), None)
    if isinstance(found, list) and all(isinstance(item, str) for item in found):
        found = "\n".join(found)
    if not isinstance(found, str):
        return None
    setup = "\n".join(
        text for key in ("test_imports", "test_setup_code") for text in _texts(meta.get(key)) if text.strip()
    )
    tree = parse(found)
    if tree is None:
        return None
    source = f"{setup}\n{found}" if setup else found
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    entry_point = entry_point_of(problem)
    if "check" in defined and entry_point:
        return UnitTests(source, (entry_point,), True)
    called = [entry_point] if entry_point else _called(tree, defined)
    return UnitTests(source, tuple(called), False) if called else None


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _called(tree: ast.Module, defined: Iterable[str]) -> list[str]:
    """Names the tests call that neither they nor Python define, in the order of their first call."""
    known = {*defined, *dir(builtins)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            known.update(alias.asname or alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            known.add(node.id)
    names = [node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    return [name for name in dict.fromkeys(names) if name not in known]


def whole_program(problem: Problem, code: str) -> str:
    """The program an answer stands for: where the question is itself Python (HumanEval), it comes first.

    A model may write the body alone or the whole function again; both work behind the head, and a helper or import of
    the head is there for both.
    """
    question = problem.question
    # Code that does not parse behind the head (it holds a syntax error) is run as it stands: its own fault shows.
    if "def " in question and is_python(question.rstrip()):
        joined = f"{question.rstrip()}\n{code}"
        return joined if is_python(joined) else code
    return code


def builtins_in(source: str) -> set[str]:
    """The names of builtins that a text uses."""
    tree = parse(source)
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} if tree else set()
    return names & set(dir(builtins))


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
