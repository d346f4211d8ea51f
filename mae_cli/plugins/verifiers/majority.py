"""Check an answer against the majority of its group: a pseudo label where no reference answer exists.

Place in the flow: `judge` and `eval` call it through the registry with whole groups (the rollouts of one problem).
Contract: answers are clustered by text, then as numbers, then as mathematics; the verdicts do not depend on the order
of the answers; a tie, and a lead that an unclear comparison could overturn, are `unsure`. The mean score of a group is
the share of its largest cluster. The reference answer is not looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from typing import ClassVar

import msgspec

from mae_cli.answers.numbers import read_quantity
from mae_cli.plugins.verifiers.exact_match import normalise_answer
from mae_cli.plugins.verifiers.math import Math
from mae_cli.plugins.verifiers.numeric import numeric_score
from mae_cli.records import Problem, Verdict


class Majority(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Agreement with the largest cluster of a group's answers; its share and size stand in the reason.

    Source: self-consistency, arXiv:2203.11171; as a pseudo label, R-Zero, arXiv:2508.05004. There the first answers
    decide the clusters and "no" in two texts makes them one; here neither is so.
    """

    min_share: float = 0.0
    """Share that the largest cluster needs; below it the group is unsure."""
    math: bool = True
    """Compare as mathematics what differs as text and is not two numbers."""
    timeout_seconds: float = 5.0
    """Of one comparison as mathematics."""
    needs_reference: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.math:
            Math()  # says at once what is not installed

    def check(self, problem: Problem, answer: str | None) -> Verdict:
        """Unsure: one answer has no majority beside it."""
        return self.check_many([problem], [answer], [problem.id])[0]

    def check_many(
        self, problems: Sequence[Problem], answers: Sequence[str | None], groups: Sequence[str]
    ) -> list[Verdict]:
        """One verdict per answer, from the answers with the same group name."""
        members: dict[str, list[int]] = {}
        for index, group in enumerate(groups):
            members.setdefault(group, []).append(index)
        texts = {group: [_text(answers[index]) for index in indices] for group, indices in members.items()}
        links = self._links([sorted({t for t in found if t is not None}) for found in texts.values()])
        verdicts: dict[int, Verdict] = {}
        for group, indices in members.items():
            found = vote(texts[group], links, self.min_share)
            verdicts.update(zip(indices, found, strict=True))
        return [verdicts[index] for index in range(len(answers))]

    def _links(self, groups: Sequence[Sequence[str]]) -> dict[tuple[str, str], bool | None]:
        """Whether two different texts state the same, for every pair within a group; null where that is unclear."""
        pairs = {pair: None for texts in groups for pair in combinations(texts, 2)}
        links: dict[tuple[str, str], bool | None] = {}
        unclear: list[tuple[str, str]] = []
        for first, second in pairs:
            if read_quantity(first) is not None and read_quantity(second) is not None:
                score, _, _ = numeric_score(first, second)
                links[first, second] = None if score is None else score == 1.0
            elif self.math:
                unclear.append((first, second))
            else:
                links[first, second] = False
        # The texts are sorted, so which of two stands for the reference does not depend on the order of the answers.
        checked = Math(timeout_seconds=self.timeout_seconds).compare(unclear) if unclear else []
        for pair, verdict in zip(unclear, checked, strict=True):
            links[pair] = None if verdict.score is None else verdict.score == 1.0
        return links


def _text(answer: str | None) -> str | None:
    return (normalise_answer(answer) or None) if answer is not None else None


def vote(
    texts: Sequence[str | None], links: dict[tuple[str, str], bool | None], min_share: float = 0.0
) -> list[Verdict]:
    """The verdicts of one group.

    Args:
        texts: the answers, normalised; null for a missing one, which counts in the size of the group and is wrong.
        links: for each pair of different texts (sorted), whether they state the same; null where unclear.
        min_share: see `Majority`.
    """
    distinct = sorted({text for text in texts if text is not None})
    sure = _clusters(distinct, {pair for pair, same in links.items() if same})
    possible = _clusters(distinct, {pair for pair, same in links.items() if same is not False})
    counts = Counter(sure[text] for text in texts if text is not None)
    size = max(counts.values(), default=0)
    leaders = [cluster for cluster, count in counts.items() if count == size]
    told = f"{size} of {len(texts)} answers agree (share {size / max(1, len(texts)):.2f}, {len(counts)} clusters)"
    # What the others come to if every unclear comparison among them is an agreement.
    others = [text for text in texts if text is not None and sure[text] not in leaders]
    joined = _clusters(sorted(set(others)), {pair for pair, same in links.items() if same is not False})
    rival = max(Counter(joined[text] for text in others).values(), default=0)
    problem = _doubt(leaders, size, rival, len(texts), min_share)
    verdicts = []
    for text in texts:
        if text is None:
            verdicts.append(Verdict("majority", "verifier", "answer", score=0.0, reason=f"no answer found; {told}"))
        elif problem:
            verdicts.append(_unsure(f"{problem}; {told}"))
        elif sure[text] == leaders[0]:
            verdicts.append(Verdict("majority", "verifier", "answer", score=1.0, reason=told))
        elif possible[text] == possible[_first(distinct, sure, leaders[0])]:
            verdicts.append(_unsure(f"not clear whether it says what the majority says; {told}"))
        else:
            verdicts.append(Verdict("majority", "verifier", "answer", score=0.0, reason=f"another answer; {told}"))
    return verdicts


def _doubt(leaders: Sequence[int], size: int, rival: int, total: int, min_share: float) -> str | None:
    """Reason why the group has no majority; null where it has one."""
    if not leaders:
        return "no answer in the group"
    if total == 1:
        return "a group of one"
    if len(leaders) > 1:
        return f"{len(leaders)} clusters are equally large"
    if size == 1:
        return "no two answers agree"
    if rival >= size:
        return "unclear comparisons could overturn the majority"
    return f"the share is below {min_share:g}" if size / total < min_share else None


def _first(distinct: Sequence[str], sure: dict[str, int], cluster: int) -> str:
    return next(text for text in distinct if sure[text] == cluster)


def _clusters(texts: Sequence[str], links: set[tuple[str, str]]) -> dict[str, int]:
    """Connected components: chains of equal texts are one cluster, whatever the order."""
    cluster = {text: index for index, text in enumerate(texts)}
    for first, second in sorted(links):
        if first in cluster and second in cluster and cluster[first] != cluster[second]:
            low, high = sorted((cluster[first], cluster[second]))
            cluster = {text: low if index == high else index for text, index in cluster.items()}
    return cluster


def _unsure(reason: str) -> Verdict:
    return Verdict("majority", "verifier", "answer", status="unsure", reason=reason)
