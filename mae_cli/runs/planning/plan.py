"""`mae plan`: the prediction for a recipe, its bottleneck, the settings that would change it most, and the budgets."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from mae_cli.errors import BudgetError
from mae_cli.recipe.sections import Recipe
from mae_cli.recipe.steps import Step, steps_of
from mae_cli.reports.tables import table
from mae_cli.runs.planning.memory import MemoryPlan
from mae_cli.runs.planning.predict import PlannedStep, mean_tokens, predict
from mae_cli.runs.planning.sample import Measured, Sampler, SmallRound, section_of
from mae_cli.stages.generation.job import AUTO_BATCH_SIZE, Job

GIB = 1 << 30
MOST_ROWS = 128
NUM_SETTINGS = 3


class Setting(msgspec.Struct, frozen=True):
    """A setting, and what half of it would save."""

    key: str
    value: float
    saves_seconds: float


class RunPlan(msgspec.Struct, kw_only=True):
    """What a run will take."""

    recipe: str
    rounds: int
    measured_rows: int
    measured_seconds: float
    steps: list[PlannedStep]
    seconds: float
    """Of the whole run, loading included."""
    seconds_per_round: list[float]
    """Round 0 first."""
    rows: int
    tokens: int
    prompt_tokens: int
    disk_bytes: int
    peak_memory_bytes: int
    memory_of: str
    bottleneck: str
    settings: list[Setting]
    over_budget: list[str]
    notes: list[str]


class PlanBounds(msgspec.Struct, frozen=True):
    """Bounds that a plan is compared with; null is none."""

    hours: float | None = None
    disk_gib: float | None = None
    tokens: int | None = None


def rows_to_measure(recipe: Recipe, rows: int | None) -> int:
    """One micro-batch of each step, so that speed is that of full batches; or what the user says."""
    if rows is not None:
        return rows
    size = AUTO_BATCH_SIZE if recipe.batch_size == "auto" else recipe.batch_size
    return max(1, min(size, MOST_ROWS))


def make_plan(job: Job, name: str, recipe_path: Path | None, rows: int | None, budgets: PlanBounds) -> RunPlan:
    """Measure a small first round in a temporary folder and predict the run.

    Raises:
        MaeError: what would stop the run as well.
    """
    wanted = rows_to_measure(job.recipe, rows)
    with tempfile.TemporaryDirectory(prefix="mae-plan-") as folder:
        sample = Sampler(job, recipe_path, wanted, Path(folder)).make()
        steps = predict(job, sample)
    memory, where = _peak_memory()
    per_round = [sum(s.seconds for s in steps if s.round == number) for number in range(job.recipe.rounds + 1)]
    plan = RunPlan(
        recipe=name,
        rounds=job.recipe.rounds,
        measured_rows=wanted,
        measured_seconds=round(sample.seconds, 1),
        steps=steps,
        seconds=sum(per_round) + sample.load_seconds,
        seconds_per_round=per_round,
        rows=sum(s.rows for s in steps if s.stage not in ("filter", "finetune")),
        tokens=sum(s.tokens for s in steps),
        prompt_tokens=sum(s.prompt_tokens for s in steps),
        disk_bytes=_disk(job.recipe, steps),
        peak_memory_bytes=memory,
        memory_of=where,
        bottleneck=_bottleneck(steps),
        settings=_settings(job, sample, steps),
        over_budget=[],
        notes=_notes(sample),
    )
    plan.over_budget = over(plan, budgets)
    return plan


def over(plan: RunPlan, budgets: PlanBounds) -> list[str]:
    """The budgets that the plan does not keep, in words."""
    found = []
    if budgets.hours is not None and plan.seconds > budgets.hours * 3600:
        found.append(f"--max-hours {budgets.hours:g}: {plan.seconds / 3600:.2f} hours are planned")
    if budgets.disk_gib is not None and plan.disk_bytes > budgets.disk_gib * GIB:
        found.append(f"--max-disk {budgets.disk_gib:g}: {plan.disk_bytes / GIB:.2f} GiB are planned")
    if budgets.tokens is not None and plan.tokens > budgets.tokens:
        found.append(f"--max-tokens {budgets.tokens}: {plan.tokens} tokens are planned")
    return found


def require_budgets(plan: RunPlan) -> None:
    """Refuse a plan that is over a budget.

    Raises:
        BudgetError: naming each.
    """
    if plan.over_budget:
        raise BudgetError("; ".join(plan.over_budget))


def _disk(recipe: Recipe, steps: Sequence[PlannedStep]) -> int:
    """Bytes of all files; of adapters those that `keep_adapters` leaves, the accepted and the best besides."""
    rows = sum(step.file_bytes for step in steps if step.stage != "finetune")
    adapters = [step.file_bytes for step in steps if step.stage == "finetune"]
    kept = adapters if not recipe.keep_adapters else sorted(adapters)[-(recipe.keep_adapters + 2) :]
    return rows + sum(kept)


def _peak_memory() -> tuple[int, str]:
    """(bytes, of what): of the GPU where torch has used one, else of this process."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return int(torch.cuda.max_memory_allocated()), "GPU"
    try:
        import resource
    except ImportError:  # Windows
        return 0, "unknown"
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "this process"


def _bottleneck(steps: Sequence[PlannedStep]) -> str:
    sums: dict[str, float] = {}
    for step in steps:
        sums[step.step] = sums.get(step.step, 0.0) + step.seconds
    return max(sums, key=lambda name: sums[name]) if sums else ""


def _settings(job: Job, sample: SmallRound, steps: Sequence[PlannedStep]) -> list[Setting]:
    """The settings whose half would save most, by the seconds of the rows and tokens that hang on each."""
    found: list[Setting] = []
    for step in steps_of(job.recipe):
        seconds = sum(one.seconds for one in steps if one.step == step.name)
        found += list(_of_step(job, step, seconds, sample.steps.get(step.name) or sample.base.get(step.name)))
    return sorted(found, key=lambda one: -one.saves_seconds)[:NUM_SETTINGS]


_ROWS = {
    "propose": ("num_problems",),
    "solve": ("rollouts_per_problem",),
    "judge": ("votes", "answer_votes", "num_own_pairs", "num_pairs"),
    "finetune": ("epochs",),
    "eval": ("samples",),
}
"""Keys that a step's rows grow with."""


def _of_step(job: Job, step: Step, seconds: float, measured: Measured | None) -> list[Setting]:
    section = section_of(job, step)
    keys = [key for key in _ROWS.get(step.stage, ()) if getattr(section, key)]
    keys = [key for key in keys if key not in ("epochs", "samples") or getattr(section, key) > 1]
    # Several keys of a judge share its rows, in a proportion that is not looked into.
    found = [Setting(f"{step.name}.{key}", getattr(section, key), round(seconds / 2 / len(keys), 1)) for key in keys]
    if step.stage == "eval":
        found.append(Setting(f"{step.name}.limit", section.limit, round(seconds / 2, 1)))
    longest = getattr(section, "max_new_tokens", 0)
    mean = mean_tokens(measured.rows) if measured is not None and measured.rows else 0.0
    if longest and mean > longest / 2:
        saved = seconds * (1 - longest / 2 / mean)
        found.append(Setting(f"{step.name}.max_new_tokens", longest, round(saved, 1)))
    return found


def _notes(sample: SmallRound) -> list[str]:
    notes = [f"{name}: measured on rows that the filters drop" for name in sorted(sample.is_forced)]
    notes += [f"{name}: {one.failure}" for name, one in sample.steps.items() if one.failure]
    return notes


# ---- as text


def plan_text(plan: RunPlan) -> str:
    """The plan as a table of its steps (rounds that are equal but for time are summed), and the sums below."""
    lines = []
    for key in dict.fromkeys((min(step.round, 1), step.step) for step in plan.steps):
        ours = [step for step in plan.steps if (min(step.round, 1), step.step) == key]
        where = "base" if key[0] == 0 else f"{len(ours)} rounds" if len(ours) > 1 else "1 round"
        lines.append(
            (
                *(key[1], where, f"{sum(s.rows for s in ours):,}", f"{sum(s.tokens for s in ours):,}"),
                *(_time(sum(s.seconds for s in ours)), _bytes(sum(s.file_bytes for s in ours))),
            )
        )
    text = [table(("step", "where", "rows", "tokens", "time", "disk"), lines)]
    text.append(
        f"in all: {_time(plan.seconds)}, {plan.rows:,} rows, {plan.tokens:,} tokens, "
        f"{_bytes(plan.disk_bytes)} of disk, "
        f"{_bytes(plan.peak_memory_bytes)} of memory at most ({plan.memory_of})"
    )
    text.append(f"most of the time: {plan.bottleneck}")
    text += [f"half of {one.key} ({one.value:g}) would save {_time(one.saves_seconds)}" for one in plan.settings]
    text += [f"note: {one}" for one in plan.notes]
    text.append(f"measured on {plan.measured_rows} rows a step in {_time(plan.measured_seconds)}")
    return "\n".join(text)


def memory_text(found: MemoryPlan) -> str:
    """The memory of a model by its config, a line for each part."""
    kv = f"{found.rows_at_a_time} rows of {found.longest_row:,} tokens at {found.kv_bytes_per_token:,} bytes"
    return "\n".join(
        [
            f"model: {found.parameters:,} parameters, {_bytes(found.weight_bytes)} ({found.dtype})",
            f"keys and values: {_bytes(found.kv_bytes)} ({kv})",
            f"generating: {_bytes(found.generation_bytes)}",
            f"trained: {found.trained_parameters:,} parameters, {_bytes(found.optimizer_bytes)} with Adam",
            f"activations: about {_bytes(found.activation_bytes)}, logits {_bytes(found.logits_bytes)}",
            f"training: about {_bytes(found.training_bytes)}",
        ]
    )


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _bytes(size: float) -> str:
    return f"{size / GIB:.2f} GiB" if size >= GIB / 10 else f"{size / (1 << 20):.1f} MiB"
