"""What every command does around its stage: open the session, print the summary, handle --dry-run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from mae_cli.cli.options import Common
from mae_cli.recipe.sections import Recipe

if TYPE_CHECKING:
    from mae_cli.stages.generation.session import Session
    from mae_cli.stages.generation.summary import StageSummary

In = Annotated[Path, typer.Argument(help="JSONL file, or - for standard input", show_default=False)]
Out = Annotated[Path, typer.Option("-o", "--output", help="output file, or - for standard output", show_default=False)]
Pool = Annotated[Path | None, typer.Option("--pool", help="pool snapshot that training rows are drawn from")]


def open_session(recipe: Recipe, common: Common, output: Path | None = None, *, joins: bool = False) -> Session:
    """The session of one command; `joins`: several processes of it may work together under a launcher."""
    from mae_cli.errors import ConfigError
    from mae_cli.models.launcher import rank, refuse_launcher
    from mae_cli.records.shards import parse_shard
    from mae_cli.stages.generation.devices import parse_devices
    from mae_cli.stages.generation.progress import Progress
    from mae_cli.stages.generation.session import Session
    from mae_cli.stages.generation.workers import Crew

    if not joins:
        refuse_launcher("this command")
    elif rank():
        common.quiet, common.json = True, False  # the first process speaks for all
    if common.json and output == Path("-"):
        raise ConfigError("-o - and --json both want standard output; give a file, or leave out --json")
    shard = parse_shard(common.shard) if common.shard else None
    if shard is not None and output == Path("-"):
        raise ConfigError("-o -: a shard is merged from its file; name one")
    return Session(
        recipe,
        progress=Progress(quiet=common.quiet),
        round_number=common.round_number,
        limit=common.limit,
        shard=shard,
        crew=Crew(parse_devices(common.devices, recipe.engine)) if common.devices is not None else None,
        overwrite=common.overwrite,
        allow_incomplete=common.allow_incomplete,
    )


def print_summary(summary: StageSummary, common: Common) -> None:
    """Print a command's last line on standard error, and with --json the summary as one object."""
    if not common.quiet:
        print(summary.line(), file=sys.stderr)
    if common.json:
        print(msgspec.json.encode(summary).decode())


def is_dry_run(session: Session, common: Common, *inputs: Path | None, with_model: bool = True) -> bool:
    """With --dry-run: read the inputs, build the plugins, resolve the model, and stop there."""
    from mae_cli.plugins.check import check_plugins
    from mae_cli.plugins.contracts import can_check

    if not common.dry_run:
        return False
    check_plugins(session.recipe)
    for path in inputs:
        if path is not None:
            session.read(path)
    policy = session.engine.policy if with_model else None
    if with_model and can_check(session.engine):
        session.engine.check()
    if not common.quiet:
        print(f"dry run: inputs and recipe are sound{f'; policy {policy.model}' if policy else ''}", file=sys.stderr)
    if common.json:
        print(msgspec.json.encode({"dry_run": True, "policy": policy}).decode())
    return True
