"""A model judge with a written rubric and a scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from mae_cli.plugins.contracts import Ask, Option, Reading
from mae_cli.plugins.judges.score_tag import normalise, parse_score
from mae_cli.plugins.judges.tagged import Tagged, checked_prompts
from mae_cli.prompts.prompt_files import load_prompt, quoted
from mae_cli.records import Problem

_NUMBERS: dict[str, tuple[int, int]] = {"1-10": (1, 10), "3-band": (1, 3)}
_SUFFIX = {"1-10": "", "3-band": "_3band", "yes/no": "_yes_no"}


class Rubric(Tagged, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Grade an answer, or a problem, on a scale by a rubric file; the score stands in <score> tags.

    The text to grade is quoted between marks that carry a nonce of its row, with its own tags spelled out, so nothing
    in it can count as the judge's verdict. 1-10 is MAE's scale (arXiv:2510.23595, judge prompts); 3-band and yes/no
    suit small models, which tell right from wrong better than 6 from 7.
    """

    targets: ClassVar[frozenset[str]] = frozenset({"problem", "answer"})

    scale: Literal["1-10", "3-band", "yes/no"] = "1-10"
    answer_prompt: str | None = None
    """Rubric file for answers; by default the shipped one of the scale."""
    question_prompt: str | None = None

    def ask(self, problem: Problem, candidates: Sequence[str], nonce: str) -> Ask:
        """The prompt that grades an answer, or the problem itself when no answer is given."""
        values = self.values(problem, nonce)
        if candidates:
            values["answer"] = quoted(candidates[0])
        prompt = load_prompt(self._file("answer") if candidates else self._file("question"))
        return Ask(messages=tuple(prompt.render(**values)), options=self._options())

    def read_reply(self, reply: str, options: Sequence[Option]) -> Reading:
        """The score in [0, 1]; unparsed where the reply has none on the scale."""
        if self.scale == "yes/no":
            return super().read_reply(reply, options)
        scale = _NUMBERS[self.scale]
        reading = parse_score(reply, scale)
        if reading.score is None:
            return Reading(None, "unparsed", reading.reason)
        return Reading(normalise(reading.score, scale), "ok", f"{reading.score:g} on {scale[0]} to {scale[1]}")

    def prompt_digests(self) -> list[str]:
        """Digests of the rubric files, for the fingerprint; see `checked_prompts` for what is refused."""
        answers = self._file("answer")
        files = [answers, self._file("question")]
        return [p.digest for p in checked_prompts("rubric", files, with_reference=[answers] if self.reference else [])]

    def _file(self, what: Literal["answer", "question"]) -> str:
        named = self.answer_prompt if what == "answer" else self.question_prompt
        return named or f"judge_{what}{_SUFFIX[self.scale]}"

    def _options(self) -> tuple[Option, ...]:
        if self.scale == "yes/no":
            return Option("yes", 1.0), Option("no", 0.0)
        low, high = _NUMBERS[self.scale]
        return tuple(Option(str(number), normalise(number, (low, high))) for number in range(low, high + 1))
