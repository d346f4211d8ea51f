"""The program check of a pair that a judge was trained on.

Place in the flow: `rewarding` compares a judgement with this verdict. Contract: one verdict per pair; unknown where the
text could be either a marked answer or a whole completion and the two readings disagree.
"""

from __future__ import annotations

from mae_cli.answers.stated import stated_answer
from mae_cli.data import pools
from mae_cli.plugins import contracts
from mae_cli.records import Verdict


def _check_pair(verifier: contracts.Verifier, pair: pools.Pair) -> Verdict:
    """The verdict on a candidate: a marked answer, or the whole completion where none was marked.

    The text does not tell which of the two it is. So it is checked as it stands first, for a marked answer must not be
    taken apart ("(8,-2)" is not -2), then as the answer it states. Where only its last number would be right, it is a
    right completion or a wrong answer, and nobody knows which.
    """
    whole = verifier.check(pair.problem, pair.candidate)
    stated = stated_answer(pair.problem, pair.candidate)
    if whole.score or stated.answer is None or stated.answer == pair.candidate:
        return whole
    verdict = verifier.check(pair.problem, stated.answer)
    if stated.source != "last_number":
        return verdict
    if whole.score is None or verdict.score == whole.score:
        return whole
    reason = "wrong as it stands, but not by its last number"
    return Verdict(whole.name, "verifier", "answer", status="unsure", reason=reason)
