"""Recipes: every option once, with its default and one line of documentation.

Precedence: defaults here < recipe file < --set section.key=value < flags. A section is named like its command.
Unknown keys are refused with the nearest known name; values are checked before the first stage starts.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from mae_cli.records import Purpose, Role, Sampling

Spec = str | dict[str, Any]
Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Alpha = Annotated[float, Meta(gt=0.0, lt=1.0)]


def _doc(text: str) -> Meta:
    return Meta(description=text)


def _free(text: str) -> Meta:
    """Of a key that changes speed, place or what is shown, never a file: it may differ when a run goes on."""
    return Meta(description=text, extra={"free": True})


class Section(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A part of a recipe."""


class GeneratingSection(Section):
    """Keys of every section that generates text."""

    max_new_tokens: Annotated[Positive, _doc("longest completion, in tokens")] = 512
    temperature: Annotated[float, Meta(ge=0.0, description="0 is greedy")] = 1.0
    top_p: Annotated[float, Meta(gt=0.0, le=1.0, description="nucleus mass; 1 is off")] = 1.0
    top_k: Annotated[Count, _doc("keep the k likeliest tokens; 0 is off")] = 0
    stop: Annotated[list[Annotated[str, Meta(min_length=1)]], _doc("strings that end a completion")] = []

    def __post_init__(self) -> None:
        """Refuse a backslash and a letter where a shell or quotes kept them from being a line end.

        Raises:
            ValueError: such a stop string.
        """
        for stop in self.stop:
            if re.match(r"\\[nrt](?![a-z])", stop):
                raise ValueError(
                    f"stop string {stop} begins with a backslash and a letter, not with a line end; write --stop "
                    f"$'{stop}' in a shell, \"{stop}\" in double quotes in a recipe"
                )

    def sampling(self) -> Sampling:
        """The sampling an engine gets and a row records."""
        return Sampling(
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            stop=tuple(self.stop),
        )


class SchemaSection(GeneratingSection):
    """Keys of a section whose texts can be held to a schema."""

    schema: Annotated[
        str | dict[str, Any] | list[str] | None,
        _doc("what the text must look like: a JSON schema or its file, {regex: PATTERN}, or a list of choices"),
    ] = None

    def sampling(self) -> Sampling:
        """The sampling an engine gets and a row records, with the schema."""
        found = super().sampling()
        if self.schema is None:
            return found
        from mae_cli.recipe.schemas import read_schema

        return msgspec.structs.replace(found, schema=read_schema(self.schema, "schema").text())


class ProposeSection(SchemaSection):
    """`propose:` the policy writes problems."""

    role: Annotated[Role, _doc("role that writes the problems: proposer, or one declared under roles")] = "proposer"
    purpose: Annotated[Purpose, _doc("purpose of the proposals: train, or context to have them read only")] = "train"
    proposer: Annotated[Spec, _doc("how a proposal is prompted (mae list proposers)")] = "mixed"
    num_problems: Annotated[Count, _doc("proposals per round")] = 32
    p_reference: Annotated[Share, _doc("chance that a proposal prompt carries references")] = 0.5
    references_per_prompt: Annotated[Positive, _doc("references in such a prompt")] = 1
    prompt: Annotated[str, _doc("prompt without references: a shipped name or a file")] = "propose"
    prompt_reference: Annotated[str, _doc("prompt with references")] = "propose_reference"
    verifier: Annotated[Spec | None, _doc("program that checks a proposed problem itself, e.g. arithmetic")] = None


class SolveSection(SchemaSection):
    """`solve:` the policy answers problems."""

    role: Annotated[Role, _doc("role that answers: solver, or one declared under roles")] = "solver"
    purpose: Annotated[
        Purpose, _doc("purpose of the rollouts: train, difficulty (only measures a problem) or context (only read)")
    ] = "train"
    prompt: Annotated[
        str | None,
        _doc("solver prompt: a shipped name or a file; none: the one that fits each item"),
    ] = None
    rollouts_per_problem: Annotated[Positive, _doc("train rollouts per problem")] = 8
    num_problems: Annotated[Count, _doc("problems drawn from the question pool (--pool, or the run's) to solve")] = 0
    difficulty_samples: Annotated[Count, _doc("rollouts per proposal that only estimate its difficulty (MAE's n)")] = 0
    train_on_proposals: Annotated[bool, _doc("also solve this round's proposals for training")] = True
    checked_only: Annotated[bool, _doc("skip proposals that a program could not check")] = False


class JudgeSection(GeneratingSection):
    """`judge:` programs and the policy grade answers and problems; rewards are computed."""

    role: Annotated[Role, _doc("role that judges: judge, or one declared under roles")] = "judge"
    verifier: Annotated[Spec | None, _doc("program check of answers, or none")] = None
    judge: Annotated[Spec | list[Spec] | None, _doc("model judge or judges (mae list judges), or none")] = "rubric"
    aggregate: Annotated[
        Literal["mean", "majority", "min"], _doc("how the known votes of all judges become one score")
    ] = "mean"
    votes: Annotated[Count, _doc("judgements per proposed problem (MAE's n)")] = 5
    answer_votes: Annotated[Count, _doc("judgements per trained answer (pairwise: per pair and order)")] = 1
    difficulty_votes: Annotated[Count, _doc("judgements per difficulty answer")] = 1
    num_opponents: Annotated[
        Count, _doc("pairwise: an answer meets its next so many of its group, and they it; 0 is all of them")
    ] = 0
    fallback_only: Annotated[bool, _doc("ask the model judge only where the verifier has no verdict")] = False
    num_pairs: Annotated[
        Count, _doc("pairs drawn from the pair pool (--pool, or the run's) as judge training rows")
    ] = 0
    num_own_pairs: Annotated[Count, _doc("pairs drawn from this round's own rollouts as judge training rows")] = 0
    rewards: Annotated[
        dict[Role, Spec], _doc("reward of each role's rows, by role; a role left out has one of the next three")
    ] = {}
    proposer_reward: Annotated[Spec, _doc("reward of rows that propose a problem")] = "mae_proposer"
    solver_reward: Annotated[Spec, _doc("reward of rows that answer one")] = "mae_solver"
    judge_reward: Annotated[Spec, _doc("reward of rows that judge")] = "mae_judge"
    max_unparsed: Annotated[Share, _free("share of unparsed or failed judgements above which the stage exits 3")] = 0.2
    shuffle_rewards: Annotated[bool, _doc("control run: rewards are shuffled among the rows of each role")] = False


class CalibrateSection(Section):
    """`calibrate:` how the judges are tested and what they must reach (`mae calibrate`; each round of a run)."""

    problems: Annotated[str | None, _doc("problems with reference answers that planted answers are made for")] = None
    num_problems: Annotated[Count, _doc("problems drawn from it, nine planted answers each; 0 is all")] = 32
    num_rollouts: Annotated[Count, _doc("real answers drawn from --rollouts; 0 is all")] = 64
    verifier: Annotated[Spec | None, _doc("program that tells right from wrong real answers, or none")] = "numeric"
    bars: Annotated[
        dict[str, float], _free("bars a judge must pass, e.g. {auc: 0.7, injection: 0.1}; a run stops at a missed one")
    ] = {}
    compare: Annotated[
        Literal["interval", "value"], _free("what must pass a bar: all of the figure's interval, or its value alone")
    ] = "interval"
    confidence: Annotated[float, Meta(gt=0.0, lt=1.0, description="level of the intervals")] = 0.95
    resamples: Annotated[Positive, _doc("bootstrap resamples over problems")] = 1000


class FilterSection(Section):
    """`filter:` what is trained (`kept`) and what goes to a pool (`stored`)."""

    filters: Annotated[list[Spec], _doc("filters in order (mae list filters)")] = msgspec.field(
        default_factory=lambda: ["finish_reason"]
    )
    decontaminate: Annotated[
        bool, _doc("drop what asks an item of eval.benchmarks or eval.gate, in whatever dress; also before finetune")
    ] = True


class FinetuneSection(Section):
    """`finetune:` training of a LoRA adapter, or of the whole model, on the kept rows."""

    objective: Annotated[Spec, _doc("loss and advantages (mae list objectives)")] = "sft"
    purposes: Annotated[list[str], _doc("purposes that may be trained")] = msgspec.field(
        default_factory=lambda: ["train"]
    )
    other_models: Annotated[bool, _doc("also train rows that another model wrote (distillation)")] = False
    reference: Annotated[
        str,
        _doc(
            "policy that preference losses and KL penalties are relative to: start, base, or an adapter; full: a model"
        ),
    ] = "start"
    full: Annotated[bool, _doc("train every parameter, not a LoRA; writes a model; usual rates are near 1e-5")] = False
    lora_r: Annotated[Positive, _doc("LoRA rank")] = 16
    lora_alpha: Annotated[Positive, _doc("LoRA scale numerator")] = 32
    lora_dropout: Annotated[Share, _doc("dropout on LoRA inputs; 0 keeps RL ratios exact")] = 0.0
    target_modules: Annotated[str, _doc("modules that get LoRA; names by comma or all-linear")] = "all-linear"
    rslora: Annotated[bool, _doc("scale by alpha / sqrt(rank), not alpha / rank (rsLoRA)")] = False
    dora: Annotated[bool, _doc("also train each column's length (DoRA); slower, and vLLM does not load it")] = False
    learning_rate: Annotated[float, Meta(gt=0.0, description="AdamW peak learning rate")] = 1e-4
    schedule: Annotated[Literal["constant", "linear", "cosine"], _doc("learning rate after the warm-up")] = "constant"
    warmup_steps: Annotated[Count, _doc("optimizer steps of linear warm-up")] = 0
    weight_decay: Annotated[float, Meta(ge=0.0, description="AdamW weight decay")] = 0.0
    max_grad_norm: Annotated[float, Meta(gt=0.0, description="gradient clipping, L2")] = 1.0
    batch_size: Annotated[Positive, _doc("rows (or pairs) per optimizer step")] = 16
    micro_batch_tokens: Annotated[
        Count, _free("most tokens (padding included) in one forward pass; 0: 4096 on a CPU, 16384 on a GPU")
    ] = 0
    epochs: Annotated[Positive, _doc("passes over the rows")] = 1
    max_steps: Annotated[Count, _doc("stop after this many optimizer steps; 0 is off")] = 0
    max_trained_tokens: Annotated[
        Count, _doc("stop after the optimizer step that reaches this many trained tokens; 0 is off")
    ] = 0
    max_length: Annotated[Positive, _doc("longest prompt + completion, in tokens; longer rows are dropped")] = 4096
    save_every: Annotated[Count, _free("optimizer steps between checkpoints; 0 is none")] = 10
    min_spread: Annotated[float, Meta(ge=0.0, description="reward spread under which a role is skipped and named")] = (
        1e-4
    )
    max_nll_jump: Annotated[
        float, Meta(ge=0.0, description="nats per trained token over the median of the last steps that stop it; 0: off")
    ] = 6.0
    gradient_checkpointing: Annotated[bool, _free("recompute activations to save memory")] = False
    report_to: Annotated[
        Literal["none", "tensorboard", "trackio", "wandb"], _free("also send each step's figures to a tracker")
    ] = "none"
    show_batch: Annotated[Count, _free("print this many examples with the trained span marked")] = 0


class EvalSection(GeneratingSection):
    """`eval:` the same held-out items for every policy, and what decides about promotion."""

    benchmarks: Annotated[
        list[Spec], _doc("problem files with answers, hub:ORG/NAME/CONFIG:SPLIT, suites, or mappings of these")
    ] = []
    prompt: Annotated[
        str | None,
        _doc("solver prompt: a shipped name or a file; none: the one that fits each item"),
    ] = None
    verifier: Annotated[Spec, _doc("program check of answers")] = "numeric"
    readings: Annotated[list[str], _doc("how answers are read: strict, flexible, lm_eval_strict, lm_eval_flexible")] = (
        msgspec.field(default_factory=lambda: ["strict", "flexible"])
    )
    group_by: Annotated[list[str], _doc("meta fields of the items to show accuracies by, e.g. subject")] = []
    via: Annotated[
        Literal["mae", "lm-eval"],
        _doc("who asks and scores: mae, or lm-evaluation-harness with its tasks as benchmarks"),
    ] = "mae"
    num_fewshot: Annotated[Count | None, _doc("via lm-eval: examples in a prompt; none: as the task says")] = None
    chat: Annotated[bool, _doc("via lm-eval: put its prompts into the model's chat template")] = False
    samples: Annotated[Positive, _doc("rollouts per item")] = 1
    temperature: Annotated[float, Meta(ge=0.0, description="0 is greedy")] = 0.0
    limit: Annotated[Count, _doc("items per benchmark; 0 is all")] = 0
    confidence: Annotated[float, Meta(gt=0.0, lt=1.0, description="level of the intervals")] = 0.95
    gate: Annotated[
        Spec | None, _doc("items that decide about promotion in a run: split (half of the benchmarks), a file, or none")
    ] = "split"
    gate_share: Annotated[Share, _doc("share of the benchmarks' items that a split gives the gate")] = 0.5
    harm_alpha: Annotated[Alpha, _doc("a round is not accepted when the gate set shows harm at this level")] = 0.05
    best_alpha: Annotated[Alpha, _doc("chance that any round of a run is falsely called best")] = 0.05


class RoleSection(Section):
    """`roles.ROLE:` declares a role, and what it has of its own; an unset key is the one above the sections."""

    model: Annotated[str | UnsetType, _doc("its own model; its rows are then not trained")] = UNSET
    revision: Annotated[str | UnsetType | None, _doc("hub revision of that model")] = UNSET
    adapter: Annotated[
        str | UnsetType | None, _doc("its own LoRA adapter, fixed over the rounds; none: the model without one")
    ] = UNSET
    engine: Annotated[str | UnsetType, _doc("its own engine")] = UNSET
    base_url: Annotated[str | list[str] | UnsetType | None, _free("server of engine openai")] = UNSET
    api_key_env: Annotated[str | UnsetType | None, _free("environment variable with that server's key")] = UNSET
    serves_policy: Annotated[
        bool | UnsetType, _doc("its server holds the trained policy's base, which is checked; its rows are trained")
    ] = UNSET
    device: Annotated[str | UnsetType, _free("auto, cpu, cuda, cuda:N or mps")] = UNSET
    dtype: Annotated[Literal["auto", "float32", "bfloat16", "float16"] | UnsetType, _doc("type of its weights")] = UNSET
    chat_template: Annotated[str | UnsetType | None, _doc("chat template for its model, as above")] = UNSET
    chat_template_kwargs: Annotated[dict[str, Any] | UnsetType, _doc("options handed to its template")] = UNSET


class Recipe(Section):
    """A whole recipe; the keys above the sections hold for every stage."""

    model: Annotated[str, _doc("hub id, folder, or an embedded model's name")] = "smollm2-135m"
    revision: Annotated[str | None, _doc("hub revision of the model")] = None
    adapter: Annotated[str | None, _doc("what mae finetune wrote, to start from: an adapter or a model")] = None
    engine: Annotated[str, _doc("engine, with its argument after a colon (replay:FILE)")] = "hf"
    base_url: Annotated[
        str | list[str] | None, _free("address of the engine openai's server, or of several replicas of it")
    ] = None
    api_key_env: Annotated[
        str | None, _free("name of the environment variable that holds the API key; else OPENAI_API_KEY where set")
    ] = None
    max_concurrent: Annotated[
        Positive | Literal["auto"], _free("requests in flight to servers; auto finds out what they take")
    ] = "auto"
    timeout_seconds: Annotated[float, Meta(gt=0.0), _free("longest wait for one answer of a server")] = 600.0
    device: Annotated[str, _free("auto, cpu, cuda, cuda:N or mps")] = "auto"
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"], _doc("auto: bfloat16 on CUDA, else float32")
    ] = "auto"
    load_in_4bit: Annotated[bool, _doc("store the base model in four bits (package bitsandbytes)")] = False
    batch_size: Annotated[
        Positive | Literal["auto"], _free("rows generated at a time; auto measures this machine once")
    ] = "auto"
    seed: Annotated[Count, _doc("the run's seed; every row's seed derives from it")] = 0
    rounds: Annotated[Positive, _free("rounds of `mae run`")] = 1
    chat_template: Annotated[
        str | None, _doc("file with a chat template for this model; none: prompts are sent as they stand")
    ] = None
    chat_template_kwargs: Annotated[
        dict[str, Any], _doc("options handed to the template, e.g. {enable_thinking: false}")
    ] = {}
    think_tags: Annotated[list[str], _doc("opening and closing tag of reasoning")] = msgspec.field(
        default_factory=lambda: ["<think>", "</think>"]
    )
    seeds: Annotated[str | None, _doc("problem file the question pool starts from")] = None
    num_seeds: Annotated[Count, _doc("seeds drawn from that file; 0 is all")] = 0
    self_seeds: Annotated[Count, _doc("seeds the base model writes itself before round 1 (MAE zero: 16)")] = 0
    seed_pairs: Annotated[
        bool, _doc("fill the first pair pool with the seeds' reference answers (released MAE code)")
    ] = False
    pool_limit: Annotated[Count, _doc("largest pool; the oldest that are not seeds leave first; 0 is no limit")] = 0
    on_empty: Annotated[
        Literal["stop", "skip"], _free("no row kept in a round: stop (exit 3) or go on without training")
    ] = "stop"
    keep_adapters: Annotated[
        Count, _free("rounds whose adapter weights stay besides the accepted and the best; 0 keeps all")
    ] = 0
    on_harm: Annotated[
        Literal["go_back", "stop"], _free("the gate shows harm: go on from the last accepted round, or stop (exit 4)")
    ] = "go_back"
    max_hours: Annotated[float, Meta(ge=0.0), _free("hours that one start of a run may take; 0 is no limit")] = 0.0
    max_tokens: Annotated[
        Count, _free("tokens, generated and trained, of a run over all its starts; 0 is no limit")
    ] = 0
    max_disk: Annotated[str | None, _free("largest size of a run's folder, e.g. 20GB; none is no limit")] = None
    max_rounds: Annotated[Count, _free("finished rounds, over all starts, that a run stops at; 0 is no limit")] = 0
    min_free_disk: Annotated[str, _free("free space without which a run begins no step (exit 75)")] = "64MB"
    stall_minutes: Annotated[
        float, Meta(ge=0.0), _free("minutes without a finished segment or step until a run is started anew; 0 is off")
    ] = 0.0

    pipeline: Annotated[
        list[Any],
        _doc("steps of a round: stages, or {STAGE: {name, from, when, every, KEYS}}"),
    ] = msgspec.field(default_factory=lambda: ["propose", "solve", "judge", "filter", "finetune", "eval"])
    roles: Annotated[
        dict[Role, RoleSection],
        _doc("roles beside proposer, solver and judge; a model of its own for any of them"),
    ] = {}
    propose: ProposeSection = msgspec.field(default_factory=ProposeSection)
    solve: SolveSection = msgspec.field(default_factory=SolveSection)
    judge: JudgeSection = msgspec.field(default_factory=JudgeSection)
    calibrate: CalibrateSection = msgspec.field(default_factory=CalibrateSection)
    filter: FilterSection = msgspec.field(default_factory=FilterSection)
    finetune: FinetuneSection = msgspec.field(default_factory=FinetuneSection)
    eval: EvalSection = msgspec.field(default_factory=EvalSection)


SECTIONS = ("propose", "solve", "judge", "calibrate", "filter", "finetune", "eval")
