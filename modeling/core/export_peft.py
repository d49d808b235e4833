"""Adapters in PEFT's own format: what plain PEFT loads on the base model, and gives the same outputs."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from modeling.core.types import Array, CoreError, Tensors

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
_PREFIX = "base_model.model."
_ROWS_AT_ONCE = 4096
_KINDS: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "BF16": np.dtype("<u2"),
    "F16": np.dtype("<f2"),
}


class CannotExport(CoreError):
    """This artefact has no form that PEFT or transformers could read."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="cannot_export")


def lora_files(tensors: Tensors, config: Mapping[str, Any], *, base: str) -> dict[str, bytes]:
    """`lora.<path>.A/.B` of an artefact as adapter_model.safetensors and adapter_config.json.

    Classification adapts the bare encoder (AutoModel), chat the causal model (AutoModelForCausalLM). An `invocation` in
    the config makes it an activated LoRA, which changes nothing before those tokens.
    """
    is_chat = config["task"] == "chat"
    found: Tensors = {}
    for name, value in tensors.items():
        if not name.startswith("lora."):
            continue
        path, letter = name[len("lora.") :].rsplit(".", 1)
        if is_chat and not path.startswith(("model.", "lm_head")):
            path = f"model.{path}"
        found[f"{_PREFIX}{path}.lora_{letter}.weight"] = np.ascontiguousarray(value, dtype=np.float32)
    targets = sorted({name[len(_PREFIX) :].rsplit(".lora_", 1)[0] for name in found})
    ranks = {len(value) for name, value in found.items() if ".lora_A." in name}
    if ranks != {int(config["rank"])}:
        raise CannotExport("The adapter's tensors do not have the rank that its config names.")
    adapter = _adapter(base, targets, rank=int(config["rank"]), alpha=float(config["alpha"]), is_chat=is_chat)
    if config.get("invocation"):
        adapter["alora_invocation_tokens"] = [int(token) for token in config["invocation"]]
    return {WEIGHTS: save(found, metadata={"format": "pt"}), CONFIG: _json(adapter)}


def final_hidden_files(tensors: Tensors, base_folder: Path, *, base: str) -> dict[str, bytes]:
    """The adapter h' = h + B A h + bias as a LoRA of the output layer, exact in real numbers.

    With W the output layer (the word vectors, which it shares): W h' = W h + (W B)(A h) + W bias. So lora_A is A,
    lora_B is W B, and lora_B's own bias (PEFT's lora_bias) is W bias; the scale alpha/r is 1.
    """
    vocabulary = output_rows(base_folder / "model.safetensors")
    down = np.asarray(tensors["adapter.A"], dtype=np.float32)
    right = np.column_stack([tensors["adapter.B"], tensors["adapter.bias"]]).astype(np.float64)
    product = np.concatenate([rows.astype(np.float64) @ right for rows in vocabulary]).astype(np.float32)
    path = f"{_PREFIX}lm_head"
    found: Tensors = {
        f"{path}.lora_A.weight": np.ascontiguousarray(down),
        f"{path}.lora_B.weight": np.ascontiguousarray(product[:, :-1]),
        f"{path}.lora_B.bias": np.ascontiguousarray(product[:, -1]),
    }
    adapter = _adapter(base, ["lm_head"], rank=len(down), alpha=float(len(down)), is_chat=True)
    adapter["lora_bias"] = True
    return {WEIGHTS: save(found, metadata={"format": "pt"}), CONFIG: _json(adapter)}


def full_files(tensors: Tensors, base_folder: Path, *, prefix: str = "full.") -> dict[str, bytes]:
    """A whole model: the base's config and its weights, with every `full.<name>` in place of the base's own."""
    trained = {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
    file = base_folder / "model.safetensors"
    found: Tensors = {name: whole_tensor(file, name) for name in header_of(file)}
    for name, value in trained.items():
        place = next((one for one in (name, f"model.{name}", f"bert.{name}") if one in found), None)
        if place is None or found[place].shape != value.shape:
            raise CannotExport(f"The base model has no place for {name}.")
        found[place] = np.ascontiguousarray(value, dtype=np.float32)
    return {
        "model.safetensors": save(found, metadata={"format": "pt"}),
        "config.json": (base_folder / "config.json").read_bytes(),
    }


def header_of(file: Path) -> dict[str, dict[str, Any]]:
    """Name -> dtype, shape and place of every tensor in a safetensors file."""
    with file.open("rb") as stream:
        (size,) = struct.unpack("<Q", stream.read(8))
        header: dict[str, dict[str, Any]] = json.loads(stream.read(size))
    offset = 8 + size
    header.pop("__metadata__", None)
    for entry in header.values():
        entry["start"] = offset + entry["data_offsets"][0]
    return header


def output_rows(file: Path) -> Iterator[Array]:
    """The output layer's rows, float32 [at most 4096, d] at a time: the word vectors where both are one."""
    header = header_of(file)
    name = "lm_head.weight" if "lm_head.weight" in header else "model.embed_tokens.weight"
    rows, _ = header[name]["shape"]
    for start in range(0, rows, _ROWS_AT_ONCE):
        yield _read(file, header[name], start, min(start + _ROWS_AT_ONCE, rows))


def whole_tensor(file: Path, name: str) -> Any:
    """One tensor: floating point as float32, whole numbers as they are."""
    entry = header_of(file)[name]
    if entry["dtype"] == "I64":
        return _raw(file, entry, np.dtype("<i8"), 0, int(np.prod(entry["shape"]))).reshape(entry["shape"])
    rows = entry["shape"][0] if entry["shape"] else 1
    return _read(file, entry, 0, rows).reshape(entry["shape"])


def _read(file: Path, entry: Mapping[str, Any], first: int, stop: int) -> Array:
    """Rows first..stop of a tensor as float32; bfloat16 is the upper half of it, which numpy does not know."""
    kind = _KINDS.get(entry["dtype"])
    if kind is None:
        raise CannotExport(f"The base model has numbers of the kind {entry['dtype']}.")
    inner = [int(size) for size in entry["shape"][1:]]
    width = int(np.prod(inner)) if inner else 1
    raw = _raw(file, entry, kind, first * width, stop * width)
    if entry["dtype"] == "BF16":
        raw = (raw.astype(np.uint32) << 16).view(np.float32)
    return np.asarray(raw, dtype=np.float32).reshape(stop - first, *inner)


def _raw(file: Path, entry: Mapping[str, Any], kind: np.dtype[Any], first: int, stop: int) -> Any:
    with file.open("rb") as stream:
        stream.seek(int(entry["start"]) + first * kind.itemsize)
        return np.frombuffer(stream.read((stop - first) * kind.itemsize), dtype=kind)


def _adapter(base: str, targets: list[str], *, rank: int, alpha: float, is_chat: bool) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM" if is_chat else "FEATURE_EXTRACTION",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "target_modules": targets,
        "bias": "none",
        "lora_bias": False,
        "fan_in_fan_out": False,
        "inference_mode": True,
    }


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()
