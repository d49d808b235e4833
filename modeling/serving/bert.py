"""The encoder's forward pass, packed: no padding anywhere, and each row may carry its own LoRA adapters."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.nn import functional

from modeling.serving.bank import Mix, low_rank

_FUSED = ("query", "key", "value")  # in the order of their rows


@dataclass(frozen=True, slots=True)
class _Run:
    """Rows first..last-1 of the sorted batch share one length; their tokens are start..stop-1."""

    first: int
    last: int
    start: int
    stop: int
    length: int


class Bert:
    """A BERT encoder read from a folder of `config.json` and `model.safetensors`, float32, mean-pooled to unit norm.

    Tokens of all rows lie behind one another, rows sorted by length; linears run over all tokens at once, attention
    and adapters run per group of equal length. So nothing is ever padded and a row's result does not depend on its
    neighbours beyond the order of float32 sums.
    """

    def __init__(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        self.width: int = config["hidden_size"]
        self.inner: int = config["intermediate_size"]
        self.layers: int = config["num_hidden_layers"]
        self.heads: int = config["num_attention_heads"]
        self.max_tokens: int = config["max_position_embeddings"]
        self._tiny: float = config["layer_norm_eps"]
        weights = load_file(folder / "model.safetensors")
        self._weights = {name: value for name, value in weights.items() if not name.startswith("pooler.")}
        self._fuse()

    def _fuse(self) -> None:
        """One matrix for query, key and value; the two constant embeddings added once."""
        for layer in range(self.layers):
            prefix = f"encoder.layer.{layer}.attention.self."
            for kind in ("weight", "bias"):
                parts = [self._weights.pop(f"{prefix}{part}.{kind}") for part in _FUSED]
                self._weights[f"{prefix}qkv.{kind}"] = torch.cat(parts)
        positions = self._weights.pop("embeddings.position_embeddings.weight")
        kinds = self._weights.pop("embeddings.token_type_embeddings.weight")
        self._positions = positions + kinds[0]

    def changed(self, tensors: Mapping[str, torch.Tensor]) -> Bert:
        """This encoder with parameters of its own for some of its names; all others are shared, not copied.

        Raises ValueError for a name or shape that it does not have. Position and type tables cannot be changed.
        """
        other = copy.copy(self)
        other._weights = dict(self._weights)
        fused: set[str] = set()
        for name, value in tensors.items():
            target, rows = self._place_of(name)
            known = other._weights.get(target)
            if known is None or tuple(value.shape) != tuple(known[rows].shape):
                raise ValueError(f"the encoder has no {name} of that shape")
            if target == name:
                other._weights[target] = value
                continue
            if target not in fused:
                fused.add(target)
                other._weights[target] = known.clone()
            other._weights[target][rows] = value
        return other

    def _place_of(self, name: str) -> tuple[str, slice]:
        """Where a parameter lies: its own tensor, or its rows of the fused query, key and value."""
        path, _, kind = name.rpartition(".")
        path, _, part = path.rpartition(".")
        if part not in _FUSED or not path.endswith("attention.self"):
            return name, slice(None)
        first = _FUSED.index(part) * self.width
        return f"{path}.qkv.{kind}", slice(first, first + self.width)

    def lora_shapes(self, rank: int) -> dict[str, tuple[int, ...]]:
        """The tables of a bank of `rank`: A [rank, in] and B [out, rank] for every linear layer."""
        shapes: dict[str, tuple[int, ...]] = {}
        for layer in range(self.layers):
            prefix = f"encoder.layer.{layer}"
            sizes = {
                f"{prefix}.attention.self.{part}": (self.width, self.width)
                for part in ("query", "key", "value")
            }
            sizes[f"{prefix}.attention.output.dense"] = (self.width, self.width)
            sizes[f"{prefix}.intermediate.dense"] = (self.width, self.inner)
            sizes[f"{prefix}.output.dense"] = (self.inner, self.width)
            for name, (wide, out) in sizes.items():
                shapes[f"{name}.A"] = (rank, wide)
                shapes[f"{name}.B"] = (out, rank)
        return shapes

    def embed(self, rows: Sequence[Sequence[int]], mixes: Sequence[Mix] = ()) -> torch.Tensor:
        """Token ids per row (1..max_tokens each) -> unit-norm float32 embeddings [len(rows), width]."""
        order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
        runs = list(_runs([len(rows[index]) for index in order]))
        where = torch.tensor(order)
        mixes = [Mix(mix.bank, mix.slots[where]) for mix in mixes]
        tokens = torch.tensor([token for index in order for token in rows[index]])
        places = torch.cat([torch.arange(run.length).repeat(run.last - run.first) for run in runs])
        hidden = self._weights["embeddings.word_embeddings.weight"][tokens] + self._positions[places]
        hidden = self._norm("embeddings", hidden)
        for layer in range(self.layers):
            hidden = self._layer(f"encoder.layer.{layer}", hidden, runs, mixes)
        pooled = torch.cat(
            [hidden[r.start : r.stop].view(r.last - r.first, r.length, self.width).mean(1) for r in runs]
        )
        out = torch.empty_like(pooled)
        out[where] = functional.normalize(pooled, dim=1)
        return out

    def _layer(self, name: str, hidden: torch.Tensor, runs: list[_Run], mixes: list[Mix]) -> torch.Tensor:
        qkv = self._linear(f"{name}.attention.self.qkv", hidden)
        for part, module in enumerate(("query", "key", "value")):
            target = qkv[:, part * self.width : (part + 1) * self.width]
            self._adapt(f"{name}.attention.self.{module}", hidden, target, runs, mixes)
        mixed = self._attend(qkv, runs)
        out = self._linear(f"{name}.attention.output.dense", mixed)
        self._adapt(f"{name}.attention.output.dense", mixed, out, runs, mixes)
        hidden = self._norm(f"{name}.attention.output", out.add_(hidden))
        inner = self._linear(f"{name}.intermediate.dense", hidden)
        self._adapt(f"{name}.intermediate.dense", hidden, inner, runs, mixes)
        inner = functional.gelu(inner)
        out = self._linear(f"{name}.output.dense", inner)
        self._adapt(f"{name}.output.dense", inner, out, runs, mixes)
        return self._norm(f"{name}.output", out.add_(hidden))

    def _attend(self, qkv: torch.Tensor, runs: list[_Run]) -> torch.Tensor:
        out = torch.empty(qkv.shape[0], self.width)
        for run in runs:
            rows = run.last - run.first
            shaped = qkv[run.start : run.stop].view(rows, run.length, 3, self.heads, self.width // self.heads)
            query, key, value = shaped.permute(2, 0, 3, 1, 4)
            mixed = functional.scaled_dot_product_attention(query, key, value)
            out[run.start : run.stop] = mixed.transpose(1, 2).reshape(-1, self.width)
        return out

    def _linear(self, name: str, hidden: torch.Tensor) -> torch.Tensor:
        return functional.linear(hidden, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _norm(self, name: str, hidden: torch.Tensor) -> torch.Tensor:
        weight, bias = self._weights[f"{name}.LayerNorm.weight"], self._weights[f"{name}.LayerNorm.bias"]
        return functional.layer_norm(hidden, (self.width,), weight, bias, self._tiny)

    @staticmethod
    def _adapt(name: str, given: torch.Tensor, out: torch.Tensor, runs: list[_Run], mixes: list[Mix]) -> None:
        """Add every row's own low-rank product for this layer to `out` in place."""
        for mix in mixes:
            if not mix.bank.holders[f"{name}.B"]:
                continue
            for run in runs:
                slots = mix.slots[run.first : run.last]
                if not slots.any():
                    continue
                rows = given[run.start : run.stop].view(len(slots), run.length, -1)
                change = low_rank(mix.bank, name, rows, slots)
                out[run.start : run.stop] += change.view(run.stop - run.start, -1)


def _runs(lengths: list[int]) -> Iterator[_Run]:
    """Groups of equal length in a sorted list of lengths."""
    first = start = 0
    while first < len(lengths):
        length = lengths[first]
        last = first
        while last < len(lengths) and lengths[last] == length:
            last += 1
        stop = start + (last - first) * length
        yield _Run(first, last, start, stop, length)
        first, start = last, stop
