"""Checks of the servers of engine `openai`: answer, model names, version, key; with `probe` one tiny request.

Contract: without `probe` only `GET /models` and `GET /version` are asked. A key is never shown: errors hold none, since
only statuses and names of a server's answer are repeated.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

from mae_cli.errors import MaeError, did_you_mean, one_line
from mae_cli.recipe.sections import Recipe
from mae_cli.stages.doctor.findings import Finding, note, ok, problem

SECONDS = 10.0
"""Longest wait for one answer."""
PROBE_SECONDS = 60.0
CHECK = "server"


def servers(recipe: Recipe, *, probe: bool) -> Iterator[Finding]:
    """Every server of a recipe.

    Args:
        recipe: gives addresses, model, and the name of the key's variable.
        probe: also ask for one token, to see what answers carry.
    """
    from mae_cli.engines.openai.dialect import DEFAULT_KEY_ENV, api_key, base_urls

    try:
        key = api_key(recipe.api_key_env)
    except MaeError as error:
        yield problem("server key", one_line(error), f"export {recipe.api_key_env or DEFAULT_KEY_ENV}=...")
        key = None
    else:
        variable = recipe.api_key_env or DEFAULT_KEY_ENV
        yield ok("server key", f"{variable} is {'set' if key else 'not set; none is sent'}")
    for url in base_urls(recipe.base_url):
        yield from _server(url, recipe.model, key, probe=probe)


def _server(url: str, model: str, key: str | None, *, probe: bool) -> Iterator[Finding]:
    try:
        told = _get(f"{url}/models", key)
    except _AnswerError as error:
        yield error.finding
        return
    listed = told.get("data") if isinstance(told, dict) else None
    if not isinstance(listed, list):
        yield problem(
            CHECK, f"{url}/models: the answer is no list of models", "give the address of an OpenAI-like server"
        )
        return
    names = [str(one.get("id")) for one in listed if isinstance(one, dict)]
    version = _version(url, key)
    shown = f"{url} answers{f', version {version}' if version else ''}"
    if model not in names:
        near = did_you_mean(model, names)
        yield problem(CHECK, f'{shown}, but serves no "{model}"; {near}', "give -m the name that it serves")
        return
    lengths = [one.get("max_model_len") for one in listed if isinstance(one, dict) and one.get("id") == model]
    context = f", context {lengths[0]:,} tokens" if lengths and isinstance(lengths[0], int) else ""
    yield ok(CHECK, f"{shown}, serves {model}{context}")
    if probe:
        yield from _probe(url, model, key)


def _probe(url: str, model: str, key: str | None) -> Iterator[Finding]:
    """Ask for four tokens twice with one seed; say what the answers carry."""
    ask = {
        **{"model": model, "messages": [{"role": "user", "content": "Say yes."}], "max_tokens": 4, "seed": 1},
        **{"temperature": 1.0, "logprobs": True, "top_logprobs": 2, "return_token_ids": True},
    }
    try:
        first, second = (_get(f"{url}/chat/completions", key, ask) for _ in range(2))
    except _AnswerError as error:
        yield error.finding
        return
    choice, other = _choice(first), _choice(second)
    if choice is None or other is None:
        yield problem("server probe", f"{url}: the answer holds no message", "see the server's own log")
        return
    has_ids = bool(choice.get("token_ids") or first.get("prompt_token_ids"))
    has_logprobs = bool((choice.get("logprobs") or {}).get("content"))
    ids = "token ids" if has_ids else "no token ids (training tokenises the text again)"
    logprobs = "log-probabilities" if has_logprobs else "no log-probabilities (mode likelihood cannot be used)"
    seeds = "one seed gave one text" if _text(choice) == _text(other) else "one seed gave two texts (not repeatable)"
    told = f"{url}: {ids}, {logprobs}, {seeds}"
    yield ok("server probe", told) if has_ids and has_logprobs else note("server probe", told)


def _choice(told: Any) -> dict[str, Any] | None:
    choices = told.get("choices") if isinstance(told, dict) else None
    found = choices[0] if isinstance(choices, list) and choices else None
    return found if isinstance(found, dict) and isinstance(found.get("message"), dict) else None


def _text(choice: dict[str, Any]) -> str:
    return str(choice["message"].get("content"))


def _version(url: str, key: str | None) -> str | None:
    """The version that vLLM and its like tell beside /v1; null where none is told."""
    try:
        told = _get(f"{url.removesuffix('/v1')}/version", key)
    except _AnswerError:
        return None
    version = told.get("version") if isinstance(told, dict) else None
    return str(version) if version else None


class _AnswerError(Exception):
    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.text)
        self.finding = finding


def _get(url: str, key: str | None, ask: dict[str, Any] | None = None) -> Any:
    """The JSON of an answer.

    Raises:
        _AnswerError: none came, or a refusal; with the finding that says so.
    """
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    data = json.dumps(ask).encode() if ask is not None else None
    request = urllib.request.Request(url, data=data, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=PROBE_SECONDS if ask else SECONDS) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        raise _AnswerError(_refused(url, error.code)) from error
    except ValueError as error:
        fix = "give the address of an OpenAI-like server, mostly ending on /v1"
        raise _AnswerError(problem(CHECK, f"{url}: the answer is no JSON", fix)) from error
    except (OSError, urllib.error.URLError) as error:
        reason = one_line(getattr(error, "reason", error))
        fix = "start it, or correct --base-url"
        raise _AnswerError(problem(CHECK, f"{url}: no answer: {reason}", fix, temporary=True)) from error


def _refused(url: str, status: int) -> Finding:
    if status in (401, 403):
        return problem("server key", f"{url}: refused (HTTP {status})", "name the key's variable with --api-key-env")
    if status == 404:
        fix = "give the address up to the version, mostly ending on /v1"
        return problem(CHECK, f"{url}: not there (HTTP 404)", fix)
    is_temporary = status == 429 or status >= 500
    return problem(CHECK, f"{url}: HTTP {status}", "see the server's own log", temporary=is_temporary)
