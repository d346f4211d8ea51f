"""Base of the shipped judges: a verdict in `<score>` tags, read from a reply or from token probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import msgspec

from mae_cli.answers.format import format_reward
from mae_cli.errors import ConfigError
from mae_cli.plugins.contracts import Option, Reading
from mae_cli.plugins.judges.score_tag import parse_word
from mae_cli.prompts.prompt_files import Prompt, load_prompt, question_with_choices, quoted
from mae_cli.recipe.sections import Share
from mae_cli.records import Problem, choices_of


class Tagged(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options and readings of a judge whose verdict stands in `<score>` tags."""

    read: Literal["sampled", "probability"] = "sampled"
    """sampled: the judge writes a reply; probability: nothing is written, the verdict's texts are scored."""
    constrain: bool = False
    """Let the engine write nothing but a verdict, where it can; no reasoning then."""
    min_mass: Share = 0.0
    """With `read: probability`: a verdict is unsure where all options together are less likely than this."""
    reference: bool = False
    """Show the judge the reference answer where the problem has one."""
    show: Literal["answer", "completion"] = "answer"
    """The graded text: the answer a rollout marked (all of it where it marked none), or always all of it."""
    variant: Literal["paper", "code"] = "paper"
    """Format rule of the judge's own reply; see `format_reward`."""

    def shown(self, answer: str, completion: str) -> str:
        """The text of a rollout that the judge is shown: its answer or its completion."""
        return answer if self.show == "answer" else completion

    def read_reply(self, reply: str, options: Sequence[Option]) -> Reading:
        """The option whose text stands in the reply's last tag; unparsed where none does."""
        index, why = parse_word(reply, [option.text for option in options])
        if index is None:
            return Reading(None, "unparsed", why)
        return Reading(options[index].score, "ok", options[index].text)

    def read_logprobs(self, logprobs: Sequence[float | None], options: Sequence[Option]) -> Reading:
        """The expected score over the options, their probabilities divided by their sum.

        Unknown (`error`) where one of them is null: leaving it out would move the mean to the others. Source: the
        expected score over the scale's tokens of G-Eval, arXiv:2303.16634, section 2, divided by the options' mass.
        """
        known = [logprob for logprob in logprobs if logprob is not None]
        if len(known) < len(options):
            return Reading(None, "error", f"{len(options) - len(known)} of {len(options)} options could not be scored")
        top = max(known)
        if top == -math.inf:
            return Reading(None, "unsure", "every option is impossible")
        weights = [math.exp(logprob - top) for logprob in known]
        total = math.fsum(weights)
        mass = math.exp(top) * total
        score = math.fsum(w * option.score for w, option in zip(weights, options, strict=True)) / total
        reason = f"expected over {len(options)} options of mass {mass:.2g}"
        if mass < self.min_mass:
            return Reading(None, "unsure", f"{reason}, under min_mass {self.min_mass:g}")
        return Reading(min(1.0, max(0.0, score)), "ok", reason)

    def reply_of(self, option: Option) -> str:
        """The whole reply that gives this verdict."""
        return f"<score>{option.text}</score>"

    def format_score(self, reply: str) -> float:
        """How well the reply keeps the score format, in [0, 1]."""
        return format_reward(reply, "score", variant=self.variant)

    @property
    def thinks(self) -> bool:
        """Whether the reply has room for reasoning."""
        return self.read == "sampled" and not self.constrain

    def values(self, problem: Problem, nonce: str) -> dict[str, object]:
        """The variables every rubric file gets; `reference` is empty unless asked for and there."""
        wanted = self.reference and problem.reference_answer is not None
        return {
            "question": quoted(question_with_choices(problem.question, choices_of(problem))),
            "reference": quoted(problem.reference_answer or "") if wanted else "",
            "nonce": nonce,
            "think": self.thinks,
        }


def checked_prompts(judge: str, names: Sequence[str], *, with_reference: Sequence[str] = ()) -> list[Prompt]:
    """The rubric files of a judge.

    Args:
        judge: its name, for messages.
        names: the files, each of which quotes text.
        with_reference: those of them that must show the reference answer.

    Raises:
        ConfigError: a rubric file is missing, is no prompt, quotes text without its fence mark, or has no place for
            the reference answer it is to show.
    """
    try:
        prompts = [load_prompt(name) for name in names]
    except ConfigError as error:
        raise ConfigError(f"judge {judge}: {error}") from error
    for prompt in prompts:
        if "nonce" not in prompt.variables:
            raise ConfigError(
                f"judge {judge}: {prompt.name}: put {{{{ nonce }}}} beside the quoted text; without that mark a "
                f"candidate could speak in the judge's name"
            )
        if prompt.name in with_reference and "reference" not in prompt.variables:
            raise ConfigError(
                f"judge {judge}: {prompt.name}: reference is on, but the file never shows {{{{ reference }}}}"
            )
    return prompts
