r"""One LaTeX spelling for the many ways of writing the same mathematics.

Place in the flow: `mathematics.objects` reads what `spelled` returns, and math-verify is given it too, so that both
judge the same text. Contract: pure rewriting that never changes what a text means: wrappers, blanks and sizes go,
other commands of the same meaning become one (`\sfrac` is `\frac`, `\tan^{-1}` is `\arctan`, `0.\overline{3}` is
`\frac{1}{3}`, `1.2e-3` is `1.2\cdot 10^{-3}`). Left out: what the text states.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

from mae_cli.checking.mathematics.characters import in_latex
from mae_cli.checking.mathematics.expressions import NAMES

_ENDS: Final = r"(?![a-zA-Z])"
_GROUP: Final = r"\{((?:[^{}]|\{[^{}]*\})*)\}"
_WRAPPERS: Final = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("**", "**"), ("`", "`"))
# Groups of three digits parted by LaTeX blanks anywhere, by plain blanks or apostrophes only where they are the answer.
_LATEX_GROUPS: Final = re.compile(r"(?<![\d.,])\d{1,3}(?:(?:\\[,;: ]|\\!|~|\{\s\}|\\,\\!)\d{3})+(?!\d|\\[,;:! ]\d)")
_PLAIN_GROUPS: Final = re.compile(
    r"([-+]?)\s?(\d{1,3}(?:[ '\u2019]\d{3})+)((?:\.\d+)?(?:\s?(?:\\text|\\mathrm|\\%|%).*)?)"
)
_SCIENTIFIC: Final = re.compile(r"(?<![\w.\\}])(\d+(?:\.\d+)?|\.\d+)[eE]([+-]?)(\d+)(?![\w.^])")
_REPEATING: Final = re.compile(
    r"(?<![\d.])(?P<whole>\d*)\.(?P<first>\d*)(?:\\(?:overline|bar|overbar)\s*(?:\{(?P<over>\d+)\}|(?P<one>\d))"
    r"|(?P<dots>\\dot\s*\{?\d\}?(?:\d*\\dot\s*\{?\d\}?)?)|(?<=\.)\((?P<bracketed>\d+)\))"
)
# Digits said often enough before dots: 0.333..., 0.1666..., 0.3636...; "2.718281828..." repeats nothing.
_DOTS: Final = r"\s*(?:\.{3}|\u2026|\\[lcd]?dots(?![a-zA-Z]))"
_GOING_ON: Final = re.compile(
    rf"(?<![\d.])(?P<whole>\d+)\.(?:(?P<first>\d*?)(?P<block>\d{{1,6}}?)(?P=block){{2,}}|(?P<all>\d{{1,6}}?)(?P=all)+){_DOTS}"
)
_LEFT_OPEN: Final = re.compile(rf"(?<=[\d,}}]){_DOTS}")
_CHOSEN: Final = re.compile(r"(?<![a-zA-Z\\_])(?P<kind>[CPA])_\{?(?P<all>\d{1,3})\}?\s*\^\s*\{?(?P<some>\d{1,3})\}?")
_DROPPED: Final = re.compile(
    r"\\(?:left|right|displaystyle|textstyle|scriptstyle|[bB]igg?[lrm]?|limits|nolimits|hfill|phantom\{[^{}]*\})(?![a-zA-Z])"
    r"|(?<!\\)\\[,!;: ]|~|\\q?quad(?![a-zA-Z])|\\(?:hspace|vspace)\*?\{[^{}]*\}"
)
_LETTERS: Final = r"\\(?:mathrm|mathbf|mathit|mathsf|operatorname\*?|rm|bf|it|boldsymbol|textnormal)"
_RULES: Final[tuple[tuple[re.Pattern[str], str], ...]] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (rf"\\(?:[dtc]|s|nice|x|t)?frac{_ENDS}", r"\\frac"),
        (r"\\frac\s+(?=[{\d])", r"\\frac"),
        (rf"\\[dt]binom{_ENDS}", r"\\binom"),
        (r"\\binom\s*(\w)\s*(\w)", r"\\binom{\1}{\2}"),
        (r"\{([^{}]*)\\over(?![a-zA-Z])([^{}]*)\}", r"\\frac{\1}{\2}"),
        (r"\{([^{}]*)\\choose(?![a-zA-Z])([^{}]*)\}", r"\\binom{\1}{\2}"),
        (r"(?:\{\s*\})?[_^]\{?(\w+)\}?\s*C\s*_\{?(\w+)\}?", r"\\binom{\1}{\2}"),
        (rf"\\(?:leq|leqslant){_ENDS}|<=|=<", r"\\le "),
        (rf"\\(?:geq|geqslant){_ENDS}|>=", r"\\ge "),
        (rf"\\neq{_ENDS}|!=|\\not\s*=", r"\\ne "),
        (rf"\\lt{_ENDS}", "<"),
        (rf"\\gt{_ENDS}", ">"),
        (rf"\\(?:varnothing|emptyset|O(?=$)){_ENDS}", r"\\emptyset "),
        (rf"\\(?:smallsetminus|backslash){_ENDS}", r"\\setminus "),
        (rf"\\langle{_ENDS}", "("),
        (rf"\\rangle{_ENDS}", ")"),
        (rf"\\(?:lbrace){_ENDS}", r"\\{"),
        (rf"\\(?:rbrace){_ENDS}", r"\\}"),
        (rf"\\(?:lvert|rvert|vert){_ENDS}", "|"),
        (rf"\\mid{_ENDS}", "|"),
        (r"\\mathbb\s+([A-Z])", r"\\mathbb{\1}"),
        (rf"\\(?:R|reals|Reals){_ENDS}", r"\\mathbb{R}"),
        (r"\\(?:mathbf|mathcal)\{R\}", r"\\mathbb{R}"),
        (r"\{\\(?:rm|bf|it)\s+([a-zA-Z]+)\s*\}", r" \1 "),
        (rf"{_LETTERS}\s*\{{\s*([a-zA-Z]+)\s*\}}", r" \1 "),
        (r"\\text(?:rm|it|bf|sf)?\{\s*([ei])\s*\}", r" \1 "),
        (r"\\lg(?![a-zA-Z])", r"\\log_{10}"),
        (r"\\log\s*_\s*\{?\s*e\s*\}?(?![a-zA-Z])", r"\\ln "),
        (r"\\(sin|cos|tan)\s*\^\s*\{?\s*-\s*1\s*\}?(?!\d)", r"\\arc\1 "),
        (r"\\(ge|le|ne)(?![a-zA-Z])\s*", r"\\\1 "),
        (rf"(?<![a-zA-Z\\])({'|'.join(NAMES)}){_ENDS}", r"\\\1 "),
        (rf"\\(?:infinity|inf){_ENDS}", r"\\infty "),
        (r"\\sqrt\s+(?=[({\[])", r"\\sqrt"),
        (r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"\{,\}", ","),
        (r"\^\s*(-\s*\d+(?:\.\d+)?|\d+\.\d+|\d{2,})(?!\d)", r"^{\1}"),
        (r"\\cr(?![a-zA-Z])|(?:\\\\)+\s*\[[^\]]*(?:pt|mm|cm|em|ex)\]|(?:\\\\){2,}", r"\\\\"),
        (r"\\(?:and|wedge|land)(?![a-zA-Z])|\\?\\text\{\s*and\s*\}|\\mbox\{\s*and\s*\}|\band\b|\\&", r" \\land "),
        (
            r"\\(?:lor|vee)(?![a-zA-Z])|\\text\{\s*,?\s*or\s*\}|\\mbox\{\s*or\s*\}|(?<![a-zA-Z])or(?![a-zA-Z])",
            r" \\lor ",
        ),
        (r",\s*(?=\\l(?:and|or) )", " "),
        (r"\*\*", "^"),
        (r"_(\w)(?!\w*\})", r"_{\1}"),
    )
)
# "dx/x" and "\frac{dx}{x}" behind an integral sign are one over x, then dx.
_INTEGRAND: Final = re.compile(
    rf"\\frac\{{\s*d\s*([a-zA-Z])\s*\}}\s*{_GROUP}|(?<![a-zA-Z])d\s*([a-zA-Z])\s*/\s*(\([^()]*\)|[a-zA-Z]|\d+)(?=\s*$)"
)
_DEGREES_IN: Final = re.compile(r"(\d+(?:\.\d+)?)\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-zA-Z]))")
_TRIGONOMETRY: Final = re.compile(r"(?<![a-zA-Z])(?:sin|cos|tan|cot|sec|csc)(?![a-zA-Z])")
_MATRIX_NAMES: Final = re.compile(r"\\(begin|end)\{(?:smallmatrix|matrix|bmatrix|Bmatrix|array)\}(?:\{[clr|\s]*\})?")
_MATRIX_BRACKETS: Final = re.compile(r"^[(\[]\s*(\\begin\{pmatrix\}.*\\end\{pmatrix\})\s*[)\]]$", re.DOTALL)


def spelled(text: str) -> str:
    """A text in one spelling, without what only wraps or sizes it."""
    text = in_latex(text).strip()
    text = _LEFT_OPEN.sub(r"\\ldots ", _GOING_ON.sub(_as_fraction, text))
    before = None
    while before != text:
        before = text
        text = _unwrapped(text)
    bare = re.fullmatch(r"\{([^{}\\]*,[^{}]*)\}", text)
    text = f"\\{{{bare[1]}\\}}" if bare else text  # braces that LaTeX would not print
    text = _joined_groups(_without_inner_marks(text))
    text = _REPEATING.sub(_as_fraction, text)
    text = _SCIENTIFIC.sub(r"\1 \\cdot 10^{\2\3}", text).replace("^{+", "^{")
    # A backslash before a set is a difference, and no blank.
    text = re.sub(r"(\\mathbb\s*\{?R\}?|ℝ|\bR)\s*\\\s*(?=\\?\{|\[|\()", r"\1 \\setminus ", text)
    text = re.sub(r"(?<=\d)\s*\\!\s*(?=,)|(?<=,)\s*\\!\s*(?=\d)", "", text)
    text = _DROPPED.sub(" ", text)
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    text = _CHOSEN.sub(_as_count, text)
    if "\\int" in text:
        text = _INTEGRAND.sub(lambda m: f"\\frac{{1}}{{{m[2] or m[4]}}} d{m[1] or m[3]}", text)
        text = re.sub(r"(?<![a-zA-Z\\])d\s+([a-zA-Z])(?![a-zA-Z])", r"d\1", text)
    if _TRIGONOMETRY.search(text):
        text = _DEGREES_IN.sub(r"(\\frac{\1\\pi}{180})", text)
    text = re.sub(r"^\s*\\(?:approx|sim)(?![a-zA-Z])", "", text)
    text = _MATRIX_NAMES.sub(r"\\\1{pmatrix}", text)
    text = re.sub(r"\s+", " ", text).strip()
    matrix = _MATRIX_BRACKETS.match(text)
    return re.sub(r"\\\\\s*(?=\\end\{pmatrix\})", "", matrix[1] if matrix else text)


def _unwrapped(text: str) -> str:
    text = text.rstrip(".,;: \n") if not text.endswith("\\,") else text[:-2].rstrip()
    for start, end in _WRAPPERS:
        if text.startswith(start) and text.endswith(end) and len(text) > len(start) + len(end):
            inside = text[len(start) : -len(end)]
            if start not in inside:
                text = inside.strip()
    boxed = re.fullmatch(r"\\f?box(?:ed)?\s*\{(.*)\}", text, re.DOTALL)
    if boxed and balanced(boxed[1]):
        text = boxed[1].strip()
    return text


def _without_inner_marks(text: str) -> str:
    """The text without the marks around its parts: dollars and boxes, as in "$1$ and $2$"."""
    text = re.sub(rf"\\f?box(?:ed)?\s*{_GROUP}", r" \1 ", text)
    text = re.sub(r"\\\((.*?)\\\)", r" \1 ", text)
    # "$5 and $6" is money twice.
    return re.sub(r"(?<!\\)\$(?=\S)([^$]*[^$\s\\])\$(?!\d)", r" \1 ", text).strip()


def balanced(text: str) -> bool:
    """Whether every brace that opens is closed, and none before it opens."""
    depth = 0
    for character in re.sub(r"\\[{}]", "", text):
        depth += (character == "{") - (character == "}")
        if depth < 0:
            return False
    return depth == 0


def _joined_groups(text: str) -> str:
    text = _LATEX_GROUPS.sub(lambda match: re.sub(r"\D", "", match[0]), text)
    plain = _PLAIN_GROUPS.fullmatch(text)
    return f"{plain[1]}{re.sub(r'[^0-9]', '', plain[2])}{plain[3]}" if plain else text


def _as_count(match: re.Match[str]) -> str:
    """The choices of k out of n that C, P or A with n below and k above mean; a power of a name stays one."""
    whole, some = int(match["all"]), int(match["some"])
    if some >= whole or whole > 100:
        return match[0]
    binomial = f"\\binom{{{whole}}}{{{some}}}"
    return binomial if match["kind"] == "C" else f"({binomial} \\cdot {some}!)"


def _as_fraction(match: re.Match[str]) -> str:
    """A repeating decimal as the fraction it is: 0.666... is 2/3."""
    found = match.groupdict(default="")
    first = found["first"]
    repeated = next((found[key] for key in ("over", "one", "bracketed", "block", "all") if found.get(key)), "")
    repeated = repeated or re.sub(r"\D", "", found["dots"])
    value = Fraction(int(match["whole"] + first or "0"), 10 ** len(first))
    value += Fraction(int(repeated), (10 ** len(repeated) - 1) * 10 ** len(first))
    return f"\\frac{{{value.numerator}}}{{{value.denominator}}}"
