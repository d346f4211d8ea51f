"""Checks of an adapter's folder: files, PEFT kind, the base it was trained on, its tensors against the model."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mae_cli.errors import EngineError, one_line
from mae_cli.models.adapters import CONFIG, WEIGHTS
from mae_cli.models.digests import is_whole_model, model_digest
from mae_cli.models.lineage import read_lineage
from mae_cli.stages.doctor.findings import Finding, note, ok, problem
from mae_cli.stages.doctor.weights import file_fault, read_header

CHECK = "adapter"


def adapter(folder: Path, base: Path | None, model: Any | None) -> Iterator[Finding]:
    """One adapter against the model it would be put on.

    Args:
        folder: of the adapter.
        base: folder of the model; null where it is not here.
        model: the base without weights; null where it could not be opened.
    """
    if not folder.is_dir():
        yield problem(CHECK, f"{folder}: no such folder", "give the folder that mae finetune wrote")
        return
    if is_whole_model(folder):
        yield note(CHECK, f"{folder} holds a whole model, which stands in the model's place")
        return
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        yield problem(CHECK, f"{folder}: no adapter there: {missing[0]} is missing", "give the folder with both files")
        return
    fault = file_fault(folder / WEIGHTS)
    if fault is not None:
        yield problem(CHECK, f"{folder / WEIGHTS}: {fault}", "copy it again, or train again")
        return
    config = _config(folder / CONFIG)
    kind = str(config.get("peft_type", "none named"))
    if kind != "LORA":
        yield problem(CHECK, f"{folder}: its kind is {kind}; mae trains and merges LoRA", "give a LoRA adapter")
        return
    rank = f"LoRA, rank {config.get('r')}, alpha {config.get('lora_alpha')}"
    yield ok(CHECK, f"{folder}: {rank}{', DoRA' if config.get('use_dora') else ''}")
    yield from _base(folder, config, base)
    if model is not None:
        yield from _tensors(folder, config, model)


def _config(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise EngineError(f"{path}: not JSON: {one_line(error)}") from error
    if not isinstance(tree, dict):
        raise EngineError(f"{path}: expected an object, found {type(tree).__name__}")
    return tree


def _base(folder: Path, config: dict[str, Any], base: Path | None) -> Iterator[Finding]:
    lineage = read_lineage(folder)
    wanted = lineage.base_digest if lineage is not None else None
    named = config.get("base_model_name_or_path")
    if base is None:
        yield note("adapter base", f"trained on {named}; the model is not here to compare")
    elif wanted is None:
        yield note("adapter base", f"trained on {named}; no digest says whether that is the model at hand")
    elif wanted != (found := model_digest(base)):
        told = f"trained on {named} with digest {wanted}, the model at hand has {found}"
        yield problem("adapter base", told, "give -m the model it was trained on")
    else:
        yield ok("adapter base", f"the model it was trained on ({wanted})")


def _tensors(folder: Path, config: dict[str, Any], model: Any) -> Iterator[Finding]:
    """Each pair of LoRA matrices against the layer it names: A is (rank, inputs), B is (outputs, rank)."""
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    modules = dict(model.named_modules())
    held = {name: tuple(entry["shape"]) for name, entry in read_header(folder / WEIGHTS).items()}
    for name, shape in sorted(held.items()):
        match = re.fullmatch(r"(?:base_model\.model\.)?(.*)\.lora_([AB])(?:\.\w+)?\.weight", name)
        if match is None:
            continue
        layer, side = match[1], match[2]
        if layer not in modules:
            told = f"it was trained on another model: {layer} is not there"
            yield problem("adapter tensors", told, "give -m the model it was trained on")
            return
        of = shapes.get(f"{layer}.weight")
        if of is None or len(of) != 2 or len(shape) != 2:
            continue
        fits = shape[1] in of if side == "A" else shape[0] in of
        if not fits:
            told = f"it was trained on another model: {name} is {shape}, the layer's weight {of}"
            yield problem("adapter tensors", told, "give -m the model it was trained on")
            return
    if not any(".lora_" in name for name in held):
        yield problem("adapter tensors", "no LoRA matrix in its weights", "train again")
        return
    yield ok("adapter tensors", f"{len(held)} fit the layers of the model (target_modules {_short(config)})")


def _short(config: dict[str, Any]) -> str:
    targets = config.get("target_modules")
    return ", ".join(sorted(map(str, targets))) if isinstance(targets, list) else str(targets)
