"""A model judge with a written rubric and a numeric scale."""

from __future__ import annotations

from typing import Literal

import msgspec

from mae_cli.errors import ConfigError
from mae_cli.extraction import format_reward
from mae_cli.judges.score import normalise, parse_score
from mae_cli.prompting import load_prompt, question_with_choices, quoted
from mae_cli.records import Problem, VerdictStatus, choices_of
from mae_cli.registry import Ask

_SCALES: dict[str, tuple[int, int]] = {"1-10": (1, 10), "3-band": (1, 3)}


class Rubric(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Grade an answer, or a problem, on a scale by a rubric file; the score stands in <score> tags.

    The text to grade is quoted between marks that carry a nonce of its row, with its own tags spelled out, so nothing
    in it can count as the judge's verdict. 1-10 is MAE's scale (arXiv:2510.23595, judge prompts); 3-band suits small
    models, which tell right from wrong better than 6 from 7.
    """

    scale: Literal["1-10", "3-band"] = "1-10"
    answer_prompt: str = "judge_answer"
    question_prompt: str = "judge_question"
    variant: Literal["paper", "code"] = "paper"
    """Format rule of the judge's own reply; see `format_reward`."""

    def ask(self, problem: Problem, answer: str | None, nonce: str) -> Ask:
        """The prompt that grades an answer, or the problem itself when no answer is given."""
        question = quoted(question_with_choices(problem.question, choices_of(problem)))
        prompt = load_prompt(self.question_prompt if answer is None else self.answer_prompt)
        values = {"question": question, "nonce": nonce} | ({} if answer is None else {"answer": quoted(answer)})
        return Ask(messages=tuple(prompt.render(**values)))

    def read(self, reply: str) -> tuple[float | None, VerdictStatus, str]:
        """The score in [0, 1]; unparsed where the reply has none on the scale."""
        scale = _SCALES[self.scale]
        reading = parse_score(reply, scale)
        if reading.score is None:
            return None, "unparsed", reading.reason
        return normalise(reading.score, scale), "ok", f"{reading.score:g} on {scale[0]} to {scale[1]}"

    def format_score(self, reply: str) -> float:
        """How well the reply keeps the score format, in [0, 1]."""
        return format_reward(reply, "score", variant=self.variant, role="judge")

    def prompt_digests(self) -> list[str]:
        """Digests of the rubric files, for the fingerprint.

        Raises:
            ConfigError: a rubric file is missing, is no prompt, or quotes text without its fence mark.
        """
        try:
            prompts = [load_prompt(self.answer_prompt), load_prompt(self.question_prompt)]
        except ConfigError as error:
            raise ConfigError(f"judge rubric: {error}") from error
        for prompt in prompts:
            if "nonce" not in prompt.variables:
                raise ConfigError(
                    f"judge rubric: {prompt.name}: put {{{{ nonce }}}} beside the quoted text; without that mark a "
                    f"candidate could speak in the judge's name"
                )
        return [prompt.digest for prompt in prompts]
