"""Base models: reviewed files only, installed once, found by id."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from modeling.core import bases
from modeling.core.bases import BASES, Base, BaseMissing, DigestMismatch, install, path


def planted(folder: Path) -> Base:
    """A small base whose files lie in `folder`."""
    files = {"config.json": b"{}", "model.safetensors": b"weights"}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    digests = {name: sha256(data).hexdigest() for name, data in files.items()}
    return replace(BASES["minilm-l6"], id="tiny", files=digests)


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Base, Path]:
    source = tmp_path / "source"
    source.mkdir()
    base = planted(source)
    monkeypatch.setattr(bases, "BASES", {"tiny": base})
    return base, source


def test_installs_once_and_is_found(tiny: tuple[Base, Path], tmp_path: Path) -> None:
    base, source = tiny
    models, lines = tmp_path / "models", []
    install(models, source=lambda _: source, announce=lines.append)
    folder = path(models, "tiny")
    assert folder.name == f"tiny@{base.digest}"
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert lines[-1] == "base model tiny: ready"
    before = (folder / "base.json").stat().st_mtime_ns
    install(models, source=lambda _: source, announce=lines.append)
    assert lines[-1] == "base model tiny: installed"
    assert (folder / "base.json").stat().st_mtime_ns == before


def test_a_changed_file_is_refused_and_leaves_nothing(tiny: tuple[Base, Path], tmp_path: Path) -> None:
    _, source = tiny
    (source / "model.safetensors").write_bytes(b"weightz")
    models = tmp_path / "models"
    with pytest.raises(DigestMismatch, match=r"model\.safetensors"):
        install(models, source=lambda _: source, announce=lambda _: None)
    assert [item.name for item in models.iterdir()] == [".lock"]
    with pytest.raises(BaseMissing, match="not installed"):
        path(models, "tiny")


def test_what_a_killed_installer_left_is_swept(tiny: tuple[Base, Path], tmp_path: Path) -> None:
    _, source = tiny
    models = tmp_path / "models"
    leftover = models / ".tiny-abc.partial"
    leftover.mkdir(parents=True)
    (leftover / "model.safetensors").write_bytes(b"wei")
    install(models, source=lambda _: source, announce=lambda _: None)
    assert not leftover.exists()
    assert path(models, "tiny").is_dir()


def test_an_unknown_base_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(BaseMissing, match="minilm-l6, smollm2-135m"):
        path(tmp_path, "gpt-9")


def test_the_command_wants_one_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert bases.main([]) == 2
    assert "usage" in capsys.readouterr().err
