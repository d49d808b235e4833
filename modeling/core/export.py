"""What the download of a model holds: weights in open formats, tokenizer, and a predict.py that runs alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modeling.core import artifacts, export_peft
from modeling.core.flatten import flatten
from modeling.core.receipts import ARTEFACT
from modeling.core.types import Tensors

TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "vocab.json", "merges.txt",
    "chat_template.jinja",
)  # fmt: skip
_BLOCK = 1 << 18


@dataclass(frozen=True)
class File:
    """One file of a download: its path inside, and its bytes or where they lie."""

    path: str
    content: bytes | Path

    def blocks(self) -> Iterator[bytes]:
        """The bytes, at most 256 KiB at a time."""
        if isinstance(self.content, bytes):
            for start in range(0, len(self.content), _BLOCK):
                yield self.content[start : start + _BLOCK]
            return
        with self.content.open("rb") as stream:
            while block := stream.read(_BLOCK):
                yield block


@dataclass(frozen=True)
class Kind:
    """How one sort of model is run outside: the module behind predict.py, what to install, and how to call it."""

    module: str
    title: str
    needs: tuple[str, ...]
    call: str


TEXT = Kind(
    "modeling.core.exported.text",
    "Classifies texts with this model.",
    ("numpy", "safetensors", "torch", "transformers"),
    'python predict.py "a text" "another text"',
)
TABLE = Kind(
    "modeling.core.exported.rows",
    "Predicts from rows of a table with this model.",
    ("numpy", "safetensors"),
    "python predict.py < rows.jsonl",
)
ITEMS = Kind(
    "modeling.core.exported.items",
    "Recommends items with this model.",
    ("numpy", "safetensors"),
    "python predict.py ITEM ITEM",
)
CHAT = Kind("modeling.core.exported.chat", "Answers with this model.",
            ("torch", "transformers", "peft"), 'python predict.py "a question"')  # fmt: skip


def kind_of(config: Mapping[str, Any]) -> Kind:
    """How a model with this config is run outside; raises CannotExport for an unknown task."""
    if config.get("base") == "tabular":
        return TABLE
    found = {"classification": TEXT, "recommendation": ITEMS, "chat": CHAT}.get(str(config.get("task")))
    if found is None:
        raise export_peft.CannotExport(f"There is no download for the task {config.get('task')!r}.")
    return found


def files(
    content: bytes, base_folder: Path | None, *, source: str = "", with_base: bool = False
) -> Iterator[File]:
    """The files of a download, from an artefact's bytes; `source` is the base model's public name.

    `base_folder` is the installed base (None for tables), put in whole `with_base`. Raises BrokenArtifact and
    CannotExport.
    """
    tensors, config = artifacts.load(content)
    kind = kind_of(config)
    yield File(ARTEFACT, content)
    yield File("predict.py", flatten(kind.module, title=kind.title).encode())
    yield File("requirements.txt", ("\n".join(requirements(tensors, kind)) + "\n").encode())
    if base_folder is None or kind in (ITEMS, TABLE):
        return
    for name in TOKENIZER:
        if (base_folder / name).is_file():
            yield File(f"tokenizer/{name}", base_folder / name)
    yield from _weights(tensors, config, base_folder, source)
    if with_base:
        for file in sorted(base_folder.iterdir()):
            yield File(f"base/{file.name}", file)


def requirements(tensors: Tensors, kind: Kind) -> list[str]:
    """The packages that predict.py imports."""
    adapted = any(name.startswith(("lora.", "adapter.")) for name in tensors)
    return sorted({*kind.needs, *(["peft"] if adapted else [])})


def _weights(tensors: Tensors, config: Mapping[str, Any], base_folder: Path, source: str) -> Iterator[File]:
    """The adapter in PEFT's format, or the whole model that replaces the base; nothing for a head alone."""
    if "adapter.A" in tensors:
        made, folder = export_peft.final_hidden_files(tensors, base_folder, base=source), "adapter"
    elif any(name.startswith("lora.") for name in tensors):
        made, folder = export_peft.lora_files(tensors, config, base=source), "adapter"
    elif any(name.startswith("full.") for name in tensors):
        made, folder = export_peft.full_files(tensors, base_folder), "model"
    else:
        return
    for name, found in made.items():
        yield File(f"{folder}/{name}", found)
