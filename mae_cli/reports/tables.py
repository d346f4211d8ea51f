"""Plain text tables, percentages and p-values as people read them.

Place in the flow: all reports print with these functions. Contract: pure; an unknown value is shown as a dash. Left
out: what the figures are (`role_figures`, `eval_figures`) and the HTML page (`page`).
"""

from __future__ import annotations

from collections.abc import Sequence


def table(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A plain text table, numbers to the right; reads the same on a terminal, in a log and in a mail."""
    cells = [list(headings), *[list(line) for line in lines]]
    widths = [max(len(line[column]) for line in cells) for column in range(len(headings))]
    shown = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]
    return "\n".join([shown[0], "  ".join("-" * width for width in widths), *shown[1:]])


def percent(share: float | None) -> str:
    """A share as a percentage with one decimal; a dash where it is unknown."""
    return "-" if share is None else f"{100 * share:.1f} %"


def p_text(p_value: float | None) -> str:
    """A p-value for people; a dash where nothing was tested."""
    if p_value is None:
        return "-"
    return f"{p_value:.2g}" if p_value >= 0.001 else f"{p_value:.1e}"
