"""The artefact of a training run as bytes: safetensors with the JSON config and a digest in its metadata."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from modeling.core.types import CoreError, Tensors

FORMAT = 1


class BrokenArtifact(CoreError):
    """The bytes are not an artefact of ours, or not the ones that were written."""


def dump(tensors: Tensors, config: dict[str, Any]) -> bytes:
    """Tensors and config as one safetensors file; the digest covers both."""
    text = json.dumps({**config, "format": FORMAT}, sort_keys=True, ensure_ascii=False)
    clean = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    return bytes(save_tensors(clean, metadata={"config": text, "digest": _digest(clean, text)}))


def load(data: bytes) -> tuple[Tensors, dict[str, Any]]:
    """The inverse of `dump`; raises BrokenArtifact for a wrong digest, format or file."""
    try:
        tensors: Tensors = load_tensors(data)
        metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
        text, digest = str(metadata["config"]), str(metadata["digest"])
        config = json.loads(text)
    except (SafetensorError, ValueError, KeyError) as error:
        raise BrokenArtifact("This is not a model file of Cloister.", code="broken_artifact") from error
    if digest != _digest(tensors, text):
        raise BrokenArtifact("The model file does not match its digest.", code="broken_artifact")
    if config.get("format") != FORMAT:
        raise BrokenArtifact("The model file has a format this version cannot read.", code="broken_artifact")
    return tensors, config


def _digest(tensors: Tensors, text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"\n{name} {value.dtype.str} {value.shape}\n".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()
