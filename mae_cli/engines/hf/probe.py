"""Which way of decoding is right for a model: tried on a few tokens when it is loaded, then remembered.

Three short prompts with given continuations are read by the plain model, one row at a time and without a cache; these
log-probabilities are the reference. Then every way of `ways.py`, fastest first, decodes the same tokens until one
agrees: padded prefill, a shared beginning, slots with rows that leave and enter, options in one row; whole batches;
rows of one length; single rows; no cache at all. A model that does not even agree with itself is refused.

The result is kept in `$MAE_CACHE/decoding.json` by model, versions, attention, type and device.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch
import transformers

from mae_cli.engines.hf.prefill import Prefilled, Prefiller
from mae_cli.engines.hf.score import score
from mae_cli.engines.hf.slots import GraphSlots, Slots, batch_for
from mae_cli.engines.hf.ways import Rows, Tree, Way, first_way, run, smallest_window
from mae_cli.errors import EngineError, one_line
from mae_cli.records import digest

log = logging.getLogger(__name__)
VERSION = 1
"""Counts changes of the probe: what an older one found is not used."""
EVERYDAY = ("LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
PROVEN_WITH = "5.23."
"""Classes whose every way is right under this version of the library (`make families`): one prompt is read, no more."""
SHARED, SHORT, MIDDLE, LONG, STEPS = 17, 3, 20, 23, 3
"""Tokens that the two longer prompts begin with, tokens of each prompt, tokens behind each."""
LONGEST = 96
"""Tokens of the longest prompt where a window is to be passed: wider ones are taken from the config alone."""
EXACT, ROUNDED = 1e-4, 0.05
"""Largest relative distance of log-probabilities that is rounding, with float32 weights and with shorter ones."""
ERRORS = (
    *(RuntimeError, ValueError, TypeError, AttributeError, KeyError, IndexError, NotImplementedError, AssertionError),
    ArithmeticError,
)
"""What a family's code may end in when it is asked for what it has not; anything else is our fault."""


class PlainRun(NamedTuple):
    """The plain model on one prompt and its continuation."""

    prompt: list[int]
    tokens: list[int]
    logits: torch.Tensor
    """(STEPS + 1, V) float32, behind the prompt and behind each token."""


class ProbeResult(msgspec.Struct, frozen=True):
    """What the probe found; `errors` are relative distances by what was tried, none where it broke off."""

    way: Way
    errors: dict[str, float | None] = {}


def find_way(model: Any, tokenizer: Any, pad_id: int, *, folder: Path, model_digest: str) -> ProbeResult:
    """The fastest right way of a model, from the file in `folder` or by trying.

    Raises:
        EngineError: the model gives no numbers, cannot be run, or reads what comes behind a token.
    """
    key = digest(
        *(VERSION, model_digest, transformers.__version__, str(torch.__version__), model.device.type),
        *(str(model.dtype), str(getattr(model.config, "_attn_implementation", None)), type(model).__name__),
        *(bool(getattr(model, "is_quantized", False)), first_way(model.config).rows),
    )
    path = folder / "decoding.json"
    known = _known(path)
    with contextlib.suppress(msgspec.ValidationError, KeyError, TypeError, AttributeError):
        return msgspec.convert(known[key], ProbeResult)
    found = Probe(model, tokenizer, pad_id).find()
    # Two processes may write at once; either result is good.
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f"{path.name}.{os.getpid()}")
        beside.write_text(json.dumps({**known, key: msgspec.to_builtins(found)}, indent=1))
        beside.replace(path)
    return found


def _known(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        tree = json.loads(path.read_text())
        if isinstance(tree, dict):
            return tree
    return {}


class Probe:
    """Tries the ways of one model."""

    def __init__(self, model: Any, tokenizer: Any, pad_id: int) -> None:
        self.model, self._pad_id = model, pad_id
        self._prompts, self._tails = _token_rows(model, tokenizer)
        self.errors: dict[str, float | None] = {}
        self._at_shared: list[torch.Tensor] = []
        self._bound = EXACT

    @torch.inference_mode()
    def find(self) -> ProbeResult:
        """The fastest way that gives what the plain model gives."""
        first = first_way(self.model.config)
        is_proven = type(self.model).__name__ in EVERYDAY and transformers.__version__.startswith(PROVEN_WITH)
        if is_proven and first.rows == "slots":
            self._reference(self._prompts[1], self._tails[1])
            return ProbeResult(first)
        self.references = [self._reference(*row) for row in zip(self._prompts, self._tails, strict=True)]
        if self.model.dtype not in (torch.float32, torch.float64) or getattr(self.model, "is_quantized", False):
            self._bound = max(ROUNDED, 4 * self._rounding())
        self._check_causal()
        way = self._slots(first) if first.rows == "slots" else None
        plain = Way(prefix=False, tree="none", switch=first.switch)
        for rows, own, mask, told in product(("batch", "equal", "single"), *[(True, False)] * 3):
            if way is None:
                tried = msgspec.structs.replace(plain, rows=rows, own_cache=not own, step_mask=mask, positions=told)
                name = (
                    f"{rows}{'' if own else ' own cache'}{'' if mask else ' no mask'}{'' if told else ' no positions'}"
                )
                way = tried if self._agrees(name, partial(self._whole, tried)) else None
        return ProbeResult(way or Way(rows="recompute", prefix=False, tree="none"), self.errors)

    def _reference(self, prompt: list[int], tokens: list[int]) -> PlainRun:
        ids = torch.tensor([prompt + tokens], device=self.model.device)
        try:
            logits = run(self.model, input_ids=ids, use_cache=False).logits[0].float()
        except torch.OutOfMemoryError:
            raise
        except ERRORS as error:
            raise EngineError(f"the model cannot read {ids.shape[1]} tokens: {one_line(error)}") from error
        if bool(logits.isnan().any()):
            count = int(logits.isnan().any(-1).sum())
            raise EngineError(
                f"the model's logits are not numbers (NaN) at {count} of {len(logits)} tokens: damaged weights, "
                f"or too large for {self.model.dtype} (try --dtype float32)"
            )
        if len(prompt) > SHARED:
            self._at_shared.append(logits[SHARED - 1])
        return PlainRun(prompt, tokens, logits[len(prompt) - 1 :])

    def _check_causal(self) -> None:
        """Two prompts that begin alike have the same logits at the end of that beginning."""
        if distance(*self._at_shared[:2]) > max(0.02, self._bound):
            raise EngineError(
                f"{type(self.model).__name__} reads what comes behind a token, as an encoder does; "
                "expected a causal language model (an encoder's config may lack is_decoder: true)"
            )

    def _rounding(self) -> float:
        """Distance between a row alone and beside a copy of itself: what the shape of a batch costs in rounding."""
        one = self.references[1]
        ids = torch.tensor([one.prompt + one.tokens] * 3, device=self.model.device)
        again = run(self.model, input_ids=ids, use_cache=False).logits[0, len(one.prompt) - 1 :].float()
        return max(distance(*pair) for pair in zip(again, one.logits, strict=True))

    def _agrees(self, name: str, attempt: Callable[[], float]) -> bool:
        try:
            error = attempt()
        except torch.OutOfMemoryError:
            raise
        except ERRORS as problem:
            log.debug("%s: %s", name, problem)
            self.errors[name] = None
            return False
        self.errors[name] = float(f"{error:.3g}") if error == error else None
        return error <= self._bound

    def _slots(self, first: Way) -> Way | None:
        if not self._agrees("slots", partial(self._entering, first, Slots)):
            return None
        is_gpu = self.model.device.type == "cuda"
        graph = not is_gpu or self._agrees("slots of fixed shape", partial(self._entering, first, _FixedSlots))
        prefix = self._agrees("shared beginning", lambda: self._behind(first))
        trees: tuple[Tree, ...] = ("bool", "additive")
        tried = (kind for kind in trees if self._agrees(f"options {kind}", partial(self._tree, kind)))
        tree: Tree = next(tried, "none")
        return msgspec.structs.replace(first, prefix=prefix, tree=tree, graph=graph)

    def _entering(self, first: Way, kind: type[Slots]) -> float:
        """Two rows of unequal length; one leaves after a step, and a short one enters."""
        prefill = Prefiller(self.model, self._pad_id, captures=False, way=first)
        short, middle, long = self.references
        batch = kind(self.model, 2)
        watch = _Watch()
        chunk = prefill([long.prompt, middle.prompt])
        batch.enter(chunk, [0, 1], STEPS)
        watch.see(chunk.logits, [(long, 0), (middle, 0)])
        watch.see(batch.step(self._fed([(long, 0), (middle, 0)])), [(long, 1), (middle, 1)])
        batch.leave([0])
        chunk = prefill([short.prompt])
        batch.enter(chunk, [0], STEPS)
        watch.see(chunk.logits, [(short, 0)])
        for step in range(STEPS - 1):
            rows = [(middle, step + 1), (short, step)]
            watch.see(batch.step(self._fed(rows)), [(one, at + 1) for one, at in rows])
        return watch.worst()

    def _behind(self, first: Way) -> float:
        """Two prompts behind the beginning they share, and a step."""
        _, middle, long = self.references
        chunk = Prefiller(self.model, self._pad_id, captures=False, way=first).behind(
            [long.prompt, middle.prompt], SHARED
        )
        return self._steps(first, chunk, [long, middle], 1)

    def _whole(self, way: Way) -> float:
        """A batch in the way's own order: all three prompts, or prompts of one length, or each alone."""
        prefill = Prefiller(self.model, self._pad_id, captures=False, way=way)
        groups: dict[Rows, list[list[int]]] = {"batch": [[2, 1, 0]], "equal": [[1, 3], [0]], "single": [[0], [1], [2]]}
        if way.rows == "equal" and len(self.references) == 3:
            twin = [*self.references[1].prompt[:-1], self.references[0].prompt[0]]
            self.references.append(self._reference(twin, self.references[1].tokens))
        worst = 0.0
        for group in groups[way.rows]:
            rows = [self.references[place] for place in group]
            worst = max(worst, self._steps(way, prefill([one.prompt for one in rows]), rows, STEPS))
        return worst

    def _steps(self, way: Way, chunk: Prefilled, rows: list[PlainRun], count: int) -> float:
        """Enter all rows and feed them `count` tokens; the first leaves before the last step where it may."""
        batch = batch_for(self.model, len(rows), way, captures=False)
        batch.enter(chunk, list(range(len(rows))), STEPS)
        watch = _Watch()
        watch.see(chunk.logits, [(one, 0) for one in rows])
        for step in range(count):
            if step == count - 1 and len(rows) > 1:
                rows = [rows[place] for place in batch.leave([0])]
            watch.see(batch.step(self._fed([(one, step) for one in rows])), [(one, step + 1) for one in rows])
        return watch.worst()

    def _tree(self, kind: Tree) -> float:
        """Options of two prompts, one with two options that begin alike, against the plain model."""
        short, middle, _ = self.references
        first, second, third = middle.tokens
        prefill = Prefiller(self.model, self._pad_id, captures=False, way=Way(tree=kind))
        options = [[[first, second, third], [first, third], [third, second]], [short.tokens]]
        scores = score(prefill, [middle.prompt, short.prompt], options)
        other = self._reference(middle.prompt, [third, second, first])
        wanted = [
            [_total(middle, middle.tokens), _total(middle, [first, third]), _total(other, [third, second])],
            [_total(short, short.tokens)],
        ]
        spread = float(middle.logits.std()) or 1.0
        pairs = [pair for got, right in zip(scores, wanted, strict=True) for pair in zip(got, right, strict=True)]
        return max(abs(got - right) for got, right in pairs) / (STEPS * spread)

    def _fed(self, rows: Sequence[tuple[PlainRun, int]]) -> torch.Tensor:
        return torch.tensor([one.tokens[step] for one, step in rows], device=self.model.device)


class _FixedSlots(GraphSlots):
    """Steps of fixed shape without a capture: the numbers are the same."""

    def __init__(self, model: Any, slots: int) -> None:
        super().__init__(model, slots)
        self._captures = False


class _Watch:
    """Distances of the rows seen to their references."""

    def __init__(self) -> None:
        self._found: dict[int, list[float]] = {}

    def see(self, logits: torch.Tensor, rows: Sequence[tuple[PlainRun, int]]) -> None:
        for place, (one, step) in enumerate(rows):
            self._found.setdefault(id(one), []).append(distance(logits[place], one.logits[step]))

    def worst(self) -> float:
        """The largest; not-a-number counts as infinite."""
        return max((value for row in self._found.values() for value in row), default=0.0)


def distance(got: torch.Tensor, right: torch.Tensor) -> float:
    """Relative distance of two (V,) logits as log-probabilities: |a - b| / |b - mean(b)|; infinite without numbers."""
    wanted = right.float().log_softmax(-1)
    finite = wanted.isfinite()
    difference = (got.float().log_softmax(-1) - wanted)[finite]
    value = float(difference.norm() / (wanted[finite] - wanted[finite].mean()).norm().clamp_min(1e-6))
    return value if value == value else float("inf")


def _total(one: PlainRun, tokens: Sequence[int]) -> float:
    """Log-probability of tokens that the reference's own lead up to."""
    logprobs = one.logits.log_softmax(-1)
    return sum(float(logprobs[step, token]) for step, token in enumerate(tokens))


def _token_rows(model: Any, tokenizer: Any) -> tuple[list[list[int]], list[list[int]]]:
    """Three prompts of unequal length, the longer two beginning alike, and three tokens behind each.

    Ordinary tokens, spread over the vocabulary, none of them special.
    """
    rows = min(int(model.get_input_embeddings().weight.shape[0]), len(tokenizer))
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    usable = [token_id for token_id in range(rows - 1, -1, -1) if token_id not in special][: 4096 + 64] or [0]
    window = smallest_window(model.config)
    long = LONG if window is None or window + 8 > LONGEST else max(LONG, window + 8)
    ids = [usable[(place * 37 + 11) % len(usable)] for place in range(SHORT + MIDDLE + long + 3 * STEPS)]
    start = ids[:SHARED]
    rest = iter(ids[SHARED:])

    def take(count: int) -> list[int]:
        return [next(rest) for _ in range(count)]

    prompts = [take(SHORT), start + take(MIDDLE - SHARED), start + take(long - SHARED)]
    return prompts, [take(STEPS) for _ in prompts]
