"""The text of tests, changed so that every check they make is counted.

Place in the flow: `tests` compiles what comes out. Contract: the tests mean what they meant. Counted are: asserts of
something that can be false, calls of functions whose names begin with assert, fail or raises, an `if` that raises or
leaves in one branch, and a `try` with something in it that must not be reached. An assert that failed is kept in mind
even where the tests catch it. `type(x)` and `x.__class__` ask the owner of an object of the program.
"""

from __future__ import annotations

import ast
import builtins
import symtable

COUNTED, CHECKED, KIND = "__mae_counted__", "__mae_checked__", "__mae_type__"
_CHECKING = ("assert", "fail", "raises", "warns", "expect")
_LEAVING = frozenset({"exit", "quit", "_exit", "fail"})


class _Counting(ast.NodeTransformer):
    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        self.generic_visit(node)
        if not always_true(node.test) and not _is_false(node.test):
            node.test = _call(CHECKED, node.test)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id == "type" and len(node.args) == 1:
            return _call(KIND, node.args[0])
        return _call(COUNTED, node) if _name_of(node.func).startswith(_CHECKING) else node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        is_read = node.attr == "__class__" and isinstance(node.ctx, ast.Load)
        return _call(KIND, node.value) if is_read else node

    def visit_If(self, node: ast.If) -> list[ast.stmt] | ast.AST:
        self.generic_visit(node)
        if any(_can_fail(part) for part in (*node.body, *node.orelse)):
            node.test = _call(COUNTED, node.test)
        return node

    def visit_Try(self, node: ast.Try) -> list[ast.stmt]:
        can_fail = any(_can_fail(part) for part in (*node.body, *node.orelse))
        self.generic_visit(node)
        return [ast.Expr(_call(COUNTED, ast.Constant(None))), node] if can_fail else [node]


def counted(source: str) -> ast.Module:
    """The tree of a text with its checks counted.

    Raises:
        SyntaxError: no Python.
    """
    tree: ast.Module = _Counting().visit(ast.parse(source))
    return ast.fix_missing_locations(tree)


def always_true(node: ast.expr) -> bool:
    """Whether an assert of this checks nothing: a constant, or a tuple that should have been a message."""
    if isinstance(node, ast.Constant):
        return bool(node.value)
    return isinstance(node, ast.Tuple) and bool(node.elts)


def free_names(tree: ast.Module) -> list[str]:
    """Names that a text uses and binds in no scope they are used in, in order."""
    whole = symtable.symtable(ast.unparse(tree), "<tests>", "exec")
    scopes = [whole]
    for scope in scopes:
        scopes += scope.get_children()
    bound = {one.get_name() for one in whole.get_symbols() if one.is_assigned() or one.is_imported()}
    bound |= {one.get_name() for scope in scopes for one in scope.get_symbols() if one.is_declared_global()}
    used = {one.get_name() for scope in scopes for one in scope.get_symbols() if one.is_global() or scope is whole}
    found = dict.fromkeys(
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    )
    free = [name for name in found if name in used - bound]
    return [name for name in free if not hasattr(builtins, name) and name[:6] != "__mae_"]


def called_at_top(tree: ast.Module) -> set[str]:
    """Names of functions that a text calls outside its functions and classes."""
    found: set[str] = set()
    for statement in tree.body:
        if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found |= {_name_of(node.func) for node in ast.walk(statement) if isinstance(node, ast.Call)}
    return found


def _can_fail(statement: ast.stmt) -> bool:
    for node in ast.walk(statement):
        if isinstance(node, ast.Raise):
            return True
        if isinstance(node, ast.Assert) and _is_false(node.test):
            return True
        if isinstance(node, ast.Call) and _name_of(node.func) in _LEAVING:
            return True
    return False


def _is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and not node.value


def _name_of(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _call(name: str, argument: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(name, ast.Load()), [argument], [])
