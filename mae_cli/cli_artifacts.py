"""The commands that follow what a run left behind: `mae export` and `mae trace`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

_PANEL: dict[str, Any] = {"show_default": False}


def export(
    source: Annotated[Path, typer.Argument(metavar="RUN_OR_ADAPTER", help="run, round or adapter folder", **_PANEL)],
    output: Annotated[Path, typer.Option("-o", "--output", help="model folder to write", **_PANEL)],
    merge: Annotated[bool, typer.Option("--merge", help="write a plain model folder")] = False,
    gguf: Annotated[bool, typer.Option("--gguf", help="write that, then a GGUF with llama.cpp's converter")] = False,
    model: Annotated[
        str | None, typer.Option("-m", "--model", help="the base; default: the run's or adapter's")
    ] = None,
    revision: Annotated[str | None, typer.Option("--revision", help="hub revision of the base")] = None,
    dtype: Annotated[str, typer.Option("--dtype", help="saved weights [float32|bfloat16|float16]")] = "float32",
    tolerance: Annotated[
        float, typer.Option("--tolerance", min=0.0, help="largest difference of a logit that counts as equal")
    ] = 1e-4,
    llama_cpp: Annotated[
        Path | None, typer.Option("--llama-cpp", metavar="DIR", help="folder with convert_hf_to_gguf.py")
    ] = None,
    outtype: Annotated[str, typer.Option("--outtype", help="number format of the GGUF: f32, f16, bf16, q8_0")] = "f16",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="move an existing folder aside")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="say nothing on success")] = False,
    json: Annotated[bool, typer.Option("--json", help="end with one JSON object on standard output")] = False,
) -> None:
    """Merge an adapter into its base, checked, as a model folder or GGUF.

    Example: mae export runs/demo-0 -o merged --merge
    """
    from mae_cli.errors import ConfigError
    from mae_cli.progress import Progress
    from mae_cli.stages.export import run_export

    if merge == gguf:
        raise ConfigError("export: give one of --merge and --gguf (which writes the merged folder too)")
    if dtype not in ("float32", "bfloat16", "float16"):
        raise ConfigError(f"--dtype {dtype}: expected float32, bfloat16 or float16")
    summary = run_export(
        source,
        output,
        model=model,
        revision=revision,
        dtype=dtype,  # type: ignore[arg-type]
        gguf=gguf,
        llama_cpp=llama_cpp,
        outtype=outtype,
        tolerance=tolerance,
        overwrite=overwrite,
        progress=Progress(quiet=quiet),
    )
    if not quiet:
        print(summary.line(), file=sys.stderr)
    if json:
        print(msgspec.json.encode(summary).decode())


def trace(
    identity: Annotated[str, typer.Argument(metavar="ID", help="id of a row, or its first letters", **_PANEL)],
    run_dir: Annotated[Path, typer.Option("--run-dir", help="folder of the run", **_PANEL)],
    json: Annotated[bool, typer.Option("--json", help="one JSON object instead of text")] = False,
) -> None:
    """Where a row comes from, and which adapters saw it.

    Example: mae trace 3d1e1b00 --run-dir runs/demo-0
    """
    from mae_cli.trace import trace_row, trace_text

    found = trace_row(run_dir, identity)
    print(msgspec.json.encode(found).decode() if json else trace_text(found))
