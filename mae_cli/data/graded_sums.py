"""Graded arithmetic problems for train and held-out sets, each in a template that `answers.arithmetic` reads back.

A set is a pure function of its seed and counts. The held-out set takes at most a third of each level, and no
calculation is in two sets, however it is worded.
"""

from __future__ import annotations

import random
from itertools import product
from typing import NamedTuple, TypedDict

from mae_cli.answers.arithmetic import Expression, Operator, number_words
from mae_cli.errors import DataError


class ProblemRow(TypedDict):
    """One generated problem, a line of a problem file."""

    id: str
    question: str
    answer: str
    level: str
    template: str
    key: str


# {0}, {1} ... are operands as digits or words; {rest} joins all operands with the level's signs.
TEMPLATES: dict[str, dict[Operator, str]] = {
    "signs": {"+": "What is {chain}?", "-": "What is {chain}?", "*": "What is {chain}?"},
    "equation": {"+": "{chain} = ?", "-": "{chain} = ?", "*": "{chain} = ?"},
    "command": {"+": "Calculate {chain}.", "-": "Calculate {chain}.", "*": "Calculate {chain}."},
    "words": {"+": "What is {chain}?", "-": "What is {chain}?", "*": "What is {chain}?"},
    "named": {
        "+": "What is the sum of {0} and {1}?",
        "-": "What is {1} less than {0}?",
        "*": "What is the product of {0} and {1}?",
    },
    "story": {
        "+": "{name} has {0} {thing} and buys {1} more. How many {thing} does {name} have now?",
        "-": "{name} has {0} {thing} and gives away {1}. How many {thing} does {name} have left?",
        "*": "There are {0} {place} with {1} {thing} in each. How many {thing} are there in all?",
    },
}
_WORDED = frozenset({"words", "named"})
_CHAIN_WORDS: dict[Operator, str] = {"+": "plus", "-": "minus", "*": "times", "/": "divided by"}
_NAMES = ("Tom", "Anna", "Ben", "Mia")
_THINGS = ("apples", "pens", "books", "coins")
_PLACES = ("boxes", "bags", "rows", "shelves")


def write_question(expression: Expression, template: str, *, names: random.Random) -> str:
    """A question that `read_question` reads back as a calculation with the same key.

    Args:
        expression: of + and -, or of *; two operands unless the template is a chain.
        template: a key of `TEMPLATES`.
        names: draws the names and things of a story; unused by the other templates.

    Raises: DataError if the template has no form for this calculation.
    """
    forms = TEMPLATES.get(template, {})
    kinds = set(expression.operators)
    operator = expression.operators[0]
    # A chain states every sign itself, so one form serves mixed + and - too.
    pattern = forms.get(operator, "")
    if not pattern or ("{chain}" not in pattern and (len(kinds) > 1 or len(expression.operands) > 2)):
        raise DataError(f'template "{template}" cannot ask for {expression.key}')
    show = number_words if template in _WORDED else str
    shown = [show(operand) for operand in expression.operands]
    signs = _CHAIN_WORDS if template in _WORDED else {sign: sign for sign in _CHAIN_WORDS}
    chain = shown[0] + "".join(
        f" {signs[sign]} {operand}" for sign, operand in zip(expression.operators, shown[1:], strict=True)
    )
    return pattern.format(
        *shown,
        chain=chain,
        name=names.choice(_NAMES),
        thing=names.choice(_THINGS),
        place=names.choice(_PLACES),
    )


_TWO_OPERANDS = ("signs", "equation", "command", "words", "named")
# Level -> (operators, range of each operand, templates); differences never fall below zero.
LEVELS: dict[str, tuple[tuple[Operator, ...], tuple[range, ...], tuple[str, ...]]] = {
    "one-digit sum": (("+",), (range(1, 10), range(1, 10)), _TWO_OPERANDS),
    "difference up to 18": (("-",), (range(2, 19), range(1, 10)), _TWO_OPERANDS),
    "sum up to 48": (("+",), (range(10, 40), range(2, 10)), _TWO_OPERANDS),
    "difference up to 39": (("-",), (range(19, 40), range(2, 10)), _TWO_OPERANDS),
    "three terms": (("+", "+"), (range(1, 10),) * 3, ("signs", "equation", "command", "words")),
}


class ProblemSets(NamedTuple):
    """Sets that share no calculation."""

    train: list[ProblemRow]
    held_out: list[ProblemRow]
    gate: list[ProblemRow]


def make_problems(seed: int, num_train: int, num_held_out: int, num_gate: int = 0) -> ProblemSets:
    """Training, held-out and gate problems of the `LEVELS`, no calculation in two of them.

    All keys within one call are distinct. Each level gives an equal share as long as its keys last,
    the held-out set takes at most a third of a level's keys (so that a model's own proposals can
    still be new), and each set is shuffled. The same arguments give the same rows.

    Raises: DataError if the levels hold too few calculations.
    """
    rng = random.Random(f"mae arithmetic {seed}")
    pools = {level: rng.sample(keys := _calculations(level), len(keys)) for level in LEVELS}
    room = {level: len(pool) // 3 for level, pool in pools.items()}
    held_out = _drawn(pools, room, num_held_out, rng=rng, prefix="held-out")
    train = _drawn(pools, {k: len(v) for k, v in pools.items()}, num_train, rng=rng, prefix="train")
    # Drawn last, so that asking for a gate changes neither of the others.
    gate = _drawn(pools, {k: len(v) for k, v in pools.items()}, num_gate, rng=rng, prefix="gate")
    return ProblemSets(train, held_out, gate)


def _calculations(level: str) -> list[Expression]:
    """All calculations of a level, one per key, in a fixed order."""
    operators, ranges, _ = LEVELS[level]
    by_key: dict[str, Expression] = {}
    for operands in product(*ranges):
        expression = Expression(operands, operators)
        if expression.value >= 0:
            by_key.setdefault(expression.key, expression)
    return list(by_key.values())


def _drawn(
    pools: dict[str, list[Expression]],
    room: dict[str, int],
    count: int,
    *,
    rng: random.Random,
    prefix: str,
) -> list[ProblemRow]:
    """Take `count` calculations off the pools' ends, level by level in turn; pools shrink."""
    taken: list[tuple[str, Expression]] = []
    room = dict(room)
    while len(taken) < count:
        open_levels = [level for level in pools if room[level] and pools[level]]
        if not open_levels:
            raise DataError(f"{count} {prefix} problems asked for, the levels hold only {len(taken)}; ask for fewer")
        for level in open_levels[: count - len(taken)]:
            taken.append((level, pools[level].pop()))
            room[level] -= 1
    rng.shuffle(taken)
    return [
        _row(f"{prefix}-{number:04d}", level, expression, rng=rng)
        for number, (level, expression) in enumerate(taken, 1)
    ]


def _row(row_id: str, level: str, expression: Expression, *, rng: random.Random) -> ProblemRow:
    if set(expression.operators) == {"+"}:
        operands = rng.sample(expression.operands, len(expression.operands))
        expression = Expression(tuple(operands), expression.operators)
    template = rng.choice(LEVELS[level][2])
    return ProblemRow(
        id=row_id,
        question=write_question(expression, template, names=rng),
        answer=str(expression.value),
        level=level,
        template=template,
        key=expression.key,
    )
