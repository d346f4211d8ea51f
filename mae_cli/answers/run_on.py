"""Where a completion ends and an invented next question begins.

Place in the flow: the readers of letters, numbers and texts (`answers.choices`, `answers.extract`) read the part before
the first invented question, and go on only where that part states nothing. Contract: pure functions, linear in the
length of the text; the first line with text never ends the reading, because a completion may repeat its own question.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Final

from mae_cli.answers.answer_words import all_words

MOST_PARTS: Final = 4
"""Parts that are tried before the whole text."""
_SPEAKER: Final = "Human|User|USER|HUMAN"
# Marks of chat templates, which end a turn wherever they stand.
_TURN: Final = re.compile(
    r"<\|(?:im_start|im_end|eot_id|endoftext|end_of_text|end|user|start_header_id)\|>|</s>"
    r"|<(?:start_of_turn|end_of_turn)>|\[/?INST\]"
)


@cache
def _next_question() -> re.Pattern[str]:
    """What the question of an invented next example begins with, at the beginning of a line."""
    names = "|".join(sorted(dict.fromkeys(all_words("question")), key=len, reverse=True))
    return re.compile(
        r"^[ \t>*_]{0,6}(?:"
        rf"(?:{names})[ \t]?(?:[0-9]{{1,4}})?[ \t*_]{{0,4}}[:\uff1a]"
        rf"|(?:{_SPEAKER})[ \t*_]{{0,4}}[:\uff1a]"
        r"|#{1,6}[ \t]{0,3}(?:Instruction|Question|Human|User|Input|Problem)\b"
        r"|(?<=\n\n)(?:Problem|Exercise|Example)[ \t]?(?:[0-9]{1,4})?[ \t*_]{0,4}:"
        r"|\[INST\]"
        r")",
        re.MULTILINE,
    )


def parts_to_read(text: str) -> Iterator[str]:
    """The text up to its first invented question, then up to the next ones, at last all of it.

    A reader takes the first part that states an answer: a completion that repeats the question before it answers has
    its answer in a later part.
    """
    first_line_end = text.find("\n", len(text) - len(text.lstrip()))
    begins = len(text) if first_line_end < 0 else first_line_end
    starts = {match.start() for match in _next_question().finditer(text) if match.start() > begins}
    starts |= {match.start() for match in _TURN.finditer(text) if match.start() > len(text) - len(text.lstrip())}
    for start in sorted(starts)[:MOST_PARTS]:
        yield text[:start]
    yield text
