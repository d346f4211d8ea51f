"""Continuous batching by the library, on a CPU here: rows keep their own text."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
import torch

from mae_cli.engines.hf import engine as hf
from mae_cli.engines.hf.sampling import HashNoise, mix, uniform
from mae_cli.errors import EngineError
from mae_cli.recipe.sections import Recipe
from tests.engines.hf.test_engine import GREEDY, SAMPLED, answers, requests_for

SHORT = msgspec.structs.replace(SAMPLED, max_new_tokens=12)


@pytest.fixture
def paged(tiny_recipe: Recipe) -> Iterator[hf.HfEngine]:
    opened = hf.open_engine(tiny_recipe, "paged")
    yield opened
    opened.close()


def test_greedy_rows_equal_those_of_the_own_loop(paged: hf.HfEngine, tiny_recipe: Recipe) -> None:
    requests = requests_for(6)
    sampling = msgspec.structs.replace(GREEDY, max_new_tokens=12)

    assert answers(paged, requests, sampling, 4) == hf.open_engine(tiny_recipe, "").generate(requests, sampling)


def test_a_sampled_row_does_not_depend_on_its_batch(paged: hf.HfEngine) -> None:
    requests = requests_for(4, samples=2)

    together = answers(paged, requests, SHORT, 8)
    few = answers(paged, requests[::-1], SHORT, 2)[::-1]

    assert together == few
    assert together == answers(paged, requests, SHORT, 8)
    assert len({completion.raw for completion in together}) == 8


def test_sampled_rows_equal_those_of_the_own_loop_with_the_noise_of_a_gpu(
    paged: hf.HfEngine, tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mae_cli.engines.hf.decode.noise_for", HashNoise)
    requests = requests_for(4, samples=2)

    assert answers(paged, requests, SHORT, 8) == hf.open_engine(tiny_recipe, "").generate(requests, SHORT)


def test_a_stop_string_ends_a_row(paged: hf.HfEngine) -> None:
    request = requests_for(1)
    free = answers(paged, request, SHORT, 1)[0]
    assert free.raw is not None
    stop = free.raw[8:11]

    (completion,) = answers(paged, request, msgspec.structs.replace(SHORT, stop=(stop,)), 1)

    assert completion.raw == free.raw[: free.raw.index(stop)]
    assert completion.finish_reason == "stop"


def test_the_attention_of_the_model_is_given_back(paged: hf.HfEngine) -> None:
    before = paged.model.config._attn_implementation
    answers(paged, requests_for(1), SHORT, 1)

    assert paged.model.config._attn_implementation == before


def test_the_noise_is_uniform_and_differs_between_rows_positions_and_tokens() -> None:
    keys = torch.tensor([mix(seed, position) for seed in (1, 2) for position in (0, 1)], dtype=torch.int32)

    values = uniform(keys, 50_000)

    assert bool(((values > 0) & (values < 1)).all())
    # The mean of 50,000 uniform numbers has a standard error of 0.2887 / sqrt(50,000) = 0.0013.
    assert values.mean(-1).tolist() == pytest.approx([0.5] * 4, abs=0.006)
    assert values.var(-1).tolist() == pytest.approx([1 / 12] * 4, abs=0.003)
    correlations = torch.corrcoef(values) - torch.eye(4)
    assert float(correlations.abs().max()) < 0.02
    neighbours = torch.corrcoef(torch.stack([values[0, :-1], values[0, 1:]]))[0, 1]
    assert abs(float(neighbours)) < 0.02


def test_another_argument_is_refused(tiny_recipe: Recipe) -> None:
    with pytest.raises(EngineError, match="paged"):
        hf.open_engine(tiny_recipe, "pages")
