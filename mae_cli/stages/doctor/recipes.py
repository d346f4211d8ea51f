"""Checks of a recipe: plugins, prompts, seeds and benchmarks, their overlap, verifiers against the items, lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mae_cli.data.held_out import Items
from mae_cli.errors import MaeError, one_line
from mae_cli.plugins import registry
from mae_cli.plugins.check import check_plugins
from mae_cli.prompts.prompt_files import load_prompt
from mae_cli.recipe.files import find_file
from mae_cli.recipe.sections import Recipe
from mae_cli.recipe.steps import Step, recipe_of_step, steps_of
from mae_cli.records import Problem
from mae_cli.records.read import read_problems
from mae_cli.stages.doctor.findings import Finding, guarded, note, ok, problem
from mae_cli.stages.evaluation.benchmarks import Benchmark, load_benchmarks, spec_of, unreadable

GIVEN = {
    "propose.prompt": ({"references"}, set()),
    "propose.prompt_reference": ({"references"}, {"references"}),
    "solve.prompt": ({"question"}, {"question"}),
    "eval.prompt": ({"question"}, {"question"}),
}
"""Names that each prompt is given, and those it must show."""
LOOKED_AT = 50


def recipe_findings(recipe: Recipe, path: Path) -> list[Finding]:
    """Everything about a recipe but its model and servers; each part alone.

    Args:
        recipe: loaded.
        path: its file; seeds may stand beside it.
    """
    steps = steps_of(recipe)
    found = [ok("recipe", f"{path}: {recipe.rounds} rounds of {', '.join(step.name for step in steps)}")]
    found += guarded("plugins", lambda: _plugins(recipe))
    found += guarded("prompts", lambda: _prompts(recipe, steps))
    seeds: list[Problem] = []
    found += guarded("seeds", lambda: _seeds(recipe, path, steps, seeds))
    items: list[Benchmark] = []
    for step in steps:
        if step.stage == "eval":
            section = recipe_of_step(recipe, step)
            found += guarded("benchmarks", lambda section=section: _benchmarks(section, items))  # type: ignore[misc]
    found += guarded("overlap", lambda: _overlap(seeds, items))
    found += guarded("verifiers", lambda: _verifiers(recipe, steps, seeds))
    return found


def _plugins(recipe: Recipe) -> Iterator[Finding]:
    check_plugins(recipe)
    yield ok("plugins", "all import, and their options are known")


def _prompts(recipe: Recipe, steps: Sequence[Step]) -> Iterator[Finding]:
    seen: set[tuple[str, str]] = set()
    bad = False
    for step in steps:
        section = getattr(recipe_of_step(recipe, step), step.stage)
        for key in ("prompt", "prompt_reference"):
            name = getattr(section, key, None)
            place = f"{step.stage}.{key}"
            if not name or place not in GIVEN or (place, name) in seen:
                continue
            seen.add((place, name))
            prompt = load_prompt(name)
            given, needed = GIVEN[place]
            if unknown := sorted(prompt.variables - given):
                bad = True
                told = f'{place}: prompt "{name}" uses {{{{ {unknown[0]} }}}}; given: {", ".join(sorted(given))}'
                yield problem("prompts", told, "correct the prompt file")
            elif left_out := sorted(needed - prompt.variables):
                bad = True
                told = f'{place}: prompt "{name}" does not show {left_out[0]}'
                yield problem("prompts", told, f"write {{{{ {left_out[0]} }}}} where it belongs")
    if not bad:
        yield ok("prompts", f"{len(seen)} named, their fields are given" if seen else "the shipped ones that fit")


def _seeds(recipe: Recipe, path: Path, steps: Sequence[Step], seeds: list[Problem]) -> Iterator[Finding]:
    draws = any(step.stage == "solve" and recipe_of_step(recipe, step).solve.num_problems for step in steps)
    if not recipe.seeds:
        if draws and not recipe.self_seeds:
            yield problem("seeds", "none, and the solver draws its problems from them", "--set seeds=FILE")
        else:
            yield ok("seeds", f"{recipe.self_seeds} the model writes itself" if recipe.self_seeds else "none wanted")
        return
    file = find_file(recipe.seeds, beside=path.parent)
    seeds += read_problems(file)
    if not seeds:
        yield problem("seeds", f"{file}: no problem in it", "give a file with a question per line")
        return
    answered = sum(one.reference_answer is not None for one in seeds)
    shown = f"{file}: {len(seeds)} problems, {answered} with a reference answer"
    if recipe.num_seeds > len(seeds):
        yield note("seeds", f"{shown}; num_seeds wants {recipe.num_seeds}: all are taken")
    else:
        yield ok("seeds", f"{shown}{f', {recipe.num_seeds} are drawn' if recipe.num_seeds else ''}")


def _benchmarks(recipe: Recipe, items: list[Benchmark]) -> Iterator[Finding]:
    from mae_cli.models.locate import HUB_ID
    from mae_cli.stages.evaluation.benchmarks import SUITES

    section = recipe.eval
    if not section.benchmarks:
        yield note("benchmarks", "none: whether a round helped is not measured", "eval.benchmarks: [FILE]")
        return
    for named in section.benchmarks:
        spec = spec_of(named)
        remote = spec.hub or (SUITES[spec.suite].hub if spec.suite and not spec.path else None)
        if remote is not None and HUB_ID.match(remote):
            yield note("benchmarks", f"{remote} is on the hub and not looked at here", "mae data import hub:... once")
            continue
        found = load_benchmarks([named], section)
        items += found
        for one in found:
            yield from _benchmark(one)
    if isinstance(section.gate, str) and section.gate != "split":
        gate = load_benchmarks([section.gate], section)
        reported = Items.of(one for benchmark in items for one in benchmark.problems)
        left = sum(not reported.holds(one) for benchmark in gate for one in benchmark.problems)
        if not left:
            yield problem("gate", f"{section.gate}: every item is among eval.benchmarks", "give other items")
        else:
            yield ok("gate", f"{section.gate}: {left} items decide about promotion")
        items += gate


def _benchmark(benchmark: Benchmark) -> Iterator[Finding]:
    shown = f"{benchmark.source}: {len(benchmark.problems)} items, verifier {registry.spec_name(benchmark.verifier)}"
    if not benchmark.problems:
        yield problem("benchmarks", f"{benchmark.source}: no item in it", "give a file with questions and answers")
    elif lost := unreadable(benchmark):
        told = f"{shown} cannot read {lost[0]} of the first {lost[1]} reference answers ({lost[2]})"
        yield problem("benchmarks", told, "name another: eval.verifier (mae list verifiers)")
    else:
        yield ok("benchmarks", shown)


def _overlap(seeds: Sequence[Problem], items: Sequence[Benchmark]) -> Iterator[Finding]:
    among = Items.of(seeds)
    for benchmark in items:
        both = sum(map(among.holds, benchmark.problems))
        if both:
            told = f"{both} of {len(benchmark.problems)} items of {benchmark.source} are among the seeds"
            yield problem("overlap", f"{told}: they are trained on and measure nothing", "take them out of the seeds")
    if seeds and items and not any(among.holds(one) for benchmark in items for one in benchmark.problems):
        yield ok("overlap", "no held-out item is among the seeds")


def _verifiers(recipe: Recipe, steps: Sequence[Step], seeds: Sequence[Problem]) -> Iterator[Finding]:
    """Each judge step's verifier on the seeds' own reference answers."""
    looked = [one for one in seeds if one.reference_answer is not None][:LOOKED_AT]
    for step in steps:
        section = recipe_of_step(recipe, step).judge
        if step.stage != "judge" or section.verifier is None:
            continue
        name = registry.spec_name(section.verifier)
        if not looked:
            yield note("verifiers", f"{step.name}: {name}: no seed has a reference answer to try it on")
            continue
        verifier = registry.build("verifiers", section.verifier)
        if not getattr(verifier, "needs_reference", True):
            yield ok("verifiers", f"{step.name}: {name} needs no reference answer")
            continue
        try:
            unknown = [one for one in looked if verifier.check(one, one.reference_answer).score is None]
        except MaeError as error:
            yield problem("verifiers", f"{step.name}: {name}: {one_line(error)}", "see the message")
            continue
        if unknown:
            told = f"{step.name}: {name} has no verdict on {len(unknown)} of {len(looked)} seeds with their own answers"
            example = f"e.g. {unknown[0].question[:60]!r}"
            fix = "another judge.verifier (mae list verifiers)"
            make = problem if len(unknown) > len(looked) // 2 else note
            yield make("verifiers", f"{told}, {example}", fix)
        else:
            yield ok("verifiers", f"{step.name}: {name} reads the seeds' reference answers")


def lengths(recipe: Recipe, model: Any) -> Iterator[Finding]:
    """Whether the longest completions of the steps leave room for a prompt in the model's context."""
    from mae_cli.models.load import context_length

    context = context_length(model)
    if context is None:
        return
    worst = ""
    for step in steps_of(recipe):
        new = getattr(getattr(recipe_of_step(recipe, step), step.stage), "max_new_tokens", 0)
        if new >= context:
            told = f"{step.name}: max_new_tokens {new} leaves no room for a prompt in the context of {context}"
            yield problem("lengths", told, f"--set {step.name}.max_new_tokens={context // 2}")
            worst = step.name
    if not worst:
        yield ok("lengths", f"every step's max_new_tokens leaves room for its prompt in {context:,} tokens")
