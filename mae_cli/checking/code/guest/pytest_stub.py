"""The part of pytest that tests of programs use: raises, approx, mark.parametrize, simple fixtures, fail and skip.

Place in the flow: the guest of the tests has no pytest; a text that imports it gets this module under that name.
Contract: what is not here raises AttributeError, so the tests count as unreadable and not as failed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any


class Skipped(BaseException):
    """A test that was skipped."""


class MissingError(AttributeError):
    """The tests use a part of pytest that is not here."""


class Failed(AssertionError):
    """`pytest.fail`, or nothing raised where something should be."""


def fail(reason: str = "", pytrace: bool = True, msg: str = "") -> None:
    """Fail the test."""
    raise Failed(reason or msg)


def skip(reason: str = "", **options: Any) -> None:
    """Leave the test out."""
    raise Skipped(reason)


class _Raised:
    value: BaseException
    type: type[BaseException]

    def match(self, pattern: str) -> bool:
        """Whether the text of the exception matches anywhere."""
        if not re.search(pattern, str(self.value)):
            raise Failed(f"{str(self.value)!r} does not match {pattern!r}")
        return True

    def __str__(self) -> str:
        return str(self.value)


class raises:
    """The context, or the call, in which one of these exceptions must be raised."""

    def __init__(self, expected: Any, *arguments: Any, match: str | None = None, **options: Any) -> None:
        self.expected, self.pattern, self.info = expected, match, _Raised()
        if arguments:
            with self:
                arguments[0](*arguments[1:], **options)

    def __enter__(self) -> _Raised:
        return self.info

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        if error is None:
            raise Failed(f"did not raise {self.expected}")
        if not isinstance(error, self.expected):
            return False
        self.info.value, self.info.type = error, type(error)
        if self.pattern is not None:
            self.info.match(self.pattern)
        return True


class approx:
    """A value that equals others within max(rel * |value|, abs); by default 1e-6 and 1e-12, as in pytest."""

    def __init__(self, expected: Any, rel: float | None = None, abs: float | None = None, nan_ok: bool = False) -> None:
        self.expected, self.nan_ok = expected, nan_ok
        self.absolute = 1e-12 if abs is None else abs
        self.relative = (1e-6 if abs is None else 0.0) if rel is None else rel

    def __eq__(self, found: object) -> bool:
        return self._close(self.expected, found)

    def __ne__(self, found: object) -> bool:
        return not self == found

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return f"approx({self.expected!r})"

    def _close(self, expected: Any, found: Any) -> bool:
        if type(expected).__module__ == "numpy":
            expected = expected.tolist()
        if type(found).__module__ == "numpy":
            found = found.tolist()
        if isinstance(expected, dict):
            same = isinstance(found, dict) and found.keys() == expected.keys()
            return same and all(self._close(value, found[key]) for key, value in expected.items())
        if isinstance(expected, list | tuple):
            same = isinstance(found, list | tuple) and len(found) == len(expected)
            return same and all(map(self._close, expected, found))
        if isinstance(expected, bool) or not isinstance(expected, int | float | complex):
            return bool(expected == found)
        if isinstance(found, bool) or not isinstance(found, int | float | complex):
            return False
        if expected == found:
            return True
        if isinstance(expected, float) and math.isnan(expected):
            return self.nan_ok and isinstance(found, float) and math.isnan(found)
        if abs(expected) == math.inf:
            return False
        return bool(abs(expected - found) <= max(self.relative * abs(expected), self.absolute))


class _Mark:
    @staticmethod
    def parametrize(names: Any, values: Any, **options: Any) -> Callable[[Any], Any]:
        """Run the test once for each row of values."""
        keys = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)

        def mark(function: Any) -> Any:
            if isinstance(function, type) or options.get("indirect"):
                raise MissingError("this use of parametrize is not read here")
            rows = [dict(zip(keys, _row(value, len(keys)), strict=True)) for value in values]
            before = getattr(function, "mae_rows", [{}])
            function.mae_rows = [{**one, **row} for one in before for row in rows]
            return function

        return mark

    def __getattr__(self, name: str) -> Any:
        if name == "usefixtures":
            raise MissingError("pytest.mark.usefixtures is not read here")
        return _Unmarked()

    @staticmethod
    def skip(function: Any = None, **options: Any) -> Any:
        """Leave the test out; so does `xfail`, whose outcome says nothing."""
        if not callable(function):
            return _left_out
        return _left_out(function)

    xfail = skip

    @staticmethod
    def skipif(condition: Any, **options: Any) -> Callable[[Any], Any]:
        """Leave the test out where a condition holds."""
        return _left_out if condition else lambda function: function


def _left_out(function: Any) -> Any:
    if isinstance(function, type):
        raise MissingError("a class of tests that is skipped is not read here")
    function.mae_rows = []
    return function


class _Unmarked:
    """`@pytest.mark.slow`, `@pytest.mark.timeout(5)`: marks that change nothing."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        is_bare = len(arguments) == 1 and callable(arguments[0]) and not options
        return arguments[0] if is_bare else lambda function: function


class param:
    """One row of `parametrize`."""

    def __init__(self, *values: Any, **options: Any) -> None:
        self.values = values


def _row(value: Any, length: int) -> Any:
    if isinstance(value, param):
        return value.values
    return (value,) if length == 1 else value


def fixture(function: Any = None, **options: Any) -> Any:
    """A function whose result tests take by its name."""
    if function is None:
        return lambda function: fixture(function, **options)
    if options.get("params") or options.get("autouse"):
        raise MissingError("fixtures with params or autouse are not read here")
    function.mae_fixture = True
    function.mae_kept = [] if options.get("scope", "function") != "function" else None
    return function


def __getattr__(name: str) -> Any:
    raise MissingError(f"pytest.{name} is not read here")


def main(*arguments: Any, **options: Any) -> int:
    """The tests are run anyway."""
    return 0


mark = _Mark()
