"""A server with the part of vLLM's interface that a trained policy needs, on a transformers model in this process.

It loads adapters while it runs, tells token ids and log-probabilities of prompts, and names itself vllm.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from mae_cli.engines.hf.engine import open_engine
from mae_cli.prompts import chat_template
from mae_cli.recipe.sections import Recipe
from mae_cli.records import Message, Request, Sampling


class PolicyModel:
    """The model behind the server, and what it was asked."""

    def __init__(self, model: Path, name: str, **recipe: Any) -> None:
        self.engine = open_engine(Recipe(model=str(model), device="cpu", **recipe), "")
        self.name, self.adapters, self.asked = name, {}, []  # type: ignore[var-annotated]
        self.lock = threading.Lock()
        self.owner = "vllm"

    def answer(self, path: str, ask: dict[str, Any]) -> tuple[int, Any]:
        texts = self.engine.texts
        if path == "/v1/load_lora_adapter":
            self.adapters[ask["lora_name"]] = ask["lora_path"]
            return 200, "Success"
        if path == "/v1/unload_lora_adapter":
            return (200, "Success") if self.adapters.pop(ask["lora_name"], None) else (404, error("no such adapter"))
        if ask["model"] not in (self.name, *self.adapters):
            return 404, error(f"The model `{ask['model']}` does not exist.")
        adapter = self.adapters.get(ask["model"])
        self.engine.attach(Path(adapter) if adapter else None)
        if path == "/tokenize" and "prompt" in ask:
            return 200, {"tokens": chat_template.encode(texts.tokenizer, ask["prompt"])}
        if path == "/tokenize":
            return 200, {"tokens": texts.prompt(messages_of(ask)).ids}
        if path == "/detokenize":
            return 200, {"prompt": texts.tokenizer.decode(ask["tokens"], skip_special_tokens=False)}
        return (200, self.chat(ask)) if path == "/v1/chat/completions" else (200, self.completion(ask))

    def chat(self, ask: dict[str, Any]) -> Any:
        self.asked.append(ask)
        sampling = Sampling(
            ask["max_tokens"], temperature=ask["temperature"], top_p=ask["top_p"], stop=tuple(ask.get("stop", ()))
        )
        done = self.engine.generate([Request("r", messages_of(ask), ask.get("seed", 0))], sampling)[0]
        ids = done.completion_token_ids or []
        choice = {
            "message": {"content": done.raw},
            "finish_reason": done.finish_reason,
            "token_ids": ids,
        }
        usage = {"prompt_tokens": len(done.prompt_token_ids or []), "completion_tokens": len(ids)}
        return {"choices": [choice], "usage": usage, "prompt_token_ids": done.prompt_token_ids}

    def completion(self, ask: dict[str, Any]) -> Any:
        import torch

        ids = ask["prompt"]
        with torch.no_grad():
            logprobs = torch.log_softmax(self.engine.model(torch.tensor([ids])).logits[0].float(), -1)
        told = [None, *({str(token): {"logprob": float(logprobs[at, token])}} for at, token in enumerate(ids[1:]))]
        return {"choices": [{"text": "", "prompt_logprobs": told}]}


def messages_of(ask: dict[str, Any]) -> tuple[Message, ...]:
    return tuple(Message(one["role"], one["content"]) for one in ask["messages"])


def error(message: str) -> Any:
    return {"error": {"message": message}}


@contextmanager
def serving(model: Path, name: str = "served", **recipe: Any) -> Iterator[tuple[str, PolicyModel]]:
    """(address, model) of a server for one `with` block."""
    held = PolicyModel(model, name, **recipe)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            names = [held.name, *held.adapters]
            self._say(200, {"data": [{"id": one, "owned_by": held.owner} for one in names]})

        def do_POST(self) -> None:
            ask = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with held.lock:
                found = held.answer(self.path, ask)
            self._say(*found)

        def _say(self, status: int, tree: Any) -> None:
            data = json.dumps(tree).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", held
    finally:
        server.shutdown()
        server.server_close()
        held.engine.close()
