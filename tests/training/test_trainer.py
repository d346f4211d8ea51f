from __future__ import annotations

import inspect
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from mae_cli.errors import CollapseError, ConfigError, DataError, EngineError, GateError
from mae_cli.plugins.contracts import Needs, ObjectiveBatch, ObjectiveOutput
from mae_cli.plugins.objectives.sft import Sft
from mae_cli.plugins.registry import OBJECTIVES, build
from mae_cli.recipe.sections import FinetuneSection
from mae_cli.records import Row
from mae_cli.training.forward import Forward
from mae_cli.training.job import TrainingTask
from mae_cli.training.logs import TrainReport
from mae_cli.training.optimization import learning_rate
from mae_cli.training.trainer import BaseModel, Callbacks, TrainedFacts, train

from .conftest import Tiny, make_groups, make_row, make_rows, train_tiny

PROMPT = torch.tensor([[5, 6, 7, 8, 9]])
WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


class Breaks(msgspec.Struct, frozen=True):
    """Sft whose loss is multiplied in every forward pass after the first `good`."""

    calls: list[int]
    good: int = 2
    factor: float = float("nan")

    @property
    def needs(self) -> Needs:
        return Needs()

    def plan(self, rows: Sequence[Any], *, min_spread: float) -> Any:
        return Sft().plan(rows, min_spread=min_spread)

    def scales(self, units: Sequence[Any], tokens: Sequence[int]) -> list[float]:
        return Sft().scales(units, tokens)

    def loss(self, batch: ObjectiveBatch) -> ObjectiveOutput:
        self.calls.append(1)
        output = Sft().loss(batch)
        return ObjectiveOutput(output.losses * (1.0 if len(self.calls) <= self.good else self.factor))


def run(tiny: Tiny, rows: Sequence[Row], output: Path, *, objective: Any = None, **options: Any) -> TrainReport:
    train_options = {
        name: options.pop(name)
        for name in ("seed", "start_adapter", "checkpoint_dir", "on_step", "on_text")
        if name in options
    }
    section = FinetuneSection(**{"learning_rate": 1e-3, "lora_r": 4, "lora_alpha": 8, **options})
    return train_tiny(tiny, rows, section, output, objective=objective, base_name="the/base", **train_options)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = load_file(folder / "adapter_model.safetensors")
    return tensors


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = model(input_ids=PROMPT).logits
    return result


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_the_micro_batch_changes_no_result(objective: str, tiny: Tiny, tmp_path: Path) -> None:
    rows = make_groups(tiny.chat)
    for name, tokens in (("one", 1), ("some", 150), ("all", 100_000)):
        run(
            tiny,
            rows,
            tmp_path / name,
            objective=build("objectives", objective),
            batch_size=6,
            epochs=2,
            micro_batch_tokens=tokens,
        )

    for name in ("one", "some"):
        for ours, theirs in zip(
            lines(tmp_path / name / "train_log.jsonl")[1:], lines(tmp_path / "all" / "train_log.jsonl")[1:], strict=True
        ):
            assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)
            assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-4)


def test_the_loss_is_the_mean_over_the_trained_tokens_of_the_step(tiny: Tiny, tmp_path: Path) -> None:
    rows = make_rows(tiny.chat, 5)
    total, tokens = 0.0, 0
    for row in rows:
        assert row.prompt_token_ids is not None
        assert row.completion_token_ids is not None
        ids = torch.tensor([[*row.prompt_token_ids, *row.completion_token_ids]])
        start = len(row.prompt_token_ids)
        with torch.no_grad():
            scores = tiny.model(input_ids=ids).logits[0, start - 1 : -1]
        total += torch.nn.functional.cross_entropy(scores, ids[0, start:], reduction="sum").item()
        tokens += len(row.completion_token_ids)

    report = run(tiny, rows, tmp_path / "out", batch_size=5)

    # A fresh LoRA changes nothing, so the first loss is the base model's own.
    assert report.first_loss == pytest.approx(total / tokens, abs=1e-4)
    assert report.trained_tokens == tokens


def test_the_base_model_is_as_it_was_after_training(tiny: Tiny, tmp_path: Path) -> None:
    before, random_state = logits(tiny.model), torch.get_rng_state()
    names = [name for name, _ in tiny.model.named_modules()]

    run(tiny, make_rows(tiny.chat), tmp_path / "out", batch_size=4, gradient_checkpointing=True)

    assert torch.equal(logits(tiny.model), before)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert [name for name, _ in tiny.model.named_modules()] == names
    assert all(parameter.requires_grad for parameter in tiny.model.parameters())
    assert not tiny.model.training
    assert not tiny.model.is_gradient_checkpointing
    assert not hasattr(tiny.model, "peft_config")


def test_gradient_checkpointing_changes_no_result(tiny: Tiny, tmp_path: Path) -> None:
    rows = make_rows(tiny.chat, 4)

    plain = run(tiny, rows, tmp_path / "plain", batch_size=2)
    saving = run(tiny, rows, tmp_path / "saving", batch_size=2, gradient_checkpointing=True)

    assert saving.last_loss == pytest.approx(plain.last_loss, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_train_a_float32_adapter(dtype: torch.dtype, tiny: Tiny, tmp_path: Path) -> None:
    rows = make_rows(tiny.chat, 4)
    exact = run(tiny, rows, tmp_path / "exact", batch_size=4)
    tiny.model.to(dtype)

    report = run(tiny, rows, tmp_path / "half", batch_size=4)

    # bfloat16 keeps 8 bits: about 1 %
    assert report.first_loss == pytest.approx(exact.first_loss, rel=2e-2)
    assert tiny.model.dtype == dtype
    assert {tensor.dtype for tensor in weights(tmp_path / "half").values()} == {torch.float32}


def test_the_folder_loads_with_peft_and_holds_what_it_promises(tiny: Tiny, tmp_path: Path) -> None:
    rows = make_rows(tiny.chat, 6)
    before = logits(tiny.model)

    run(tiny, rows, tmp_path / "out", batch_size=3, learning_rate=1e-2)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    loaded = PeftModel.from_pretrained(tiny.model, str(tmp_path / "out"))

    assert not torch.allclose(logits(loaded), before, atol=1e-3)
    assert loaded.peft_config["default"].base_model_name_or_path == "the/base"
    assert {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"} <= names
    assert not any(name.endswith(".tmp") for name in names)
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert card.startswith('---\nbase_model: "the/base"\nbase_model_relation: adapter\nlibrary_name: peft\n')
    template = (tmp_path / "out" / "chat_template.jinja").read_text("utf-8")
    assert template == tiny.chat.template


def test_equal_trainings_write_equal_bytes_and_the_seed_matters(tiny: Tiny, tmp_path: Path) -> None:
    rows = make_rows(tiny.chat, 6)
    run(tiny, rows, tmp_path / "one", batch_size=3)
    torch.rand(5)  # the global random state must not matter
    run(tiny, rows[::-1], tmp_path / "two", batch_size=3)
    run(tiny, rows, tmp_path / "other", batch_size=3, seed=1)

    for path in sorted((tmp_path / "one").iterdir()):
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name
    name = "adapter_model.safetensors"
    assert (tmp_path / "one" / name).read_bytes() != (tmp_path / "other" / name).read_bytes()


def test_an_adapter_is_continued_from_its_weights_with_a_fresh_optimizer(tiny: Tiny, tmp_path: Path) -> None:
    rows = make_rows(tiny.chat, 6)
    first = run(tiny, rows, tmp_path / "first", batch_size=6, epochs=8, learning_rate=1e-2)

    second = run(tiny, rows, tmp_path / "second", batch_size=6, start_adapter=tmp_path / "first", learning_rate=1e-9)

    assert second.first_loss is not None
    assert first.last_loss is not None
    assert second.first_loss < first.last_loss
    for name, tensor in weights(tmp_path / "first").items():
        torch.testing.assert_close(weights(tmp_path / "second")[name], tensor, atol=1e-6, rtol=0)


def test_an_adapter_of_another_base_is_refused_and_leaves_the_base_clean(tiny: Tiny, tmp_path: Path) -> None:
    rows = make_rows(tiny.chat, 2)
    run(tiny, rows, tmp_path / "first")
    config = json.loads((tmp_path / "first" / "adapter_config.json").read_text("utf-8"))
    config["target_modules"] = ["q_proj"]
    (tmp_path / "first" / "adapter_config.json").write_text(json.dumps(config), "utf-8")

    with pytest.raises(EngineError, match="for another base model"):
        run(tiny, rows, tmp_path / "second", start_adapter=tmp_path / "first")
    with pytest.raises(EngineError, match=r"not an adapter|does not fit this model"):
        run(tiny, rows, tmp_path / "second", start_adapter=tmp_path / "nowhere")

    assert not any("lora" in name for name, _ in tiny.model.named_modules())


def test_unknown_target_modules_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"finetune\.target_modules"):
        run(tiny, make_rows(tiny.chat, 2), tmp_path / "out", target_modules="nothing_proj")


def test_target_modules_by_name(tiny: Tiny, tmp_path: Path) -> None:
    run(tiny, make_rows(tiny.chat, 2), tmp_path / "out", target_modules="q_proj, v_proj")

    assert {name.split(".")[-3] for name in weights(tmp_path / "out")} == {"q_proj", "v_proj"}


def test_nothing_to_train_is_refused_with_the_reasons(tiny: Tiny, tmp_path: Path) -> None:
    rows = make_rows(tiny.chat, 3)

    with pytest.raises(DataError, match=r"no row with a trained token.*3 too_long"):
        run(tiny, rows, tmp_path / "out", max_length=5)
    with pytest.raises(DataError, match="the input has no rows"):
        run(tiny, [], tmp_path / "out")


def test_a_role_without_spread_is_left_out_and_named(tiny: Tiny, tmp_path: Path) -> None:
    rows = [make_row(tiny.chat, "one", " two", reward=index / 2, index=index) for index in range(3)]
    rows += [make_row(tiny.chat, "one", " two", role="judge", reward=1.0, index=index) for index in range(2)]
    texts: list[str] = []

    report = run(tiny, rows, tmp_path / "out", objective=build("objectives", "reinforce_pp"), on_text=texts.append)

    assert report.rows == 3
    assert report.data.skipped == ["judge"]
    assert report.data.dropped == {"no_spread": 2}
    assert any("skipped" in text and "judge" in text for text in texts)
    assert {row["role"] for row in lines(tmp_path / "out" / "train_rows.jsonl")} == {"solver"}


def test_rewards_that_all_agree_are_a_gate_and_not_a_training(tiny: Tiny, tmp_path: Path) -> None:
    rows = [make_row(tiny.chat, "one", " two", reward=1.0, index=index) for index in range(3)]

    with pytest.raises(GateError, match="solver"):
        run(tiny, rows, tmp_path / "out", objective=build("objectives", "reinforce_pp"))


def test_the_log_tells_roles_rewards_and_drops_and_no_times(tiny: Tiny, tmp_path: Path) -> None:
    rows = [make_row(tiny.chat, "one", " two", reward=float(index), index=index) for index in range(3)]
    rows.append(make_row(tiny.chat, "one", " two" * 200, index=9))
    rows[0].completion_token_ids = None

    run(tiny, rows, tmp_path / "out", objective=build("objectives", "reinforce_pp"), batch_size=2, max_length=100)
    first, *later = lines(tmp_path / "out" / "train_log.jsonl")

    # rewards 0, 1, 2: mean 1, population spread sqrt(2 / 3) = 0.8165
    role = first["roles"][0]
    assert role["reward_mean"] == 1.0
    assert role["reward_spread"] == pytest.approx(0.816497, abs=1e-6)
    assert role["advantage_mean"] == pytest.approx(0.0, abs=1e-9)
    assert role["advantage_spread"] == pytest.approx(1.0, abs=1e-6)
    assert first["dropped"] == {"too_long": 1}
    assert first["retokenised"] == 1
    assert [line["step"] for line in later] == [1, 2]
    assert [line["rows"] for line in later] == [2, 1]
    assert set(later[0]["metrics"]) == {"clip_share", "entropy", "kl_behaviour"}
    assert "second" not in (tmp_path / "out" / "train_log.jsonl").read_text("utf-8")


def test_train_rows_list_what_was_trained_in_order(tiny: Tiny, tmp_path: Path) -> None:
    rows = make_rows(tiny.chat, 5)

    run(tiny, rows, tmp_path / "out", batch_size=2, epochs=2, max_steps=4)
    trained = lines(tmp_path / "out" / "train_rows.jsonl")

    # 2 + 2 + 1 rows in the first pass, 2 in the fourth step
    assert sorted(row["id"] for row in trained) == sorted(row.id for row in rows)
    assert sum(row["passes"] for row in trained) == 7
    assert set(trained[0]) == {"id", "role", "reward", "advantage", "tokens", "passes"}


def test_the_ratio_is_1_in_the_first_step_and_moves_in_the_second_pass(tiny: Tiny, tmp_path: Path) -> None:
    options = {"objective": build("objectives", "reinforce_pp"), "batch_size": 12, "learning_rate": 1e-2}

    run(tiny, make_rows(tiny.chat), tmp_path / "out", epochs=3, **options)
    metrics = [line["metrics"] for line in lines(tmp_path / "out" / "train_log.jsonl")[1:]]

    assert metrics[0]["kl_behaviour"] == 0.0
    assert metrics[0]["clip_share"] == 0.0
    assert metrics[2]["kl_behaviour"] > 1e-4


@pytest.mark.parametrize("good", [0, 3])
def test_a_loss_that_is_not_a_number_stops_and_keeps_the_last_adapter_whose_loss_was_good(
    good: int, tiny: Tiny, tmp_path: Path
) -> None:
    rows = make_rows(tiny.chat, 8)
    # The loss of step 4 is that of the adapter after 3 updates, so the last adapter with a good loss had 2.
    kept = max(0, good - 1)
    if kept:
        run(tiny, rows, tmp_path / "expected", batch_size=1, max_steps=kept)

    with pytest.raises(CollapseError, match=f"loss of step {good + 1} is not finite.* adapter of step {kept} is kept"):
        run(tiny, rows, tmp_path / "out", objective=Breaks([], good), batch_size=1)

    log = lines(tmp_path / "out" / "train_log.jsonl")
    assert log[-1] == {"kept_step": kept, "collapse": f"the loss of step {good + 1} is not finite"}
    assert [line["step"] for line in log[1:-1]] == list(range(1, good + 1))
    assert len(lines(tmp_path / "out" / "train_rows.jsonl")) == kept
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path / "out").values())
    if kept:
        for name, tensor in weights(tmp_path / "expected").items():
            assert torch.equal(weights(tmp_path / "out")[name], tensor)
    assert not any("lora" in name for name, _ in tiny.model.named_modules())


def test_the_same_command_after_a_collapse_keeps_the_same_adapter(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = make_rows(tiny.chat, 8)
    options = {"batch_size": 1, "save_every": 1, "checkpoint_dir": tmp_path / "checkpoints"}
    with pytest.raises(CollapseError, match="adapter of step 2 is kept"):
        run(tiny, rows, tmp_path / "out", objective=Breaks([], 3), **options)

    # It goes on from the checkpoint after step 3, whose update has to be taken back once more.
    broken = ObjectiveOutput(torch.full((1,), float("nan"), requires_grad=True))
    monkeypatch.setattr(Breaks, "loss", lambda self, batch: broken)
    with pytest.raises(CollapseError, match=r"loss of step 4 is not finite.* adapter of step 2 is kept"):
        run(tiny, rows, tmp_path / "again", objective=Breaks([], 3), **options)

    for name, tensor in weights(tmp_path / "out").items():
        assert torch.equal(weights(tmp_path / "again")[name], tensor)


def test_a_training_that_breaks_the_model_stops_before_its_loss_is_infinite(tiny: Tiny, tmp_path: Path) -> None:
    rows = make_rows(tiny.chat, 12)

    options = {"batch_size": 4, "epochs": 20, "learning_rate": 3e-2}

    # After four steps the sign turns, and the model unlearns its own texts as fast as it can.
    with pytest.raises(CollapseError, match=r"the loss of step \d+ jumped: [\d.]+ nats per trained token"):
        run(tiny, rows, tmp_path / "out", objective=Breaks([], 4, -1.0), **options)
    log = lines(tmp_path / "out" / "train_log.jsonl")
    kept = log[-1]["kept_step"]
    run(tiny, rows, tmp_path / "calm", objective=Breaks([], 4, -1.0), **options, max_steps=kept, max_nll_jump=0.0)

    assert 4 < kept < 20
    assert log[-2]["step"] == kept + 1
    nlls = [line["nll"] for line in log[1:-1]]
    assert all(nll <= median(nlls[:place]) + 6.0 for place, nll in enumerate(nlls) if place >= 3)
    for name, tensor in weights(tmp_path / "calm").items():
        assert torch.equal(weights(tmp_path / "out")[name], tensor)


def test_a_checkpoint_of_other_settings_is_refused_with_both_values(tiny: Tiny, tmp_path: Path) -> None:
    rows = make_rows(tiny.chat, 6)
    options = {"batch_size": 3, "save_every": 1, "checkpoint_dir": tmp_path / "checkpoints"}
    run(tiny, rows, tmp_path / "out", **options)

    with pytest.raises(ConfigError, match=r"finetune\.learning_rate: 0\.001 there, 0\.002 now"):
        run(tiny, rows, tmp_path / "out", learning_rate=2e-3, **options)
    with pytest.raises(ConfigError, match="rows: "):
        run(tiny, rows[1:], tmp_path / "out", **options)

    shutil.rmtree(tmp_path / "checkpoints")
    run(tiny, rows[1:], tmp_path / "out", **options)


def test_a_broken_checkpoint_is_named(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "state.pt").write_bytes(b"torn")

    with pytest.raises(DataError, match=r"state\.pt: not a readable checkpoint"):
        run(tiny, make_rows(tiny.chat, 2), tmp_path / "out", checkpoint_dir=tmp_path / "checkpoints")


def test_show_batch_tells_the_examples_of_the_first_step(tiny: Tiny, tmp_path: Path) -> None:
    texts: list[str] = []

    run(tiny, make_rows(tiny.chat, 6), tmp_path / "out", show_batch=2, on_text=texts.append)

    shown = [text for text in texts if "⟦" in text]
    assert len(shown) == 2
    assert all(text.endswith("<|im_end|>⟧") for text in shown)


def test_greedy_replies_end_by_themselves_after_twenty_steps(tiny: Tiny, tmp_path: Path) -> None:
    rows = [
        make_row(tiny.chat, f"what is {word} plus one", " the answer is ten", index=index)
        for index, word in enumerate(WORDS)
    ]
    run(tiny, rows, tmp_path / "out", batch_size=10, epochs=20, learning_rate=2e-2, lora_r=8, lora_alpha=16)
    policy = PeftModel.from_pretrained(tiny.model, str(tmp_path / "out")).eval()

    ended = 0
    for row in rows:
        ids = list(row.prompt_token_ids or [])
        for _ in range(12):
            with torch.no_grad():
                ids.append(int(policy(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] in tiny.end_ids:
                ended += 1
                break

    assert ended >= 0.95 * len(rows)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        # peak 1.0 over 6 steps, 2 of them warm-up: 1/2, 2/2, then 4 steps of the schedule from the peak on
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]),
        # (1 + cos(pi k / 4)) / 2 for k = 0, 1, 2, 3
        ("cosine", [0.5, 1.0, 1.0, 0.853553, 0.5, 0.146447]),
    ],
)
def test_learning_rates_by_hand(schedule: Any, expected: list[float]) -> None:
    section = FinetuneSection(schedule=schedule, warmup_steps=2, learning_rate=1.0)

    assert [learning_rate(section, step, 6) for step in range(1, 7)] == pytest.approx(expected, abs=1e-6)


def test_the_reference_is_the_start_the_base_or_another_adapter(tiny: Tiny, tmp_path: Path) -> None:
    rows = make_groups(tiny.chat)
    for name, seed in (("previous", 0), ("other", 1)):
        run(tiny, rows, tmp_path / name, epochs=4, learning_rate=3e-2, seed=seed)
    options: dict[str, Any] = {"objective": build("objectives", "dpo"), "start_adapter": tmp_path / "previous"}

    def first_loss(reference: str, **more: Any) -> float:
        found = run(tiny, rows, tmp_path / "out", batch_size=2, reference=reference, **options, **more).first_loss
        assert found is not None
        return found

    # SPIN: policy and opponent are one, so the first loss is ln 2, whether the opponent is read as the start or loaded.
    assert first_loss("start") == pytest.approx(math.log(2.0), abs=1e-6)
    assert first_loss(str(tmp_path / "previous")) == pytest.approx(math.log(2.0), abs=1e-6)
    # One step only: the base and the other adapter are still not the policy.
    for reference in ("base", str(tmp_path / "other")):
        assert abs(first_loss(reference) - math.log(2.0)) > 1e-3
        assert first_loss(reference, max_steps=1) == pytest.approx(first_loss(reference), abs=1e-6)
    assert sorted(weights(tmp_path / "out")) == sorted(weights(tmp_path / "previous"))
    assert not any("lora" in name for name, _ in tiny.model.named_modules())


def test_a_reference_that_does_not_fit_is_named_and_leaves_the_base_clean(tiny: Tiny, tmp_path: Path) -> None:
    rows = make_groups(tiny.chat)
    run(tiny, rows, tmp_path / "narrow", target_modules="q_proj")
    config = json.loads((tmp_path / "narrow" / "adapter_config.json").read_text("utf-8"))
    (tmp_path / "narrow" / "adapter_config.json").write_text(json.dumps({**config, "target_modules": ["k_proj"]}))
    before = logits(tiny.model)

    for place, message in (("narrow", "for another base model|does not fit"), ("nowhere", "not an adapter")):
        with pytest.raises(EngineError, match=message):
            run(tiny, rows, tmp_path / "out", objective=build("objectives", "dpo"), reference=str(tmp_path / place))

    assert torch.equal(logits(tiny.model), before)
    assert not any("lora" in name for name, _ in tiny.model.named_modules())


def test_frozen_policies_are_read_once_and_only_where_a_loss_needs_them(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, passes = make_groups(tiny.chat), []
    read = Forward.read
    monkeypatch.setattr(Forward, "read", lambda self, *given: passes.append(1) or read(self, *given))

    def count(objective: Any, **options: Any) -> int:
        passes.clear()
        run(tiny, rows, tmp_path / "out", objective=build("objectives", objective), **options)
        return len(passes)

    kl = {"name": "grpo", "kl_coefficient": 0.1}
    # 12 rows: one step, or two of 6 (one pass over the rows of each step); behaviour and start are one policy
    assert count("sft", batch_size=6) == 0
    assert count("grpo", batch_size=12) == 0
    assert count("grpo", batch_size=6) == 2
    assert count(kl, batch_size=6) == 2
    assert count(kl, batch_size=12, reference="base") == 1
    assert count(kl, batch_size=6, reference="base") == 4
    assert count("simpo", batch_size=1) == 0


def test_the_trainer_describes_nothing_and_takes_few_arguments(tiny: Tiny, tmp_path: Path) -> None:
    """Fault 13 of the house: 17 parameters, and lineage and card were the trainer's."""
    section = FinetuneSection(lora_r=4, batch_size=3, max_steps=1)
    saved: list[tuple[Path, TrainedFacts]] = []

    train(
        BaseModel(tiny.model, tiny.chat, tiny.end_ids, "the/base"),
        TrainingTask(make_rows(tiny.chat, 3), section, Sft(), 0),
        tmp_path / "out",
        callbacks=Callbacks(on_saved=lambda folder, facts: saved.append((folder, facts))),
    )

    assert not (tmp_path / "out" / "lineage.json").exists()
    # peft writes a card of its own.
    assert "mae finetune" not in (tmp_path / "out" / "README.md").read_text("utf-8")
    ((folder, facts),) = saved
    assert (folder, facts.steps, facts.rows, facts.parent, facts.stopped) == (tmp_path / "out", 1, 3, None, None)
    assert len(inspect.signature(train).parameters) <= 7
