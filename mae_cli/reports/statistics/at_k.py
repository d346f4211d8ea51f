"""Figures over k samples per item: pass@k, and whether the majority answer is correct.

Place in the flow: `reports.accuracy` averages them over items. Contract: pure and exact; a figure about an item whose
checker failed is null.
"""

import math
from collections.abc import Sequence


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Return the chance that at least one of k samples is correct, without bias: 1 - C(n - c, k) / C(n, k).

    It is the mean, over all subsets of k of the n samples, of whether the subset holds a correct one.

    Args:
        samples: n >= k, samples drawn of one item.
        correct: 0 <= c <= n of them are correct.
        k: >= 1.

    Raises:
        ValueError: if an argument is out of its range.

    Source: M. Chen et al., Evaluating Large Language Models Trained on Code, arXiv:2107.03374, equation 1.
    """
    if not 1 <= k <= samples or not 0 <= correct <= samples:
        raise ValueError(f"{correct} correct of {samples}, k {k}: expected 0 <= correct <= samples and 1 <= k")
    return 1 - math.comb(samples - correct, k) / math.comb(samples, k)


def majority_is_correct(votes: Sequence[tuple[str | None, float | None]], k: int) -> float | None:
    """Return whether the commonest answer of the first k samples is correct, in [0, 1].

    Samples without an answer do not vote; nobody voting is wrong (0). Tied answers share: with one of two tied
    answers correct the result is 1/2, the expectation of breaking the tie at random. An answer that was scored
    several times counts the mean of its known scores. Null when the checker failed on all of an answer that leads.

    Args:
        votes: per sample its answer in a normal form (null: none) and its score (null: the checker failed).
        k: >= 1; samples beyond the first k are not looked at.

    Source: self-consistency, X. Wang et al., arXiv:2203.11171.
    """
    scores: dict[str, list[float | None]] = {}
    for answer, score in votes[:k]:
        if answer is not None:
            scores.setdefault(answer, []).append(score)
    if not scores:
        return 0.0
    top = max(map(len, scores.values()))
    known = [[score == 1.0 for score in found if score is not None] for found in scores.values() if len(found) == top]
    return math.fsum(sum(found) / len(found) for found in known) / len(known) if all(known) else None
