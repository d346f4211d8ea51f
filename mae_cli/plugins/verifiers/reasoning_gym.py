"""Check answers with the verifier a reasoning-gym data set brings along."""

from __future__ import annotations

from typing import Any

import msgspec

from mae_cli.errors import MissingDependencyError
from mae_cli.records import Problem, Verdict


class ReasoningGym(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Score an answer by the data set that made the problem (`problem.meta.dataset`, `problem.meta.entry`).

    Scores between 0 and 1 are the data set's own partial credit; below `full` they count as wrong unless `partial`.
    Source: reasoning-gym, arXiv:2505.24760.
    """

    partial: bool = False
    full: float = 1.0

    def check(self, problem: Problem, answer: str | None) -> Verdict:
        """The verdict on an answer; unsupported where the problem was not made by reasoning-gym."""
        name, entry = problem.meta.get("dataset"), problem.meta.get("entry")
        if not isinstance(name, str) or not isinstance(entry, dict):
            reason = "the problem carries no reasoning-gym data set and entry"
            return Verdict("reasoning_gym", "verifier", "answer", status="unsupported", reason=reason)
        if answer is None:
            return Verdict("reasoning_gym", "verifier", "answer", score=0.0, reason="no answer found")
        try:
            score = float(_dataset(name).score_answer(answer, entry))
        except (ValueError, KeyError, TypeError, ArithmeticError, AttributeError) as error:
            # The data set's own checker failed on this text: nothing is known about the answer.
            reason = f"{name}: {type(error).__name__}: {error}"
            return Verdict("reasoning_gym", "verifier", "answer", status="error", reason=reason)
        shown = score if self.partial else float(score >= self.full)
        return Verdict("reasoning_gym", "verifier", "answer", score=shown, reason=f"{name}: {score:g}")


_DATASETS: dict[str, Any] = {}


def _dataset(name: str) -> Any:
    if name not in _DATASETS:
        try:
            import reasoning_gym
        except ImportError as error:
            raise MissingDependencyError("verifier reasoning_gym: pip install 'mae-cli[gym]'") from error
        # Scoring needs the class, not its items.
        _DATASETS[name] = reasoning_gym.create_dataset(name, size=1, seed=0)
    return _DATASETS[name]
