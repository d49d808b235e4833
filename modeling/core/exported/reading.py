"""Reads the artefact of a download: tensors and config of artefact.safetensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open

HERE = Path(__file__).resolve().parent


def read_artefact(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(tensors as numpy arrays, config) of a model folder."""
    with safe_open(str(folder / "artefact.safetensors"), framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        config: dict[str, Any] = json.loads(file.metadata()["config"])
    return tensors, config


def base_of(folder: Path, name: str) -> str:
    """Where the base model is: in the download if it was asked for, else by its public name."""
    return str(folder / "base") if (folder / "base").is_dir() else name
