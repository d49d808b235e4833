"""The chat decoder: a Llama forward pass over a slot cache, one step for all, each with its own tuning."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.nn import functional

from modeling.serving.bank import Mix, SlotBank, low_rank
from modeling.serving.memory import lazy_zeros

Turn = tuple[torch.Tensor, torch.Tensor]  # cosines and sines of the rotary embedding
_ATTENTION, _MLP = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")


class Llama:
    """A Llama read from `config.json` and `model.safetensors`, with keys and values of `slots` conversations.

    Conversations lie in slots 0..n-1 without holes, so a step reads the cache as it lies: the caller moves the last
    one into a hole. A slot's used part is zeroed when its conversation ends. Hidden states are returned after the
    final norm, before the output layer.
    """

    def __init__(
        self,
        folder: Path,
        *,
        slots: int,
        context: int,
        dtype: torch.dtype = torch.bfloat16,
        device: str = "cpu",
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
        self.device = torch.device(device)
        self._tiny: float = config["rms_norm_eps"]
        self._weights = {
            name: value.to(dtype) for name, value in load_file(folder / "model.safetensors", device).items()
        }
        self._embedding = self._weights.pop("model.embed_tokens.weight")
        self._weights.setdefault("lm_head.weight", self._embedding)
        self._fuse()
        self._is_packed = self._pack()
        shape = (self.layers, slots, self.kv_heads, self.context, self.head)
        self._keys, self._values = (lazy_zeros(shape, dtype, self.device) for _ in range(2))
        self._turn = self._rotation(_theta(config))

    def _fuse(self) -> None:
        for layer in range(self.layers):
            attention, mlp = f"model.layers.{layer}.self_attn", f"model.layers.{layer}.mlp"
            names = [f"{attention}.{part}_proj.weight" for part in "qkv"]
            self._weights[f"{attention}.qkv"] = torch.cat([self._weights.pop(name) for name in names])
            names = [f"{mlp}.{part}_proj.weight" for part in ("gate", "up")]
            self._weights[f"{mlp}.gate_up"] = torch.cat([self._weights.pop(name) for name in names])

    def _pack(self) -> bool:
        """Lay the weights of linear layers out for oneDNN, which takes half the time with few rows; CPU alone."""
        if self.device.type != "cpu" or not torch.backends.mkldnn.is_available():
            return False
        try:
            lay_out = torch.ops.mkldnn._reorder_linear_weight
            lay_out(torch.zeros(16, 16, dtype=self.dtype))
        except (AttributeError, RuntimeError):  # another build of torch
            return False
        for name in [name for name, value in self._weights.items() if value.dim() == 2]:
            self._weights[name] = lay_out(self._weights[name])
        return True

    def _linear(self, given: torch.Tensor, name: str) -> torch.Tensor:
        """W x for rows [n, in] -> [n, out]."""
        weight = self._weights[name]
        if self._is_packed:
            return torch.ops.mkldnn._linear_pointwise(given, weight, None, "none", [], "")
        return functional.linear(given, weight)

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

    def _rotation(self, theta: float) -> Turn:
        """Cosines and sines [context, head] of the rotary embedding, both halves alike."""
        rates = theta ** (-torch.arange(0, self.head, 2, dtype=torch.float32) / self.head)
        angles = torch.outer(torch.arange(self.context, dtype=torch.float32), rates).repeat(1, 2)
        return angles.cos().to(self.device, self.dtype), angles.sin().to(self.device, self.dtype)

    def _at(self, places: torch.Tensor) -> Turn:
        """Cosines and sines [n, 1, head] at positions `places`."""
        cosine, sine = self._turn
        return cosine.index_select(0, places)[:, None], sine.index_select(0, places)[:, None]

    def _embedded(self, tokens: Sequence[int]) -> torch.Tensor:
        return self._embedding[torch.tensor(tokens, device=self.device)]

    def prefill(
        self, slot: int, tokens: Sequence[int], start: int, mixes: Sequence[Mix] = ()
    ) -> torch.Tensor:
        """Append tokens at positions start.. of one slot; the last one's hidden state [1, width].

        The slots of `mixes` are [1]: all these tokens go through that adapter.
        """
        count = len(tokens)
        stop = start + count
        places = torch.arange(start, stop, device=self.device)
        turn = self._at(places)
        mask = torch.arange(stop, device=self.device)[None, :] <= places[:, None]
        mask = mask.repeat(self.group, 1)[None, None]  # the group's heads lie behind one another as queries
        hidden = self._embedded(tokens)
        for layer in range(self.layers):
            query, key, value = self._project(layer, hidden, turn, mixes)
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
        places = torch.tensor(lengths, device=self.device)
        turn = self._at(places)
        longest = max(lengths) + 1
        rows = torch.arange(count, device=self.device)
        mask = None
        if min(lengths) + 1 < longest:
            mask = (torch.arange(longest, device=self.device)[None, :] <= places[:, None])[:, None, None, :]
        hidden = self._embedded(tokens)
        for layer in range(self.layers):
            query, key, value = self._project(layer, hidden, turn, mixes)
            self._keys[layer, rows, :, places] = key
            self._values[layer, rows, :, places] = value
            keys, values = self._keys[layer, :count, :, :longest], self._values[layer, :count, :, :longest]
            mixed = functional.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
            hidden = self._finish(layer, hidden, mixed.reshape(count, -1), mixes)
        return self._norm("model.norm", hidden)

    def logits(self, hidden: torch.Tensor, bank: SlotBank | None, slots: Sequence[int]) -> torch.Tensor:
        """Output scores [n, vocabulary] float32 on the CPU, each row through its own final-hidden adapter first."""
        if bank is not None and any(slots):
            chosen = torch.tensor(slots, device=self.device)
            given = hidden.float()
            change = low_rank(bank, "adapter", given[:, None], chosen)[:, 0]
            hidden = (given + change + bank.tables["adapter.bias"].index_select(0, chosen)).to(self.dtype)
        return self._linear(hidden, "lm_head.weight").float().cpu()

    @property
    def vocabulary(self) -> int:
        """How many tokens it can say."""
        return len(self._embedding)

    @property
    def token_bytes(self) -> int:
        """Bytes that one token takes in the cache."""
        return int(2 * self.layers * self.kv_heads * self.head * self.dtype.itemsize)

    def copied(self, slot: int, length: int) -> torch.Tensor:
        """Keys and values [2, layers, kv, length, head] of the first `length` positions of a slot."""
        return torch.stack([cache[:, slot, :, :length] for cache in (self._keys, self._values)])

    def paste(self, slot: int, found: torch.Tensor) -> None:
        """Begin an empty slot with what `copied` gave."""
        for cache, part in zip((self._keys, self._values), found, strict=True):
            cache[:, slot, :, : part.shape[2]] = part

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
        self, layer: int, hidden: torch.Tensor, turn: Turn, mixes: Sequence[Mix]
    ) -> tuple[torch.Tensor, ...]:
        """Rotated query [n, kv, group, head], rotated key and value [n, kv, head]."""
        name = f"model.layers.{layer}"
        normed = self._norm(f"{name}.input_layernorm", hidden)
        qkv = self._linear(normed, f"{name}.self_attn.qkv")
        at = 0
        for part, heads in (("q", self.kv_heads * self.group), ("k", self.kv_heads), ("v", self.kv_heads)):
            target = qkv[:, at : at + heads * self.head]
            _adapt(f"{name}.self_attn.{part}_proj", normed, target, mixes)
            at += heads * self.head
        qkv = qkv.view(len(hidden), self.kv_heads * (self.group + 2), self.head)
        heads = self.kv_heads * self.group
        turned = _rotated(qkv[:, : heads + self.kv_heads], turn)
        query = turned[:, :heads].view(len(hidden), self.kv_heads, self.group, self.head)
        return query, turned[:, heads:], qkv[:, heads + self.kv_heads :]

    def _finish(
        self, layer: int, hidden: torch.Tensor, mixed: torch.Tensor, mixes: Sequence[Mix]
    ) -> torch.Tensor:
        name = f"model.layers.{layer}"
        out = self._linear(mixed, f"{name}.self_attn.o_proj.weight")
        _adapt(f"{name}.self_attn.o_proj", mixed, out, mixes)
        hidden = hidden + out
        normed = self._norm(f"{name}.post_attention_layernorm", hidden)
        both = self._linear(normed, f"{name}.mlp.gate_up")
        _adapt(f"{name}.mlp.gate_proj", normed, both[:, : self.inner], mixes)
        _adapt(f"{name}.mlp.up_proj", normed, both[:, self.inner :], mixes)
        gate, up = both.chunk(2, dim=-1)
        inner = functional.silu(gate) * up
        out = self._linear(inner, f"{name}.mlp.down_proj.weight")
        _adapt(f"{name}.mlp.down_proj", inner, out, mixes)
        return hidden + out

    def _norm(self, name: str, hidden: torch.Tensor) -> torch.Tensor:
        return functional.rms_norm(hidden, (self.width,), self._weights[f"{name}.weight"], self._tiny)


def _rotated(rows: torch.Tensor, turn: Turn) -> torch.Tensor:
    first, second = rows.chunk(2, dim=-1)
    return rows * turn[0] + torch.cat((-second, first), dim=-1) * turn[1]


def _adapt(name: str, given: torch.Tensor, out: torch.Tensor, mixes: Sequence[Mix]) -> None:
    """Add each row's own low-rank product to `out` [rows, out] in place; a single slot counts for all rows."""
    for mix in mixes:
        if mix.bank.holders[f"{name}.B"]:
            rows = given.view(len(mix.slots), -1, given.shape[1]).to(mix.bank.tables[f"{name}.A"].dtype)
            change = low_rank(mix.bank, name, rows, mix.slots)
            out += change.view(out.shape)


def _theta(config: dict[str, object]) -> float:
    parameters = config.get("rope_parameters")
    if isinstance(parameters, dict):
        return float(parameters["rope_theta"])
    return float(str(config.get("rope_theta", 10_000.0)))
