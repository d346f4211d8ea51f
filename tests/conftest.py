"""Fixtures every test may use: no network, one torch thread, no clock in hypothesis, and a tiny random model."""

from __future__ import annotations

import gc
import ipaddress
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# Examples are counted, not timed: a busy machine is no failure.
settings.register_profile("anywhere", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("anywhere")

# A tiny model is fastest on one thread, and several workers that spin for each other are very slow.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

TEXT = """the a of to and is in what how many apples coins books has buys gives sells left total answer sum plus minus
times sam ana ben zoe red blue green small large first second third number add write think step so then now question
task score good bad user assistant system one two three four five six seven eight nine ten"""
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class NetworkBlockedError(ConnectionError):
    """A test tried to reach another machine."""


def _is_local(address: Any) -> bool:
    host = address[0] if isinstance(address, tuple) else address
    if host in ("localhost", ""):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@pytest.fixture(autouse=True)
def _no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only AF_UNIX and loopback, unless the test is marked `network`."""
    if request.node.get_closest_marker("network"):
        return
    connect, connect_ex, lookup = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def check(family: int, address: Any) -> None:
        if family != socket.AF_UNIX and not _is_local(address):
            raise NetworkBlockedError(f"tests must not reach {address}")

    def guarded_connect(self: socket.socket, address: Any) -> None:
        check(self.family, address)
        connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:
        check(self.family, address)
        return connect_ex(self, address)

    def guarded_lookup(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host is not None and not _is_local(host):
            raise NetworkBlockedError(f"tests must not look up {host}")
        return lookup(host, *args, **kwargs)

    monkeypatch.setattr(socket.socket, "connect", guarded_connect)
    monkeypatch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
    monkeypatch.setattr(socket, "getaddrinfo", guarded_lookup)


def build_tokenizer(*, chat_template: str | None = CHAT_TEMPLATE, specials: tuple[str, ...] = ()) -> Any:
    """A byte-level BPE tokenizer of a few hundred tokens, ChatML ends of turn."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    control = ["<|pad|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", *specials]
    vocabulary = {token: index for index, token in enumerate(control)}
    for token in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary.setdefault(token, len(vocabulary))
    merges = _word_merges(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        bos_token="<|endoftext|>",
        eos_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>", *specials],
    )
    fast.chat_template = chat_template
    return fast


def _word_merges(vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """Merges that make each word, with a blank before it, one token; extends the vocabulary."""
    merges: list[tuple[str, str]] = []
    for word in TEXT.split():
        piece = "Ġ"
        for letter in word:
            if piece + letter not in vocabulary:
                vocabulary[piece + letter] = len(vocabulary)
                merges.append((piece, letter))
            piece += letter
    return merges


def save_tiny_model(
    folder: Path, *, seed: int = 0, context: int = 256, layers: int = 2, **tokenizer_options: Any
) -> Path:
    """A random Llama under a million parameters with its tokenizer; its weights are large enough to disagree."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = build_tokenizer(**tokenizer_options)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        initializer_range=0.2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id]
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model, saved as safetensors; read it only."""
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture
def tiny_recipe(tiny_model_dir: Path) -> Any:
    """A recipe with the tiny model on the CPU."""
    from mae_cli.recipe.sections import Recipe

    return Recipe(model=str(tiny_model_dir), device="cpu")


@pytest.fixture
def _all_memory() -> Iterator[None]:
    """A GPU whose memory nobody holds, without a cap on it afterwards."""
    import torch

    gc.collect()
    torch.cuda.empty_cache()
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
