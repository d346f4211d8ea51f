"""The score in a judge's reply, or the reason why there is none.

Place in the flow: judges with a numeric scale pass their raw reply through `parse_score`, the others through
`parse_word`; `normalise` brings a read score to [0, 1]. Contract: a reply either states one number on the
scale (or one of the words) in its last `<score>` tag outside reasoning, or it is `unparsed`; nothing is clamped,
guessed or taken from elsewhere in the text. Left out: what to do about an unparsed reply.
"""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from mae_cli.answers.reasoning import split_named_reasoning
from mae_cli.answers.tags import fold_text
from mae_cli.plugins.judges.verdict_lines import first_line, unwrapped, without_remark, word_of

Scale = tuple[float, float]
_MAX_CONTENT: Final = 2000  # characters; a score is short, a longer span is prose
_TAG = re.compile(r"<\s{0,8}(?P<slash>/?)\s{0,8}score(?P<rest>|\s[^<>]{0,200}|/)>", re.IGNORECASE)
_NUMBER = r"[0-9]{1,9}(?:\.[0-9]{0,9})?|\.[0-9]{1,9}"
_POINTS = r"(?:\s?(?:points?|pts?|marks?|stars?)\.?)"
_SCORE = re.compile(
    rf"[~\u2248]?\s?(?P<score>[-+]?(?:{_NUMBER})){_POINTS}?"
    rf"(?:\s*(?:/|\b(?:out\s)?of\b)\s*(?P<maximum>{_NUMBER}){_POINTS}?)?[\s;,:*\u2705\u2714\u2b50\ufe0f]{{0,3}}",
    re.IGNORECASE,
)
# "is in the <score> tag", "between <score> and </score>": a mention, no verdict.
_MENTION = re.compile(
    r"\s*[`\"')\]]?\s*(?:tags?|elements?|fields?|blocks?|marks?)\b|[`\"')]|\s?[.,;](?:\s|$)", re.IGNORECASE
)
_LATER_VERDICT = re.compile(
    r"^\s*[-*+\[(\"']*\s*\d+(?!\d|[.)]\s+[^\W\d])|\b(?:score|rating|grade|verdict|winner)\s?(?:is\b|[:=])",
    re.IGNORECASE | re.MULTILINE,
)


@dataclass(frozen=True)
class ScoreReading:
    """A judge's reply as it was read: a score on its scale, or the reason why there is none."""

    score: float | None
    """A number with low <= score <= high, or None."""
    status: Literal["ok", "unparsed"]
    reason: str
    """Empty when status is ok."""


def parse_score(text: str, scale: Scale = (1, 10)) -> ScoreReading:
    """Read the score in the last `<score>..</score>` tag outside reasoning.

    Read: "8", "8.5", "+8", "8 points", "8/10" and "8 out of 10" (the maximum must be the scale's), "Rating: [[8]]",
    "8: good" (a remark without figures and without a "but"), with blanks, brackets, quotes, Markdown
    emphasis, full-width or other decimal digits and zero-width characters, a remark in brackets or words on further
    lines; also a JSON object whose "score" is such a number. Everything else in
    the tag is unparsed: percentages, ranges, several numbers, words, numbers out of scale. The last tag counts even if
    it cannot be read; an opening tag that is never closed, or a closing one that was never opened, is such a tag,
    unless the reply only speaks of it ("in a <score> tag").

    Args:
        text: the judge's raw reply; reasoning blocks are split off here.
        scale: lowest and highest score, both allowed.

    Raises:
        ValueError: if the scale is not two finite numbers in rising order.

    Source: replaces the parser of MAE's released code, which takes the first tag, else the last
    number of the reply, and clamps.
    """
    _check_scale(scale)
    content, why = last_tag(text)
    return _unparsed(why) if content is None else _read_content(content, scale)


def parse_word(text: str, words: Sequence[str]) -> tuple[int | None, str]:
    """The word that stands alone in the last `<score>..</score>` tag outside reasoning, whatever its case.

    A remark that names no other word may stand behind it ("Yes, it is correct"), and "A > B" is A. Returns: its index
    and "", or null and why there is none. Nothing is guessed: "yes and no" is none of yes, no.
    """
    content, why = last_tag(text)
    if content is None:
        return None, why
    known = {word.casefold(): index for index, word in enumerate(words)}
    first, others = first_line(content)
    index = known.get(word_of(first, words).casefold())
    if index is not None and not any(word_of(line, words).casefold() in known for line in others):
        return index, ""
    shown = f"{words[0]} to {words[-1]}" if len(words) > 4 else ", ".join(words)
    return None, f"not one of {shown} in the last <score> tag: {content[:60]!r}"


def last_tag(text: str) -> tuple[str | None, str]:
    """Content of the last `<score>..</score>` tag outside reasoning, or null and the reason."""
    visible = split_named_reasoning(fold_text(text)).visible
    tags = _without_mentions(visible, list(_TAG.finditer(visible)))
    if not tags:
        return None, "no <score> tag outside reasoning"
    closing = tags[-1]
    if not closing["slash"]:
        return None, "the last <score> tag is not closed"
    if len(tags) < 2 or tags[-2]["slash"]:
        return None, "the last </score> has no <score> before it"
    if tags[-2]["rest"].strip() or closing["rest"].strip():
        return None, "the last <score> tag carries attributes"
    return visible[tags[-2].end() : closing.start()], ""


def _without_mentions(visible: str, tags: list[re.Match[str]]) -> list[re.Match[str]]:
    """The tags without those at the end that are only spoken of, behind a tag that is closed."""
    while len(tags) > 2:
        last, before = tags[-1], tags[-2]
        is_mention = not last["slash"] and before["slash"] and _MENTION.match(visible, last.end())
        is_pair = last["slash"] and not before["slash"] and tags[-3]["slash"]
        if is_mention:
            tags = tags[:-1]
        elif is_pair and visible[before.end() : last.start()].strip(" `\"'") in ("and", "..", "...", "\u2026"):
            tags = tags[:-2]
        else:
            break
    return tags


def normalise(score: float, scale: Scale = (1, 10)) -> float:
    """Map a score on its scale to (score - low) / (high - low), in [0, 1].

    Raises:
        ValueError: if the score is out of scale, or the scale is not rising and finite.

    Source: MAE, arXiv:2510.23595, released code: V = (s - 1) / 9, without its
    clamp.
    """
    _check_scale(scale)
    low, high = scale
    if not low <= score <= high:
        raise ValueError(f"score {score} is not on the scale {low:g}..{high:g}")
    return (score - low) / (high - low)


def _check_scale(scale: Scale) -> None:
    low, high = scale
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"scale {scale} is not two finite numbers in rising order")


def _unparsed(reason: str) -> ScoreReading:
    return ScoreReading(score=None, status="unparsed", reason=reason)


def _read_content(content: str, scale: Scale) -> ScoreReading:
    content = content.strip()
    if not content.strip("*_`"):
        return _unparsed("the last <score> tag is empty")
    if len(content) > _MAX_CONTENT:
        return _unparsed("the last <score> tag holds a long text")
    told = _unfenced(content)
    if told.startswith("{") and '"' in told:
        inner = _score_in_json(told)
        if inner is None:
            return _unparsed("no single score in the JSON inside the last <score> tag")
        told = inner.strip()
    first, others = first_line(told)
    line = unwrapped(first)
    match = _SCORE.fullmatch(line) or _SCORE.fullmatch(unwrapped(without_remark(line)))
    if match is None or any(_LATER_VERDICT.search(line) for line in others):
        return _unparsed(f"not one plain number in the last <score> tag: {content[:60]!r}")
    low, high = scale
    if match["maximum"] is not None and float(match["maximum"]) != high:
        return _unparsed(f"{content[:60]!r} is not out of {high:g}")
    score = float(match["score"])
    if not low <= score <= high:
        return _unparsed(f"{match['score']} is not on the scale {low:g}..{high:g}")
    return ScoreReading(score=score, status="ok", reason="")


def _unfenced(content: str) -> str:
    """The content without a code fence, or without emphasis around an object."""
    fenced = re.fullmatch(r"```(?:json)?\s*(.*?)\s*```", content, re.DOTALL)
    content = fenced[1] if fenced else content
    bare = content.strip("*_` \n")
    return bare if bare.startswith("{") else content


def _score_in_json(content: str) -> str | None:
    """Return the text of the one top-level "score"; numbers stay text, so one grammar rules."""

    def pairs_of(pairs: list[tuple[str, object]]) -> list[tuple[str, object]]:
        return pairs  # a dict would hide a repeated key

    try:
        parsed = json.loads(
            content,
            parse_int=str,
            parse_float=str,
            parse_constant=str,
            object_pairs_hook=pairs_of,
        )
    except (ValueError, RecursionError):
        return None
    values = [value for key, value in parsed if key.strip().casefold() == "score"]
    if len(values) != 1 or not isinstance(values[0], str):
        return None
    return values[0]
