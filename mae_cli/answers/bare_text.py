"""A question without its dress: what stays the same when it is typed, marked up or asked in another way.

Place in the flow: `answers.questions.bare_key` compares questions by it. Contract: a pure function over text that never
raises. Gone are: Unicode forms, quotes, marks between sentences, bold, LaTeX delimiters and blanks, number words, and
known prompt sentences in front and behind. Kept is all that can change the question: every number, word, operator,
bracket, prime and power. Left out: other wordings of one question.
"""

from __future__ import annotations

import re
import unicodedata

_SUPER = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ", "0123456789+-()ni", strict=True))
_SUB = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋₍₎", "0123456789+-()", strict=True))
_RUNS = (
    (re.compile(f"[{''.join(map(re.escape, _SUPER))}]+"), "^", _SUPER),
    (re.compile(f"[{''.join(map(re.escape, _SUB))}]+"), "_", _SUB),
)
_SAME = str.maketrans(
    {
        **dict.fromkeys("‘’‛ʼ`´ʹ", "'"),
        **dict.fromkeys("“”„‟«»", '"'),
        **dict.fromkeys("‐‑‒–−﹣", "-"),
        **dict.fromkeys("×⋅·∙•", "*"),
        **dict.fromkeys("÷∕⁄", "/"),
        "′": "'",
        "″": '"',
        "—": " - ",
        "―": " - ",
    }
)
_LATEX = tuple(
    (re.compile(pattern), told)
    for pattern, told in (
        (r"\\(?:text|mathrm|textbf|mathbf|textit|mathit|mbox|operatorname|emph|boldsymbol)\s?\{([^{}]*)\}", r"\1"),
        (r"\\(?:left|right|bigl?|bigr|Bigl?|Bigr|displaystyle|limits)(?![A-Za-z])", ""),
        (r"\\[()\[\]]", " "),
        (r"\\!", ""),
        (r"\\\\|\\[,;: ]|\\q?quad(?![A-Za-z])|~", " "),
        (r"\{,\}", ""),
        (r"\\[dt]frac(?![A-Za-z])", r"\\frac"),
        (r"\\frac\s?(\d)\s?(\d)(?!\d)", r"\\frac{\1}{\2}"),
        (r"√\s?(\w+)", r"\\sqrt{\1}"),
        (r"\^\{?\\circ\}?|\\degree(?![A-Za-z])", "°"),
        (r"\\(?:cdot|times)(?![A-Za-z])", "*"),
        (r"\\div(?![A-Za-z])", "/"),
        (r"\\leq?(?![A-Za-z])|\\leqslant(?![A-Za-z])", "≤"),
        (r"\\geq?(?![A-Za-z])|\\geqslant(?![A-Za-z])", "≥"),
        (r"\\neq?(?![A-Za-z])", "≠"),
        (r"\\pi(?![A-Za-z])", "π"),
        (r"\\infty(?![A-Za-z])", "∞"),
        (r"\\pm(?![A-Za-z])", "±"),
        (r"\\([%#&{}_$])", r"\1"),
        (r"(?<=[\u3040-\u9fff])(?=\d)", " "),
        (r"([\^_])\{\s*(\w+)\s*\}", r"\1\2"),
    )
)
# A dollar sign opens mathematics where no blank follows it, and closes it where none stands before and no digit behind.
_MATHS = re.compile(r"(?<!\\)\$\$?(?=\S)((?:[^$\\]|\\.)*?)(?<=[^\s\\])\$\$?(?!\d)")
_MARKUP = tuple(
    (re.compile(pattern), told)
    for pattern, told in (
        (r"<\|im_start\|>\s*\w+|<\|[a-z_]+\|>|\[/?INST\]|</?(?:b|i|u|p|br|em|strong)\s*/?>", " "),
        (r"(?m)^\s{0,3}(?:#{1,6}|>)\s+", ""),
        (r"(?<![\w*])\*\*(?=\S)(.{1,2000}?)(?<=\S)\*\*(?![\w*])", r"\1"),
        (r"(?<![\w_])__(?=[^\W_])(.+?)(?<=[^\s_])__(?![\w_])", r"\1"),
        (r"(?<![\w*)])\*(?=[^\W\d_]{2})([^*\n]+?)(?<=[^\s*])\*(?![\w*(])", r"\1"),
        (r"(?<![\w_)])_(?=[^\W\d_]{2})([^_\n]+?)(?<=[^\s_])_(?![\w_(])", r"\1"),
    )
)
_FUNCTIONS = frozenset(
    {
        *("sin", "cos", "tan", "cot", "sec", "csc", "log", "ln", "exp", "max", "min", "gcd", "lcm", "mod", "det"),
        *("lim", "arcsin", "arccos", "arctan"),
    }
)
_ONES = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
_TEENS = ["ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_WORTH = {
    "zero": 0,
    **{word: place for place, word in enumerate(_ONES, 1)},
    **{word: place for place, word in enumerate(_TEENS, 10)},
    **{word: 10 * place for place, word in enumerate(_TENS, 2)},
}
_ONE = "|".join(_ONES)
_BELOW_100 = rf"(?:(?:{'|'.join(_TENS)})(?:[- ](?:{_ONE})\b)?|{'|'.join(_TEENS)}|{_ONE})"
_BELOW_1000 = rf"(?:(?:{_ONE}) hundred(?: (?:and )?{_BELOW_100}\b)?|{_BELOW_100})"
_NUMBER_WORDS = re.compile(rf"\b(?:{_BELOW_1000} thousand(?: (?:and )?{_BELOW_1000}\b)?|{_BELOW_1000}|zero)\b")
_GROUPED = re.compile(r"(?<![\d.,(\[{])(\d{1,3}(?:,\d{3})+)(?![\d,]|\.\d*,|\s*[)\]}])")
_TOKEN = re.compile(
    r"\d+(?:[.,:]\d+)*|\.\d+"  # numbers, times, ratios
    r"|\\[A-Za-z]+"  # LaTeX commands
    r"|[^\W\d_]+(?:'[^\W\d_]+)*\d*"  # words, with their apostrophes
    r"|_+|.",
    re.DOTALL,
)


def bare_text(text: str) -> str:
    """Return a question without its dress, as words and signs with one blank between them."""
    return " ".join(_tokens(plain_text(text)))


def plain_text(text: str) -> str:
    """The question in lower case, without Unicode forms, markup and prompt sentences; its marks still stand."""
    text = _unicode(text)
    for pattern, told in _MARKUP:
        text = pattern.sub(told, text)
    text = _MATHS.sub(r" \1 ", text.replace("`", ""))
    for pattern, told in _LATEX:
        text = pattern.sub(told, text)
    text = _number_words(_GROUPED.sub(lambda match: match[1].replace(",", ""), text.casefold()))
    return without_prompt(" ".join(text.split()))


def _unicode(text: str) -> str:
    """One form of every character; powers and indices stay apart from the numbers they stand at."""
    for pattern, mark, told in _RUNS:
        text = pattern.sub(lambda match, mark=mark, told=told: mark + "".join(told[c] for c in match[0]), text)  # type: ignore[misc]
    found = []
    for character in text:
        kind = unicodedata.category(character)
        if kind == "Cf":
            continue  # zero-width marks and soft hyphens
        if kind == "No" and "⁄" in unicodedata.normalize("NFKC", character):
            found.append(f" {unicodedata.normalize('NFKC', character)} ")  # 1½ is not 11/2
        elif kind == "Nd":
            found.append(str(unicodedata.digit(character)))
        else:
            found.append(character.translate(_SAME))
    return unicodedata.normalize("NFKC", "".join(found)).translate(_SAME)


def _number_words(text: str) -> str:
    return _NUMBER_WORDS.sub(lambda match: str(_worth(match[0])), text)


def _worth(words: str) -> int:
    total = current = 0
    for word in re.split(r"[- ]", words):
        if word == "hundred":
            current *= 100
        elif word == "thousand":
            total, current = total + 1000 * current, 0
        else:
            current += _WORTH.get(word, 0)
    return total + current


def _tokens(text: str) -> list[str]:
    """What a question says, mark by mark."""
    text = re.sub(r"(?<![\w'])'([^'\n]*)'(?![\w'])", r" \1 ", text)
    text = re.sub(r'(?<![\w"])"([^"\n]*)"(?![\w"])', r" \1 ", text)
    found = list(_TOKEN.finditer(text))
    kept: list[str] = []
    for place, match in enumerate(found):
        token = match[0]
        before = found[place - 1][0] if place else ""
        after = found[place + 1][0] if place + 1 < len(found) else ""
        if token.isspace():
            continue
        if token == "-":
            if _is_minus(text, match.start()):
                kept.append(token)
        elif token in "'\"":
            # After a number or one letter it is a measure or a derivative; after a word a possessive.
            if before[-1:].isdigit() or (len(before) == 1 and (before.isalpha() or before in "'\")")):
                kept.append(token)
        elif token == "!":
            if before[-1:].isdigit() or before == ")" or (len(before) == 1 and before.isalpha()):
                kept.append(token)
        elif token.startswith("_"):
            kept.append("_" if after.isalnum() and not before.isspace() else "__")
        elif len(token) > 1 or token.isalnum() or token in "()[]{}/%*\\|@#&" or unicodedata.category(token)[0] == "S":
            kept.append(token)
        # All other single marks (full stops, commas, colons, question marks) only part sentences.
    return kept


def _is_minus(text: str, place: int) -> bool:
    """Whether a hyphen is a minus sign: not inside a compound word ("7-year-old") and no dash between words."""
    left = re.search(r"([^\W_]*)(\s*)$", text[max(0, place - 40) : place])
    right = re.match(r"(\s*)([^\W_]*)", text[place + 1 : place + 40])
    before, after = left[1] if left else "", right[2] if right else ""
    is_tight = not (left and left[2]) and not (right and right[1])
    if before in _FUNCTIONS or after in _FUNCTIONS:
        return True
    if is_tight:
        return not (_is_word(after) or (_is_word(before) and not after[:1].isdigit()))
    return not (_is_word(before) and _is_word(after))


def _is_word(text: str) -> bool:
    return len(text) > 1 and text[0].isalpha()


_VERB = r"(?:put|write|give|place|enclose|box|provide|return|state|present|output|report|express|mark|wrap|end)"
_ANSWER = r"(?:your|the|a|only the)?\s*(?:final\s+|numerical\s+)?(?:answer|result|solution|response)s?"
_PLACE = (
    r"(?:\s+(?:within|in|inside|into|using|after|between|with|at|on|by)\s+(?:an?\s+|the\s+|your\s+)?(?:latex\s+)?"
    r"(?:\$?\\?boxed(?:\s?\{[^{}]{0,20}\})?\$?|box|\"?#{2,}\"?(?:\s*<[a-z ]{1,20}>)?"
    r"|(?:very\s+)?end(?:\s+of\s+(?:the|your)\s+(?:response|answer|output))?|(?:its|a|the)?\s*(?:own|separate|last|final|new)\s+line(?:\s+after\s+\"?answer:?\"?)?"
    r"|\"?(?:final\s+)?answer:\"?|<answer>(?:\s*\.*\s*(?:and\s+)?</answer>)?(?:\s*tags?)?|tags?))"
)
_STEPS = (
    r"(?:(?:let'?s|let us|i will|we will)\s+)?(?:reason|think|work|solve|explain|answer|proceed|go)"
    r"(?:\s+(?:it|this|out|through\s+(?:it|this|the\s+problem)|(?:it|this|the\s+(?:problem|question))|carefully|about\s+(?:it|this)))?"
    r",?\s*step[\s-]by[\s-]step"
)
_SENTENCES = (
    rf"{_STEPS}(?:[\s,;.]*(?:and|then|and then|and finally|finally|before)?\s*"
    rf"(?:{_VERB}|giving|answering)\s*(?:{_ANSWER})?(?:{_PLACE})?)?",
    rf"(?:(?:remember|make sure|be sure|and)\s+(?:to\s+)?)?{_VERB}\s+{_ANSWER}(?:\s+only)?{_PLACE}(?:{_PLACE})?",
    r"(?:show|explain|justify)\s+(?:all\s+)?(?:of\s+)?your\s+(?:work|working|reasoning|steps|answer|thinking)",
    rf"(?:{_STEPS}[\s,;.]*(?:and\s+)?(?:then\s+)?)?write\s+a\s+line\s+of\s+the\s+form.{{0,60}}?"
    r"at\s+the\s+end(?:\s+of\s+(?:the|your)\s+(?:response|answer))?",
    rf"{_VERB}\s+{_ANSWER}\s+as\s+a\s+(?:single\s+)?number",
    rf"{_VERB}\s+only\s+{_ANSWER}",
    r"请[^。?!]{0,20}?(?:逐步|一步一步|一步步)[^。?!]{0,20}?(?:\\?boxed\s?\{\s?\}[^。?!]{0,3})?。?",
    r"(?:answer|respond|reply)\s+(?:the\s+question\s+)?(?:with|using)\s+(?:only\s+|just\s+)?(?:an?\s+|the\s+)?(?:single\s+|correct\s+|final\s+)?"
    r"(?:number|letter|integer|word|option|answer)(?:\s+letter)?(?:\s+only)?",
    r"(?:do not|don't|without)\s+(?:explain|explaining|any\s+explanation|give\s+any\s+explanation)",
    r"(?:think|reason)\s+carefully(?:\s+before\s+answering)?",
    r"the\s+last\s+line\s+of\s+your\s+response\s+should\s+be\s+(?:of|in)\s+the\s+(?:form|format).{0,120}?"
    r"answer\s+to\s+the\s+(?:problem|question)",
    r"your\s+(?:final\s+)?answer\s+should\s+be\s+(?:put\s+|given\s+|written\s+)?(?:within|in|inside)\s+\$?\\?boxed(?:\s?\{[^{}]{0,20}\})?\$?",
)
_KIND = r"(?:(?:math(?:s|ematics|ematical)?|word|reasoning|arithmetic|multiple[- ]choice|logic|science|coding)\s+)*"
_TASK = r"(?:question|problem|task|exercise|puzzle)s?"
_BEHIND = tuple(
    re.compile(rf"(?:^|(?<=[\s.?!:;)\]\"'}}$]))(?:please,?\s+)?(?:{body})[\s.!:\"')$]*$")
    for body in (*_SENTENCES, r"(?:final\s+)?(?:answer|solution|response|assistant|reasoning|a)\s*:", r"/(?:no_)?think")
)
_BEFORE = tuple(
    re.compile(pattern)
    for pattern in (
        rf"^\W*(?:{_KIND}(?:{_TASK}|q|example|instructions?|user|human|prompt|query|input))\s*(?:no\.?\s*|number\s*|#\s*)?"
        r"\d{0,3}\s*(?::|[.)\]-](?=\s)|\s-)\s*(?=\S)",
        r"^(?:\(?\d{1,3}[.)])\s+(?=[a-z])",
        rf"^(?:please\s+)?(?:answer|solve|consider|read|work\s+out|complete|look\s+at)\s+(?:the\s+)?(?:following|this|next)\s+"
        rf"{_KIND}{_TASK}(?:\s+(?:carefully|step[ -]by[ -]step|below))*"
        rf"(?:\s*(?:and|,)?\s*{_VERB}\s+{_ANSWER}(?:{_PLACE})?)?\s*[.:!]\s*",
        rf"^(?:solve|answer)\s+(?:the|this)\s+{_KIND}{_TASK}\s*:\s*",
        r"^below\s+is\s+an\s+instruction\s+that\s+describes\s+a\s+task[^.]{0,60}\.\s*"
        r"write\s+a\s+response\s+that\s+appropriately\s+completes\s+the\s+request\.\s*(?:#+\s*)?",
        rf"^here\s+is\s+(?:a|the|your)\s+(?:following\s+)?{_KIND}{_TASK}\s*[.:]\s*",
        r"^you\s+are\s+an?\s+(?:very\s+)?(?:helpful|expert|skilled|careful|brilliant)[a-z ,-]{0,60}\.\s*",
        *(rf"^(?:please,?\s+)?(?:{body})\s*[.:!]\s+(?=\S)" for body in _SENTENCES),
    )
)


def without_prompt(text: str) -> str:
    """Return the text without known prompt sentences in front and behind; a text of nothing else stays as it is."""
    for _ in range(8):
        before = text
        for pattern in (*_BEFORE, *_BEHIND):
            shorter = pattern.sub("", text, count=1).strip()
            text = shorter or text
        if text == before:
            break
    return text
