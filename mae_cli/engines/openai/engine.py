"""The `openai` engine: any OpenAI-compatible chat server (vLLM, SGLang, llama.cpp, TGI, Ollama, hosted), many at once.

`pool.py` keeps requests in flight, `send.py` and `dialect.py` write them, `reply.py` reads the answers. The server
renders the chat template and draws the sampling noise: a row's seed is sent, but no row is promised to come out the
same twice, so the engine is not deterministic. No server is asked before the first row is wanted: a command with
nothing left to do needs none.
"""

from __future__ import annotations

import atexit
import logging
import re
import ssl
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx2
import msgspec
from msgspec import Meta

from mae_cli.engines.openai.dialect import Dialect, api_key, base_urls
from mae_cli.engines.openai.jobs import Query
from mae_cli.engines.openai.option_scores import EXACT_KINDS, is_one_token_at_most
from mae_cli.engines.openai.pool import Pool
from mae_cli.engines.openai.refusal import Refusal
from mae_cli.engines.openai.reply import Reply, option_logprobs, read_completions
from mae_cli.engines.openai.send import Sender, ServerRequest
from mae_cli.errors import ConfigError, DataError, EngineError
from mae_cli.models.digests import adapter_digest
from mae_cli.plugins.contracts import EngineFacts
from mae_cli.plugins.registry import engine_options
from mae_cli.recipe.sections import Recipe
from mae_cli.records import Completion, Policy, Request, Sampling, Usage, digest

log = logging.getLogger(__name__)
MANY_REFUSALS = 16
"""Refusals before the first answer after which the fault is not in the rows."""
CONNECT_SECONDS = 5.0
OWN_NAME = re.compile("mae-([0-9a-f]{20})")
"""Name under which an adapter folder is loaded: its digest."""


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options after the colon, as in `openai:samples=together,retry_seconds=60`."""

    samples: Literal["apart", "together"] = "apart"
    """together: the samples of one prompt are one request (`n`), whose rows then share one seed."""
    retry_seconds: Annotated[float, Meta(gt=0.0)] = 300.0
    """Seconds a row, and the whole command, is tried without an answer; waits by Retry-After do not count."""


class _Segment:
    """The answers of one segment, as they come."""

    def __init__(self, size: int) -> None:
        self.answers: list[Completion | None] = [None] * size
        self.left = size


class OpenAiEngine:
    """Generates on one or several servers; see the module, and `Engine` in `plugins/contracts.py`."""

    def __init__(self, recipe: Recipe, options: Options) -> None:
        if recipe.chat_template is not None:
            raise ConfigError("chat_template: the server applies its own; give it the template when you start it")
        if recipe.max_concurrent != "auto" and recipe.max_concurrent < 1:
            raise ConfigError(f"max_concurrent: {recipe.max_concurrent}; expected at least 1, or auto")
        self.options = options
        self._notices: list[str] = []
        self.batch_sizes_used: list[int] = []
        self._think_tags = recipe.think_tags
        self._max_concurrent = None if recipe.max_concurrent == "auto" else recipe.max_concurrent
        key = api_key(recipe.api_key_env)
        self._urls = base_urls(recipe.base_url)
        self._headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
        self.dialect = Dialect(recipe.chat_template_kwargs, self._notice)
        self._sender = Sender(self.dialect, recipe.model, key, recipe.timeout_seconds, self._notice)
        template = digest("template options", recipe.chat_template_kwargs) if recipe.chat_template_kwargs else None
        # Not the address: the same model on another replica is the same policy.
        self.policy = Policy(model=recipe.model, revision=recipe.revision, adapter=None, template=template)
        self._pool: Pool | None = None
        self._ssl: ssl.SSLContext | None = None
        self._answered: set[tuple[str | None, Sampling]] = set()
        """Adapters and samplings that a row was answered with: what is refused then is the row's own."""
        if recipe.adapter:
            self.attach(Path(recipe.adapter))

    # ---- the Protocol

    @property
    def facts(self) -> EngineFacts:
        """It streams and scores; the noise is the server's."""
        return EngineFacts(
            deterministic=False,
            attaches=True,
            scores=True,
            streams=True,
            checks=True,
            constrains=True,
            schemas=True,
            notices=tuple(self._notices),
        )

    def plan(self, requests: Sequence[Request], batch_size: int) -> list[list[int]]:
        """One request each, or the samples of one prompt where they are asked for together."""
        if self.options.samples == "apart":
            return [[index] for index in range(len(requests))]
        groups: dict[Any, list[int]] = {}
        for index, request in enumerate(requests):
            groups.setdefault(request.messages, []).append(index)
        return [
            members[start : start + batch_size]
            for members in groups.values()
            for start in range(0, len(members), batch_size)
        ]

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """Answer one segment, order kept; its requests are in flight together."""
        ((_, answers),) = self.stream([requests], sampling)
        return answers

    def stream(
        self, segments: Iterable[Sequence[Request]], sampling: Sampling
    ) -> Iterator[tuple[int, list[Completion]]]:
        """Each segment's number and answers as soon as they are whole; segments are taken from the iterable lazily."""
        pool = self._ready_pool()
        begun: dict[int, _Segment] = {}
        held: list[Query] = []
        manner = (self.policy.adapter, sampling)

        def jobs() -> Iterator[Query]:
            for number, segment in enumerate(segments):
                begun[number] = _Segment(len(segment))
                for places in self._together(segment):
                    own = [segment[place] for place in places]
                    asked = [(number, place) for place in places]
                    yield Query(ServerRequest(asked, own[0], sampling, requests=own))

        for job in pool.run(jobs()):
            if isinstance(job.value, Refusal) and manner not in self._answered:
                # Written down at once, rows refused for a setting would never be asked again.
                held.append(job)
                self._check_refusals(held)
                continue
            if isinstance(job.value, Reply):
                self._answered.add(manner)
            if held and manner in self._answered:
                for one in held:
                    yield from self._collect(one, begun)
                held.clear()
            yield from self._collect(job, begun)
        for one in held:
            yield from self._collect(one, begun)
        self._tell_counts(pool)

    def score(self, requests: Sequence[Request], options: Sequence[Sequence[str]]) -> list[list[float | None]]:
        """Natural log-probability of each option as the continuation of its prompt; null where it cannot be told.

        vLLM and llama.cpp tell that of any text. Other servers list the 20 likeliest first tokens at most, so there an
        option must be one token, and an unlikely one stays unknown.

        Raises:
            EngineError: the server gives no log-probabilities, or only of single tokens where an option has several.
        """
        pool = self._ready_pool()
        pool.greet()
        if self._sender.kinds and self._sender.kinds <= set(EXACT_KINDS):
            return self._exact_scores(pool, requests, options)
        if long := next((name for names in options for name in names if not is_one_token_at_most(name)), None):
            raise EngineError(
                f"the server tells how likely single tokens are, and {long!r} is longer: use read: sampled, a server "
                "of vLLM or llama.cpp, or --engine hf"
            )
        return self._listed_scores(pool, requests, options)

    def _exact_scores(
        self, pool: Pool, requests: Sequence[Request], options: Sequence[Sequence[str]]
    ) -> list[list[float | None]]:
        scores: list[list[float | None]] = [[None] * len(names) for names in options]
        if any(not name for names in options for name in names):
            raise DataError("an option to score is empty")
        refused: list[Query] = []
        is_any_answered = False
        asks = (
            Query(ServerRequest([(row, 0)], requests[row], Sampling(max_new_tokens=1), options=names))
            for row, names in enumerate(options)
            if names
        )
        for job in pool.run(asks):
            ((row, _),) = job.ask.places
            if isinstance(job.value, Refusal):
                refused.append(job)
                if not is_any_answered:
                    self._check_refusals(refused)
            elif job.error is None:
                scores[row], is_any_answered = job.value, True
        return scores

    def _listed_scores(
        self, pool: Pool, requests: Sequence[Request], options: Sequence[Sequence[str]]
    ) -> list[list[float | None]]:
        scores: list[list[float | None]] = [[None] * len(names) for names in options]
        sampling = Sampling(max_new_tokens=1)
        refused: list[Query] = []
        is_any_answered = is_any_known = False
        asks = (
            Query(ServerRequest([(number, 0)], request, sampling, scores=True))
            for number, request in enumerate(requests)
        )
        for job in pool.run(asks):
            number = job.ask.places[0][0]
            if isinstance(job.value, Reply):
                found = option_logprobs(job.value, options[number])
                if found is None:
                    raise EngineError("the server gives no log-probabilities (logprobs); score with --engine hf")
                scores[number] = found
                is_any_answered, is_any_known = True, is_any_known or any(value is not None for value in found)
            elif isinstance(job.value, Refusal) and job.value.names("logprobs"):
                raise EngineError(f"the server refuses logprobs: {job.value.message}; score with --engine hf")
            elif isinstance(job.value, Refusal) and not is_any_answered:
                refused.append(job)
                self._check_refusals(refused)
        if requests and not is_any_known:
            self._notice("the server listed none of the options among its likeliest tokens: all scores are unknown")
        return scores

    def attach(self, adapter: Path | None) -> None:
        """Answer with an adapter from now on, or with the model as it is.

        A folder on this machine is loaded by the servers (vLLM's runtime LoRA loading; they must see the same path)
        when the next row is wanted; any other name is taken as an adapter that they serve already.
        """
        model = self.policy.model
        if adapter is None:
            self._sender.use(model)
            self.policy = msgspec.structs.replace(self.policy, adapter=None)
        elif _is_folder(adapter):
            found = self.adapter_digest(adapter)
            self._sender.use(f"mae-{found}", adapter.resolve())
            self.policy = msgspec.structs.replace(self.policy, adapter=found)
        else:
            self._sender.use(str(adapter))
            self.policy = msgspec.structs.replace(self.policy, adapter=self.adapter_digest(adapter))
        if self._pool is not None and adapter is not None:
            self._pool.forget()

    def adapter_digest(self, adapter: Path) -> str:
        """The name of an adapter in a row's policy: a folder's digest, or the name of one that is served."""
        if _is_folder(adapter):
            return adapter_digest(adapter)
        ours = OWN_NAME.fullmatch(str(adapter))
        return ours[1] if ours else digest("served adapter", str(adapter))

    @property
    def kinds(self) -> set[str]:
        """What the servers that were asked call themselves as owners of their models (vllm, llamacpp, ...)."""
        return self._sender.kinds

    def check(self) -> None:
        """Ask the servers whether they are there, for `--dry-run`.

        Raises:
            EngineError: none can be reached, or one refuses the key.
        """
        self._ready_pool().greet()

    def close(self) -> None:
        """Close the connections."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            atexit.unregister(self.close)
            pool.close(before=self._sender.unload_all)

    # ---- inside

    def _ready_pool(self) -> Pool:
        if self._pool is None:
            # A command ends without closing its engines; what was brought to a server is taken away all the same.
            atexit.register(self.close)
            self._ssl = httpx2.create_ssl_context()
            self._pool = Pool(
                self._urls,
                send=self._sender.send,
                greet=self._sender.greet,
                probe=self._sender.probe,
                open_lane=self._open_lane,
                max_concurrent=self._max_concurrent,
                retry_seconds=self.options.retry_seconds,
                say=lambda text: log.info("%s", text),
            )
        return self._pool

    def _open_lane(self) -> httpx2.AsyncClient:
        """A client for one connection: httpx searches all connections of a client for each request."""
        assert self._ssl is not None
        return httpx2.AsyncClient(
            headers=self._headers,
            verify=self._ssl,
            timeout=httpx2.Timeout(None, connect=CONNECT_SECONDS),
            limits=httpx2.Limits(max_connections=1, max_keepalive_connections=1),
        )

    def _together(self, segment: Sequence[Request]) -> list[list[int]]:
        """The places of a segment that one request asks for."""
        if self.options.samples == "apart" or "n" in self.dialect.dropped:
            return [[place] for place in range(len(segment))]
        groups: dict[Any, list[int]] = {}
        for place, request in enumerate(segment):
            groups.setdefault(request.messages, []).append(place)
        return list(groups.values())

    def _collect(self, job: Query, begun: dict[int, _Segment]) -> Iterator[tuple[int, list[Completion]]]:
        """Put a job's answers into their places; the segments that are whole now."""
        ask: ServerRequest = job.ask
        answers = self._answers(job)
        missing = list(zip(ask.places, ask.requests, strict=True))[len(answers) :]
        if missing:
            self.dialect.drop("n", "ignores")
            assert self._pool is not None
            for place, request in missing:
                # With its own seed: one seed for all would give one text as many times.
                self._pool.add(Query(ServerRequest([place], request, ask.sampling)))
        for (number, index), completion in zip(ask.places, answers, strict=False):
            segment = begun[number]
            segment.answers[index] = completion
            segment.left -= 1
            if segment.left == 0:
                del begun[number]
                self.batch_sizes_used.append(len(segment.answers))
                yield number, [answer for answer in segment.answers if answer is not None]

    def _answers(self, job: Query) -> list[Completion]:
        """What a job brought; a refusal holds for all its places."""
        if isinstance(job.value, Reply):
            ask: ServerRequest = job.ask
            found = read_completions(job.value, self._think_tags, limit=ask.limit, choices=ask.sampling.choices)
            return found[: len(ask.places)]
        if job.error is not None:
            failed = Completion(status="error", error=job.error, finish_reason="error")
        elif job.value.is_overflow:
            prompt = job.value.prompt_tokens
            failed = Completion(
                status="too_long",
                error=job.value.message,
                finish_reason="error",
                usage=None if prompt is None else Usage(prompt, 0),
            )
        else:
            failed = Completion(
                status="error", error=f"HTTP {job.value.status}: {job.value.message}", finish_reason="error"
            )
        return [msgspec.structs.replace(failed) for _ in job.ask.places]

    def _check_refusals(self, held: Sequence[Query]) -> None:
        refusals = [job.value for job in held if not job.value.is_overflow]
        if len(refusals) >= MANY_REFUSALS:
            last = refusals[-1]
            raise EngineError(
                f"the server refused each of the first {len(refusals)} requests, last with HTTP {last.status}: "
                f"{last.message}"
            )

    def _notice(self, text: str) -> None:
        if text not in self._notices:
            self._notices.append(text)
            log.info("%s", text)

    def _tell_counts(self, pool: Pool) -> None:
        counts, pool.counts = pool.counts, type(pool.counts)()
        if counts.busy or counts.broken:
            log.info(
                "%d requests, of which %d were refused for load and %d broke; all but %d rows were answered; "
                "%d to %d in flight",
                *(counts.requests, counts.busy, counts.broken, counts.given_up),
                *(min(counts.lowest, counts.highest), counts.highest),
            )


def _is_folder(adapter: Path) -> bool:
    return (adapter / "adapter_config.json").is_file()


def open_engine(recipe: Recipe, argument: str) -> OpenAiEngine:
    """Any OpenAI-compatible server; the recipe's servers are asked when the first row is wanted.

    Raises:
        ConfigError: an unknown option, no address, or no key in the named variable.
    """
    return OpenAiEngine(recipe, engine_options("openai", argument, Options))
