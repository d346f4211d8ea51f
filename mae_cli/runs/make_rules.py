"""The steps of a recipe as a table, and as make rules: one target per step of a round.

Place in the flow: `mae list steps` and `mae list rules`; the Makefile includes the rules of the round it builds, so
`make iterate` follows any pipeline, and make's own staleness decides what is made again. Contract: a rule calls the
stage command with `--step`, on the files that `mae run` would use. There is no gate: each round goes on from the last
adapter that an earlier one trained.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mae_cli.recipe.sections import Recipe
from mae_cli.recipe.steps import RoundStep, steps_of, steps_of_round
from mae_cli.reports.tables import table
from mae_cli.runs.layout import Round, adapters_in, round_label


def steps_table(recipe: Recipe) -> str:
    """Return the steps of a round as text: what each reads and writes, and when it runs."""
    steps = steps_of(recipe)
    current = Round(Path(), 1, steps)
    lines = []
    for step in steps:
        due = [one for one in steps_of_round(recipe, steps, step.every) if one.step is step]
        reads = " ".join(current.output(other).name for one in due for other in one.reads)
        when = " ".join([*([f"every {step.every}"] if step.every > 1 else []), *([step.when] if step.when else [])])
        own = " ".join(f"{key}={value}" for key, value in step.settings.items())
        lines.append((step.name, step.stage, reads or "-", current.output(step).name, when or "-", own or "-"))
    return table(("step", "stage", "reads", "writes", "when", "own keys"), lines)


def rules(recipe: Recipe, run_dir: Path, number: int) -> str:
    """Return the make rules of one round; of round 0 those that evaluate the base.

    The Makefile gives `$(MAE)`, `$(STAGE)` (the common flags), `$(RECIPE)` and `$(SETS)`; `STEPS` lists the targets.
    """
    steps = steps_of(recipe)
    current = Round(run_dir / round_label(number), number, steps)
    found = list(_base_rules(current) if number == 0 else _round_rules(recipe, current, run_dir))
    pools = [] if number == 0 else [_pools_rule(current, run_dir)]
    names = [f".PHONY: {name}\n{name}: {target}\n" for name, target, _ in found]
    targets = " ".join(target for _, target, _ in found)
    return "\n".join([f"STEPS := {targets}\n", *pools, *(text for _, _, text in found), *names])


def _base_rules(base: Round) -> Iterator[tuple[str, str, str]]:
    for step in base.of_stage("eval"):
        out = base.output(step)
        yield step.name, str(out), f"{out}:\n\t$(MAE) eval -o $@ $(STAGE) --step {step.name}\n"


def _pools_rule(current: Round, run_dir: Path) -> str:
    before = Round(run_dir / round_label(current.number - 1), current.number - 1, current.steps)
    grown = [str(before.output(step)) for step in before.of_stage("filter")] if current.number > 1 else []
    option = f" --before {before.folder}" if grown else ""
    command = f"$(MAE) data pools {current.folder} --recipe $(RECIPE) $(SETS){option}"
    return f"{current.questions} {current.pairs} &: $(RECIPE) {' '.join(grown)}\n\t{command}\n"


def _round_rules(recipe: Recipe, current: Round, run_dir: Path) -> Iterator[tuple[str, str, str]]:
    """(name, target, rule) of each step; a folder's target is its marker, which is written last."""
    adapter = _start(run_dir, current.number)
    trained: str | None = None
    for one in steps_of_round(recipe, current.steps, current.number):
        step, out = one.step, current.output(one.step)
        if step.stage == "eval" and trained is None:
            continue  # nothing new to evaluate
        target = f"{out}.meta.json" if step.stage == "finetune" else str(out)
        needs = [str(current.output(other)) for other in one.reads]
        needs += [str(current.questions)] if step.stage in ("propose", "solve") else []
        needs += [str(current.pairs)] if step.stage == "judge" else []
        needs += [trained] if trained is not None and step.stage != "filter" else []
        # A command that finds its rows unchanged leaves its file alone; touch tells make that it is up to date.
        yield step.name, target, f"{target}: {' '.join(needs)}\n\t{_command(current, one, adapter)} && touch $@\n"
        if step.stage == "finetune":
            adapter, trained = out, target


def _command(current: Round, one: RoundStep, adapter: Path | None) -> str:
    step, out = one.step, current.output(one.step)
    inputs = [str(current.output(other)) for other in one.reads]
    more: dict[str, list[str]] = {
        "propose": [str(current.questions)],
        "solve": [*inputs, "--pool", str(current.questions)],
        "judge": [*inputs, "--pool", str(current.pairs)],
        "filter": [*inputs, "--dropped", str(current.dropped(step))],
        "finetune": inputs,
        "eval": ["--no-base"],
    }
    on = ["--adapter", str(adapter)] if adapter is not None and step.stage != "filter" else []
    return " ".join([f"$(MAE) {step.stage}", *more[step.stage], "-o", str(out), "$(STAGE) --step", step.name, *on])


def _start(run_dir: Path, number: int) -> Path | None:
    """The last adapter that an earlier round has trained."""
    for earlier in range(number - 1, 0, -1):
        folder = run_dir / round_label(earlier)
        if folder.is_dir() and (found := adapters_in(folder)):
            return found[-1]
    return None
