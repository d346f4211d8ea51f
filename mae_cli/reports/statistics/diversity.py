"""Diversity of texts: the share of different n-grams."""

from collections.abc import Iterable


def distinct_n(texts: Iterable[str], n: int) -> float | None:
    """Return the share of different n-grams among all n-grams, in (0, 1]; null if there are none.

    Tokens are the case-folded words between blanks; n-grams do not cross texts.

    Raises:
        ValueError: if n < 1.

    Source: distinct-n of Li et al., NAACL 2016, arXiv:1510.03055, divided by the number of
    n-grams (the paper divides by the number of tokens).
    """
    if n < 1:
        raise ValueError(f"n {n}: expected at least 1")
    grams: list[tuple[str, ...]] = []
    for text in texts:
        words = text.casefold().split()
        grams.extend(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
    return len(set(grams)) / len(grams) if grams else None
