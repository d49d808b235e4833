"""What the encoder bench runs on: a tenant per row with adapters on every linear layer, in our banks and in PEFT."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch.nn import functional
from transformers import AutoModel

from modeling.core.types import Tensors
from modeling.serving.bank import Mix, SlotBank
from modeling.serving.bert import Bert
from modeling.serving.encoder_sessions import Floats

RANK, TENANTS, LENGTH = 8, 64, 32
LINEARS = ("query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense")
_SCALE = 0.05

Rows = list[list[int]]


def equal_rows() -> Rows:
    """64 rows of 32 tokens."""
    chance = np.random.default_rng(0)
    return chance.integers(1000, 20000, (TENANTS, LENGTH)).tolist()


def ragged_rows() -> Rows:
    """64 rows whose lengths spread as those of requests do: most short, some long."""
    chance = np.random.default_rng(1)
    lengths = np.clip(np.exp(chance.normal(3.0, 0.9, TENANTS)), 4, 256).astype(int)
    return [chance.integers(1000, 20000, length).tolist() for length in lengths]


def tokens(rows: Rows) -> int:
    """Tokens of all rows."""
    return sum(map(len, rows))


def factors(model: Bert, tenant: int) -> dict[str, torch.Tensor]:
    """A tenant's adapters of every linear layer."""
    dice = torch.Generator().manual_seed(tenant)
    return {name: torch.randn(s, generator=dice) * _SCALE for name, s in model.lora_shapes(RANK).items()}


def lora_tensors(model: Bert, tenant: int) -> Tensors:
    """The same as they lie in an artefact."""
    return {f"lora.{name}": value.numpy() for name, value in factors(model, tenant).items()}


def bank(model: Bert, dtype: torch.dtype) -> SlotBank:
    """All tenants' adapters in slots 1 to 64."""
    made = SlotBank(model.lora_shapes(RANK), slots=TENANTS, dtype=dtype)
    for tenant in range(TENANTS):
        for name, value in factors(model, tenant).items():
            made.tables[name][tenant + 1] = value.to(dtype)
            made.holders[name] += 1
    return made


def one_each(made: SlotBank) -> list[Mix]:
    """Row i uses tenant i's adapters."""
    return [Mix(made, torch.arange(1, TENANTS + 1))]


class HuggingFace:
    """The same base as the transformers library runs it, eagerly, in float32."""

    def __init__(self, folder: Path) -> None:
        self.model: Any = AutoModel.from_pretrained(
            str(folder), local_files_only=True, add_pooling_layer=False
        )
        self.model.eval()

    def embed(self, rows: Sequence[Sequence[int]]) -> Floats:
        """Padded to the longest of the batch, pooled and scaled."""
        longest = max(map(len, rows))
        ids = torch.zeros(len(rows), longest, dtype=torch.long)
        mask = torch.zeros(len(rows), longest, dtype=torch.long)
        for index, row in enumerate(rows):
            ids[index, : len(row)], mask[index, : len(row)] = torch.tensor(row), 1
        hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        found: Floats = functional.normalize((hidden * mask[:, :, None]).sum(1), dim=1).numpy()
        return found

    def one_by_one(self, rows: Sequence[Sequence[int]]) -> Floats:
        """A run for each row."""
        return np.concatenate([self.embed([row]) for row in rows])


class Switching(HuggingFace):
    """PEFT: all tenants' adapters attached, one switched on after another."""

    def __init__(self, folder: Path, base: Bert) -> None:
        super().__init__(folder)
        settings = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=list(LINEARS), lora_dropout=0.0)
        self.model = get_peft_model(self.model, settings, adapter_name="t0").eval()
        for tenant in range(1, TENANTS):
            self.model.add_adapter(f"t{tenant}", settings)
        places = dict(self.model.named_modules())
        for tenant in range(TENANTS):
            for name, value in factors(base, tenant).items():
                path, part = name[:-2], name[-1]
                linear = places[f"base_model.model.{path}"]
                getattr(linear, f"lora_{part}")[f"t{tenant}"].weight.data.copy_(value)

    def embed_all(self, rows: Sequence[Sequence[int]]) -> Floats:
        """Row i through tenant i's adapters."""
        found = []
        for tenant, row in enumerate(rows):
            self.model.set_adapter(f"t{tenant}")
            found.append(self.embed([row]))
        return np.concatenate(found)
