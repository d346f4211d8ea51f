"""Whether a sentence that names an answer means it: "if the answer is B", "you might think the answer is B".

Place in the flow: the readers of letters and of numbers ask before they take what stands behind "the answer". Contract:
pure functions over the part of a sentence before that place; English, and the commonest forms of some other languages.
"""

from __future__ import annotations

import re
from typing import Final

_LONGEST: Final = 160
"""Characters of a sentence that are looked at."""
_SENTENCE: Final = re.compile(r"[.!?](?=\s|$)|[\n\u3002;]")
_NOT_MEANT: Final = re.compile(
    r"(?:\b(?:if|whether|why|doubt|doubts|deny|suppose|supposing|assume|assuming|unless|wrong|incorrect|false|first|initial|original|previous"
    r"|tempting|common|popular|naive|student|student's|distractor|thought|assumed|believed|guessed|falsche|mauvaise|wrongly)"
    r"\s(?:that\s)?(?:(?:the|an?|your|his|her|their|correct|right)\s){0,2}"
    r"|(?:n't|\bnot|\bnever|\bcannot)\s(?:think|believe|mean|say|agree|true)\b(?:(?!\bbut\b)[^,])*"
    r"|\b(?:you|one|some|many|people|students|others|they)\s(?:\w+\s){0,2}"
    r"(?:think|say|believe|choose|pick|guess|expect|assume|claim)\b[^,]*"
    r"|\b(?:not|no|neither|nor|isn't|than)[\s$]*|(?:\u4e0d\u662f?|\u522b))$",
    re.IGNORECASE,
)


def sentence_before(text: str, place: int) -> str:
    """What stands in the same sentence before a place."""
    return _SENTENCE.split(text[max(0, place - _LONGEST) : place])[-1]


def is_not_meant(before: str) -> bool:
    """Whether the beginning of a sentence takes back what comes next, or says it of somebody else."""
    return _NOT_MEANT.search(before) is not None
