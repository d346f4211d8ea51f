"""The unit tests of a problem: their source, and the names they take from the program under test.

Place in the flow: the verifier `python_tests` runs what is read here. Contract: pure functions over text that never
raise; nothing is run. Understood are the fields of HumanEval (`test`, `entry_point`), of MBPP (`test_list`,
`test_setup_code`, `test_imports`) and our own `tests`.
"""

from __future__ import annotations

import ast
import builtins
import re
import symtable
import warnings
from collections.abc import Iterator
from typing import Final

import msgspec

from mae_cli.answers.programs import TEST_KEYS, entry_point_of, parse
from mae_cli.records import Problem

_SETUP_KEYS: Final = ("test_imports", "test_setup_code")
_BUILTINS: Final = frozenset(dir(builtins))


class UnitTests(msgspec.Struct, frozen=True):
    """Unit tests of one problem, taken apart."""

    definitions: str
    """Source before the first test; where it raises, the tests are broken."""
    source: str
    """Statements that raise where the program is wrong; empty where `check` is called instead."""
    candidate: str | None
    """The function handed to `check(candidate)` (HumanEval); null for plain asserts (MBPP)."""
    asked: tuple[str, ...]
    """Names the program has to define."""
    taken: tuple[str, ...]
    """All names the tests take from the program."""
    called: tuple[str, ...]
    """Of these, the ones that are only called, and not just to make an argument for another."""
    used: tuple[str, ...]
    """Of these, the ones used in other ways (`map(f, ...)`, `math.pi`)."""
    names: frozenset[str]
    """Every name in the tests."""
    variables: frozenset[str]
    """Global names that hold the tests' own values."""
    builtins: frozenset[str]
    """Names of Python's own that the tests use and do not bind."""


def unit_tests_of(problem: Problem) -> UnitTests | None:
    """The unit tests a problem brings; null where it has none that can be read."""
    meta = problem.meta
    found = next((meta[key] for key in TEST_KEYS if meta.get(key)), None)
    if isinstance(found, list) and all(isinstance(item, str) for item in found):
        found = "\n".join(found)
    if not isinstance(found, str):
        return None
    setup = "\n".join(text for key in _SETUP_KEYS for text in _texts(meta.get(key)) if text.strip())
    whole = f"{setup}\n{found}"
    tree = parse(whole)
    if tree is None or parse(found) is None:
        return None
    checks = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "check"]
    entry_point = entry_point_of(problem)
    loads = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
    bound = set(_bound(tree))
    free = dict.fromkeys(node.id for node in loads if node.id not in bound and node.id not in _BUILTINS)
    callees = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    calls = [name for name in free if any(node.id == name and id(node) in callees for node in loads)]
    is_check = bool(checks and entry_point)
    asked = (entry_point,) if entry_point else tuple(calls)
    if not asked:
        return None
    # What only goes into the program may be anything: f(Pair(1, 2)) takes Pair from it as well.
    given = _given(tree, {*free, *(argument.arg for node in checks for argument in node.args.args if is_check)})
    kept = [node for node in loads if node.id in free and id(node) not in given]
    other = {node.id for node in kept if id(node) not in callees}
    return UnitTests(
        definitions=whole if is_check else setup,
        source="" if is_check else found,
        candidate=entry_point if is_check else None,
        asked=asked,
        taken=tuple(dict.fromkeys([*asked, *free])),
        called=tuple(name for name in free if name not in other and any(node.id == name for node in kept)),
        used=tuple(name for name in free if name in other),
        names=frozenset({*bound, *(node.id for node in loads)}),
        variables=frozenset(
            node.id
            for statement in tree.body
            if not isinstance(statement, ast.FunctionDef | ast.ClassDef)
            for node in ast.walk(statement)
            if isinstance(node, ast.Name) and _is_stored(node)
        ),
        builtins=frozenset(node.id for node in loads if node.id in _BUILTINS - bound),
    )


def reaches(program: str, tests: UnitTests) -> bool:
    """Whether a function of a program can bind a name of the tests anew while they run, or read their variables."""
    functions = _functions(program)
    if functions is None:
        return not {"global", *tests.variables}.isdisjoint(re.findall(r"\w+", program))
    for function in functions:
        for symbol in function.get_symbols():
            name = symbol.get_name()
            if symbol.is_declared_global() and symbol.is_assigned() and name in tests.names:
                return True
            if symbol.is_global() and (name in tests.variables or (name == "eval" and tests.variables)):
                return True
    return False


def _functions(program: str) -> list[symtable.SymbolTable] | None:
    """The scopes of a program's functions; null where CPython does not take it."""
    if parse(program) is None:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scopes = [symtable.symtable(program, "program", "exec")]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    for scope in scopes:
        scopes.extend(scope.get_children())
    return scopes[1:]


def functions_in(source: str) -> set[str]:
    """The names of the functions and classes that a text defines at its top level."""
    tree = parse(source)
    nodes = tree.body if tree else []
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _bound(tree: ast.Module) -> Iterator[str]:
    """Names that some scope of a text binds."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.Name) and _is_stored(node):
            yield node.id
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.ExceptHandler) and node.name:
            yield node.name


def _is_stored(node: ast.Name) -> bool:
    return isinstance(node.ctx, ast.Store)


def _given(tree: ast.Module, functions: set[str]) -> set[int]:
    """The nodes (by id) inside the arguments of calls of these functions."""
    found: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in functions:
            for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
                found.update(map(id, ast.walk(argument)))
    return found
