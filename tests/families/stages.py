"""What is tried on each family: the `hf` engine, training and export against the plain library model.

The reference is the library's own model in one row without a cache. A cell of the table is `ok`, or how the family is
decoded instead, or the line it is refused with, or WRONG with what was seen.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from mae_cli.cli.app import run_app
from mae_cli.engines.hf import engine as hf
from mae_cli.engines.hf.ways import NOTICES
from mae_cli.errors import MaeError
from mae_cli.recipe.sections import Recipe
from mae_cli.records import Completion, Message, Request, Sampling
from tests.conftest import TEXT
from tests.families.build import build

WORDS = TEXT.split()
GREEDY = Sampling(max_new_tokens=12, temperature=0.0)
SAMPLED = Sampling(max_new_tokens=12, temperature=1.0)
TIE = 1e-3
"""Logits nearer than this are a tie: rounding decides it."""
SCORE_TOLERANCE = 2e-3
"""Nats by which a score of a few tokens may differ."""


class WrongError(Exception):
    """A stage gave another value than the plain model."""


class Refused(Exception):
    """A stage was refused with a line."""


class Family:
    """One family's model in a folder, its engine and its plain model."""

    def __init__(self, family: str, folder: Path) -> None:
        self.name, self.folder = family, folder
        build(family, folder / "model")
        self._engine: hf.HfEngine | None = None
        self._plain: Any = None

    @property
    def engine(self) -> hf.HfEngine:
        """The engine, opened once."""
        if self._engine is None:
            self._engine = hf.open_engine(Recipe(model=str(self.folder / "model"), device="cpu"), "")
        return self._engine

    @property
    def plain(self) -> Any:
        """The library's model as it loads it without being told anything."""
        if self._plain is None:
            from transformers import AutoModelForCausalLM

            self._plain = AutoModelForCausalLM.from_pretrained(str(self.folder / "model"), dtype=torch.float32).eval()
        return self._plain

    @torch.no_grad()
    def logits(self, ids: Sequence[int], model: Any = None) -> torch.Tensor:
        """(T, V) of one row without a cache."""
        output = (model or self.plain)(input_ids=torch.tensor([list(ids)]), use_cache=False)
        logits: torch.Tensor = output.logits[0].float()
        return logits

    def answers(self, requests: Sequence[Request], sampling: Sampling, batch_size: int) -> list[Completion]:
        """The engine's completions."""
        self.engine.batch_size = batch_size
        return self.engine.generate(requests, sampling)


def chat(words: int, start: int = 0, system: int = 0) -> tuple[Message, ...]:
    """A chat of so many words, behind a system message."""
    text = " ".join(WORDS[(start + 3 * place) % len(WORDS)] for place in range(words))
    front = (Message("system", " ".join(WORDS[place % len(WORDS)] for place in range(system))),) if system else ()
    return (*front, Message("user", text))


UNEQUAL = [Request(str(place), chat(words, place), place) for place, words in enumerate((1, 30, 4, 17, 9, 60))]
SHARED = [Request(str(place), chat(words, place, 70), place) for place, words in enumerate((2, 9, 4, 14, 3, 7))]


def check_greedy(family: Family, requests: Sequence[Request], model: Any = None) -> None:
    """Every row's tokens are the likeliest of the plain model (or of another), one after the other."""
    for request, answer in zip(requests, family.answers(requests, GREEDY, 6), strict=True):
        ids, tokens = list(answer.prompt_token_ids or []), list(answer.completion_token_ids or [])
        if not tokens:
            raise WrongError(f"row {request.id}: {answer.status} {answer.error}")
        logits = family.logits(ids + tokens, model)[len(ids) - 1 : -1]
        for place, token in enumerate(tokens):
            if float(logits[place].max() - logits[place, token]) > TIE:
                raise WrongError(f"row {request.id}: token {place} is {token}, not {int(logits[place].argmax())}")


def load(family: Family) -> str:
    """Open the engine."""
    way = family.engine.prefiller.way
    return "ok" if way.rows == "slots" else NOTICES[way.rows].partition(":")[0]


def greedy(family: Family) -> None:
    """Six unequal prompts in one batch."""
    check_greedy(family, UNEQUAL)


def prefix(family: Family) -> None:
    """Six prompts with a long common beginning, twice."""
    check_greedy(family, SHARED)
    check_greedy(family, SHARED[::-1])


def seeds(family: Family) -> None:
    """Sampled rows are the same at batch sizes 1 and 4."""
    texts = [[answer.completion_token_ids for answer in family.answers(UNEQUAL, SAMPLED, size)] for size in (1, 4)]
    if texts[0] != texts[1]:
        raise WrongError(
            f"{sum(one != other for one, other in zip(*texts, strict=True))} of 6 rows differ by batch size"
        )


def samples(family: Family) -> None:
    """Three samples of two prompts together are those that each request gets alone."""
    requests = [Request(f"{at}-{n}", UNEQUAL[at].messages, 10 * at + n) for at in (1, 2) for n in range(3)]
    together = [answer.completion_token_ids for answer in family.answers(requests, SAMPLED, 6)]
    alone = [family.answers([request], SAMPLED, 1)[0].completion_token_ids for request in requests]
    if together != alone:
        raise WrongError("samples of a prompt differ from rows made alone")
    if len({tuple(ids or ()) for ids in together}) < 4:
        raise WrongError("samples of a prompt are equal")


def stop(family: Family) -> None:
    """A row ends at its stop string."""
    request = UNEQUAL[3]
    text = next((answer.raw for answer in family.answers([request], GREEDY, 1)), "") or ""
    if len(text) < 4:
        return
    end = text[2:4]
    wanted = text[: text.find(end)]
    got = family.answers(UNEQUAL, Sampling(max_new_tokens=12, temperature=0.0, stop=(end,)), 6)[3]
    if got.raw != wanted or got.finish_reason != "stop":
        raise WrongError(f"{got.raw!r} ({got.finish_reason}), not {wanted!r}")


def scores(family: Family) -> None:
    """Options are scored as by the plain model, in a batch of unequal prompts."""
    options = [[" ten", " ten apples", " the answer is", "no"], [" one", " two three"], [" blue"]]
    requests = UNEQUAL[:3]
    found = family.engine.score(requests, options)
    for request, texts, values in zip(requests, options, found, strict=True):
        ids = family.engine.texts.prompt(request.messages).ids
        for text, value in zip(texts, values, strict=True):
            tail = family.engine.texts.option_ids(request.messages, text)
            logprobs = family.logits(ids + tail).log_softmax(-1)
            right = sum(float(logprobs[len(ids) - 1 + place, token]) for place, token in enumerate(tail))
            if value is None or abs(value - right) > SCORE_TOLERANCE:
                raise WrongError(f"{text!r} scores {value}, not {right:.4f}")


def logprobs(family: Family) -> None:
    """Training reads the plain model's log-probabilities, with a shared beginning where it shares one."""
    from mae_cli.training.batches import collate
    from mae_cli.training.examples import TrainingExample
    from mae_cli.training.logprobs import can_share_prefix, completion_logprobs

    begin = tuple(range(5, 45))
    tails = [((50, 51), (52, 53, 54)), ((60,), (61, 62, 63, 64, 65)), ((70, 71, 72), (73,))]
    examples = [
        TrainingExample(str(place), "solver", "g", 1.0, (*begin, *front), tail)
        for place, (front, tail) in enumerate(tails)
    ]
    model = family.engine.model
    for shared in (0, 40) if can_share_prefix(model) else (0,):
        with torch.no_grad():
            batch = collate(examples, [0, 1, 2], device=torch.device("cpu"), shared=shared)
            values = completion_logprobs(model, batch).logprobs
        for number, row in enumerate(examples):
            right = family.logits([*row.prompt, *row.completion]).log_softmax(-1)
            for place, token in enumerate(row.completion):
                wanted = float(right[len(row.prompt) - 1 + place, token])
                if abs(float(values[number, place]) - wanted) > SCORE_TOLERANCE:
                    raise WrongError(f"{float(values[number, place]):.4f}, not {wanted:.4f} (shared {shared})")


def finetune(family: Family) -> None:
    """Two steps of training; the adapter loads again, changes the answers, and they are those of base and adapter."""
    before = [answer.completion_token_ids for answer in family.answers(UNEQUAL, GREEDY, 6)]
    rows = [
        {"messages": [{"role": "user", "content": f"what is {n}"}, {"role": "assistant", "content": " ten apples"}]}
        for n in ("one", "two", "three", "four")
    ]
    data = family.folder / "chats.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    more = ("--max-nll-jump", "0", "--learning-rate", "0.02", "--epochs", "2", "--set", "finetune.batch_size=4")
    _command("finetune", data, "-o", family.folder / "adapter", "-m", family.folder / "model", "--device", "cpu", *more)
    family.engine.attach(family.folder / "adapter")
    after = [answer.completion_token_ids for answer in family.answers(UNEQUAL, GREEDY, 6)]
    if after == before:
        raise WrongError("the adapter changes nothing")
    check_greedy(family, UNEQUAL, family.engine.model)


def merged(family: Family) -> None:
    """`export --merge` gives the model with its adapter."""
    from transformers import AutoModelForCausalLM

    output = family.folder / "merged"
    if not (family.folder / "adapter").is_dir():
        raise Refused("no adapter")
    base = family.folder / "model"
    _command("export", family.folder / "adapter", "-o", output, "--merge", "-m", base)
    whole = AutoModelForCausalLM.from_pretrained(str(output), dtype=torch.float32).eval()
    ids = family.engine.texts.prompt(UNEQUAL[1].messages).ids
    with torch.no_grad():
        adapted = family.logits(ids, family.engine.model)
    difference = float((family.logits(ids, whole).log_softmax(-1) - adapted.log_softmax(-1)).abs().max())
    if difference > 5e-3:
        raise WrongError(f"log-probabilities differ by {difference:.3f}")


def _command(*arguments: object) -> None:
    """Run a command here; what it says is kept for the cell."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = run_app([str(argument) for argument in arguments])
    if code:
        lines = [line for line in said.getvalue().splitlines() if line.strip()]
        line = lines[-1] if lines else "nothing said"
        raise (Refused if code in (2, 3) else WrongError)(f"exit {code}: {line}")


Check = Callable[[Family], str | None]
STAGES: dict[str, Check] = {
    "load": load,
    "greedy": greedy,
    "prefix": prefix,
    "seeds": seeds,
    "samples": samples,
    "stop": stop,
    "scores": scores,
    "logprobs": logprobs,
    "finetune": finetune,
    "merge": merged,
}


def cells(family: str, folder: Path, stages: Sequence[str] = tuple(STAGES)) -> Iterator[tuple[str, str]]:
    """(stage, cell) of one family; a family that is refused at load has no further cells."""
    try:
        one = Family(family, folder)
    except Exception as error:  # noqa: BLE001 - whatever the library says to a config is the cell
        yield "load", f"not built: {type(error).__name__}: {' '.join(str(error).split())[:120]}"
        return
    for stage in stages:
        try:
            yield stage, STAGES[stage](one) or "ok"
        except (MaeError, Refused) as error:
            yield stage, f"refused: {str(error).replace(str(folder) + '/', '')}"
            if stage == "load":
                return
        except WrongError as error:
            yield stage, f"WRONG: {error}"
        except Exception as error:  # noqa: BLE001 - a crash is a cell
            yield stage, f"WRONG: {type(error).__name__}: {' '.join(str(error).split())[:120]}"
