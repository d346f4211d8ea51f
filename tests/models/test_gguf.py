"""Where the GGUF converter is looked for, and what its failures are."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest

from mae_cli.errors import ConfigError, MissingDependencyError, TemporaryError
from mae_cli.models.gguf import CONVERTER, convert, find_converter


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A converter installed as a package beside mae."""
    place = tmp_path / "site-packages" / CONVERTER
    place.parent.mkdir()
    place.touch()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace(origin=str(place)))
    monkeypatch.delenv("LLAMA_CPP_DIR", raising=False)
    return place


def test_the_installed_package_is_found_and_a_folder_that_is_named_goes_first(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_converter(None) == installed

    own = tmp_path / "llama.cpp"
    own.mkdir()
    with pytest.raises(ConfigError, match="is not there"):
        find_converter(own)
    (own / CONVERTER).touch()
    monkeypatch.setenv("LLAMA_CPP_DIR", str(own))
    assert find_converter(None) == own / CONVERTER
    monkeypatch.delenv("LLAMA_CPP_DIR")
    assert find_converter(own) == own / CONVERTER


@pytest.mark.parametrize(
    ("line", "error", "message"),
    [
        ("ModuleNotFoundError: No module named 'sentencepiece'", MissingDependencyError, "pip install sentencepiece"),
        ("ModuleNotFoundError: No module named 'google.protobuf'", MissingDependencyError, "pip install protobuf"),
        (
            "ModuleNotFoundError: No module named 'mistral_common'",
            MissingDependencyError,
            "mistral-common|mistral_common",
        ),
        ("OSError: [Errno 28] No space left on device", TemporaryError, "No space left"),
        ("KeyError: 'lm_head'", TemporaryError, "KeyError"),
    ],
)
def test_a_package_that_the_converter_lacks_is_named_and_nothing_to_wait_for(
    line: str, error: type[Exception], message: str, tmp_path: Path
) -> None:
    script = tmp_path / CONVERTER
    script.write_text(f"import sys; print({line!r}, file=sys.stderr); sys.exit(1)")
    folder = tmp_path / "model"
    folder.mkdir()

    with pytest.raises(error, match=message):
        convert(script, folder, "f32")
    assert list(folder.iterdir()) == []
