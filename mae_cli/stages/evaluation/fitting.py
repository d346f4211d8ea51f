"""The verifier that fits the items of a file which nobody named one for.

Place in the flow: `benchmarks` asks here where neither the command line, the recipe nor a suite says how answers are
checked. Contract: choices, programs, words and mathematics are told by what all items have in common; a file of several
kinds keeps the default, and what that cannot read is warned about. Left out: building the verifier.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence

from mae_cli.answers.numbers import read_quantity
from mae_cli.answers.programs import is_code_problem
from mae_cli.checking.code.unit_tests import has_tests
from mae_cli.recipe.sections import Spec
from mae_cli.records import Problem, choices_of

_SIGN = re.compile(
    r"\\[a-zA-Z]+|[\^=<>\u221a\u03c0\u2264\u2265\u221e]|\d\s?[a-z]\b|[\[({].*,.*[\])}]|,\s+[\d\u2212-]", re.DOTALL
)
_TEXT = re.compile(r"\\(?:text|mbox|mathrm|textbf)\s?\{[^{}]*\}")
_COMMAND = re.compile(r"\\(?:begin|end)\{[a-z]+\*?\}|\\[a-zA-Z]+|\\[,;:!{}%$ ]")
_ELEMENT = re.compile(r"[\d\s.,;:+*/^_=<>|!'(){}\[\]$%&\u221a\u03c0\u2264\u2265\u221e\u00b1\u00b0\u00b7\u00d7\u2212-]")
_LONE_LETTER = re.compile(r"(?<![a-zA-Z])[a-zA-Z](?![a-zA-Z])|\b(?:sqrt|pi|sin|cos|tan|log|ln|or|and)\b")


def fitting_verifier(problems: Sequence[Problem], otherwise: Spec) -> Spec:
    """What checks these items: `choice`, `python_tests`, `python_call`, `exact_match`, `math`, or the default."""
    if not problems:
        return otherwise
    if all(choices_of(problem) for problem in problems):
        return "choice"
    if all(is_code_problem(problem) for problem in problems):
        return "python_tests" if all(has_tests(problem) for problem in problems) else "python_call"
    references = [problem.reference_answer or "" for problem in problems]
    others = [reference for reference in references if not _is_one_number(reference)]
    if len(others) == len(references) and all(map(_is_words, others)):
        return "exact_match"
    if others and all(map(is_mathematics, others)) and importlib.util.find_spec("math_verify") is not None:
        return "math"
    return otherwise


def is_mathematics(reference: str) -> bool:
    """Whether a text is a formula: it has a sign of one, and besides signs, figures and lone letters nothing else."""
    if not _SIGN.search(reference):
        return False
    bare = _LONE_LETTER.sub(" ", _COMMAND.sub(" ", _TEXT.sub(" ", reference)))
    return not _ELEMENT.sub("", bare)


def _is_one_number(reference: str) -> bool:
    """Whether `numeric` can check the text; a comma may part two numbers."""
    quantity = read_quantity(reference)
    return quantity is not None and not quantity.has_comma


def _is_words(reference: str) -> bool:
    """Whether a text is of words alone ("yes", "True", "Jane Austen"), so that only the same text is the same."""
    return bool(reference.strip()) and not re.search(r"\d|(?:^|\s)[+*/-]", reference) and not is_mathematics(reference)
