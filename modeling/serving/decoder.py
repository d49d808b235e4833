"""The chat decoder: a Llama forward pass over a slot cache, one step for all, each with its own tuning."""

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

from modeling.serving.bank import Mix, SlotBank, low_rank

_ATTENTION, _MLP = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")


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

    def lora_shapes(self, rank: int) -> dict[str, tuple[int, ...]]:
        """The tables of a bank of `rank`: A [rank, in] and B [out, rank] for every linear layer."""
        heads, kv = self.kv_heads * self.group * self.head, self.kv_heads * self.head
        sizes = {"q_proj": (self.width, heads), "k_proj": (self.width, kv), "v_proj": (self.width, kv)}
        sizes |= {"o_proj": (heads, self.width), "down_proj": (self.inner, self.width)}
        sizes |= {"gate_proj": (self.width, self.inner), "up_proj": (self.width, self.inner)}
        shapes: dict[str, tuple[int, ...]] = {}
        for layer in range(self.layers):
            for room, parts in (("self_attn", _ATTENTION), ("mlp", _MLP)):
                for part in parts:
                    name, (wide, out) = f"model.layers.{layer}.{room}.{part}", sizes[part]
                    shapes |= {f"{name}.A": (rank, wide), f"{name}.B": (out, rank)}
        return shapes

    def _rotation(self, theta: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines [context, head] of the rotary embedding, both halves alike."""
        rates = theta ** (-torch.arange(0, self.head, 2, dtype=torch.float32) / self.head)
        angles = torch.outer(torch.arange(self.context, dtype=torch.float32), rates).repeat(1, 2)
        return angles.cos().to(self.dtype), angles.sin().to(self.dtype)

    def prefill(
        self, slot: int, tokens: Sequence[int], start: int, mixes: Sequence[Mix] = ()
    ) -> torch.Tensor:
        """Append tokens at positions start.. of one slot; the last one's hidden state [1, width].

        The slots of `mixes` are [1]: all these tokens go through that adapter.
        """
        count = len(tokens)
        stop = start + count
        places = torch.arange(start, stop)
        mask = torch.arange(stop)[None, :] <= places[:, None]
        mask = mask.repeat(self.group, 1)[None, None]  # the group's heads lie behind one another as queries
        hidden = self._embedding[torch.tensor(tokens)]
        for layer in range(self.layers):
            query, key, value = self._project(layer, hidden, places, mixes)
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
            hidden = self._finish(layer, hidden, mixed.reshape(len(hidden), -1), mixes)
        return self._norm("model.norm", hidden)

    def step(self, tokens: Sequence[int], lengths: Sequence[int], mixes: Sequence[Mix] = ()) -> torch.Tensor:
        """One token for each of slots 0..n-1, at position lengths[i]; hidden states [n, width].

        The slots of `mixes` are [n]: which adapter of the bank each token goes through.
        """
        count = len(tokens)
        places = torch.tensor(lengths)
        longest = max(lengths) + 1
        rows = torch.arange(count)
        mask = None
        if min(lengths) + 1 < longest:
            mask = (torch.arange(longest)[None, :] <= places[:, None])[:, None, None, :]
        hidden = self._embedding[torch.tensor(tokens)]
        for layer in range(self.layers):
            query, key, value = self._project(layer, hidden, places, mixes)
            self._keys[layer, rows, :, places] = key
            self._values[layer, rows, :, places] = value
            keys, values = self._keys[layer, :count, :, :longest], self._values[layer, :count, :, :longest]
            mixed = functional.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
            hidden = self._finish(layer, hidden, mixed.reshape(count, -1), mixes)
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

    def _project(
        self, layer: int, hidden: torch.Tensor, places: torch.Tensor, mixes: Sequence[Mix]
    ) -> tuple[torch.Tensor, ...]:
        """Rotated query [n, kv, group, head], rotated key and value [n, kv, head]."""
        name = f"model.layers.{layer}"
        normed = self._norm(f"{name}.input_layernorm", hidden)
        qkv = functional.linear(normed, self._weights[f"{name}.self_attn.qkv"])
        at = 0
        for part, heads in (("q", self.kv_heads * self.group), ("k", self.kv_heads), ("v", self.kv_heads)):
            target = qkv[:, at : at + heads * self.head]
            _adapt(f"{name}.self_attn.{part}_proj", normed, target, mixes)
            at += heads * self.head
        qkv = qkv.view(len(hidden), self.kv_heads * (self.group + 2), self.head)
        heads = self.kv_heads * self.group
        turned = self._rotate(qkv[:, : heads + self.kv_heads], places)
        query = turned[:, :heads].view(len(hidden), self.kv_heads, self.group, self.head)
        return query, turned[:, heads:], qkv[:, heads + self.kv_heads :]

    def _rotate(self, rows: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        cosine, sine = (table.index_select(0, places)[:, None] for table in self._turn)
        first, second = rows.chunk(2, dim=-1)
        return rows * cosine + torch.cat((-second, first), dim=-1) * sine

    def _finish(
        self, layer: int, hidden: torch.Tensor, mixed: torch.Tensor, mixes: Sequence[Mix]
    ) -> torch.Tensor:
        name = f"model.layers.{layer}"
        out = functional.linear(mixed, self._weights[f"{name}.self_attn.o_proj.weight"])
        _adapt(f"{name}.self_attn.o_proj", mixed, out, mixes)
        hidden = hidden + out
        normed = self._norm(f"{name}.post_attention_layernorm", hidden)
        both = functional.linear(normed, self._weights[f"{name}.mlp.gate_up"])
        _adapt(f"{name}.mlp.gate_proj", normed, both[:, : self.inner], mixes)
        _adapt(f"{name}.mlp.up_proj", normed, both[:, self.inner :], mixes)
        gate, up = both.chunk(2, dim=-1)
        inner = functional.silu(gate) * up
        out = functional.linear(inner, self._weights[f"{name}.mlp.down_proj.weight"])
        _adapt(f"{name}.mlp.down_proj", inner, out, mixes)
        return hidden + out

    def _norm(self, name: str, hidden: torch.Tensor) -> torch.Tensor:
        return functional.rms_norm(hidden, (self.width,), self._weights[f"{name}.weight"], self._tiny)


def _adapt(name: str, given: torch.Tensor, out: torch.Tensor, mixes: Sequence[Mix]) -> None:
    """Add each row's own low-rank product to `out` [rows, out] in place; a single slot counts for all rows."""
    for mix in mixes:
        if mix.bank.holders[f"{name}.B"]:
            change = low_rank(mix.bank, name, given.view(len(mix.slots), -1, given.shape[1]), mix.slots)
            out += change.view(out.shape)


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
