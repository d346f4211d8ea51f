"""Read, name and generate small arithmetic questions, in signs, in words and as one-step stories.

The quickstart's model proposes such questions itself. They carry their own answer, so a program can
say which proposals are sound and which answers are right without any model. `read_question` is
strict: it knows the forms listed below and returns None for all other text, because a guessed answer
would become a false reward. `canonical_key` is equal for questions that ask for the same sum in other words;
train and held-out sets are kept apart by it. Not here: drawing, judging or filtering of rollouts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from mae_cli.errors import DataError

Operator = Literal["+", "-", "*", "/"]
LARGEST_OPERAND = 999
MAX_OPERANDS = 5


@dataclass(frozen=True)
class Expression:
    """A chain of operands joined by + and -, or by *, or one exact division.

    `operands` are integers in [0, 999], 2 to 5 of them; `operators[i]` stands before
    `operands[i + 1]`. + and - may mix (read left to right), * and / mix with nothing, so no
    precedence rule is ever needed.
    """

    operands: tuple[int, ...]
    operators: tuple[Operator, ...]

    @property
    def value(self) -> int:
        """The exact result; negative when more is taken away than there is."""
        result = self.operands[0]
        for operator, operand in zip(self.operators, self.operands[1:], strict=True):
            if operator == "+":
                result += operand
            elif operator == "-":
                result -= operand
            elif operator == "*":
                result *= operand
            else:
                result //= operand
        return result

    @property
    def key(self) -> str:
        """A name shared by all orders of the same sum: "3+7", "9-2-4", "3*7", "12/4"."""
        if self.operators[0] == "/":
            return "/".join(map(str, self.operands))
        if self.operators[0] == "*":
            return "*".join(map(str, sorted(self.operands)))
        signed = list(zip(("+", *self.operators), self.operands, strict=True))
        added = sorted(operand for sign, operand in signed if sign == "+")
        taken = sorted(operand for sign, operand in signed if sign == "-")
        return "+".join(map(str, added)) + "".join(f"-{operand}" for operand in taken)


_ONES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def number_words(number: int) -> str:
    """English words of a number in [0, 999]: 45 -> "forty-five", 105 -> "one hundred and five".

    Raises: DataError outside that range.
    """
    if not 0 <= number <= LARGEST_OPERAND:
        raise DataError(f"number {number} has no words here; expected 0 to {LARGEST_OPERAND}")
    if number < 20:
        return _ONES[number]
    if number < 100:
        tens = _TENS[number // 10 - 2]
        return tens if number % 10 == 0 else f"{tens}-{_ONES[number % 10]}"
    hundreds = f"{_ONES[number // 100]} hundred"
    return hundreds if number % 100 == 0 else f"{hundreds} and {number_words(number % 100)}"


def _spelled() -> dict[str, int]:
    """All accepted spellings: with or without the hyphen, with or without the "and"."""
    spelled: dict[str, int] = {}
    for number in range(LARGEST_OPERAND + 1):
        words = number_words(number)
        for text in (words, words.replace("-", " ")):
            spelled[text] = spelled[text.replace(" and ", " ")] = number
    return spelled


_SPELLED = _spelled()
_BELOW_100 = rf"(?:(?:{'|'.join(_TENS)})(?:[- ](?:{'|'.join(_ONES[1:10])}))?|{'|'.join(_ONES[::-1])})"
# No leading zero, and no digit, point or comma may follow: 1.5 and 1,000 are not read as 1.
_NUMBER = (
    rf"(?:(?:0|[1-9][0-9]{{0,2}})(?![\d.,]\d|\d)|(?:{'|'.join(_ONES[1:10])}) hundred"
    rf"(?: (?:and )?(?!zero){_BELOW_100})?\b|{_BELOW_100}\b)"
)
_N = rf"({_NUMBER})"


def _read_number(text: str) -> int:
    return int(text) if text.isdigit() else _SPELLED[text]


_SIGNS: dict[str, Operator] = {
    "+": "+", "plus": "+", "added to": "+", "increased by": "+",
    "-": "-", "−": "-", "–": "-", "minus": "-", "decreased by": "-", "take away": "-",
    "*": "*", "x": "*", "×": "*", "times": "*", "multiplied by": "*",
    "/": "/", "÷": "/", "divided by": "/",
}  # fmt: skip
# A worded operator needs its blanks: "3plus4" is no English.
_WORDED_OPERATORS = "|".join(word for word in _SIGNS if word.isascii() and len(word) > 1)
_OPERATOR = rf"(?: ?[-+*x×/÷−–] ?| (?:{_WORDED_OPERATORS}) )"
_CHAIN = rf"({_NUMBER}(?:{_OPERATOR}{_NUMBER})+)"
_NAME = r"(?P<name>[A-Z][a-z]+)"
_THING = r"(?P<thing>[a-z]+)"
_WHO = r"(?:he|she|they|(?P=name))"
_PLACE = r"(?P<place>[a-z]+)"
_Build = Callable[[Sequence[str]], Expression | None]


def _joined(operator: Operator) -> _Build:
    """Builder for forms whose operands stand in the order of the calculation."""

    def build(numbers: Sequence[str]) -> Expression | None:
        operands = tuple(_read_number(number) for number in numbers)
        return _checked(operands, (operator,) * (len(operands) - 1))

    return build


def _reversed_difference(numbers: Sequence[str]) -> Expression | None:
    return _joined("-")(numbers[::-1])


def _plain_difference(numbers: Sequence[str]) -> Expression | None:
    """Falling differences only: "the difference between 4 and 9" may mean 5 or -5."""
    expression = _joined("-")(numbers)
    return expression if expression is not None and expression.value >= 0 else None


def _chain(numbers: Sequence[str]) -> Expression | None:
    # Numbers first: the hyphen of "ninety-three" is no minus, and "What is ninety-three?" no chain.
    operands = tuple(_read_number(found) for found in re.findall(_NUMBER, numbers[0]))
    before, *operators, after = (part.strip() for part in re.split(_NUMBER, numbers[0]))
    # "twenty-one hundred" matches as twenty minus one hundred, but leaves " hundred" over here.
    if before or after or not all(operator in _SIGNS for operator in operators):
        return None
    return _checked(operands, tuple(_SIGNS[operator] for operator in operators))


def _checked(operands: tuple[int, ...], operators: tuple[Operator, ...]) -> Expression | None:
    if not 2 <= len(operands) <= MAX_OPERANDS:
        return None
    kinds = set(operators)
    if kinds == {"/"}:
        exact = len(operands) == 2 and operands[1] != 0 and operands[0] % operands[1] == 0
        return Expression(operands, operators) if exact else None
    if kinds == {"*"} or kinds <= {"+", "-"}:
        return Expression(operands, operators)
    return None


# Noun phrases that stand after "what is", "calculate", "find" ...
_PHRASES: list[tuple[str, _Build]] = [
    (_CHAIN, _chain),
    (rf"(?:the )?(?:sum|total) of {_N} and {_N}", _joined("+")),
    (rf"(?:the )?(?:sum|total) of {_N}, {_N},? and {_N}", _joined("+")),
    (rf"(?:the )?product of {_N} and {_N}", _joined("*")),
    (rf"(?:the )?difference (?:between|of) {_N} and {_N}", _plain_difference),
    (rf"(?:the )?quotient of {_N} and {_N}", _joined("/")),
    (rf"{_N} more than {_N}", _joined("+")),
    (rf"{_N} less than {_N}", _reversed_difference),
]
_COMMANDS: list[tuple[str, _Build]] = [
    (rf"add {_N} (?:and|to) {_N}", _joined("+")),
    (rf"subtract {_N} from {_N}", _reversed_difference),
    (rf"multiply {_N} (?:and|by) {_N}", _joined("*")),
    (rf"divide {_N} by {_N}", _joined("/")),
]
_ASK = r"(?:what is|what's|how much is)"
_TELL = r"(?:calculate|compute|find|solve|evaluate|work out)"
_OF = r"(?:(?:the )?(?:result|value) of )?"
_FORMS: list[tuple[re.Pattern[str], _Build]] = [
    *(
        (re.compile(pattern), build)
        for phrase, build in _PHRASES
        for pattern in (
            rf"{_ASK} {_OF}{phrase}(?: equal to)? ?(?:= ?)?\?",
            rf"what does {phrase} (?:equal|make) ?\?",
            rf"{_TELL} {_OF}{phrase} ?[.:!]?",
        )
    ),
    (re.compile(rf"{_CHAIN} ?(?:= ?\??|\?)"), _chain),
    *((re.compile(rf"{command} ?[.!]?"), build) for command, build in _COMMANDS),
    *(
        (re.compile(rf"what (?:do you get|is the result) (?:if|when) you {command} ?\?"), build)
        for command, build in _COMMANDS
    ),
]
_STORIES: list[tuple[re.Pattern[str], _Build]] = [
    (re.compile(rf"{_NAME} has {_N} {_THING} and (?:buys|gets|finds) {_N} more\. "
                rf"How many (?P=thing) does {_WHO} have now\?"), _joined("+")),
    (re.compile(rf"{_NAME} has {_N} {_THING} and (?:gives away|loses|sells) {_N}\. "
                rf"How many (?P=thing) (?:does {_WHO} have|are) left\?"), _joined("-")),
    (re.compile(rf"There are {_N} {_PLACE} with {_N} {_THING} in each\. "
                rf"How many (?P=thing) are there in all\?"), _joined("*")),
]  # fmt: skip


def read_question(text: str) -> Expression | None:
    """The calculation that a complete arithmetic question asks for, or None.

    Read are: signs and words ("What is 12 + 7?", "3 + 4 =", "Calculate seven times 5."), named
    results ("the sum of", "product", "difference", "quotient"), commands ("Subtract 3 from 9.") and
    this module's own one-step stories. Integers in [0, 999] as digits or words. None for everything
    else: mixed * and +, inexact division, a further sentence, a question that holds its answer.
    """
    squeezed = " ".join(text.split())
    # Stories keep their case: it tells the name from the thing.
    return _match(_FORMS, squeezed.lower()) or _match(_STORIES, squeezed)


def _match(forms: Sequence[tuple[re.Pattern[str], _Build]], text: str) -> Expression | None:
    for pattern, build in forms:
        found = pattern.fullmatch(text)
        if found:
            named = set(pattern.groupindex.values())
            numbers = [group for i, group in enumerate(found.groups(), 1) if i not in named]
            return build(numbers)
    return None


def canonical_key(text: str) -> str | None:
    """`Expression.key` of a question, None when it cannot be read.

    Equal for 3 + 7, 7 + 3, "seven plus three", "the sum of 3 and 7" and a story about three and
    seven; different for different calculations with the same result.
    """
    expression = read_question(text)
    return None if expression is None else expression.key
