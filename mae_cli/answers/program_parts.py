"""What a program defines and uses, by its syntax tree: stubs, and definitions that stand in another block.

Place in the flow: `answers.programs` chooses among the blocks of a completion with it. Contract: pure functions over
text that never raise; nothing is compiled or run, and long texts are not parsed.
"""

from __future__ import annotations

import ast
import builtins
import re
import warnings
from collections.abc import Sequence
from typing import Final

_PARSED_HERE: Final = 50_000
_BUILTIN: Final = frozenset(dir(builtins)) | {"__name__", "__file__"}


def is_python(text: str) -> bool:
    """Whether CPython's parser takes the text; nothing is compiled or run."""
    return parse(text) is not None


def parse(text: str) -> ast.Module | None:
    """The syntax tree of a program, or null; long texts are not parsed."""
    if len(text) > _PARSED_HERE:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def defines(code: str, name: str) -> bool:
    """Whether a program binds a name at its top level, by the look of its lines."""
    return re.search(rf"^(?:async )?(?:def|class) {re.escape(name)}\b|^{re.escape(name)}\s*=", code, re.M) is not None


def is_stub(code: str, name: str) -> bool:
    """Whether a program shows only the signature of a function: its body is `...`, `pass` or a docstring."""
    tree = parse(code)
    bodies = [
        node.body
        for node in (tree.body if tree else [])
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name
    ]
    return bool(bodies) and all(map(_does_nothing, bodies[-1]))


def _does_nothing(node: ast.stmt) -> bool:
    if isinstance(node, ast.Raise):
        return "NotImplementedError" in ast.dump(node)
    return isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))


def with_definitions(code: str, blocks: Sequence[str]) -> str:
    """A program behind the imports and functions that it uses and that stand in other blocks only."""
    known: dict[str, tuple[ast.stmt, str]] = {}
    for block in blocks:
        tree = parse(block) if block != code else None
        lines = block.split("\n")
        for node in tree.body if tree else []:
            first = min([node.lineno, *(mark.lineno for mark in getattr(node, "decorator_list", []))])
            source = "\n".join(lines[first - 1 : node.end_lineno])
            known.update({name: (node, source) for name in _bound(node)})
    tree = parse(code)
    missing = _missing(tree) if tree is not None else set()
    added: list[str] = []
    while wanted := [known[name] for name in sorted(missing) if name in known and known[name][1] not in added]:
        for node, source in wanted:
            if source not in added:
                added.insert(0, source)
                missing |= _missing(node)
    return "\n\n".join([*added, code])


def _bound(node: ast.stmt) -> set[str]:
    """The names that a statement of the top level defines."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    return _names(node, ast.Store) if isinstance(node, ast.Assign | ast.AnnAssign) else set()


def _missing(tree: ast.AST) -> set[str]:
    """The names that are used and bound nowhere in a tree."""
    bound = {argument.arg for argument in ast.walk(tree) if isinstance(argument, ast.arg)} | _names(tree, ast.Store)
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt):
            bound |= _bound(node)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            bound.add(node.name)
    return _names(tree, ast.Load) - bound - _BUILTIN


def _names(tree: ast.AST, context: type[ast.expr_context]) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, context)}
