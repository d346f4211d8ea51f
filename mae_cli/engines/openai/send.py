"""One request to one server, and the outcome of its answer: done, ask again, busy, trouble, or fatal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import httpx2
import msgspec

from mae_cli.engines.openai.constraints import chosen
from mae_cli.engines.openai.dialect import Dialect, retry_after_seconds
from mae_cli.engines.openai.jobs import Again, Busy, Done, Fatal, RequestOutcome, Server, Trouble
from mae_cli.engines.openai.option_scores import OptionScores
from mae_cli.engines.openai.refusal import Refusal, read_hidden_refusal, read_refusal
from mae_cli.engines.openai.reply import read_reply
from mae_cli.errors import EngineError, MaeError, TemporaryError, did_you_mean
from mae_cli.records import Message, Request, Sampling

GREETING_SECONDS = 10.0
PROBE_TOKENS = 16
ADAPTER_SECONDS = 300.0
TOP_LOGPROBS = 20
"""The most that OpenAI's interface allows, and vLLM's default bound."""
FEWER_LOGPROBS = 5
NO_RUNTIME_LORA = (
    "cannot load adapters while it runs: start vLLM with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=1, "
    "or give --adapter the name of one that is served"
)


class ServerRequest:
    """One request: it answers all `places` (segment, place in it), which have one prompt.

    Attributes:
        requests: one for each place, each with a seed of its own; the first one is sent.
        scores: the likeliest first tokens are wanted too.
        options: the scores of these texts are wanted instead of an answer.
    """

    __slots__ = ("limit", "options", "places", "request", "requests", "sampling", "scores")

    def __init__(
        self,
        places: list[tuple[int, int]],
        request: Request,
        sampling: Sampling,
        *,
        scores: bool = False,
        options: Sequence[str] | None = None,
        requests: Sequence[Request] = (),
    ) -> None:
        self.places, self.request, self.sampling, self.scores = places, request, sampling, scores
        self.options, self.requests = options, requests or [request]
        self.limit = sampling.max_new_tokens
        """New tokens it may have; less than the sampling's where the context is too small for both."""


class Sender:
    """Sends requests for the pool; holds the model's name, the adapter, and the key, which is cut out of messages."""

    def __init__(
        self, dialect: Dialect, model: str, key: str | None, timeout_seconds: float, say: Callable[[str], None]
    ) -> None:
        self._dialect, self._key, self._timeout, self._say = dialect, key, timeout_seconds, say
        self._scores = OptionScores(dialect.template_kwargs)
        self._turns: dict[str, asyncio.Lock] = {}
        """Of servers that must be asked for one score at a time."""
        self._kinds: dict[str, str] = {}
        self._served: dict[str, list[str]] = {}
        self._loaded: dict[str, set[str]] = {}
        self._top_logprobs = TOP_LOGPROBS
        self.use(model)

    def use(self, model: str, folder: Path | None = None) -> None:
        """Ask for this name from now on; with a folder, the servers load it as an adapter of that name first."""
        self._model, self._folder = model, folder

    @property
    def kinds(self) -> set[str]:
        """What the servers that were greeted call themselves as owners of their models; empty text: nothing."""
        return set(self._kinds.values())

    # ---- chat

    async def send(self, ask: ServerRequest, server: Server, lane: httpx2.AsyncClient) -> RequestOutcome:
        """Ask one server once."""
        if ask.options is not None:
            return await self._score(ask, ask.options, server, lane)
        spoken = self._dialect.version
        more: dict[str, Any] = {"logprobs": True, "top_logprobs": self._top_logprobs} if ask.scores else {}
        try:
            body = self._dialect.body(
                self._model, ask.request, ask.sampling, max_new_tokens=ask.limit, number=len(ask.places), **more
            )
            reply = await self._exchange(lane, "POST", f"{server.url}/chat/completions", body, self._timeout)
            return reply if isinstance(reply, Trouble) else self._read(ask, server, reply, spoken)
        except MaeError as error:
            return Fatal(error)

    def _read(self, ask: ServerRequest, server: Server, reply: httpx2.Response, spoken: int) -> RequestOutcome:
        if reply.status_code != 200:
            refusal = read_refusal(reply.status_code, reply.content, self._key)
            return self._refused(ask, server, refusal, reply.headers, spoken)
        answer = read_reply(reply.content)
        if answer is None:
            hidden = read_hidden_refusal(reply.content, self._key)
            if hidden is not None:
                return self._refused(ask, server, hidden, {}, spoken)
            self._refuse_page(server, reply)
        if answer is None or answer.is_broken_off:
            return Trouble("an answer that is cut off or no chat completion")
        allowed = ask.sampling.choices
        texts = [choice.text for choice in answer.choices if choice.finish_reason != "length"] if allowed else []
        if strange := [text for text in texts if chosen(text, allowed) is None]:
            if self._dialect.version == spoken:
                self._dialect.next_choice_form(f"it wrote {strange[0][:60]!r}")
            return Again()
        self._say_other_name(server)
        if self._kinds.get(server.url) == "llamacpp" and answer.choices[0].token_ids is None:
            self._dialect.drop("return_token_ids", "passes over")
        return Done(answer, answer.num_tokens)

    def _refuse_page(self, server: Server, reply: httpx2.Response) -> None:
        """End the command where the address answers with something that no second try turns into a completion."""
        start = reply.content[:200].lstrip().lower()
        if start.startswith((b"<!doctype", b"<html")):
            raise EngineError(f"{server.url}: answers with a web page (HTML); is --base-url right, or a proxy between?")
        if start.startswith((b"data:", b"event:")):
            raise EngineError(f"{server.url}: streams its answers although stream is false; switch streaming off there")

    def _say_other_name(self, server: Server) -> None:
        served = self._served.get(server.url, [])
        is_listed = any(name == self._model or name.startswith(f"{self._model}:") or "*" in name for name in served)
        if served and not is_listed and self._folder is None:
            self._say(
                f'{server.url}: answers to "{self._model}", and lists {", ".join(served[:3])}; rows name the first'
            )

    async def _score(
        self, ask: ServerRequest, options: Sequence[str], server: Server, lane: httpx2.AsyncClient
    ) -> RequestOutcome:
        kind = self._kinds.get(server.url, "")
        root = server.url.removesuffix("/v1")

        async def call(path: str, fields: Mapping[str, Any]) -> Any:
            reply = await self._exchange(lane, "POST", f"{root}{path}", msgspec.json.encode(fields), self._timeout)
            if isinstance(reply, Trouble):
                return reply
            if reply.status_code == 200:
                return msgspec.json.decode(reply.content)
            refusal = read_refusal(reply.status_code, reply.content, self._key)
            return self._refused(ask, server, refusal, reply.headers, self._dialect.version)

        # vLLM on a CPU dies of two prompts scored in one batch where it was started for LoRA.
        turn = self._turns.setdefault(server.url, asyncio.Lock()) if kind == "vllm" else nullcontext()
        try:
            async with turn:
                return await self._scores.ask(call, kind, self._model, ask.request.messages, options)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            return Fatal(
                EngineError(f"{server.url}: tells scores in a form that is not known here ({error!r}); use --engine hf")
            )

    def _refused(
        self, ask: ServerRequest, server: Server, refusal: Refusal, headers: Mapping[str, str], spoken: int
    ) -> RequestOutcome:
        status = refusal.status
        fault = None if refusal.is_overflow else self._fault(server, headers, refusal)
        if fault is not None:
            return fault
        if status == 404 and self._folder is not None:
            # Started anew, a server has lost the adapter; the next check brings it back.
            server.is_greeted = False
            return Trouble(f"the adapter is gone: {refusal.message}", is_unreachable=True)
        if status in (404, 405) or status < 400:
            return Fatal(EngineError(self._not_there(server, refusal, headers.get("location"))))
        if ask.scores and self._top_logprobs > FEWER_LOGPROBS and refusal.names("top_logprobs"):
            self._top_logprobs = FEWER_LOGPROBS
            return Again()
        if refusal.is_overflow:
            room = refusal.room
            if room is not None and 1 <= room < ask.limit and ask.options is None:
                ask.limit = room
                return Again()
            return Done(refusal)
        if self._dialect.learn(refusal, ask.sampling, number=len(ask.places), spoken=spoken):
            return Again()
        return Done(refusal)

    def _fault(self, server: Server, headers: Mapping[str, str], refusal: Refusal) -> RequestOutcome | None:
        """Faults that no row is to blame for; none for a refusal of the row or of how it was asked."""
        status = refusal.status
        reason = f"HTTP {status}: {refusal.message}"
        if status in (401, 403):
            told = "refuses the key" if self._key else "wants a key, and none is set (--api-key-env)"
            return Fatal(EngineError(f"{server.url}: the server {told}: {reason}"))
        if status == 429 and refusal.code == "insufficient_quota":
            return Fatal(TemporaryError(f"{server.url}: {reason}"))
        after = retry_after_seconds(headers)
        if status == 429 or (status in (503, 529) and after is not None):
            return Busy(reason, after)
        if status in (408, 409, 425) or (status >= 500 and status != 501):
            return Trouble(reason)
        return None

    def _not_there(self, server: Server, refusal: Refusal, location: str | None) -> str:
        if location:
            return f"{server.url}: the server redirects to {location}; give that address with --base-url"
        served = self._served.get(server.url, [])
        if served and self._model not in served:
            return f'{server.url}: no model "{self._model}"; {did_you_mean(self._model, served)} (give it with -m)'
        return (
            f"{server.url}: HTTP {refusal.status}: {refusal.message}; is --base-url right, and the name of the model?"
        )

    # ---- the server itself

    async def greet(self, server: Server, lane: httpx2.AsyncClient) -> RequestOutcome:
        """Check a server, and let it load the adapter."""
        reply = await self._exchange(lane, "GET", f"{server.url}/models", None, GREETING_SECONDS)
        if isinstance(reply, Trouble):
            return reply
        refusal = read_refusal(reply.status_code, reply.content, self._key)
        fault = self._fault(server, reply.headers, refusal) if reply.status_code >= 400 else None
        # One that cannot list its models may answer all the same; these three are said by proxies of one that is gone.
        if isinstance(fault, Fatal) or (isinstance(fault, Trouble) and reply.status_code in (502, 503, 504)):
            return fault
        listed = _listed_models(reply.content)
        self._served[server.url] = [name for model in listed for name in (model.id, *model.aliases)]
        self._kinds[server.url] = next((model.owned_by for model in listed if model.owned_by), "")
        if self._folder is None or self._model in self._served[server.url]:
            return Done(None)
        return await self._load(server, lane, self._folder)

    async def probe(self, ask: ServerRequest, server: Server, lane: httpx2.AsyncClient) -> RequestOutcome:
        """Ask for a few tokens about nothing, in the form of `ask`: `Done` only where the model itself answers.

        A list of models, as `greet` wants it, still comes from servers whose engine has died.
        """
        sampling = msgspec.structs.replace(ask.sampling, max_new_tokens=min(PROBE_TOKENS, ask.sampling.max_new_tokens))
        question = ServerRequest([(0, 0)], Request("probe", (Message("user", "Hello"),), 0), sampling)
        outcome = await self.send(question, server, lane)
        if isinstance(outcome, Done) and isinstance(outcome.value, Refusal):
            return Trouble(f"HTTP {outcome.value.status}: {outcome.value.message}")
        return outcome

    async def _load(self, server: Server, lane: httpx2.AsyncClient, folder: Path) -> RequestOutcome:
        ours = self._loaded.setdefault(server.url, set())
        body = msgspec.json.encode({"lora_name": self._model, "lora_path": str(folder)})
        reply = await self._exchange(lane, "POST", f"{server.url}/load_lora_adapter", body, ADAPTER_SECONDS)
        if isinstance(reply, Trouble):
            return reply
        refusal = read_refusal(reply.status_code, reply.content, self._key)
        if reply.status_code in (403, 405) or (reply.status_code == 404 and not _is_about(refusal, folder)):
            return Fatal(EngineError(f"{server.url}: the server {self._no_runtime_lora(server)}"))
        if reply.status_code >= 500 and not refusal.is_about_adapters:
            return Trouble(f"HTTP {reply.status_code}: {refusal.message}")
        if reply.status_code >= 400 and "already" not in refusal.message:
            return Fatal(
                EngineError(
                    f"{server.url}: the server does not load {folder}: {refusal.message}; {_mend(refusal.message)}"
                )
            )
        if reply.status_code < 400:
            ours.add(self._model)
        # Only what this process has brought is taken away again: another may use the same server.
        await self.unload(server.url, lane, keep=self._model)
        return Done(None)

    def _no_runtime_lora(self, server: Server) -> str:
        if self._kinds.get(server.url) == "llamacpp":
            return (
                "is llama.cpp, which takes adapters at its start only: start it with the adapter as GGUF (--lora) or "
                "with the merged model (mae export --gguf), and leave --adapter away"
            )
        return NO_RUNTIME_LORA

    async def unload(self, url: str, lane: httpx2.AsyncClient, *, keep: str | None = None) -> None:
        """Take the adapters that this process has brought to a server away again, but one."""
        ours = self._loaded.get(url, set())
        for name in ours - {keep}:
            body = msgspec.json.encode({"lora_name": name})
            await self._exchange(lane, "POST", f"{url}/unload_lora_adapter", body, GREETING_SECONDS)
            ours.discard(name)

    async def unload_all(self, server: Server, lane: httpx2.AsyncClient) -> None:
        """Take all of them away, when the engine is closed."""
        await self.unload(server.url, lane)

    async def _exchange(
        self, lane: httpx2.AsyncClient, method: str, url: str, body: bytes | None, seconds: float
    ) -> httpx2.Response | Trouble:
        """One exchange within a time limit for all of it; everything that can break on the way is a `Trouble`."""
        try:
            async with asyncio.timeout(seconds):
                return await lane.request(method, url, content=body)
        except TimeoutError:
            return Trouble(f"no answer within {seconds:g} s", is_slow=True)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            return Trouble(f"cannot connect: {self._plain(error)}", is_unreachable=True)
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            return Trouble(f"the connection broke: {self._plain(error)}")

    def _plain(self, error: Exception) -> str:
        text = " ".join(str(error).split()) or type(error).__name__
        return text.replace(self._key, "***") if self._key else text


def _is_about(refusal: Refusal, folder: Path) -> bool:
    """Whether a 404 is about the adapter's files, not about the address: vLLM answers so where it sees no such path."""
    return str(folder) in refusal.message or "adapter" in refusal.message.lower()


def _mend(message: str) -> str:
    """What a user can do about an adapter that was not loaded."""
    if "max_lora_rank" in message:
        return "start vLLM with a larger --max-lora-rank"
    if "not enabled" in message:
        return "start vLLM with --enable-lora"
    return "can it see that path?"


class _Model(msgspec.Struct):
    id: str
    aliases: list[str] = []
    owned_by: str | None = None


class _Models(msgspec.Struct):
    data: list[_Model]


def _listed_models(body: bytes) -> list[_Model]:
    """The models a server lists; none where it lists nothing readable."""
    try:
        return msgspec.json.decode(body, type=_Models).data
    except (msgspec.DecodeError, UnicodeDecodeError):
        return []
