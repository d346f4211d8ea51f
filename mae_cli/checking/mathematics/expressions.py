r"""Mathematical expressions, LaTeX or plain, read into trees that can be computed.

Place in the flow: the second opinion of the verifier `math` (`mathematics.equality`), independent of any computer
algebra system. Contract: `read_expression` gives a tree or raises `UnreadableError`; nothing is simplified and nothing
is guessed: `\ldots`, primes and unknown commands are unreadable. Left out: computing a tree (`values`), and tuples,
sets, equations, units (`objects`). A name that a sum, a product or an integral runs over is a variable of its own.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any, Final

MAX_TOKENS: Final = 600
MAX_DEPTH: Final = 60
Node = tuple[Any, ...]
"""("number", Fraction), ("variable", name), ("constant", name), or (operation, node, ...)."""


class UnreadableError(ValueError):
    """The text is no expression that this reader understands, or it is too large to compute."""


_TOKEN = re.compile(r"\s*(?:(\d+(?:\.\d+)?|\.\d+)|(\\[a-zA-Z]+|\\[{}|])|([a-zA-Z])|(\*\*|[-+*/^_(){}\[\]|!,=]))")
_FUNCTIONS: Final = frozenset(
    ["sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "ln", "log", "exp"]
)
_OF_SEVERAL: Final = frozenset(["gcd", "lcm", "max", "min"])
_OVER_A_RANGE: Final = {"sum": "sum", "prod": "product"}
NAMES: Final = sorted(
    [*_FUNCTIONS, *_OF_SEVERAL, "sqrt", "pi", "infty", "infinity", "inf", "abs"], key=len, reverse=True
)
"""Names of functions and constants that stand for themselves without a backslash."""
_WORD = re.compile(rf"(?<![a-zA-Z\\])(?:{'|'.join(NAMES)})(?![a-zA-Z])")
_GREEK_NAMES: Final = """
alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau upsilon phi
varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega ell
"""
_GREEK: Final = frozenset(f"\\{name}" for name in _GREEK_NAMES.split())
_CLOSING: Final = {"(": ")", "[": "]", "{": "}", "\\{": "\\}", "\\lfloor": "\\rfloor", "\\lceil": "\\rceil"}
_TIMES: Final = frozenset(["*", "\\cdot", "\\times", "\\ast"])
_OVER: Final = frozenset(["/", "\\div"])


def read_expression(text: str) -> Node:
    """The tree of one expression.

    Raises:
        UnreadableError: anything in it is not understood.
    """
    tokens = _tokens(_WORD.sub(lambda match: f"\\{match[0]} ", text))
    if not tokens:
        raise UnreadableError("nothing there")
    parser = _Parser(tokens)
    node = parser.sum()
    if parser.next is not None:
        raise UnreadableError(f"unexpected {parser.next}")
    return node


def _tokens(text: str) -> list[str]:
    found: list[str] = []
    position, text = 0, text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None or len(found) >= MAX_TOKENS:
            raise UnreadableError(f"cannot read {text[position : position + 10]!r}")
        found.append(match[0].strip())
        position = match.end()
    return found


class _Parser:
    """Recursive descent; every method reads one level of binding strength."""

    def __init__(self, tokens: list[str], indices: frozenset[str] = frozenset()) -> None:
        self._tokens, self._at, self._depth, self._bars = tokens, 0, 0, 0
        self._indices = indices  # names that a sum runs over; an i among them is no imaginary unit

    @property
    def next(self) -> str | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _take(self) -> str:
        if self.next is None:
            raise UnreadableError("ends too early")
        self._at += 1
        return self._tokens[self._at - 1]

    def _expect(self, token: str) -> None:
        if self._take() != token:
            raise UnreadableError(f"expected {token}")

    def sum(self) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise UnreadableError("nested too deeply")
        node = self._product()
        while self.next in ("+", "-"):
            sign = self._take()
            right = self._product()
            node = ("+", node, right if sign == "+" else ("neg", right))
        self._depth -= 1
        return node

    def _product(self) -> Node:
        node = self._signed()
        while self.next is not None:
            if self.next in _TIMES:
                self._take()
                node = ("*", node, self._signed())
            elif self.next in _OVER:
                self._take()
                node = ("/", node, self._signed())
            elif self._starts_factor():
                node = self._beside(node)
            else:
                break
        return node

    def _beside(self, left: Node) -> Node:
        """What stands beside an operand multiplies it; a fraction of digits behind a whole number is a mixed number."""
        before = self._tokens[self._at - 1]
        if self.next and self.next[0] in "0123456789.":
            # "2 3" and "x2" state no product.
            raise UnreadableError("two numbers side by side")
        is_frac = self.next == "\\frac"
        right = self._power()
        whole = left[2] if left[0] == "*" and left[2][0] == "number" else left
        if is_frac and before.isdigit() and whole[0] == "number" and _is_digit_fraction(right):
            mixed = ("+", whole, right)
            return mixed if whole is left else ("*", left[1], mixed)
        return ("*", left, right)

    def _starts_factor(self) -> bool:
        token = self.next
        assert token is not None
        if token == "|":
            return self._bars == 0
        if token in ("(", "[", "{", "\\{"):
            return token in ("(", "{", "[")
        return token[0].isalnum() or token[0] == "." or (token[0] == "\\" and token not in _ENDS)

    def _signed(self) -> Node:
        if self.next == "-":
            self._take()
            return ("neg", self._signed())
        if self.next == "+":
            self._take()
            return self._signed()
        return self._power()

    def _power(self) -> Node:
        base = self._postfix(self._atom())
        if self.next in ("^", "**"):
            self._take()
            return ("^", base, self._exponent())
        return base

    def _exponent(self) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise UnreadableError("nested too deeply")
        node = self._group("{") if self.next == "{" else self._signed()
        self._depth -= 1
        return node

    def _postfix(self, node: Node) -> Node:
        while self.next == "!":
            self._take()
            node = ("factorial", node)
        return node

    def _group(self, opening: str) -> Node:
        self._expect(opening)
        bars, self._bars = self._bars, 0
        node = self.sum()
        self._bars = bars
        self._expect(_CLOSING[opening])
        return node

    def _argument(self) -> Node:
        r"""The operand of `\frac` and `\sqrt`: a group, or one digit or letter."""
        if self.next == "{":
            return self._group("{")
        if self.next == "(":
            return self._group("(")
        token = self._take()
        if self._tokens[self._at - 2] == "\\sqrt" and token.isdigit() and len(token) > 1:
            raise UnreadableError("a root of several digits without braces")
        if token[0].isdigit() and token.isdigit():
            # LaTeX takes one digit: \frac43 is four thirds, \frac123 is half of 3.
            rest = token[1:]
            if rest:
                self._at -= 1
                self._tokens[self._at] = rest
            return ("number", Fraction(token[0]))
        if token.isalpha():
            return self._letter(token)
        self._at -= 1
        return self._atom()

    def _atom(self) -> Node:
        token = self._take()
        if token[0].isdigit() or token[0] == ".":
            return ("number", Fraction(token))
        if token in ("(", "[", "{"):
            self._at -= 1
            return self._group(token)
        if token == "|":
            self._bars += 1
            node = self.sum()
            self._expect("|")
            self._bars -= 1
            return ("abs", node)
        if token.isalpha() or token in _GREEK:
            return self._name(token)
        if token.startswith("\\"):
            return self._command(token[1:])
        raise UnreadableError(f"unexpected {token}")

    def _name(self, token: str) -> Node:
        if self.next == "_":
            self._take()
            index = self._take()
            if index == "{":
                index = ""
                while self.next != "}":
                    index += self._take()
                self._take()
            return ("variable", f"{token}_{index}")
        return self._letter(token)

    def _letter(self, token: str) -> Node:
        return ("constant" if token in ("e", "i") and token not in self._indices else "variable", token)

    def _command(self, name: str) -> Node:
        if name == "frac":
            return ("/", self._argument(), self._argument())
        if name == "binom":
            return ("binomial", self._argument(), self._argument())
        if name == "sqrt":
            degree: Node = ("number", Fraction(2))
            if self.next == "[":
                degree = self._group("[")
            return ("root", self._argument(), degree)
        if name in ("pi",):
            return ("constant", "pi")
        if name in ("infty", "infinity", "inf"):
            return ("constant", "infinity")
        if name in _OF_SEVERAL:
            return (name, *self._several())
        if name in _OVER_A_RANGE:
            return self._over_a_range(_OVER_A_RANGE[name])
        if name == "int":
            return self._integral()
        if name in ("lfloor", "lceil"):
            self._at -= 1
            return ("floor" if name == "lfloor" else "ceil", self._group(f"\\{name}"))
        if name == "abs":
            return ("abs", self._argument())
        if name in _FUNCTIONS:
            return self._function(name)
        raise UnreadableError(f"unknown command {name}")

    def _several(self) -> list[Node]:
        """The arguments of a function of several, in brackets."""
        opening = self._take()
        if opening not in ("(", "{", "[", "\\{"):
            raise UnreadableError("arguments without brackets")
        found = [self.sum()]
        while self.next == ",":
            self._take()
            found.append(self.sum())
        self._expect(_CLOSING[opening])
        return found

    def _over_a_range(self, kind: str) -> Node:
        r"""`\sum_{k=1}^{n}` or `\prod` with the product behind it: (kind, name, first, last, body)."""
        self._expect("_")
        self._expect("{")
        name = self._take()
        self._expect("=")
        first = self.sum()
        self._expect("}")
        self._expect("^")
        last = self._exponent()
        if not name.isalpha() or name == "e":
            raise UnreadableError("no name to run over")
        outer, self._indices = self._indices, self._indices | {name}
        body = self._product()
        self._indices = outer
        return (kind, name, first, last, body)

    def _integral(self) -> Node:
        r"""`\int_a^b f(x) dx` with both bounds: ("integral", name, from, to, body)."""
        self._expect("_")
        low = self._bound()
        self._expect("^")
        high = self._bound()
        end = next((at for at in range(len(self._tokens) - 2, self._at, -1) if self._tokens[at] == "d"), None)
        name = self._tokens[end + 1] if end is not None else ""
        if end is None or not name.isalpha():
            raise UnreadableError("an integral without its d")
        inner = _Parser(self._tokens[self._at : end], self._indices)
        body = inner.sum() if inner.next is not None else ("number", Fraction(1))
        if inner.next is not None:
            raise UnreadableError(f"unexpected {inner.next}")
        self._at = end + 2
        return ("integral", name, low, high, body)

    def _bound(self) -> Node:
        if self.next == "{":
            return self._group("{")
        return ("neg", self._argument()) if self.next == "-" and self._take() else self._argument()

    def _function(self, name: str) -> Node:
        base, power = None, None
        while self.next in ("_", "^"):
            if self._take() == "_":
                base = self._argument()
            else:
                power = self._exponent()
        if power == ("neg", ("number", Fraction(1))):
            raise UnreadableError("inverse function or reciprocal")
        if self.next in ("(", "{", "["):
            argument = self._postfix(self._group(self.next))
        else:
            argument = self._power()
            while self.next is not None and self.next not in _TIMES and self.next not in _OVER:
                if self.next in ("+", "-", "|") or not self._starts_factor() or self.next.lstrip("\\") in _FUNCTIONS:
                    break
                argument = ("*", argument, self._power())
        node: Node = ("log", argument, base) if name == "log" and base else (name, argument)
        if base is not None and name != "log":
            raise UnreadableError(f"{name} with a base")
        return ("^", node, power) if power else node


_ENDS: Final = frozenset(["\\}", "\\rfloor", "\\rceil", "\\cup", "\\cap", "\\in", "\\|", "\\pm", "\\mp", "\\{"])


def _is_digit_fraction(node: Node) -> bool:
    return node[0] == "/" and all(part[0] == "number" and part[1].denominator == 1 for part in node[1:])


def starts_with_name(text: str) -> bool:
    """Whether a text begins with the plain name of a function or constant ("sin x", "pi")."""
    return _WORD.match(text) is not None


def variables(node: Node) -> set[str]:
    """The names of the variables in a tree; what a sum runs over is none of them."""
    if node[0] == "variable":
        return {node[1]}
    found = set().union(*(variables(part) for part in node[1:] if isinstance(part, tuple)))
    return found - {node[1]} if node[0] in BINDING else found


def renamed(node: Node, name: str, into: str) -> Node:
    """The tree with another name for one of its variables."""
    if node == ("variable", name):
        return ("variable", into)
    return tuple(renamed(part, name, into) if isinstance(part, tuple) else part for part in node)


BINDING: Final = frozenset({"sum", "product", "integral"})
"""Operations whose first part is a name of their own."""


def operations(node: Node) -> set[str]:
    """The operations in a tree."""
    return {node[0]}.union(*(operations(part) for part in node[1:] if isinstance(part, tuple)))
