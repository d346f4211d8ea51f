"""Steps of a round: the recipe's `pipeline` as a list of steps, each a stage with a name, a place and its own keys.

A step is written as the name of its stage, or as a mapping from the stage to what the step has of its own:

    pipeline: [propose, solve, judge, {judge: {name: gate, votes: 2}}, filter, finetune, {eval: {every: 2}}]

Contract: pure functions of a recipe; which steps run in a round and what they read is known before the round starts.
Precedence of a key: default < section < step < --set (`load.py` gives --set the last word); what a controller sets will
stand between step and --set. The worked example stands in `recipes/README.md`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import msgspec

from mae_cli.errors import ConfigError, did_you_mean
from mae_cli.recipe.fields import section_fields
from mae_cli.recipe.formula import Formula
from mae_cli.recipe.keys import check_keys, convert_section
from mae_cli.recipe.roles import check_role
from mae_cli.recipe.sections import SECTIONS, Recipe, Section
from mae_cli.records import PREDEFINED_ROLES

Stage = Literal["propose", "solve", "judge", "filter", "finetune", "eval"]
STAGES: tuple[Stage, ...] = get_args(Stage)
WRITES_ROWS = ("propose", "solve", "judge", "filter")
READS_ROWS = ("solve", "judge", "filter", "finetune")
OWN_KEYS = ("name", "from", "when", "every")
WHEN_NAMES = frozenset({"round"})
CHECKED_ROUNDS = 12
"""How many rounds are checked for steps with nothing to read where the rounds differ."""
_NAME = re.compile(r"[a-z][a-z0-9_]*", re.ASCII)


class Step(msgspec.Struct, frozen=True):
    """One step of a round, as the recipe has it."""

    position: int
    """Place in the pipeline, from 1; its file begins with it."""
    stage: Stage
    name: str
    """The stage's name unless the recipe gives another; unique in the pipeline."""
    sources: tuple[str, ...] = ()
    """Names of the steps whose rows it reads; empty: the nearest earlier step that wrote rows."""
    when: str | None = None
    every: int = 1
    settings: dict[str, Any] = {}
    """Keys of the stage's section that this step has of its own."""

    @property
    def is_named(self) -> bool:
        """Whether it has another name than its stage; only then does the name enter ids."""
        return self.name != self.stage

    @property
    def place(self) -> str:
        """The step as error messages name it."""
        return f"pipeline[{self.position}] ({self.stage}{f' {self.name}' if self.is_named else ''})"


class RoundStep(msgspec.Struct, frozen=True):
    """A step that runs in one round, and the steps of that round whose rows it reads."""

    step: Step
    reads: tuple[Step, ...]
    """Empty where the step begins a chain of rows: it proposes, or draws its problems from a pool."""


def steps_of(recipe: Recipe) -> tuple[Step, ...]:
    """Return the steps of the recipe's pipeline, checked.

    Raises:
        ConfigError: no step, an unknown stage or key, two steps with one name, a name that is a section's, a source
            that is no earlier step with rows, or a step that has nothing to read.
    """
    if not recipe.pipeline:
        raise ConfigError("pipeline: no step; expected a list of stages, e.g. [solve, judge, filter, finetune, eval]")
    steps: list[Step] = []
    for position, entry in enumerate(recipe.pipeline, 1):
        step = _read_step(position, entry)
        _check_name(step, steps)
        _check_settings(recipe, step)
        _check_sources(step, steps)
        steps.append(step)
    _check_roles(recipe, steps)
    is_same_each_round = all(step.every == 1 and step.when is None for step in steps)
    for number in range(1, 2 if is_same_each_round else CHECKED_ROUNDS + 1):
        steps_of_round(recipe, steps, number)
    return tuple(steps)


def steps_of_tree(pipeline: Sequence[object]) -> list[Step]:
    """Return the steps of a pipeline as it stands in a resolved recipe; their own keys are not checked.

    Raises:
        ConfigError: an entry that is no step.
    """
    return [_read_step(position, entry) for position, entry in enumerate(pipeline, 1)]


def _check_roles(recipe: Recipe, steps: Sequence[Step]) -> None:
    """Refuse a role that is played but not declared, or declared but not played: both are mostly a slip of the pen."""
    played: set[str] = set()
    for step in steps:
        role = getattr(getattr(recipe_of_step(recipe, step), step.stage), "role", None)
        if role is not None:
            check_role(recipe, role, f"{step.place}: role")
            played.add(role)
    for role in recipe.roles:
        if role not in (*PREDEFINED_ROLES, *played):
            near = did_you_mean(role, {*PREDEFINED_ROLES, *played})
            raise ConfigError(f"roles.{role}: no step plays this role; {near} (a step plays it by its key role)")


def _read_step(position: int, entry: object) -> Step:
    where = f"pipeline[{position}]"
    if isinstance(entry, str):
        entry = {entry: None}
    if not isinstance(entry, Mapping) or len(entry) != 1:
        raise ConfigError(f"{where}: expected a stage, or one stage with its keys like {{judge: {{name: gate}}}}")
    ((stage, keys),) = entry.items()
    if stage not in STAGES:
        raise ConfigError(f'{where}: unknown stage "{stage}"; {did_you_mean(str(stage), STAGES)}')
    if keys is not None and not isinstance(keys, Mapping):
        raise ConfigError(f"{where} ({stage}): expected keys like {{name: gate}}, found {keys!r}")
    own = dict(keys or {})
    name, every, sources = own.pop("name", stage), own.pop("every", 1), own.pop("from", ())
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(f"{where} ({stage}): name: expected small letters, digits and _, found {name!r}")
    if not isinstance(every, int) or isinstance(every, bool) or every < 1:
        raise ConfigError(f"{where} ({stage}): every: expected a number of rounds from 1, found {every!r}")
    sources = (sources,) if isinstance(sources, str) else sources
    if not isinstance(sources, Sequence) or not all(isinstance(one, str) for one in sources):
        raise ConfigError(f"{where} ({stage}): from: expected names of earlier steps, found {sources!r}")
    when = own.pop("when", None)
    step = Step(position, stage, name, tuple(sources), when, every, own)
    if when is not None:
        Formula(when, WHEN_NAMES, f"{step.place}: when")
    return step


def _check_name(step: Step, earlier: Sequence[Step]) -> None:
    if any(other.name == step.name for other in earlier):
        raise ConfigError(f'{step.place}: a second step called "{step.name}"; give it a name of its own: name: ...')
    top = {name for name, _, _, _ in section_fields(Recipe)}
    if step.is_named and step.name in top:
        raise ConfigError(f'{step.place}: name: "{step.name}" is a key of recipes; --set could not tell them apart')


def _check_settings(recipe: Recipe, step: Step) -> None:
    section: Section = getattr(recipe, step.stage)
    known = [name for name, _, _, _ in section_fields(type(section))]
    for key in step.settings:
        if key not in known:
            near = did_you_mean(str(key), [*known, *OWN_KEYS])
            raise ConfigError(f'{step.place}: unknown key "{key}"; {near}')
    recipe_of_step(recipe, step)


def _check_sources(step: Step, earlier: Sequence[Step]) -> None:
    if not step.sources:
        return
    if step.stage not in READS_ROWS:
        raise ConfigError(f"{step.place}: from: {step.stage} reads no rows of other steps")
    known = [other.name for other in earlier if other.stage in WRITES_ROWS]
    for name in step.sources:
        if name not in known:
            raise ConfigError(f'{step.place}: from: no earlier step "{name}" with rows; {did_you_mean(name, known)}')


def recipe_of_step(recipe: Recipe, step: Step) -> Recipe:
    """Return the recipe as one step sees it: its stage's section with the step's own keys over it.

    Raises:
        ConfigError: an unknown key, or a value of the wrong type; names the step.
    """
    if not step.settings:
        return recipe
    section: Section = getattr(recipe, step.stage)
    check_keys(step.settings, type(section), step.place, "", {})
    tree = {**msgspec.to_builtins(section), **step.settings}
    changed = convert_section(tree, type(section), step.place, {})
    return msgspec.structs.replace(recipe, **{step.stage: changed})


def written(step: Step) -> str | dict[str, Any]:
    """Return the step as a recipe has it, in its shortest form."""
    own: dict[str, Any] = {"name": step.name} if step.is_named else {}
    own |= {"from": list(step.sources)} if step.sources else {}
    own |= {"when": step.when} if step.when is not None else {}
    own |= {"every": step.every} if step.every != 1 else {}
    own |= step.settings
    return {step.stage: own} if own else step.stage


def step_named(recipe: Recipe, stage: str, name: str | None) -> Step | None:
    """Return the step that a single command plays; null where the recipe has no step of that stage.

    Raises:
        ConfigError: no step of that name or another stage's, or several steps and no name.
    """
    steps = steps_of(recipe)
    own = [step for step in steps if step.stage == stage]
    if name is None:
        if len(own) > 1:
            names = ", ".join(step.name for step in own)
            raise ConfigError(f"the recipe has {len(own)} {stage} steps ({names}); say which with --step")
        return own[0] if own else None
    for step in steps:
        if step.name == name:
            if step.stage != stage:
                raise ConfigError(f'--step {name}: a {step.stage} step, played by "mae {step.stage}"')
            return step
    raise ConfigError(f"--step {name}: no step of that name; {did_you_mean(name, [step.name for step in own])}")


def steps_of_round(recipe: Recipe, steps: Sequence[Step], number: int) -> list[RoundStep]:
    """Return the steps that run in a round, in order, with the steps they read.

    A step that does not run is passed through: who would read it reads what it would have read. Without `from` a step
    reads the nearest earlier step that wrote rows; `propose` begins a new chain of rows, and so does a `solve` that
    draws problems from the pool when the chain before it has been solved already.

    Raises:
        ConfigError: a step of this round has nothing to read.
    """
    found: list[RoundStep] = []
    reads: dict[str, tuple[Step, ...]] = {}
    writers: list[Step] = []
    for step in steps:
        own = _own_reads(recipe, step, reads, writers)
        is_due = runs_in(step, number)
        reads[step.name] = (step,) if is_due else own
        if not is_due:
            continue
        if not own and step.stage in READS_ROWS and not _draws(recipe, step):
            why = "; solve.num_problems would draw some from the pool" if step.stage == "solve" else ""
            raise ConfigError(f"{step.place}: no earlier step of round {number} wrote rows for it to read{why}")
        found.append(RoundStep(step, own))
        if step.stage in WRITES_ROWS:
            writers.append(step)
    return found


def _own_reads(
    recipe: Recipe, step: Step, reads: Mapping[str, tuple[Step, ...]], writers: Sequence[Step]
) -> tuple[Step, ...]:
    if step.stage not in READS_ROWS:
        return ()
    if step.sources:
        return tuple({one.name: one for name in step.sources for one in reads[name]}.values())
    if not writers:
        return ()
    chain = _chain(recipe, writers)
    if _draws(recipe, step) and any(other.stage == "solve" for other in chain):
        return ()
    return (writers[-1],)


def _chain(recipe: Recipe, writers: Sequence[Step]) -> list[Step]:
    """The steps that wrote the rows of the last writer, back to where they began."""
    chain: list[Step] = []
    for step in reversed(writers):
        chain.append(step)
        if step.stage == "propose" or (_draws(recipe, step) and not step.sources):
            break
    return chain


def _draws(recipe: Recipe, step: Step) -> bool:
    """Whether it is a solve step with problems from the pool."""
    return step.stage == "solve" and recipe_of_step(recipe, step).solve.num_problems > 0


def runs_in(step: Step, number: int) -> bool:
    """Whether a step runs in a round: its `every` divides the round's number and its `when` is known and not 0."""
    if number % step.every:
        return False
    return step.when is None or bool(Formula(step.when, WHEN_NAMES, step.place).value({"round": float(number)}))


assert set(STAGES) < set(SECTIONS)
