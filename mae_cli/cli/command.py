"""Parts that all commands share: make the job, print the summary, handle --dry-run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from mae_cli.cli.options import Common
from mae_cli.recipe.sections import Recipe

if TYPE_CHECKING:
    from mae_cli.records import Policy
    from mae_cli.stages.generation.job import Job
    from mae_cli.stages.generation.summary import StageSummary

_INPUT: dict[str, Any] = {"show_default": False}
In = Annotated[list[Path], typer.Argument(help="JSONL file (or several), or - for standard input", **_INPUT)]
MaybeIn = Annotated[
    list[Path] | None, typer.Argument(help="JSONL file (or several), or -; none: the pool alone", **_INPUT)
]
Out = Annotated[Path, typer.Option("-o", "--output", help="output file, or - for standard output", show_default=False)]
Pool = Annotated[Path | None, typer.Option("--pool", help="pool snapshot that training rows are drawn from")]


def open_command(
    recipe: Recipe, common: Common, stage: str | None, output: Path | None = None, *, joins: bool = False
) -> Job:
    """Return the job of one command.

    Args:
        recipe: loaded, flags included.
        common: the flags that are no recipe keys.
        stage: the pipeline's stage that the command plays; null for the others.
        output: where rows go.
        joins: several processes of the command may work together under a launcher.
    """
    from mae_cli.models.launcher import rank, refuse_launcher
    from mae_cli.recipe.steps import step_named
    from mae_cli.stages.generation.job import open_job
    from mae_cli.stages.generation.progress import Progress

    if not joins:
        refuse_launcher("this command")
    _check_streams(common, output, is_first=not rank())
    job = open_job(
        recipe,
        progress=Progress(quiet=common.quiet),
        crew=_crew(recipe, common),
        round_number=common.round_number,
        limit=common.limit,
        shard=_shard(common, output),
        overwrite=common.overwrite,
        allow_incomplete=common.allow_incomplete,
        retry_failed=common.retry_failed,
    )
    return job.of_step(step_named(recipe, stage, common.step)) if stage is not None else job


def _check_streams(common: Common, output: Path | None, *, is_first: bool) -> None:
    from mae_cli.errors import ConfigError

    if not is_first:
        common.quiet, common.json = True, False  # the first process speaks for all
    if common.json and output == Path("-"):
        raise ConfigError("-o - and --json both want standard output; give a file, or leave out --json")


def _shard(common: Common, output: Path | None) -> Any:
    from mae_cli.errors import ConfigError
    from mae_cli.records.shards import parse_shard

    shard = parse_shard(common.shard) if common.shard else None
    if shard is not None and output == Path("-"):
        raise ConfigError("-o -: a shard is merged from its file; name one")
    return shard


def _crew(recipe: Recipe, common: Common) -> Any:
    from mae_cli.stages.generation.devices import parse_devices
    from mae_cli.stages.generation.workers import Crew

    return Crew(parse_devices(common.devices, recipe.engine)) if common.devices is not None else None


def print_json(value: Any) -> None:
    """Print a value as one JSON object; in ASCII where standard output is not UTF-8, as JSON has to be."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        text = msgspec.json.encode(value).decode()
        is_safe = text.isascii() or encoding.lower().replace("-", "").replace("_", "") == "utf8"
    except UnicodeEncodeError:  # a file name that is not UTF-8
        is_safe = False
    print(text if is_safe else json.dumps(msgspec.to_builtins(value)), flush=True)


def print_summary(summary: StageSummary, common: Common) -> None:
    """Print a command's last line on standard error, and with --json the summary as one object."""
    if not common.quiet:
        print(summary.line(), file=sys.stderr)
    if common.json:
        print_json(summary)


def is_dry_run(
    job: Job, common: Common, *inputs: Path | None, with_model: bool = True, stage: str | None = None
) -> bool:
    """With --dry-run: read the inputs, build the plugins, resolve the model, say so, and return true.

    With a stage also its first prompt is shown, as the model would see it.
    """
    from mae_cli.cli.first_prompt import first_prompt
    from mae_cli.plugins.check import check_plugins
    from mae_cli.plugins.contracts import can_check

    if not common.dry_run:
        return False
    check_plugins(job.recipe)
    for path in inputs:
        if path is not None:
            job.read(path)
    policy = job.engines.trained.policy if with_model else None
    if with_model and can_check(job.engines.trained):
        job.engines.trained.check()
    files = [path for path in inputs if path is not None and path != Path("-")]  # standard input has been read
    prompt = first_prompt(job, stage, files) if stage is not None else None
    _say_dry_run(common, policy, prompt)
    return True


def _say_dry_run(common: Common, policy: Policy | None, prompt: str | None) -> None:
    if not common.quiet:
        if prompt is not None:
            print(f"first prompt:\n{prompt}", file=sys.stderr)
        print(f"dry run: inputs and recipe are sound{f'; policy {policy.model}' if policy else ''}", file=sys.stderr)
    if common.json:
        print_json({"dry_run": True, "policy": policy, "first_prompt": prompt})
