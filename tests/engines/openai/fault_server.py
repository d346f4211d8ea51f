"""An OpenAI-compatible chat server that misbehaves on demand: a process of its own on loopback, standard library only.

    python tests/engines/openai/fault_server.py '{"latency": 0.02, "rate_limited": 0.6}'

prints the port it listens on. Answers are a function of messages and seed, so they can be compared between runs.
`GET /stats` tells what it did; `POST /set` changes options while it runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any

SUM = re.compile(r"(\d+) \+ (\d+)")
REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found"}


@dataclasses.dataclass
class Options:
    port: int = 0
    latency: float = 0.0
    """Seconds from question to answer."""
    capacity: int = 0
    """Requests worked on at once; more wait in a queue. 0 is no bound."""
    refuse_above: int = 0
    """Requests in flight above which the answer is 429. 0 is no bound."""
    rate_limited: float = 0.0
    """Share of the answers that are 429."""
    retry_after: list[str] = dataclasses.field(default_factory=lambda: ["0.05"])
    """Values of Retry-After, in turn; "date:S" is the HTTP date in S seconds, "" leaves the header out."""
    server_error: float = 0.0
    disconnect: float = 0.0
    truncate: float = 0.0
    faults_from: int = 0
    """Answers before the faults begin."""
    faults_until: int = 10**9
    """Answers after which nothing goes wrong any more."""
    hang: float = 0.0
    """Share of the requests that are never answered."""
    poison: str = ""
    """Requests that hold this text always get a 500."""
    hang_on: str = ""
    """Requests that hold this text are never answered."""
    refuse: list[str] = dataclasses.field(default_factory=list)
    """Fields that are answered with 400."""
    ignore: list[str] = dataclasses.field(default_factory=list)
    """Fields that are passed over."""
    context: int = 0
    """Words of prompt and answer that fit."""
    key: str = ""
    """The API key asked for; a wrong one is repeated in the refusal, as some servers do."""
    models: list[str] = dataclasses.field(default_factory=lambda: ["test-model"])
    lora: bool = True
    die_after: int = 0
    """Answers after which the process ends. 0 is never."""
    reasoning: str = ""
    """"field" tells reasoning apart, "tags" in the text."""
    finish_reason: str = "stop"
    seed: int = 0
    padding: int = 0
    """Bytes added to every answer."""


class Server:
    def __init__(self, options: Options) -> None:
        self.options = options
        self.rng = random.Random(options.seed)
        self.counts: dict[str, int] = {}
        self.in_flight = 0
        self.timeline: list[int] = []
        """The most requests in flight among each 50 arrivals."""
        self.arrivals = self.answers = self.faults = self.early = self.given = 0
        self.not_before: dict[str, float] = {}
        self.adapters: dict[str, str] = {}
        self.keys_seen: set[str] = set()
        self.fields_seen: set[str] = set()
        self.slots: asyncio.Semaphore | None = None

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def stats(self) -> dict[str, Any]:
        return {
            "counts": self.counts,
            "timeline": self.timeline,
            "early": self.early,
            "arrivals": self.arrivals,
            "adapters": self.adapters,
            "keys": len(self.keys_seen),
            "fields": sorted(self.fields_seen),
        }

    def fault(self) -> str | None:
        options = self.options
        self.faults += 1
        if not options.faults_from < self.faults <= options.faults_until:
            return None
        drawn = self.rng.random()
        for name in ("rate_limited", "server_error", "disconnect", "truncate", "hang"):
            share = getattr(options, name)
            if drawn < share:
                return name
            drawn -= share
        return None

    def retry_after(self, body: bytes) -> dict[str, str]:
        told = self.options.retry_after[self.given % len(self.options.retry_after)]
        self.given += 1
        if not told:
            return {}
        kind, _, value = told.rpartition(":")
        # A date has whole seconds: the moment it names is at most one second earlier.
        seconds = int(value) - 1 if kind == "date" else float(value)
        self.not_before[hashlib.md5(body).hexdigest()] = time.monotonic() + seconds
        return {"Retry-After": formatdate(time.time() + int(value), usegmt=True) if kind == "date" else value}

    async def chat(self, body: bytes) -> tuple[int, dict[str, str], bytes, str | None]:
        """(status, headers, body, how the connection is broken)"""
        options = self.options
        fault = self.fault()
        earliest = self.not_before.pop(hashlib.md5(body).hexdigest(), None)
        if earliest is not None and time.monotonic() < earliest:
            self.early += 1
        if fault == "rate_limited" or (options.refuse_above and self.in_flight > options.refuse_above):
            self.count("429")
            return 429, self.retry_after(body), error("slow down", "rate_limit_exceeded"), None
        if self.slots is not None:
            async with self.slots:
                await asyncio.sleep(options.latency)
        elif options.latency:
            await asyncio.sleep(options.latency)
        if fault == "server_error" or (options.poison and options.poison.encode() in body):
            self.count("500")
            return 500, {}, b"<html>oops</html>", None
        if fault == "hang" or (options.hang_on and options.hang_on.encode() in body):
            await asyncio.sleep(3600)
        ask = json.loads(body)
        self.fields_seen.update(ask)
        refused = [name for name in options.refuse if name in ask]
        if refused:
            self.count("refused")
            return 400, {}, error(f"Unrecognized request argument supplied: {', '.join(refused)}"), None
        if ask["model"] not in (*options.models, *self.adapters):
            return 404, {}, error(f"The model `{ask['model']}` does not exist.", "model_not_found"), None
        prompt = sum(len(message["content"].split()) for message in ask["messages"])
        if options.context and prompt + ask["max_tokens"] > options.context:
            self.count("overflow")
            return (
                400,
                {},
                error(
                    f"This model's maximum context length is {options.context} tokens. However, you requested "
                    f"{prompt + ask['max_tokens']} tokens "
                    f"({prompt} in the messages, {ask['max_tokens']} in the completion)."
                ),
                None,
            )
        data = json.dumps(self.answer(ask, prompt)).encode()
        if fault in ("disconnect", "truncate"):
            self.count(fault)
            return 200, {}, data, fault
        self.count("ok")
        return 200, {}, data, None

    def answer(self, ask: dict[str, Any], prompt: int) -> dict[str, Any]:
        number = 1 if "n" in self.options.ignore else ask.get("n", 1)
        text = ask["messages"][-1]["content"]
        choices = []
        for index in range(number):
            mark = hashlib.md5(json.dumps([ask["messages"], ask.get("seed"), index]).encode()).hexdigest()[:6]
            found = SUM.search(text)
            value = int(found[1]) + int(found[2]) if found else 0
            words = f"By {ask['model']}, {mark}: <answer>{value}</answer>" + "x" * self.options.padding
            message = {"role": "assistant", "content": words}
            if self.options.reasoning == "field":
                message["reasoning_content"] = "I add them."
            if self.options.reasoning == "tags":
                message["content"] = "<think>I add them.</think>" + words
            finish = "length" if len(words.split()) > ask["max_tokens"] else self.options.finish_reason
            choice = {"index": index, "message": message, "finish_reason": finish}
            if ask.get("logprobs") and "logprobs" not in self.options.ignore:
                top = [
                    {"token": "A", "logprob": -0.25},
                    {"token": " B", "logprob": -1.5},
                    {"token": "zzz", "logprob": -9},
                ]
                choice["logprobs"] = {"content": [{**top[0], "top_logprobs": top[: ask.get("top_logprobs", 0)]}]}
            choices.append(choice)
        usage = {"prompt_tokens": prompt, "completion_tokens": 4 * number, "total_tokens": prompt + 4 * number}
        return {"id": "x", "object": "chat.completion", "model": ask["model"], "choices": choices, "usage": usage}

    async def route(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes, str | None]:
        if path == "/stats":
            return 200, {}, json.dumps(self.stats()).encode(), None
        if path == "/set":
            self.options = dataclasses.replace(self.options, **json.loads(body))
            self.faults = 0
            return 200, {}, b"{}", None
        told = headers.get("authorization", "").removeprefix("Bearer ")
        self.keys_seen.add(told)
        if self.options.key and told != self.options.key:
            return 401, {}, error(f"Incorrect API key provided: {told}", "invalid_api_key"), None
        if path == "/v1/models":
            known = [{"id": name, "object": "model"} for name in (*self.options.models, *self.adapters)]
            return 200, {}, json.dumps({"object": "list", "data": known}).encode(), None
        if path == "/v1/chat/completions" and method == "POST":
            return await self.chat(body)
        if path in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter") and self.options.lora:
            return self.adapter(path, json.loads(body))
        return 404, {}, error("Not Found"), None

    def adapter(self, path: str, ask: dict[str, str]) -> tuple[int, dict[str, str], bytes, str | None]:
        name = ask["lora_name"]
        if path.endswith("unload_lora_adapter"):
            return (
                (200, {}, b"Success", None) if self.adapters.pop(name, None) else (404, {}, error("not loaded"), None)
            )
        if name in self.adapters:
            return 400, {}, error(f"The lora adapter '{name}' has already been loaded."), None
        self.adapters[name] = ask["lora_path"]
        return 200, {}, b"Success: LoRA adapter added successfully.", None


def error(message: str, code: str | None = None) -> bytes:
    return json.dumps({"error": {"message": message, "type": "error", "code": code}}).encode()


class Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, one request at a time, as far as the tests need it."""

    def __init__(self, server: Server) -> None:
        self.server, self.buffer = server, b""
        self.transport: asyncio.Transport
        self.task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, _: Exception | None) -> None:
        if self.task is not None:
            self.task.cancel()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, separator, rest = self.buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", 0))
        if len(rest) < length:
            return
        body, self.buffer = rest[:length], rest[length:]
        self.task = asyncio.create_task(self.serve(method, path, headers, body))

    async def serve(self, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        server = self.server
        is_chat = path.endswith("/chat/completions")
        if is_chat:
            server.in_flight += 1
            if server.arrivals % 50 == 0:
                server.timeline.append(0)
            server.arrivals += 1
            server.timeline[-1] = max(server.timeline[-1], server.in_flight)
        try:
            status, extra, data, broken = await server.route(method, path, headers, body)
        finally:
            if is_chat:
                server.in_flight -= 1
        if broken == "disconnect":
            self.transport.abort()
            return
        told = "".join(f"{name}: {value}\r\n" for name, value in extra.items())
        head = (
            f"HTTP/1.1 {status} {REASONS.get(status, 'Other')}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\n{told}\r\n"
        )
        self.transport.write(head.encode() + (data[: len(data) // 2] if broken else data))
        if broken:
            self.transport.close()
        if is_chat:
            server.answers += 1
            if server.options.die_after and server.answers >= server.options.die_after:
                os._exit(0)


async def main(options: Options) -> None:
    server = Server(options)
    if options.capacity:
        server.slots = asyncio.Semaphore(options.capacity)
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: Connection(server), "127.0.0.1", options.port, backlog=2048)
    print(listener.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().create_future()


class Running:
    """A running server, seen from a test."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self.port = process, port
        self.root = f"http://127.0.0.1:{port}"
        self.url = f"{self.root}/v1"

    def stats(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.root}/stats", timeout=120) as reply:
            found: dict[str, Any] = json.load(reply)
            return found

    def set(self, **options: Any) -> None:
        urllib.request.urlopen(f"{self.root}/set", json.dumps(options).encode(), timeout=120).close()

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def start(**options: Any) -> Running:
    """A server as a process of its own; it listens when this returns."""
    process = subprocess.Popen(
        [sys.executable, __file__, json.dumps(options)],
        stdout=subprocess.PIPE,
        text=True,
        env={"PATH": os.environ["PATH"]},
    )
    assert process.stdout is not None
    return Running(process, int(process.stdout.readline()))


@contextlib.contextmanager
def running(**options: Any) -> Iterator[Running]:
    """A server for one `with` block."""
    server = start(**options)
    try:
        yield server
    finally:
        server.stop()


if __name__ == "__main__":
    # Ends with whoever started it, however that went.
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(Options(**json.loads(sys.argv[1] if len(sys.argv) > 1 else "{}"))))
