from __future__ import annotations

import random

import pytest
import torch

from mae_cli.plugins.contracts import Unit
from mae_cli.prompts.chat_template import PLAIN_TEMPLATE, open_chat
from mae_cli.training.batches import collate, micro_batches, num_steps, order, shared_prefix, steps
from mae_cli.training.examples import TrainingExample, marked, read_examples

from .conftest import Tiny, make_row

CPU = torch.device("cpu")


def example(number: int, prompt: int, completion: int) -> TrainingExample:
    return TrainingExample(
        str(number), "solver", "g", 1.0, tuple(range(1, prompt + 1)), tuple(range(50, 50 + completion))
    )


def singles(rows: list[TrainingExample]) -> list[Unit]:
    return [Unit((index,), 1.0) for index in range(len(rows))]


def alone(number: int) -> list[tuple[int, ...]]:
    return [(index,) for index in range(number)]


def read(tiny: Tiny, *rows: object, max_length: int = 256, needs_reward: bool = False):  # type: ignore[no-untyped-def]
    return read_examples(
        rows,  # type: ignore[arg-type]
        tiny.chat,
        ends=tiny.end_ids,
        max_length=max_length,
        needs_reward=needs_reward,
    )


def test_the_ids_of_the_engine_are_used_as_they_are(tiny: Tiny) -> None:
    row = make_row(tiny.chat, "what is one plus one", " two")
    # "two" in single letters: text that tokenises otherwise, as a sampled completion may be
    row.completion_token_ids = [*(tiny.chat.tokenizer.convert_tokens_to_ids(letter) for letter in "two"), 3]

    found = read(tiny, row)

    assert list(found.examples[0].prompt) == row.prompt_token_ids
    assert list(found.examples[0].completion) == row.completion_token_ids
    assert found.retokenised == 0


def test_a_row_without_ids_is_tokenised_again_and_counted(tiny: Tiny) -> None:
    row = make_row(tiny.chat, "what is one plus one", " two")
    with_ids = read(tiny, row).examples[0]
    row.prompt_token_ids = row.completion_token_ids = None

    found = read(tiny, row)

    assert found.examples == [with_ids]
    assert found.retokenised == 1


def test_reasoning_is_trained_with_the_answer_when_text_is_tokenised_again(tiny: Tiny) -> None:
    row = make_row(tiny.chat, "what is one plus one", " two")
    row.raw, row.completion_token_ids = "<think> one</think> two", None

    completion = read(tiny, row).examples[0].completion

    assert tiny.chat.tokenizer.decode(completion) == "<think> one</think> two<|im_end|>"


def test_a_row_that_stopped_without_an_end_token_gets_the_one_of_its_template(tiny: Tiny) -> None:
    row = make_row(tiny.chat, "what is one plus one", " two")
    assert row.completion_token_ids is not None
    row.completion_token_ids = row.completion_token_ids[:-1]

    completion = read(tiny, row).examples[0].completion

    assert completion[-1] == tiny.chat.tokenizer.convert_tokens_to_ids("<|im_end|>")


def test_a_truncated_row_gets_no_end_token(tiny: Tiny) -> None:
    row = make_row(tiny.chat, "what is one plus one", " two")
    row.completion_token_ids, row.finish_reason = [10, 11], "length"

    assert read(tiny, row).examples[0].completion == (10, 11)


def test_a_template_without_a_turn_end_gives_the_end_of_text(tiny: Tiny) -> None:
    chat = open_chat(tiny.chat.tokenizer, template=PLAIN_TEMPLATE.replace("eos_token", "nothing"))

    assert chat.turn_end(tiny.end_ids).ids == (tiny.chat.tokenizer.eos_token_id,)


def test_a_template_that_refuses_an_assistant_turn_gives_the_end_of_text(tiny: Tiny) -> None:
    template = (
        "{% for message in messages %}{% if message.role == 'assistant' %}{{ raise_exception('no') }}{% endif %}"
        "{{ message.content }}{% endfor %}"
    )

    assert open_chat(tiny.chat.tokenizer, template=template).turn_end(tiny.end_ids).ids == (1,)


def test_rows_that_cannot_be_trained_are_dropped_and_counted(tiny: Tiny) -> None:
    good = make_row(tiny.chat, "one", " two")
    failed = make_row(tiny.chat, "one", " two", index=1)
    failed.status = "error"
    empty = make_row(tiny.chat, "one", "", index=2)
    empty.completion_token_ids, empty.finish_reason = [], "length"
    long = make_row(tiny.chat, "one", " two" * 60, index=3)
    unknown = make_row(tiny.chat, "one", " two", reward=None, index=4)

    found = read(tiny, good, failed, empty, long, unknown, max_length=40, needs_reward=True)

    assert [row.id for row in found.examples] == [good.id]
    assert found.dropped == {"no_completion": 2, "no_reward": 1, "too_long": 1}


def test_an_empty_reply_that_ended_by_itself_still_trains_its_end_token(tiny: Tiny) -> None:
    row = make_row(tiny.chat, "one", "")

    assert read(tiny, row).examples[0].completion == (tiny.chat.tokenizer.convert_tokens_to_ids("<|im_end|>"),)


def test_the_trained_span_is_exactly_the_completion() -> None:
    batch = collate([example(0, 3, 2), example(1, 1, 4)], [0, 1], device=CPU)

    # Row 0 holds 1 2 3 | 50 51, row 1 holds 1 | 50 51 52 53; 5 tokens each. A token is predicted one place before it:
    # row 0 from places 2 and 3, row 1 (which starts at 5) from places 5, 6, 7 and 8.
    assert batch.input_ids.tolist() == [[1, 2, 3, 50, 51], [1, 50, 51, 52, 53]]
    assert batch.positions.tolist() == [2, 3, 5, 6, 7, 8]
    assert batch.targets.tolist() == [50, 51, 50, 51, 52, 53]
    assert batch.mask.tolist() == [[True, True, False, False], [True] * 4]


def test_the_end_token_is_trained_even_when_padding_uses_the_same_id() -> None:
    short = TrainingExample("0", "solver", "g", 1.0, (7,), (8, 0))

    batch = collate([short, example(1, 2, 4)], [0, 1], device=CPU)

    # Padding is written with id 0; the end token 0 of the short row is a target all the same, its padding is not.
    assert batch.targets[:2].tolist() == [8, 0]
    assert batch.mask[0].tolist() == [True, True, False, False]


def test_the_order_depends_on_seed_and_epoch_and_not_on_the_order_of_the_file() -> None:
    rows = [example(number, 1, 1) for number in range(20)]
    mixed = random.Random(3).sample(rows, 20)

    def ids(examples: list[TrainingExample], seed: int, epoch: int) -> list[str]:
        return [examples[index].id for index in order(examples, singles(examples), seed=seed, epoch=epoch)]

    assert ids(rows, 0, 1) == ids(mixed, 0, 1)
    assert ids(rows, 0, 1) != ids(rows, 0, 2)
    assert ids(rows, 0, 1) != ids(rows, 1, 1)
    assert sorted(ids(rows, 0, 1)) == sorted(row.id for row in rows)


def test_steps_hold_batch_size_rows_and_an_epoch_ends_with_a_smaller_one() -> None:
    rows = [example(number, 1, 1) for number in range(10)]

    planned = list(steps(rows, singles(rows), seed=0, batch_size=4, epochs=2, max_steps=0))

    assert [(step, epoch, len(indices)) for step, epoch, indices in planned] == [
        (1, 1, 4),
        (2, 1, 4),
        (3, 1, 2),
        (4, 2, 4),
        (5, 2, 4),
        (6, 2, 2),
    ]
    assert num_steps(10, batch_size=4, epochs=2, max_steps=0) == 6


def test_steps_after_a_checkpoint_are_the_rest_of_the_same_plan() -> None:
    rows = [example(number, 1, 1) for number in range(10)]
    options = {"seed": 0, "batch_size": 4, "epochs": 3, "max_steps": 7}

    assert list(steps(rows, singles(rows), **options, start=3)) == list(steps(rows, singles(rows), **options))[3:]
    assert len(list(steps(rows, singles(rows), **options))) == 7


def test_micro_batches_keep_every_row_once_within_the_budget() -> None:
    generator = random.Random(0)
    rows = [example(number, generator.randint(1, 30), generator.randint(1, 30)) for number in range(40)]

    groups = micro_batches(rows, alone(40), max_tokens=128)

    assert sorted(index for group in groups for index in group) == list(range(40))
    assert all(max(rows[index].length for index in group) * len(group) <= 128 for group in groups)


def test_a_group_ends_where_padding_costs_more_than_another_pass() -> None:
    rows = [example(0, 50, 50), example(1, 5, 5), example(2, 45, 45)]

    # padding to 100: 10 for the row of 90 and 90 more for the row of 10
    assert micro_batches(rows, alone(3), max_tokens=1000, pass_cost=9) == [[0], [2], [1]]
    assert micro_batches(rows, alone(3), max_tokens=1000, pass_cost=99) == [[0, 2], [1]]
    assert micro_batches(rows, alone(3), max_tokens=1000, pass_cost=100) == [[0, 2, 1]]


def test_roles_are_kept_apart_where_their_common_prompts_pay_for_the_passes() -> None:
    judge = [TrainingExample(str(number), "judge", "g", 1.0, (*[7] * 50, number), (2,) * 10) for number in range(3)]
    solver = [TrainingExample(str(number), "solver", "g", 1.0, (*[8] * 50, number), (2,) * 10) for number in range(3)]

    # Apart, 2 * 50 tokens are saved for each role, at three passes more than together.
    assert micro_batches(judge + solver, alone(6), max_tokens=1000, pass_cost=40) == [[0, 1, 2], [3, 4, 5]]
    assert micro_batches(judge + solver, alone(6), max_tokens=1000, pass_cost=90) == [[0, 1, 2, 3, 4, 5]]


def test_rows_of_one_prompt_go_together_where_their_prompt_pays_for_the_passes() -> None:
    # two problems of one role, four rollouts each; by length they would be mixed and share nothing
    rows = [
        TrainingExample(f"{problem}{number}", "solver", str(problem), 1.0, (problem,) * 60, (9,) * (10 + number))
        for number in range(4)
        for problem in (1, 2)
    ]

    groups = micro_batches(rows, alone(8), max_tokens=1000, pass_cost=32)

    assert sorted(sorted(group) for group in groups) == [[0, 2, 4, 6], [1, 3, 5, 7]]


def test_a_pair_is_never_cut_apart() -> None:
    rows = [example(number, 10, 5 + 9 * (number % 2)) for number in range(20)]
    pairs = [(index, index + 1) for index in range(0, 20, 2)]

    for budget in (1, 50, 100, 1000):
        groups = micro_batches(rows, pairs, max_tokens=budget, pass_cost=0)

        assert sorted(index for group in groups for index in group) == list(range(10))
        # a pair's longer side has 24 tokens, so 100 tokens hold two pairs
        assert max(len(group) for group in groups) == max(1, min(10, budget // 48))


def test_the_parts_of_a_mix_are_spread_evenly_over_the_steps() -> None:
    rows = [example(number, 1, 1) for number in range(40)]
    units = [Unit((index,), 1.0, part=int(index >= 30)) for index in range(40)]

    planned = [indices for _, _, indices in steps(rows, units, seed=0, batch_size=8, epochs=1, max_steps=0)]

    # 30 and 10 units over 5 steps: 6 and 2 in each
    assert [sum(units[index].part for index in indices) for indices in planned] == [2] * 5


def test_a_shared_prefix_is_taken_out_of_every_row() -> None:
    batch = collate([example(0, 4, 1), example(1, 5, 2)], [0, 1], device=CPU, shared=3)

    # Prompts 1 2 3 4 and 1 2 3 4 5 without 1 2 3; what is left is 4 | 50 and 4 5 | 50 51, four tokens wide.
    assert batch.prefix.tolist() == [1, 2, 3]
    assert batch.input_ids.tolist() == [[4, 50, 0, 0], [4, 5, 50, 51]]
    assert batch.positions.tolist() == [0, 5, 6]


def test_a_prefix_is_shared_only_where_it_saves_more_than_a_pass() -> None:
    rows = [example(number, 11, 5) for number in range(4)]

    # 10 common tokens, computed once instead of four times
    assert shared_prefix(rows, 29) == 10
    assert shared_prefix(rows, 30) == 0
    assert shared_prefix(rows[:1], 0) == 0


def test_a_row_over_the_budget_goes_alone() -> None:
    rows = [example(0, 50, 50), example(1, 50, 50)]

    assert micro_batches(rows, alone(2), max_tokens=10) == [[0], [1]]


def test_show_batch_marks_the_trained_span(tiny: Tiny) -> None:
    found = read(tiny, make_row(tiny.chat, "what is one plus one", " two"))

    text = marked(found.examples[0], tiny.chat.tokenizer)

    assert text == "<|im_start|>user\nwhat is one plus one<|im_end|>\n<|im_start|>assistant\n⟦ two<|im_end|>⟧"


@pytest.mark.parametrize("max_steps", [0, 3, 100])
def test_the_number_of_steps_is_that_of_the_plan(max_steps: int) -> None:
    rows = [example(number, 1, 1) for number in range(7)]

    planned = list(steps(rows, singles(rows), seed=0, batch_size=3, epochs=4, max_steps=max_steps))

    assert len(planned) == num_steps(7, batch_size=3, epochs=4, max_steps=max_steps)
