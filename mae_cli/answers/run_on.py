"""Where a completion ends and an invented next question begins.

Place in the flow: the readers of letters, numbers and texts (`answers.choices`, `answers.extract`) read the part before
the first invented question, and go on only where that part states nothing. Contract: pure functions, linear in the
length of the text; the first line with text never ends the reading, because a completion may repeat its own question.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

MOST_PARTS: Final = 4
"""Parts that are tried before the whole text."""
# What the question of the next example begins with, in the languages of MMLU's translations.
_QUESTION: Final = """
Question|Next question|New question|Q|Frage|Pregunta|Pergunta|Quest\u00e3o|Domanda|Vraag|Pytanie|Ot\u00e1zka
Soru|Swali|\u00ccb\u00e9\u00e8r\u00e8|Pertanyaan|Soal|C\u00e2u h\u1ecfi|\u0412\u043e\u043f\u0440\u043e\u0441|\u95ee\u9898|\u554f\u984c|\u9898\u76ee|\u984c\u76ee|\u8d28\u95ee|\u8cea\u554f|\u554f
\uc9c8\ubb38|\ubb38\uc81c|\u0627\u0644\u0633\u0624\u0627\u0644|\u0633\u0624\u0627\u0644|\u092a\u094d\u0930\u0936\u094d\u0928|\u09aa\u09cd\u09b0\u09b6\u09cd\u09a8|\u0e04\u0e33\u0e16\u0e32\u0e21
"""
_SPEAKER: Final = "Human|User|USER|HUMAN"
_NAMES: Final = "|".join(_QUESTION.split("\n")[1:-1])
_START: Final = re.compile(
    r"^[ \t>*_]{0,6}(?:"
    rf"(?:{_NAMES})[ \t]?(?:[0-9]{{1,4}})?[ \t*_]{{0,4}}[:\uff1a]"
    rf"|(?:{_SPEAKER})[ \t*_]{{0,4}}[:\uff1a]"
    r"|#{1,6}[ \t]{0,3}(?:Instruction|Question|Human|User|Input|Problem)\b"
    r"|(?<=\n\n)(?:Problem|Exercise|Example)[ \t]?(?:[0-9]{1,4})?[ \t*_]{0,4}:"
    r"|\[INST\]"
    r")",
    re.MULTILINE,
)
# Marks of chat templates, which end a turn wherever they stand.
_TURN: Final = re.compile(
    r"<\|(?:im_start|im_end|eot_id|endoftext|end_of_text|end|user|start_header_id)\|>|</s>"
    r"|<(?:start_of_turn|end_of_turn)>|\[/?INST\]"
)


def parts_to_read(text: str) -> Iterator[str]:
    """The text up to its first invented question, then up to the next ones, at last all of it.

    A reader takes the first part that states an answer: a completion that repeats the question before it answers has
    its answer in a later part.
    """
    first_line_end = text.find("\n", len(text) - len(text.lstrip()))
    begins = len(text) if first_line_end < 0 else first_line_end
    starts = {match.start() for match in _START.finditer(text) if match.start() > begins}
    starts |= {match.start() for match in _TURN.finditer(text) if text[: match.start()].strip()}
    for start in sorted(starts)[:MOST_PARTS]:
        yield text[:start]
    yield text
