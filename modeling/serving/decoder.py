"""The chat decoder: a Llama forward pass over a slot cache, one step for all conversations, and tuned final layers."""

from __future__ import annotations

import json
import math
import mmap
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.nn import functional

from modeling.serving.bank import SlotBank, low_rank


class Llama:
    """A Llama read from `config.json` and `model.safetensors`, with keys and values of `slots` conversations.

    Conversations lie in slots 0..n-1 without holes, so a step reads the cache as it lies: the caller moves the last
    one into a hole. A slot's used part is zeroed when its conversation ends. Hidden states are returned after the
    final norm, before the output layer.
    """

    def __init__(
        self, folder: Path, *, slots: int, context: int, dtype: torch.dtype = torch.bfloat16
    ) -> None:
        config = json.loads((folder / "config.json").read_text())
        self.width: int = config["hidden_size"]
        self.layers: int = config["num_hidden_layers"]
        self.kv_heads: int = config["num_key_value_heads"]
        self.group: int = config["num_attention_heads"] // self.kv_heads
        self.head: int = config.get("head_dim") or self.width // config["num_attention_heads"]
        self.inner: int = config["intermediate_size"]
        self.slots = slots
        self.context = min(context, config["max_position_embeddings"])
        self.dtype = dtype
        self._tiny: float = config["rms_norm_eps"]
        self._weights = {
            name: value.to(dtype) for name, value in load_file(folder / "model.safetensors").items()
        }
        self._embedding = self._weights.pop("model.embed_tokens.weight")
        self._output = self._weights.pop("lm_head.weight", self._embedding)
        self._fuse()
        shape = (self.layers, slots, self.kv_heads, self.context, self.head)
        self._keys, self._values = _zeros(shape, dtype), _zeros(shape, dtype)
        self._turn = self._rotation(_theta(config))

    def _fuse(self) -> None:
        for layer in range(self.layers):
            attention, mlp = f"model.layers.{layer}.self_attn", f"model.layers.{layer}.mlp"
            names = [f"{attention}.{part}_proj.weight" for part in "qkv"]
            self._weights[f"{attention}.qkv"] = torch.cat([self._weights.pop(name) for name in names])
            names = [f"{mlp}.{part}_proj.weight" for part in ("gate", "up")]
            self._weights[f"{mlp}.gate_up"] = torch.cat([self._weights.pop(name) for name in names])

    def _rotation(self, theta: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines [context, head] of the rotary embedding, both halves alike."""
        rates = theta ** (-torch.arange(0, self.head, 2, dtype=torch.float32) / self.head)
        angles = torch.outer(torch.arange(self.context, dtype=torch.float32), rates).repeat(1, 2)
        return angles.cos().to(self.dtype), angles.sin().to(self.dtype)

    def prefill(self, slot: int, tokens: Sequence[int], start: int) -> torch.Tensor:
        """Append tokens at positions start.. of one slot; the last one's hidden state [1, width]."""
        count = len(tokens)
        stop = start + count
        places = torch.arange(start, stop)
        mask = torch.arange(stop)[None, :] <= places[:, None]
        mask = mask.repeat(self.group, 1)[None, None]  # the group's heads lie behind one another as queries
        hidden = self._embedding[torch.tensor(tokens)]
        for layer in range(self.layers):
            query, key, value = self._project(layer, hidden, places)
            self._keys[layer, slot, :, start:stop] = key.transpose(0, 1)
            self._values[layer, slot, :, start:stop] = value.transpose(0, 1)
            query = query.permute(1, 2, 0, 3).reshape(1, self.kv_heads, self.group * count, self.head)
            keys, values = (
                self._keys[layer, slot : slot + 1, :, :stop],
                self._values[layer, slot : slot + 1, :, :stop],
            )
            mixed = functional.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
            mixed = mixed.view(self.kv_heads, self.group, count, self.head).permute(2, 0, 1, 3)
            if layer == self.layers - 1:
                hidden, mixed = hidden[-1:], mixed[-1:]
            hidden = self._finish(layer, hidden, mixed.reshape(len(hidden), -1))
        return self._norm("model.norm", hidden)

    def step(self, tokens: Sequence[int], lengths: Sequence[int]) -> torch.Tensor:
        """One token for each of slots 0..n-1, at position lengths[i]; hidden states [n, width]."""
        count = len(tokens)
        places = torch.tensor(lengths)
        longest = max(lengths) + 1
        rows = torch.arange(count)
        mask = None
        if min(lengths) + 1 < longest:
            mask = (torch.arange(longest)[None, :] <= places[:, None])[:, None, None, :]
        hidden = self._embedding[torch.tensor(tokens)]
        for layer in range(self.layers):
            query, key, value = self._project(layer, hidden, places)
            self._keys[layer, rows, :, places] = key
            self._values[layer, rows, :, places] = value
            keys, values = self._keys[layer, :count, :, :longest], self._values[layer, :count, :, :longest]
            mixed = functional.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
            hidden = self._finish(layer, hidden, mixed.reshape(count, -1))
        return self._norm("model.norm", hidden)

    def logits(self, hidden: torch.Tensor, bank: SlotBank | None, slots: Sequence[int]) -> torch.Tensor:
        """Output scores [n, vocabulary] float32, each row through its own final-hidden adapter first."""
        if bank is not None and any(slots):
            chosen = torch.tensor(slots)
            given = hidden.float()
            change = low_rank(bank, "adapter", given[:, None], chosen)[:, 0]
            hidden = (given + change + bank.tables["adapter.bias"].index_select(0, chosen)).to(self.dtype)
        return functional.linear(hidden, self._output).float()

    def move(self, source: int, target: int, length: int) -> None:
        """Bring the conversation of `length` tokens in slot `source` to slot `target` and zero what it leaves."""
        for cache in (self._keys, self._values):
            cache[:, target, :, :length] = cache[:, source, :, :length]
        self.forget(source, length)

    def forget(self, slot: int, length: int) -> None:
        """Zero the first `length` positions of a slot."""
        for cache in (self._keys, self._values):
            cache[:, slot, :, :length] = 0

    def _project(self, layer: int, hidden: torch.Tensor, places: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Rotated query [n, kv, group, head], rotated key and value [n, kv, head]."""
        name = f"model.layers.{layer}"
        normed = self._norm(f"{name}.input_layernorm", hidden)
        qkv = functional.linear(normed, self._weights[f"{name}.self_attn.qkv"])
        qkv = qkv.view(len(hidden), self.kv_heads * (self.group + 2), self.head)
        heads = self.kv_heads * self.group
        turned = self._rotate(qkv[:, : heads + self.kv_heads], places)
        query = turned[:, :heads].view(len(hidden), self.kv_heads, self.group, self.head)
        return query, turned[:, heads:], qkv[:, heads + self.kv_heads :]

    def _rotate(self, rows: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        cosine, sine = (table.index_select(0, places)[:, None] for table in self._turn)
        first, second = rows.chunk(2, dim=-1)
        return rows * cosine + torch.cat((-second, first), dim=-1) * sine

    def _finish(self, layer: int, hidden: torch.Tensor, mixed: torch.Tensor) -> torch.Tensor:
        name = f"model.layers.{layer}"
        hidden = hidden + functional.linear(mixed, self._weights[f"{name}.self_attn.o_proj.weight"])
        normed = self._norm(f"{name}.post_attention_layernorm", hidden)
        gate, up = functional.linear(normed, self._weights[f"{name}.mlp.gate_up"]).chunk(2, dim=-1)
        return hidden + functional.linear(
            functional.silu(gate) * up, self._weights[f"{name}.mlp.down_proj.weight"]
        )

    def _norm(self, name: str, hidden: torch.Tensor) -> torch.Tensor:
        return functional.rms_norm(hidden, (self.width,), self._weights[f"{name}.weight"], self._tiny)


def _zeros(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Zeros whose small pages take memory only once they are written.

    torch.zeros would touch them all, and huge pages would bring in neighbouring slots with the first token of one.
    """
    memory = mmap.mmap(-1, math.prod(shape) * dtype.itemsize)
    if sys.platform == "linux":
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype).view(shape)


def _theta(config: dict[str, object]) -> float:
    parameters = config.get("rope_parameters")
    if isinstance(parameters, dict):
        return float(parameters["rope_theta"])
    return float(str(config.get("rope_theta", 10_000.0)))
