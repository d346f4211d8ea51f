"""The hf engine on a tiny random model: a row's text is a function of the row."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from mae_cli.engines.hf import engine as hf
from mae_cli.engines.hf.cache import SlotLayer
from mae_cli.engines.hf.prefill import Prefiller
from mae_cli.engines.hf.slots import GraphSlots, Slots
from mae_cli.engines.hf.ways import Way
from mae_cli.errors import EngineError, TemporaryError
from mae_cli.models.locate import resolve_model
from mae_cli.recipe.sections import Recipe
from mae_cli.records import Completion, Message, Request, Sampling
from tests.conftest import TEXT, save_tiny_model
from tests.engines.hf.deciding_gap import deciding_gap

WORDS = TEXT.split()
SAMPLED = Sampling(max_new_tokens=48, temperature=1.0)
GREEDY = Sampling(max_new_tokens=48, temperature=0.0)


def chat(index: int) -> tuple[Message, ...]:
    length = 1 + (index * 7) % 23
    return (Message("user", " ".join(WORDS[(index + 3 * place) % len(WORDS)] for place in range(length))),)


def requests_for(num_prompts: int, samples: int = 1) -> list[Request]:
    return [
        Request(f"{prompt}-{sample}", chat(prompt), 1000 * prompt + sample)
        for prompt in range(num_prompts)
        for sample in range(samples)
    ]


@pytest.fixture
def engine(tiny_recipe: Recipe) -> Any:
    opened = hf.open_engine(tiny_recipe, "")
    yield opened
    opened.close()


def answers(engine: hf.HfEngine, requests: list[Request], sampling: Sampling, batch_size: int) -> list[Completion]:
    engine.batch_size = batch_size
    engine.batch_sizes_used.clear()
    return engine.generate(requests, sampling)


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED, msgspec.structs.replace(SAMPLED, top_k=20, top_p=0.9)])
def test_rows_are_equal_for_every_micro_batch(engine: hf.HfEngine, sampling: Sampling) -> None:
    requests = requests_for(20)
    by_size = {}
    for size in (1, 2, 8):
        by_size[size] = answers(engine, requests, sampling, size)
        assert engine.batch_sizes_used[0] == max(engine.batch_sizes_used) == size
        assert size == 1 or len(engine.batch_sizes_used) < 20

    assert len({len(chat(index)[0].content.split()) for index in range(20)}) > 10
    assert by_size[1] == by_size[2] == by_size[8]
    assert len({completion.raw for completion in by_size[1]}) > 15


def test_a_prefill_shared_by_samples_equals_separate_prefills(engine: hf.HfEngine) -> None:
    requests = requests_for(3, samples=4)

    shared = answers(engine, requests, SAMPLED, 12)
    separate = [answers(engine, [request], SAMPLED, 1)[0] for request in requests]

    assert shared == separate
    assert len({completion.raw for completion in shared[:4]}) == 4


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_slots_of_fixed_shape_give_the_rows_of_slots_that_shrink(
    sampling: Sampling, engine: hf.HfEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = requests_for(20, samples=2)
    engine.end_ids = engine.end_ids | set(range(0, 300, 7))
    expected = answers(engine, requests, sampling, 6)
    shapes: list[tuple[int, ...]] = []
    monkeypatch.setattr("mae_cli.engines.hf.slots.SPARE", 5)
    monkeypatch.setattr(GraphSlots, "spare", 5)
    monkeypatch.setattr("mae_cli.engines.hf.slots.slots_for", lambda model, slots, **_: GraphSlots(model, slots))
    forward = GraphSlots._forward

    def noted(slots: GraphSlots) -> torch.Tensor:
        logits = forward(slots)
        shapes.append((slots.count, *logits.shape, slots.mask.shape[1] % 64))
        return logits

    monkeypatch.setattr(GraphSlots, "_forward", noted)

    assert answers(engine, requests, sampling, 6) == expected
    assert {shape[1:] for shape in shapes} == {(6, engine.model.config.vocab_size, 0)}
    assert len({shape[0] for shape in shapes}) > 2


def counted_shapes(engine: hf.HfEngine, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    shapes: list[tuple[int, ...]] = []
    forward = engine.model.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        shapes.append(tuple(kwargs["input_ids"].shape))
        return forward(*args, **kwargs)

    monkeypatch.setattr(engine.model, "forward", counted)
    return shapes


def test_each_distinct_prompt_is_prefilled_once(engine: hf.HfEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = counted_shapes(engine, monkeypatch)
    answers(engine, requests_for(2, samples=4), msgspec.structs.replace(SAMPLED, max_new_tokens=2), 8)

    assert [shape[0] for shape in shapes] == [2, 8]
    assert shapes[1][1] == 1


def rubric(index: int) -> tuple[Message, ...]:
    return (Message("system", " ".join(WORDS[:20])), *chat(index))


def test_what_prompts_begin_with_is_prefilled_once_and_changes_no_text(
    engine: hf.HfEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [Request(str(index), rubric(index), index) for index in range(12)]
    alone = [answers(engine, [request], SAMPLED, 1)[0] for request in requests]
    engine.prefiller.forget()
    engine.prefiller.reused_tokens = 0
    shapes = counted_shapes(engine, monkeypatch)

    together = answers(engine, requests, SAMPLED, 12)

    prompts = [len(answer.prompt_token_ids or []) for answer in together]
    prefilled = [shape for shape in shapes if shape[1] > 1]
    assert together == alone
    assert [shape[0] for shape in prefilled] == [1, 12]
    assert prefilled[0][1] >= 30
    assert prefilled[0][1] + prefilled[1][1] == max(prompts)
    assert engine.prefiller.reused_tokens == 12 * prefilled[0][1]


def test_a_kept_beginning_is_used_again_by_later_batches(engine: hf.HfEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    first = [Request(str(index), rubric(index), index) for index in range(6)]
    answers(engine, first, SAMPLED, 6)
    expected = answers(engine, [Request("x", rubric(9), 9)], SAMPLED, 1)
    engine.prefiller.forget()
    answers(engine, first, SAMPLED, 6)
    shapes = counted_shapes(engine, monkeypatch)

    again = answers(engine, [Request("x", rubric(9), 9)], SAMPLED, 1)

    assert again == expected
    assert shapes[0][1] < len(again[0].prompt_token_ids or []) - 30


def test_waiting_rows_enter_as_others_leave_and_no_text_changes(
    engine: hf.HfEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mae_cli.engines.hf.slots.SPARE", 5)
    monkeypatch.setattr(Slots, "spare", 5)
    requests = requests_for(20, samples=2)
    engine.end_ids = engine.end_ids | set(range(0, 300, 7))

    entering = answers(engine, requests, SAMPLED, 4)
    used = list(engine.batch_sizes_used)
    alone = [answers(engine, [request], SAMPLED, 1)[0] for request in requests]

    assert entering == alone
    assert len({answer.usage.completion_tokens for answer in entering if answer.usage}) > 8
    assert len(used) > 10
    assert max(used) == 4


def test_a_model_whose_layers_forget_is_decoded_without_sharing(
    engine: hf.HfEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = requests_for(10, samples=3)
    expected = answers(engine, requests, SAMPLED, 4)

    monkeypatch.setattr(engine, "_way", Way(rows="batch", prefix=False, tree="none"))
    engine.attach(None)
    whole = answers(engine, requests, SAMPLED, 4)

    assert not engine.prefiller.shares
    assert engine.prefiller.reused_tokens == 0
    assert whole == expected
    assert max(engine.batch_sizes_used) <= 4


def test_the_same_seed_gives_the_same_text_and_another_seed_another(engine: hf.HfEngine) -> None:
    request = requests_for(1)[0]
    other = msgspec.structs.replace(request, seed=99)

    first, second, third = (engine.generate([asked], SAMPLED)[0] for asked in (request, request, other))

    assert first == second
    assert first.raw != third.raw


def test_order_is_kept_and_one_too_long_prompt_loses_no_other(engine: hf.HfEngine) -> None:
    requests = requests_for(4)
    long = Request("long", (Message("user", " ".join(WORDS * 5)),), 1)

    mixed = engine.generate([requests[0], long, *requests[1:]], GREEDY)

    assert mixed[1].status == "too_long"
    assert mixed[1].finish_reason == "error"
    assert mixed[1].raw is None
    assert [mixed[0], *mixed[2:]] == engine.generate(requests, GREEDY)


def test_the_context_caps_new_tokens(engine: hf.HfEngine) -> None:
    prompt = next(
        (Message("user", " ".join(WORDS[:count])),)
        for count in range(len(WORDS), 0, -1)
        if len(engine.texts.prompt((Message("user", " ".join(WORDS[:count])),)).ids) < 250
    )
    length = len(engine.texts.prompt(prompt).ids)
    engine.end_ids = frozenset()

    (completion,) = engine.generate([Request("a", prompt, 1)], msgspec.structs.replace(GREEDY, max_new_tokens=400))

    assert completion.completion_token_ids is not None
    assert len(completion.completion_token_ids) == 256 - length
    assert completion.finish_reason == "length"
    assert completion.status == "truncated"


def test_every_ending_token_ends_a_row_and_stays_in_the_ids(engine: hf.HfEngine) -> None:
    request = requests_for(1)[0]
    free = engine.generate([request], GREEDY)[0].completion_token_ids
    assert free is not None
    end = free[5]
    engine.end_ids = engine.end_ids | {end}

    (completion,) = engine.generate([request], GREEDY)

    assert completion.completion_token_ids == free[: free.index(end) + 1]
    assert completion.finish_reason == "stop"
    assert completion.status == "ok"


def test_turn_ends_of_the_template_count_as_ending_tokens(engine: hf.HfEngine) -> None:
    tokenizer = engine.tokenizer

    assert engine.end_ids == {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")}


def test_a_stop_string_is_cut_from_the_text_and_kept_in_the_ids(engine: hf.HfEngine) -> None:
    request = requests_for(1)[0]
    free = engine.generate([request], GREEDY)[0]
    assert free.raw is not None
    stop = free.raw[20:24]

    (completion,) = engine.generate([request], msgspec.structs.replace(GREEDY, stop=(stop,)))

    assert completion.raw == free.raw[: free.raw.index(stop)]
    assert completion.finish_reason == "stop"
    assert completion.completion_token_ids is not None
    assert stop in engine.tokenizer.decode(completion.completion_token_ids)


def test_prompt_ids_are_those_fed_and_usage_counts_tokens(engine: hf.HfEngine) -> None:
    request = requests_for(1)[0]

    (completion,) = engine.generate([request], GREEDY)

    assert completion.prompt_token_ids == engine.chat.render(request.messages)
    assert completion.usage is not None
    assert completion.completion_token_ids is not None
    assert completion.usage.prompt_tokens == len(completion.prompt_token_ids)
    assert completion.usage.completion_tokens == len(completion.completion_token_ids)


@pytest.fixture
def sized_engine(tiny_recipe: Recipe) -> Any:
    """An engine whose recipe names a micro-batch."""
    opened = hf.open_engine(msgspec.structs.replace(tiny_recipe, batch_size=8), "")
    yield opened
    opened.close()


def test_a_plan_keeps_equal_prompts_together_and_long_ones_first(sized_engine: hf.HfEngine) -> None:
    engine = sized_engine
    requests = [request for pair in zip(requests_for(5), requests_for(5), strict=True) for request in pair][::-1]

    plan = engine.plan(requests, 3)

    flat = [index for segment in plan for index in segment]
    lengths = [len(engine.texts.prompt(requests[index].messages).ids) for index in flat]
    assert sorted(flat) == list(range(10))
    assert [len(segment) for segment in plan] == [3, 3, 3, 1]
    assert lengths == sorted(lengths, reverse=True)
    assert all(requests[flat[place]].messages == requests[flat[place + 1]].messages for place in range(0, 10, 2))
    assert plan == engine.plan(requests, 3)


def test_segments_of_a_long_job_hold_up_to_four_batches_and_a_sixteenth_of_the_rows(sized_engine: hf.HfEngine) -> None:
    engine = sized_engine
    requests = requests_for(23, samples=3)

    assert {len(segment) for segment in engine.plan(requests, 4)[:-1]} == {4}
    assert {len(segment) for segment in engine.plan(requests, 2)[:-1]} == {4}
    assert {len(segment) for segment in engine.plan(requests, 1)[:-1]} == {4}
    assert {len(segment) for segment in engine.plan(requests * 2, 2)[:-1]} == {8}


def test_samples_follow_the_models_distribution(engine: hf.HfEngine) -> None:
    prompt = engine.chat.render(chat(1))
    with torch.inference_mode():
        logits = engine.model(torch.tensor([prompt])).logits[0, -1]
    expected = logits.softmax(-1)
    requests = [Request(str(seed), chat(1), seed * 7919) for seed in range(3000)]
    engine.batch_size = 1000

    drawn = engine.generate(requests, msgspec.structs.replace(SAMPLED, max_new_tokens=1))

    counts = torch.bincount(
        torch.tensor([(completion.completion_token_ids or [0])[0] for completion in drawn]), minlength=len(expected)
    )
    top = expected.topk(5).indices
    deviation = (counts[top] / 3000 - expected[top]).abs() / (expected[top] * (1 - expected[top]) / 3000).sqrt()
    assert deviation.max() < 4.5


def test_the_policy_does_not_depend_on_where_the_model_lies(
    engine: hf.HfEngine, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(tiny_recipe.model, moved)

    again = hf.open_engine(Recipe(model=str(moved), device="cpu"), "")

    assert again.policy == engine.policy
    assert str(tmp_path) not in str(again.policy)


def test_pickled_weights_are_refused(tiny_model_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(tiny_model_dir, folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")

    with pytest.raises(EngineError, match="pickled"):
        hf.open_engine(Recipe(model=str(folder), device="cpu"), "")


def test_a_model_without_a_chat_template_works_and_says_so(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "plain", chat_template=None)
    engine = hf.open_engine(Recipe(model=str(folder), device="cpu"), "")

    (completion,) = engine.generate(requests_for(1), GREEDY)

    assert completion.status in ("ok", "truncated")
    assert any("plain template" in notice for notice in engine.facts.notices)


def test_reasoning_that_never_ends_makes_a_row_truncated(tiny_recipe: Recipe, tmp_path: Path) -> None:
    template = tmp_path / "think.jinja"
    template.write_text("{% for message in messages %}{{ message['content'] }}{% endfor %}<think>\n")
    engine = hf.open_engine(msgspec.structs.replace(tiny_recipe, chat_template=str(template)), "")

    (completion,) = engine.generate(requests_for(1), GREEDY)

    assert completion.status == "truncated"
    assert completion.completion == ""
    assert completion.reasoning


def test_running_out_of_gpu_memory_halves_the_batch_and_loses_no_finished_row(
    engine: hf.HfEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = requests_for(8)
    expected = answers(engine, requests, SAMPLED, 8)
    put = SlotLayer.put

    def small_gpu(layer: SlotLayer, place: int, prompts: Any, rows: Any) -> None:
        if place + len(rows) > 3:
            raise torch.cuda.OutOfMemoryError
        put(layer, place, prompts, rows)

    monkeypatch.setattr(SlotLayer, "put", small_gpu)
    halved = answers(engine, requests, SAMPLED, 8)

    assert halved == expected
    assert max(engine.batch_sizes_used) == engine.batch_size == 2
    assert sum("memory" in notice for notice in engine.facts.notices) == 2


def test_out_of_gpu_memory_with_one_row_says_what_to_do(engine: hf.HfEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*args: Any) -> None:
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(SlotLayer, "put", no_memory)

    with pytest.raises(TemporaryError, match="single row"):
        answers(engine, requests_for(3), GREEDY, 2)


def test_running_out_of_gpu_memory_while_scoring_halves_the_tokens_at_a_time(
    engine: hf.HfEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests, options = requests_for(6), [[" ten", " sam"]] * 6
    expected = engine.score(requests, options)
    forward, limit = Prefiller.__call__, 300

    def small_gpu(prefiller: Prefiller, prompts: Any) -> Any:
        if prefiller.tokens_at_once > limit:
            raise torch.cuda.OutOfMemoryError
        return forward(prefiller, prompts)

    monkeypatch.setattr(Prefiller, "__call__", small_gpu)
    assert engine.score(requests, options) == expected
    assert engine.prefiller.tokens_at_once == 256
    assert sum("memory" in notice for notice in engine.facts.notices) == 3

    limit = 0
    with pytest.raises(TemporaryError, match="options of a single prompt"):
        engine.score(requests, options)


def test_the_deciding_gap_recomputes_the_token_that_was_taken(engine: hf.HfEngine) -> None:
    request = requests_for(1)[0]
    (completion,) = engine.generate([request], SAMPLED)
    prompt, ids = completion.prompt_token_ids, completion.completion_token_ids
    assert prompt is not None
    assert ids is not None

    gaps = [
        deciding_gap(engine.model, prompt, ids, place, seed=request.seed, sampling=SAMPLED) for place in range(len(ids))
    ]

    assert all(gap > 0 for gap in gaps)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_on_the_real_model_rows_differ_only_at_a_token_that_was_nearly_a_tie(sampling: Sampling) -> None:
    try:
        resolve_model("smollm2-135m")
    except EngineError as error:
        pytest.fail(f"make smoke installs the model first: {error}")
    engine = hf.open_engine(Recipe(device="cpu"), "")
    requests = [
        Request(str(index), (Message("user", f"What is {index} plus {3 * index}? " + "Think. " * (index % 7)),), index)
        for index in range(20)
    ]
    texts = {}
    for size in (1, 2, 8):
        texts[size] = answers(engine, requests, sampling, size)
        assert engine.batch_sizes_used[0] == max(engine.batch_sizes_used) == size

    differing = 0
    for index, request in enumerate(requests):
        for size in (2, 8):
            one, other = texts[1][index], texts[size][index]
            if one == other:
                continue
            differing += 1
            prompt, left, right = one.prompt_token_ids, one.completion_token_ids, other.completion_token_ids
            assert prompt is not None
            assert left is not None
            assert right is not None
            place = next(place for place in range(len(left)) if left[: place + 1] != right[: place + 1])
            assert deciding_gap(engine.model, prompt, left, place, seed=request.seed, sampling=sampling) < 1e-3
    print(f"{differing} of {2 * len(requests)} rows differ from micro-batch 1, each from a token decided by < 1e-3")
