"""A server that plays the trained policy: generation there, training here.

Place in the flow: a role with `serves_policy` gets this engine. Contract: its rows carry the policy's own digest and
the round's adapter, so they are trained like rows that were generated here. Before the first row the server is compared
with the weights here: the token ids of three rendered prompts, and the log-probabilities of replies to them (where the
server can tell any, else its greedy replies). Each row's prompt ids are compared too, where the server tells them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from mae_cli.engines.openai.engine import OpenAiEngine, open_engine
from mae_cli.engines.openai.option_scores import EXACT_KINDS
from mae_cli.engines.token_texts import TokenTexts
from mae_cli.errors import ConfigError, EngineError
from mae_cli.models.digests import adapter_digest
from mae_cli.models.locate import local_model
from mae_cli.plugins.contracts import Engine, EngineFacts, can_score
from mae_cli.recipe.sections import Recipe
from mae_cli.records import Completion, Message, Request, Sampling

PROBES = ("What is 3 + 4?", "Name a river in Europe.", "Write one sentence about rain, please.")
PROBE_SAMPLING = Sampling(max_new_tokens=12, temperature=0.0)
STAND_IN = "The answer is 7."
"""Reply that is compared where the model's own is empty."""
NATS_PER_TOKEN = 0.05
"""Largest difference of a reply's log-probability, per token, between equal weights in other types and kernels.

Seen with SmolLM2-135M: below 0.001 for vLLM and 0.003 for llama.cpp, both in float32.
"""
LEAST_EQUAL = 2
"""Greedy replies of the three that must be equal where a server tells no log-probabilities: one may be a near tie."""


class PolicyServer:
    """The engine of a role that the trained policy plays on a server; see the module."""

    def __init__(self, server: OpenAiEngine, texts: TokenTexts, where: str) -> None:
        self._server, self._texts, self._where = server, texts, where
        self.policy = texts.policy

    @property
    def facts(self) -> EngineFacts:
        """Those of the server; its rows are its own kernels' work."""
        return msgspec.structs.replace(self._server.facts, numerics="served")

    def compare(self, local: Engine) -> str:
        """Compare the server with the policy's weights here, both without an adapter; a phrase that says how near.

        Raises:
            EngineError: the server renders other prompts, or answers with other weights.
        """
        probes = [Request(f"probe {index}", (Message("user", text),), 1) for index, text in enumerate(PROBES)]
        served = self._server.generate(probes, PROBE_SAMPLING)
        for request, answer in zip(probes, served, strict=True):
            if answer.status in ("error", "too_long"):
                raise EngineError(f"{self._where}: no answer to a probe: {answer.error}")
            self._compare_prompt(request, answer)
        own = local.generate(probes, PROBE_SAMPLING)
        if self._server.kinds <= set(EXACT_KINDS) and self._server.kinds and can_score(local):
            replies = [[(answer.raw or "").strip() or STAND_IN] for answer in own]
            theirs, ours = self._server.score(probes, replies), local.score(probes, replies)
            lengths = [len(self._texts.option_ids(p.messages, r[0])) for p, r in zip(probes, replies, strict=True)]
            pairs = [(one, other) for (one,), (other,) in zip(theirs, ours, strict=True)]
            known = [(a, b, n) for (a, b), n in zip(pairs, lengths, strict=True) if a is not None and b is not None]
            if len(known) == len(probes):
                return self._judge([abs(a - b) / n for a, b, n in known])
        equal = sum(mine.raw == theirs.raw for mine, theirs in zip(own, served, strict=True))
        if equal < LEAST_EQUAL:
            differing = next(i for i in range(len(probes)) if own[i].raw != served[i].raw)
            raise EngineError(
                f"{self._where}: not the weights of the policy: to {PROBES[differing]!r} it answers "
                f"{served[differing].raw!r}, the model here {own[differing].raw!r}"
            )
        return f"{self._where}: {equal} of {len(probes)} greedy replies are those of the weights here"

    def _judge(self, differences: Sequence[float]) -> str:
        largest = max(differences)
        if largest > NATS_PER_TOKEN:
            raise EngineError(
                f"{self._where}: not the weights of the policy: log-probabilities of a reply differ by {largest:.2g} "
                f"nats a token (up to {NATS_PER_TOKEN} is rounding); serve the folder or hub id that the recipe trains"
            )
        return f"{self._where}: log-probabilities are those of the weights here to {largest:.1g} nats a token"

    def _compare_prompt(self, request: Request, answer: Completion) -> None:
        """Refuse a server that renders or tokenises a chat otherwise than the policy's template does."""
        ours = self._texts.prompt(request.messages).ids
        told = answer.prompt_token_ids
        if told is not None and told != ours:
            place = next(
                (i for i, (a, b) in enumerate(zip(told, ours, strict=False)) if a != b), min(len(told), len(ours))
            )
            raise EngineError(
                f"{self._where}: renders another prompt than the template here: they differ at token {place} of "
                f"{len(told)} and {len(ours)}; give the server the model's own template and tokenizer"
            )
        if told is None and answer.usage is not None and answer.usage.prompt_tokens != len(ours):
            raise EngineError(
                f"{self._where}: renders another prompt than the template here: {answer.usage.prompt_tokens} tokens "
                f"there, {len(ours)} here; give the server the model's own template and tokenizer"
            )

    # ---- the Protocol

    def plan(self, requests: Sequence[Request], batch_size: int) -> list[list[int]]:
        """The server's plan."""
        return self._server.plan(requests, batch_size)

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """Answer one segment, order kept."""
        ((_, answers),) = self.stream([requests], sampling)
        return answers

    def stream(
        self, segments: Iterable[Sequence[Request]], sampling: Sampling
    ) -> Iterator[tuple[int, list[Completion]]]:
        """Each segment's number and answers as soon as they are whole.

        Raises:
            EngineError: the server renders another prompt for a row.
        """
        begun: dict[int, Sequence[Request]] = {}

        def noted() -> Iterator[Sequence[Request]]:
            for number, segment in enumerate(segments):
                begun[number] = segment
                yield segment

        for number, answers in self._server.stream(noted(), sampling):
            for request, answer in zip(begun.pop(number), answers, strict=True):
                if answer.prompt_token_ids is not None:
                    self._compare_prompt(request, answer)
            self._texts.forget()
            yield number, answers

    def score(self, requests: Sequence[Request], options: Sequence[Sequence[str]]) -> list[list[float | None]]:
        """As the server tells them."""
        return self._server.score(requests, options)

    def attach(self, adapter: Path | None) -> None:
        """Have the server load the round's adapter before the next row, or answer without one."""
        name = adapter_digest(adapter) if adapter is not None else None
        self._server.attach(adapter)
        self.policy = msgspec.structs.replace(self.policy, adapter=name)

    def adapter_digest(self, adapter: Path) -> str:
        """Digest of the adapter's files."""
        return adapter_digest(adapter)

    def check(self) -> None:
        """Ask the servers whether they are there."""
        self._server.check()

    def close(self) -> None:
        """Take the adapters away again, and close the connections."""
        self._server.close()


def open_policy_server(recipe: Recipe, base: Recipe) -> PolicyServer:
    """The server of a role's recipe as a player of the policy of `base`; it has no adapter on yet.

    Raises:
        ConfigError: a setting of the template that only one side would follow.
        EngineError: the policy's model is not here.
    """
    from mae_cli.models.load import load_tokenizer

    if base.chat_template is not None:
        raise ConfigError("chat_template: the server of a role applies its own; give it the template when you start it")
    argument = recipe.engine.partition(":")[2]
    server = open_engine(msgspec.structs.replace(recipe, adapter=None), argument)
    folder = local_model(base.model, base.revision)
    urls = [recipe.base_url] if isinstance(recipe.base_url, str) else list(recipe.base_url or [])
    return PolicyServer(server, TokenTexts(base, folder, load_tokenizer(folder)), f'{", ".join(urls)} "{recipe.model}"')
