"""Tests of programming tasks by input and output, in the one shape that verifiers read: `meta.input_output`.

Place in the flow: `records.problems` calls it for every row. Contract: the columns of APPS, TACO, CodeContests,
LiveCodeBench, Codeforces, DeepCoder and of verl's code rows become {"inputs": [...], "outputs": [...]} with "fn_name"
where a function is called, each input and output as published. Packed tests are named, never unpickled. Left out:
running them.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from typing import Any, TypeGuard

import msgspec

from mae_cli.records.problem_columns import Columns, is_blank

INPUT_OUTPUT = "input_output"
_SPLIT = ("public_tests", "private_tests", "generated_tests")  # CodeContests
_LISTED = ("public_test_cases", "private_test_cases", "examples", "official_tests", "test_cases", "tests")
_SECONDS = re.compile(r"([\d.]+)\s*(ms|milliseconds?|s|secs?|seconds?)?", re.IGNORECASE)
_MOST_BYTES = 1 << 28
"""Of packed tests, unpacked."""


def take_tests(columns: Columns) -> list[str]:
    """Put a row's tests into `input_output` and its time limit into seconds; what could not be read, in words."""
    notices: list[str] = []
    whole = _whole(columns)
    uneven = from_json(columns.get(INPUT_OUTPUT))
    if whole is None and isinstance(uneven, dict) and (uneven.get("inputs") or uneven.get("outputs")):
        notices.append(
            f"{INPUT_OUTPUT}: expected lists of as many inputs as outputs, so the tests cannot be run; mend these rows"
        )
    if whole is None:
        columns.drop_blank(INPUT_OUTPUT)
        inputs: list[Any] = []
        outputs: list[Any] = []
        for name in _SPLIT:
            tests = columns.get(name)
            if isinstance(tests, dict) and _are_tests(tests.get("input"), tests.get("output")):
                columns.take(name)
                inputs += tests["input"]
                outputs += tests["output"]
        for name in _LISTED:
            for test in _take_listed(columns, name, notices):
                inputs.append(test["input"])
                outputs.append(test["output"])
        if inputs:
            whole = {"inputs": inputs, "outputs": outputs, **_function(columns)}
    asserts = columns.get("test_cases")
    if isinstance(asserts, list) and asserts and all(isinstance(one, str) for one in asserts):
        columns.left.setdefault("test_list", columns.take("test_cases"))  # AceCode
    if whole is not None:
        columns.left[INPUT_OUTPUT] = whole
        limit = _seconds(columns.left.get("time_limit"))
        if limit is not None:
            columns.left["time_limit"] = limit
    return notices


def as_tests(value: Any) -> dict[str, Any] | None:
    """Tests in the shape of APPS, as an object or as JSON text; null for anything else."""
    tree = from_json(value)
    if isinstance(tree, dict) and _are_tests(tree.get("inputs"), tree.get("outputs")):
        return tree
    return None


def _whole(columns: Columns) -> dict[str, Any] | None:
    for name in (INPUT_OUTPUT, "tests"):
        found = as_tests(columns.get(name))
        if found is not None:
            columns.take(name)
            return found
    info = from_json(columns.get("verification_info"))  # SYNTHETIC-1
    cases = info.get("test_cases") if isinstance(info, dict) else None
    if (
        isinstance(cases, list)
        and cases
        and all(isinstance(t, dict) and {"input", "output"} <= t.keys() for t in cases)
    ):
        columns.take("verification_info")
        names = {str(one["fn_name"]) for one in cases if one.get("fn_name")}
        function = {"fn_name": names.pop()} if len(names) == 1 else {}
        return {"inputs": [t["input"] for t in cases], "outputs": [t["output"] for t in cases], **function}
    return None


def _are_tests(inputs: Any, outputs: Any) -> bool:
    return isinstance(inputs, list) and isinstance(outputs, list) and bool(inputs) and len(inputs) == len(outputs)


def _are_listed(tests: Any) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(tests, list) and all(isinstance(t, dict) and {"input", "output"} <= t.keys() for t in tests)


def _take_listed(columns: Columns, name: str, notices: list[str]) -> list[dict[str, Any]]:
    value = columns.get(name)
    tests = from_json(value)
    if isinstance(tests, str) and name.endswith("_test_cases"):
        columns.take(name)
        tests = _unpacked(tests)
        if tests is None:
            notices.append(f"{name}: packed as pickle, which is not opened; the public tests alone are used")
            return []
    if not _are_listed(tests):
        return []
    columns.take(name)
    return tests


def from_json(value: Any) -> Any:
    """Return what a text of a JSON object or list holds; anything else as it stands."""
    if not isinstance(value, str) or not value.lstrip().startswith(("{", "[")):
        return value
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return value


def _unpacked(text: str) -> Any:
    """The tests in a text of base64 and zlib; null where pickle lies inside."""
    try:
        engine = zlib.decompressobj()
        data = engine.decompress(base64.b64decode(text, validate=True), _MOST_BYTES)
        return msgspec.json.decode(data)
    except (binascii.Error, zlib.error, msgspec.DecodeError, ValueError):
        return None


def _function(columns: Columns) -> dict[str, str]:
    """The function that the tests call, where the metadata of LiveCodeBench names one."""
    metadata = from_json(columns.get("metadata"))
    name = metadata.get("func_name") if isinstance(metadata, dict) else None
    return {"fn_name": name} if isinstance(name, str) and name else {}


def _seconds(value: Any) -> float | None:
    if isinstance(value, dict) and "seconds" in value:
        return float(value["seconds"] or 0) + float(value.get("nanos") or 0) / 1e9
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    found = _SECONDS.fullmatch(value.strip()) if isinstance(value, str) and not is_blank(value) else None
    if found is None:
        return None
    return float(found[1]) / (1000 if (found[2] or "").lower().startswith("m") else 1)
