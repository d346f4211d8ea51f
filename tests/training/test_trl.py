"""Losses and LoRA gradients of a step equal those of TRL 1.16 on the same batch, with LoRA B drawn non-zero.

Our side is the training loop's own accumulation (micro-batches, shared prefixes, logits at completion tokens only), the
other TRL's `compute_loss` over padded rows. Some layers (TRL's fused output layer, Llama's norm) and TRL's ORPO round
to float32 whatever the model's type; where float64 is compared, exact ones take their place. The formulas stay TRL's.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from mae_cli.models.load import end_token_ids, load_model, load_tokenizer
from mae_cli.plugins.registry import build
from mae_cli.prompts.chat_template import open_chat
from mae_cli.recipe.sections import FinetuneSection
from mae_cli.training.base_noise import without_base_noise
from mae_cli.training.frozen_policies import Frozen, read_frozen
from mae_cli.training.job import TrainingTask
from mae_cli.training.lora_tuning import LoraTuning
from mae_cli.training.optimization import Loop
from mae_cli.training.trainer import prepare
from mae_cli.training.tuning import trainable

from .conftest import Tiny, make_row

pytest.importorskip("trl")

QUESTIONS = [
    "what is the sum of one plus four",
    "how many apples has sam left",
    "think step by step now",
    "zoe buys ten",
]
GOOD = [" the answer is five", " six", " so the answer is two plus three", " ten coins in total"]
BAD = [" so nine books and ten coins", " three apples is the answer now", " one", " how many"]
# Behaviour log-probabilities are the policy's plus such steps: ratios from 0.5 to 4, so every clip is met.
DRIFT = torch.tensor([0.0, 0.05, -0.1, 0.4, -0.5, 0.7, -1.4])


class Side:
    """One model under test with everything that both implementations need."""

    def __init__(self, tiny: Tiny, policy: Any, dtype: torch.dtype) -> None:
        self.tiny, self.policy, self.dtype = tiny, policy, dtype
        self.exact = dtype == torch.float64
        self.rows = [
            make_row(tiny.chat, question, text, reward=reward, index=index, group=question)
            # A real model is slow, and half of the rows meet every branch as well.
            for question, *texts in list(zip(QUESTIONS, GOOD, BAD, strict=True))[: 4 if self.exact else 2]
            for index, (text, reward) in enumerate(zip(texts, (1.0, 0.0), strict=True))
        ]

    def ours(self, objective: dict[str, Any], *, drift: bool = False) -> tuple[float, dict[str, torch.Tensor], Any]:
        """Loss and gradients of one step over all units, and the job."""
        section = FinetuneSection(objective=objective, reference="base", batch_size=100, epochs=2, save_every=0)
        task = TrainingTask(self.rows, section, build("objectives", objective), 0)
        job = prepare(task, self.tiny.chat, end_ids=self.tiny.end_ids, origin={})
        loop = Loop(self.policy, job, None, lambda text: None)
        loop.frozen = read_frozen(
            loop.forward, job, None, loop.world, loop.tuning, resumed=False, say=lambda text: None
        )
        if drift:
            loop.frozen.behaviour = {
                row: value - DRIFT.to(value).repeat(len(value))[row : row + len(value)]
                for row, value in loop.frozen.behaviour.items()
            }
        self.policy.zero_grad(set_to_none=True)
        self.policy.train()
        with without_base_noise(self.policy):
            sums = loop._accumulate(1, job.steps()[0][2])
        return sums.loss, self.gradients(), (job, loop.frozen)

    def gradients(self) -> dict[str, torch.Tensor]:
        return {
            name: parameter.grad.clone() for name, parameter in trainable(self.policy) if parameter.grad is not None
        }

    def theirs(self, loss: Callable[[], torch.Tensor]) -> tuple[float, dict[str, torch.Tensor]]:
        self.policy.zero_grad(set_to_none=True)
        self.policy.eval()  # a base with dropout in its config is compared without it
        value = loss()
        value.backward()
        return value.item(), self.gradients()

    def compare(self, objective: dict[str, Any], loss: Callable[[Any], torch.Tensor], *, drift: bool = False) -> None:
        with exact() if self.exact else nullcontext():
            value, gradients, job = self.ours(objective, drift=drift)
            expected, their_gradients = self.theirs(lambda: loss(job))

        assert gradients.keys() == their_gradients.keys()
        assert len(gradients) > 0
        if self.exact:
            assert value == pytest.approx(expected, rel=1e-8, abs=1e-10)
            worst = max(relative(gradients[name], their_gradients[name]) for name in gradients)
            assert worst < 1e-8
        else:
            assert value == pytest.approx(expected, rel=1e-5, abs=1e-5)
            ours, other = (
                torch.cat([part[name].flatten() for name in gradients]) for part in (gradients, their_gradients)
            )
            assert relative(ours, other) < 1e-4


def relative(value: torch.Tensor, expected: torch.Tensor) -> float:
    """Norm of the difference over the norm."""
    return ((value - expected).norm() / expected.norm()).item()


@contextmanager
def exact() -> Iterator[None]:
    """No rounding to float32, neither in Llama's own layers nor in TRL's output layer."""
    from transformers.models.llama.modeling_llama import LlamaRMSNorm
    from trl.trainer import utils

    def norm(layer: Any, hidden: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = (
            layer.weight * hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + layer.variance_epsilon)
        )
        return result

    def apply(hidden: Any, weight: Any, bias: Any, labels: Any, *rest: Any) -> tuple[Any, ...]:
        temperature, _, _, scale, _ = rest
        logprobs = (torch.nn.functional.linear(hidden, weight, bias) * scale / temperature).log_softmax(-1)
        entropy = -(logprobs.exp() * logprobs).sum(-1)
        chosen = logprobs.gather(-1, labels[:, None])[:, 0]
        return chosen, entropy, entropy.detach(), entropy.detach(), (logprobs.argmax(-1) == labels)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "_ChunkedLogProbFunction", type("Exact", (), {"apply": staticmethod(apply)}))
        patch.setattr(LlamaRMSNorm, "forward", norm)
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        yield


@contextmanager
def opened(model_dir: Path, dtype: torch.dtype) -> Iterator[Side]:
    tokenizer = load_tokenizer(model_dir)
    chat = open_chat(tokenizer)
    model = load_model(model_dir, device=torch.device("cpu"), dtype=dtype)
    tiny = Tiny(model, chat, end_token_ids(model, tokenizer, chat.template))
    with LoraTuning(FinetuneSection(lora_r=4, lora_alpha=8)).attached(model, seed=0) as policy:
        torch.manual_seed(0)
        with torch.no_grad():
            for name, parameter in trainable(policy):
                parameter.data = parameter.data.to(dtype)
                if "lora_B" in name:
                    parameter.normal_(std=0.05)
        yield Side(tiny, policy, dtype)


@pytest.fixture(
    scope="module", params=["tiny", pytest.param("smollm2", marks=[pytest.mark.slow, pytest.mark.timeout(600)])]
)
def side(request: pytest.FixtureRequest, tiny_model_dir: Path) -> Iterator[Side]:
    if request.param == "tiny":
        with opened(tiny_model_dir, torch.float64) as found:
            yield found
    else:
        from mae_cli.models.locate import local_model

        with opened(local_model("smollm2-135m", None), torch.float32) as found:
            yield found


@pytest.fixture(scope="module")
def trainer(side: Side, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """TRL's trainers around the policy, made once each."""
    from datasets import Dataset

    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    made: dict[str, Any] = {}
    text = {"prompt": QUESTIONS, "chosen": GOOD, "rejected": BAD}
    data = {
        "SFT": {"prompt": QUESTIONS, "completion": GOOD},
        "KTO": {"prompt": QUESTIONS, "completion": GOOD, "label": [True, False, True, False]},
        "GRPO": {"prompt": QUESTIONS},
        "RLOO": {"prompt": QUESTIONS},
    }

    def make(kind: str) -> Any:
        if kind not in made:
            place = f"trl.experimental.{kind.lower()}" if kind in ("CPO", "ORPO") else "trl"
            module: Any = importlib.import_module(place)
            more = {"reward_funcs": lambda **given: [0.0]} if kind in ("GRPO", "RLOO") else {}
            args = getattr(module, f"{kind}Config")(
                output_dir=str(tmp_path_factory.mktemp(kind)),
                use_cpu=True,
                bf16=False,
                gradient_checkpointing=False,
                report_to="none",
                per_device_train_batch_size=4,
                **({"num_generations": 2} if more else {}),
            )
            tokenizer = side.tiny.chat.tokenizer
            made[kind] = getattr(module, f"{kind}Trainer")(
                model=side.policy,
                args=args,
                train_dataset=Dataset.from_dict(data.get(kind, text)),
                processing_class=tokenizer,
                **more,
            )
            if "ref" in side.policy.peft_config:
                # TRL would compare with a copy of the adapter; the reference here is the base.
                side.policy.delete_adapter("ref")
            for name, parameter in side.policy.named_parameters():
                parameter.requires_grad_("lora" in name)
        return made[kind]

    return make


def padded(side: Side, ids: list[list[int]], *, left: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask, (B, T)."""
    width = max(len(row) for row in ids)
    pad = side.tiny.chat.tokenizer.pad_token_id or 0
    fill = [[pad] * (width - len(row)) for row in ids]
    ones = [[0] * (width - len(row)) for row in ids]
    tokens = [gap + row if left else row + gap for gap, row in zip(fill, ids, strict=True)]
    mask = [gap + [1] * len(row) if left else [1] * len(row) + gap for gap, row in zip(ones, ids, strict=True)]
    return torch.tensor(tokens), torch.tensor(mask)


def whole(side: Side, examples: list[Any], prefix: str = "") -> dict[str, torch.Tensor]:
    """Right-padded rows with the completions marked."""
    ids, mask = padded(side, [[*row.prompt, *row.completion] for row in examples])
    marked, _ = padded(side, [[0] * len(row.prompt) + [1] * len(row.completion) for row in examples])
    trained = marked * mask if marked.shape == mask.shape else marked
    return {f"{prefix}input_ids": ids, f"{prefix}attention_mask": mask, f"{prefix}completion_mask": trained}


def parts(side: Side, job: Any) -> tuple[list[Any], dict[str, Any]]:
    """The examples of the units, and TRL's inputs for rollouts: prompts left padded, completions right padded."""
    examples = [job.examples[unit.rows[0]] for unit in job.units]
    prompts, prompt_mask = padded(side, [list(row.prompt) for row in examples], left=True)
    completions, mask = padded(side, [list(row.completion) for row in examples])
    return examples, {
        "prompt_ids": prompts,
        "prompt_mask": prompt_mask,
        "completion_ids": completions,
        "completion_mask": mask,
        "advantages": torch.tensor([unit.value for unit in job.units], dtype=side.dtype),
        "num_items_in_batch": mask.sum(),
    }


def table(side: Side, job: Any, values: dict[int, torch.Tensor]) -> torch.Tensor:
    """(B, T) of the units' rows."""
    rows = [values[unit.rows[0]] for unit in job.units]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(side.dtype)


def test_sft(side: Side, trainer: Callable[[str], Any]) -> None:
    def loss(given: tuple[Any, Frozen]) -> torch.Tensor:
        job, _ = given
        inputs = whole(side, [job.examples[unit.rows[0]] for unit in job.units])
        trained = inputs.pop("completion_mask")
        labels = inputs["input_ids"].masked_fill(trained == 0, -100)
        result: torch.Tensor = trainer("SFT").compute_loss(side.policy, {**inputs, "labels": labels})
        return result

    side.compare({"name": "sft"}, loss)


@pytest.mark.parametrize(
    ("objective", "kind", "options"),
    [
        ({"name": "dpo", "beta": 0.3}, "sigmoid", {"beta": 0.3}),
        ({"name": "ipo", "beta": 0.2}, "ipo", {"beta": 0.2}),
        ({"name": "hinge", "beta": 0.3}, "hinge", {"beta": 0.3}),
        ({"name": "robust", "label_smoothing": 0.15, "beta": 0.3}, "robust", {"beta": 0.3, "label_smoothing": 0.15}),
    ],
    ids=["dpo", "ipo", "hinge", "robust"],
)
def test_pairs_with_a_reference(
    objective: dict[str, Any], kind: str, options: dict[str, float], side: Side, trainer: Callable[[str], Any]
) -> None:
    def loss(given: tuple[Any, Frozen]) -> torch.Tensor:
        job, _ = given
        dpo = trainer("DPO")
        dpo.loss_types, dpo.loss_weights = [kind], [1.0]
        for name, value in options.items():
            setattr(dpo, name, value)
        sides = [job.examples[unit.rows[place]] for place in (0, 1) for unit in job.units]
        result: torch.Tensor = dpo._compute_loss(side.policy, whole(side, sides), False)
        return result

    side.compare(objective, loss)


def concatenated(side: Side, job: Any) -> dict[str, torch.Tensor]:
    """The columns of TRL's older pair trainers."""
    inputs = {}
    for name, place in (("chosen", 0), ("rejected", 1)):
        found = whole(side, [job.examples[unit.rows[place]] for unit in job.units])
        labels = found["input_ids"].masked_fill(found["completion_mask"] == 0, -100)
        inputs |= {f"{name}_input_ids": found["input_ids"], f"{name}_attention_mask": found["attention_mask"]}
        inputs |= {f"{name}_labels": labels}
    return inputs


def test_simpo(side: Side, trainer: Callable[[str], Any]) -> None:
    def loss(given: tuple[Any, Frozen]) -> torch.Tensor:
        cpo = trainer("CPO")
        cpo.loss_type, cpo.beta, cpo.simpo_gamma, cpo.cpo_alpha = "simpo", 1.5, 0.7, 0.0
        result: torch.Tensor = cpo.get_batch_loss_metrics(side.policy, concatenated(side, given[0]))[0]
        return result

    side.compare({"name": "simpo", "beta": 1.5, "gamma": 0.7}, loss)


def test_orpo_without_the_likelihood_whose_span_differs_on_purpose(side: Side, trainer: Callable[[str], Any]) -> None:
    def loss(given: tuple[Any, Frozen]) -> torch.Tensor:
        orpo = trainer("ORPO")
        orpo.beta = 0.4
        chosen, rejected = orpo.concatenated_forward(side.policy, concatenated(side, given[0]))[:2]
        result: torch.Tensor = -orpo.odds_ratio_loss(chosen, rejected)[0].mean()
        return result

    side.compare({"name": "orpo", "beta": 0.4, "sft_weight": 0.0}, loss)


def test_kto(side: Side, trainer: Callable[[str], Any]) -> None:
    def loss(given: tuple[Any, Frozen]) -> torch.Tensor:
        job, _ = given
        kto = trainer("KTO")
        kto.beta, kto.desirable_weight, kto.undesirable_weight = 0.3, 1.2, 0.8
        # The partner is chosen by `Job.mismatched` (another prompt); TRL takes whatever stands before.
        other = job.mismatched(job.steps()[0][2])
        inputs = whole(side, [job.examples[unit.rows[0]] for unit in job.units]) | whole(side, other, "KL_")
        inputs["label"] = torch.tensor([unit.value > 0 for unit in job.units])
        result: torch.Tensor = kto._compute_loss(side.policy, inputs, False)
        return result

    side.compare({"name": "kto", "beta": 0.3, "desirable_weight": 1.2, "undesirable_weight": 0.8}, loss)


GRPO = {"name": "grpo", "spread": "sample", "eps": 1e-4}
RATIOS = {"clip_low": 0.2, "clip_high": 0.28}


@pytest.mark.parametrize(
    ("objective", "kind", "options"),
    [
        ({**GRPO, **RATIOS, "kl_coefficient": 0.1}, "grpo", {"beta": 0.1}),
        (
            {**GRPO, **RATIOS, "kl_coefficient": 0.1, "kl_estimator": "k3_unbiased"},
            "grpo",
            {"beta": 0.1, "use_bias_correction_kl": True},
        ),
        ({**GRPO, **RATIOS, "reduction": "token_mean"}, "dapo", {}),
        (
            {**GRPO, **RATIOS, "reduction": "fixed_length", "fixed_length": 40, "divide_by_spread": False},
            "dr_grpo",
            {"max_completion_length": 40},
        ),
        ({**GRPO, **RATIOS, "ratio": "sequence_mean"}, "grpo", {"importance_sampling_level": "sequence"}),
        ({"name": "reinforce_pp"}, "dapo", {"delta": 3.0, "entropy_coef": 0.001}),
    ],
    ids=["grpo with k3", "grpo with unbiased k3", "dapo", "dr_grpo", "gspo", "reinforce_pp"],
)
def test_policy_gradients(
    objective: dict[str, Any], kind: str, options: dict[str, Any], side: Side, trainer: Callable[[str], Any]
) -> None:
    def loss(given: tuple[Any, Frozen]) -> torch.Tensor:
        job, frozen = given
        grpo = trainer("GRPO")
        grpo.loss_type, grpo.epsilon_low, grpo.epsilon_high = kind, 0.2, 0.28
        grpo.beta = options.get("beta", 0.0)
        grpo.importance_sampling_level = options.get("importance_sampling_level", "token")
        grpo.max_completion_length = options.get("max_completion_length", 256)
        grpo.args.delta = options.get("delta")
        grpo.args.use_bias_correction_kl = options.get("use_bias_correction_kl", False)
        grpo.entropy_coef = options.get("entropy_coef", 0.0)
        grpo._entropy_bonus_enabled = grpo.entropy_coef > 0.0
        grpo.current_gradient_accumulation_steps = grpo.args.steps_per_generation = 1
        _, inputs = parts(side, job)
        inputs["old_per_token_logps"] = table(side, job, frozen.behaviour)
        if grpo.beta:
            inputs["ref_per_token_logps"] = table(side, job, frozen.reference)
        result: torch.Tensor = grpo._compute_loss(side.policy, inputs)
        return result

    side.compare(objective, loss, drift=True)


def test_rloo(side: Side, trainer: Callable[[str], Any]) -> None:
    def loss(given: tuple[Any, Frozen]) -> torch.Tensor:
        job, frozen = given
        rloo = trainer("RLOO")
        rloo.epsilon_low, rloo.epsilon_high = 0.2, 0.28
        _, inputs = parts(side, job)
        inputs["old_logps"] = table(side, job, frozen.behaviour).sum(-1)
        result: torch.Tensor = rloo._compute_loss(side.policy, inputs)
        return result

    side.compare({"name": "rloo", **RATIOS}, loss, drift=True)


def test_the_reference_values_are_those_of_plain_transformers(side: Side) -> None:
    _, _, (job, frozen) = side.ours({"name": "dpo"})

    for row, values in frozen.reference.items():
        example = job.examples[row]
        ids = torch.tensor([[*example.prompt, *example.completion]])
        with torch.no_grad(), side.policy.disable_adapter():
            logprobs = side.policy(input_ids=ids).logits.log_softmax(-1)[0, len(example.prompt) - 1 : -1]
        plain = logprobs.gather(-1, torch.tensor(example.completion)[:, None])[:, 0]
        torch.testing.assert_close(values, plain, atol=1e-9 if side.exact else 1e-4, rtol=0)
