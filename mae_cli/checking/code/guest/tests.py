"""The guest of the tests: runs every test of a problem against a program in another guest, and counts checks.

Place in the flow: `guests` starts it; it gets one plan from the host and gives one report. Contract: the report says
"passed" only where a test ran to its end that checked something and used the program, and where no check failed, even
a caught one. The program cannot reach this guest but through what the tests hand it.
"""

from __future__ import annotations

import ast
import io
import json
import re
import sys
import types
from collections.abc import Callable
from typing import Any

from mae_cli.checking.code.guest import instrument, pytest_stub
from mae_cli.checking.code.guest.peer import TESTS_MODULE, EndedError, Peer
from mae_cli.checking.code.guest.remotes import Remote, UndecidedError, ask
from mae_cli.checking.code.guest.single_thread import make_room
from mae_cli.checking.code.guest.values import CannotCrossError


class BrokenError(Exception):
    """The tests themselves cannot be run."""


class Runner:
    """One plan: `head` and `setup` (source), `source`, `asked` names, `candidate`, `is_doctest`, `seed`."""

    def __init__(self, send: Callable[[bytes], bytes], plan: dict[str, Any]) -> None:
        self.plan = plan
        self.peer = Peer(send, guarded=True)
        self.peer.extra = {"read line": self._read_line}
        self.module = types.ModuleType(TESTS_MODULE)
        self.checks = self.failures = 0
        self.given: set[str] = set()
        self.constants = 0
        self.copied: str | None = None  # A variable of the program that its functions may change later.
        self.unknown: set[str] = set()

    def report(self) -> dict[str, Any]:
        """What came out: `status` passed, failed, unsupported; `reason`; `checks` made."""
        status, reason = self._outcome()
        if status == "passed" and self.failures:
            status, reason = "unsupported", "the tests catch their own failed asserts"
        if status == "passed" and not self.checks:
            status, reason = "unsupported", "the tests check nothing"
        if status == "passed" and self.peer.stopped and "Stop" not in self.plan["source"]:
            status, reason = "failed", "a call raised StopIteration"
        if status == "passed" and not self.peer.calls + self.constants:
            status, reason = "unsupported", "the tests never use the program"
        if self.peer.refused:
            status, reason = "unsupported", self.peer.refused
        elif status == "failed" and (why := self.peer.lack or self.peer.beyond or self._is_beyond_reach()):
            status, reason = "unsupported", why
        return {"status": status, "reason": reason[:300], "checks": self.checks}

    def _is_beyond_reach(self) -> str | None:
        """Why a right program might fail here: the tests want what does not pass between two interpreters."""
        found = _BEYOND_REACH.search(_IMPORTS.sub("", f"{self.plan['setup']}\n{self.plan['source']}"))
        if found:
            return f"the tests use {found[0]}, which does not reach a program in another interpreter"
        if self.copied:
            return f"the tests look at the program's variable {self.copied}, of which they have a copy"
        own = {name for name, value in vars(self.module).items() if isinstance(value, type)}
        own = own if _ASKS_TYPES.search(self.plan["source"]) else set()
        kinds = [kind for kind, module in self.peer.kinds if module not in _ORDINARY or kind in own]
        return f"the program gives a {kinds[0]} to the tests, which they cannot compare" if kinds else None

    def _outcome(self) -> tuple[str, str]:
        try:
            tree = self._prepared()
        except BrokenError as error:
            return "unsupported", str(error)
        except EndedError as error:
            return "failed", f"the program ended: {error}"
        try:
            self._run(tree)
        except BrokenError as error:
            return "unsupported", str(error)
        except pytest_stub.Skipped:
            return "unsupported", "the tests skip themselves"
        except AssertionError as error:
            return "failed", f"a test failed: {error}" if str(error) else "a test failed"
        except (EndedError, SystemExit) as error:
            return "failed", f"the program ended: {error}"
        except UndecidedError as error:
            return "unsupported", f"the tests use {error}"
        except CannotCrossError as error:
            return "unsupported", f"a value that cannot be shown to the program or to the tests: {error}"
        except BaseException as error:
            return self._raised(error)
        return "passed", "all tests passed"

    def _raised(self, error: BaseException) -> tuple[str, str]:
        text = f"{type(error).__name__}: {error}"
        if isinstance(error, NameError) and error.name in self.unknown and error.name not in self.plan["asked"]:
            return "unsupported", f"the tests use {error.name}, which nothing defines"
        if isinstance(error, ImportError) and _raised_in(error) == "<tests>":
            return "unsupported", f"the tests need {error.name or error}"
        if isinstance(error, pytest_stub.MissingError):
            return "unsupported", str(error)
        if isinstance(error, OSError) and error.errno and error is not self.peer.raised:
            return "unsupported", f"the tests need files, network or processes: {error}"
        if _raised_in(error) in _OWN_FILES and error is not self.peer.raised:
            return "crashed", text
        return "failed", text

    def _prepared(self) -> ast.Module:
        """The tests' tree, ready to run: the problem's own code has run, and the program's names are bound."""
        space = self.module.__dict__
        sys.modules[TESTS_MODULE] = self.module
        sys.modules["pytest"] = pytest_stub
        make_room(self.plan["source"] + self.plan["setup"])
        self._run_own("head", self.plan["head"], is_asking=False)
        asked = set(self.plan["asked"])
        for name in asked | {name for name in space if name[:2] == "__" and name not in _MODULE_NAMES}:
            space.pop(name, None)
        self._run_own("setup", self.plan["setup"], is_asking=True)
        if self.plan["is_doctest"]:
            return self._bound(ast.parse("\n".join(example.source for example in self._examples())))
        try:
            tree = instrument.counted(self.plan["source"])
        except (SyntaxError, ValueError, RecursionError) as error:
            raise BrokenError(f"the tests are no Python: {error}") from None
        return self._bound(tree)

    def _run_own(self, what: str, source: str, *, is_asking: bool) -> None:
        """Run code that the problem brings; a program is not to blame for it."""
        tree = self._bound(ast.parse(source), is_asking=is_asking)
        try:
            exec(compile(tree, f"<{what}>", "exec"), self.module.__dict__)
        except Exception as error:
            raise BrokenError(f"the problem's own code fails: {type(error).__name__}: {error}") from None

    def _bound(self, tree: ast.Module, *, is_asking: bool = True) -> ast.Module:
        """Bind the names that a text takes from elsewhere: standard modules here, all others from the program."""
        space = self.module.__dict__
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom | ast.Import):
                self._offer_modules(node)
        if not is_asking:
            return tree
        names = [name for name in instrument.free_names(tree) if name not in space]
        # A function that is asked for may have the name of a built-in one.
        candidates = dict.fromkeys([*names, *(name for name in self.plan["asked"] if name not in space)])
        # A helper that asserts is the tests' own: what the program gives under its name would judge the program.
        known = self.peer.ask("has", [name for name in candidates if not name.startswith("assert")])
        self.unknown = candidates.keys() - set(known)
        for name in known:
            space[name] = self._found(name)
            self.constants += not callable(space[name]) and name in names
            if isinstance(space[name], list | dict | set):
                self.copied = name
        return tree

    def _found(self, name: str) -> Any:
        """What a name of the program stands for; a standard module is this guest's own."""
        value = self.peer.ask("find", name)
        about = object.__getattribute__(value, "_mae_about") if isinstance(value, Remote) else {}
        module = about.get("name", "") if about.get("kind") == "module" else ""
        if name in _CHECKING_MODULES and re.search(rf"\b{name}\.", self.plan["source"]):
            return __import__(_CHECKING_MODULES[name])
        return __import__(module) if module in _OWN_MODULES else value

    def _offer_modules(self, node: ast.ImportFrom | ast.Import) -> None:
        """Let `from solution import f` and its like find the program under the name the tests use for it."""
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        for name in names:
            if name in _PROGRAM_MODULES and name not in sys.modules:
                sys.modules[name] = _ProgramModule(name, self.peer)

    def _run(self, tree: ast.Module) -> None:
        space = self.module.__dict__
        space[instrument.CHECKED], space[instrument.COUNTED] = self._checked, self._counted
        space[instrument.KIND] = _kind_of
        if self.plan["is_doctest"]:
            self._run_doctest()
            return
        space["__name__"] = "__main__"
        if "unittest" in self.plan["source"]:
            _quiet_main()
        exec(compile(tree, "<tests>", "exec"), space)
        space["__name__"] = TESTS_MODULE
        called = instrument.called_at_top(tree)
        for statement in tree.body:
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef) and statement.name not in called:
                if statement.name.startswith(("test", "check")) and not hasattr(space[statement.name], "mae_fixture"):
                    self._run_function(space[statement.name])
            elif isinstance(statement, ast.ClassDef):
                self._run_class(space[statement.name])

    def _run_function(self, function: Callable[..., Any]) -> None:
        for row in getattr(function, "mae_rows", [{}]):
            _finished(function(**self._arguments(function, row)))

    def _arguments(self, function: Callable[..., Any], row: dict[str, Any]) -> dict[str, Any]:
        """Values for the parameters of a test: of its row, a fixture, or the function under test."""
        found: dict[str, Any] = {}
        needed, optional = _parameters(function)
        for name in (*needed, *(name for name in optional if name in row)):
            made = self.module.__dict__.get(name)
            if name in row:
                found[name] = row[name]
            elif made is not None and hasattr(made, "mae_fixture"):
                found[name] = self._of_fixture(made)
            elif name == "capsys":
                found[name] = _Captured()
            elif self.plan["candidate"] is None or found or row:
                raise BrokenError(f"the test {function.__name__} takes {name}, which nobody gives")
            else:
                found[name] = self._candidate()
        return found

    def _of_fixture(self, made: Any) -> Any:
        """The value of a fixture; the same one for all tests where its scope is wider than a test."""
        if made.mae_kept:
            return made.mae_kept[0]
        value = made(**self._arguments(made, {}))
        value = next(value) if isinstance(value, types.GeneratorType) else value
        if made.mae_kept is not None:
            made.mae_kept.append(value)
        return value

    def _candidate(self) -> Any:
        name, _, method = self.plan["candidate"].partition("().")
        if name in self.unknown:
            raise NameError(f"name '{name}' is not defined", name=name)
        value = self.module.__dict__[name]
        return getattr(value(), method) if method else value

    def _run_class(self, made: type) -> None:
        unittest = sys.modules.get("unittest")
        if unittest is not None and isinstance(made, type) and issubclass(made, unittest.TestCase):
            suite = unittest.defaultTestLoader.loadTestsFromTestCase(made)
            result = unittest.TestResult()
            result.failfast, kept = True, _keeping(result)
            suite.run(result)
            if result.skipped and not result.testsRun - len(result.skipped):
                raise BrokenError("the tests skip themselves")
            problems = [*result.failures, *result.errors, *((test, "passed") for test in result.unexpectedSuccesses)]
            for error in kept:
                if isinstance(error, OSError | pytest_stub.MissingError):
                    raise error
            if problems:
                raise AssertionError(problems[0][1].strip().rpartition("\n")[2])
        elif isinstance(made, type) and made.__name__.startswith("Test") and "__init__" not in vars(made):
            for name in [name for name in vars(made) if name.startswith("test")]:
                case = made()
                if hasattr(case, "setup_method"):
                    _call_setup(case.setup_method)
                self._run_function(getattr(case, name))

    def _examples(self) -> list[Any]:
        import doctest

        return doctest.DocTestParser().get_examples(self.plan["source"])

    def _run_doctest(self) -> None:
        import doctest

        test = doctest.DocTest(self._examples(), self.module.__dict__, "tests", None, 0, None)
        self.checks += sum(bool(example.want.strip()) for example in test.examples)
        told = io.StringIO()
        runner = doctest.DocTestRunner(verbose=False)
        runner.run(test, out=told.write, clear_globs=False)
        if runner.failures:
            raise AssertionError(" ".join(told.getvalue().split()[-40:]))

    def _checked(self, value: Any) -> bool:
        self.checks += 1
        holds = bool(value)
        self.failures += not holds
        return holds

    def _counted(self, value: Any) -> Any:
        self.checks += 1
        return value

    def _read_line(self) -> str:
        import builtins

        if builtins.input is not _INPUT:
            return f"{builtins.input()}\n"
        return sys.stdin.readline()


class _ProgramModule(types.ModuleType):
    """The program, for tests that import it."""

    def __init__(self, name: str, peer: Peer) -> None:
        super().__init__(name)
        self.__dict__["_peer"] = peer

    def __getattr__(self, name: str) -> Any:
        if name[:2] == "__" or not self._peer.ask("has", [name]):
            raise AttributeError(name)
        return self._peer.ask("find", name)


class _Captured:
    """pytest's `capsys`: what was printed since the last reading."""

    def __init__(self) -> None:
        sys.stdout = io.StringIO()

    def readouterr(self) -> Any:
        text, sys.stdout = getattr(sys.stdout, "getvalue", str)(), io.StringIO()
        return types.SimpleNamespace(out=text, err="")


def _keeping(result: Any) -> list[Any]:
    """The exceptions that a result of unittest will have kept as texts."""
    kept, as_text = [], result._exc_info_to_string

    def told(error: Any, test: Any) -> str:
        kept.append(error[1])
        return str(as_text(error, test))

    result._exc_info_to_string = told
    return kept


def _kind_of(value: Any) -> Any:
    return ask(value, "get", "__class__") if isinstance(value, Remote) else type(value)


def _call_setup(setup: Callable[..., Any]) -> None:
    setup(*([None] if any(_parameters(setup)) else []))


def _parameters(function: Any) -> tuple[list[str], list[str]]:
    """Names of the parameters of a function or a bound method: those that need a value, and those with a default."""
    plain = getattr(function, "__func__", function)
    code = plain.__code__
    names = list(code.co_varnames[: code.co_argcount])[plain is not function :]
    by_name = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    optional = names[len(names) - len(plain.__defaults__ or ()) :]
    given = plain.__kwdefaults__ or {}
    needed = [*names[: len(names) - len(optional)], *(name for name in by_name if name not in given)]
    return needed, [*optional, *given]


def _finished(value: Any) -> None:
    """Run an async test to its end."""
    if hasattr(type(value), "__await__"):
        import asyncio

        async def whole() -> None:
            await value

        asyncio.run(whole())


def _quiet_main() -> None:
    """`unittest.main()` at the end of a text does nothing: the classes are run anyway."""
    import unittest

    unittest.main = lambda *arguments, **options: None  # type: ignore[assignment]


def _raised_in(error: BaseException) -> str:
    """The innermost file among the tests' and our own that an exception came through."""
    found, trace = "", error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if name == "<tests>" or name in _OWN_FILES:
            found = name
        trace = trace.tb_next
    return found


# Patches of the program's modules, looks at its code, and chance set by the tests.
_BEYOND_REACH = re.compile(
    r"\b(?:patch|monkeypatch|inspect|getsource|caplog|capfd|tmp_path|timeit|mock_open)\b|\brandom\.seed\b|__code__|__signature__"
)
_IMPORTS = re.compile(r"^[ \t]*(?:from|import)\b.*$", re.MULTILINE)
_ASKS_TYPES = re.compile(r"\b(?:isinstance|type)\(")
_ORDINARY = frozenset({"program", "builtins", "types", "functools", "typing", "enum", "abc", "_io", "itertools"})
_OWN_FILES = frozenset({"peer.py", "values.py", "remotes.py", "tests.py"})
_INPUT = input
_MODULE_NAMES = frozenset(vars(types.ModuleType("m")))
_OWN_MODULES = frozenset({*sys.stdlib_module_names, "numpy"})
_CHECKING_MODULES = {"math": "math", "cmath": "cmath", "numpy": "numpy", "np": "numpy"}
_PROGRAM_MODULES = (
    *("solution", "main", "program", "candidate", "submission", "your_module", "my_module", "answer"),
    *("code_under_test", "module", "script", "task", "user_code", "implementation"),
)


def main(send: Callable[[bytes], bytes]) -> None:
    """Wait for one plan, run it and report."""
    plan = json.loads(send(b'["ready"]'))
    sys.stdout = io.StringIO()
    report = Runner(send, plan).report()
    send(json.dumps(["report", report]).encode())
