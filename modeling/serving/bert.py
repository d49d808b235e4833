"""The encoder's forward pass, packed: no padding anywhere, and each row may carry its own LoRA adapters."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch.nn import functional

from modeling.serving.bank import Mix, SlotBank, own_factors
from modeling.serving.encoder_graph import Sizes
from modeling.serving.packed_linear import STEP, PackedLinears

_FUSED = ("query", "key", "value")  # in the order of their rows


@dataclass(frozen=True, slots=True)
class _Run:
    """Rows first..last-1 of the sorted batch share one length; their tokens are start..stop-1."""

    first: int
    last: int
    start: int
    stop: int
    length: int


@dataclass(frozen=True, slots=True)
class _Adapted:
    """Which runs gather adapters from a bank, and the slot of each of their rows."""

    bank: SlotBank
    runs: list[tuple[_Run, torch.Tensor]]


class Bert:
    """A BERT encoder read from a folder of `config.json` and `model.safetensors`, mean-pooled to unit norm.

    Tokens of all rows lie behind one another, rows sorted by length; linears run over all tokens at once, attention
    and adapters run per group of equal length. So nothing is ever padded and a row's result does not depend on its
    neighbours beyond the order of float32 sums. `dtype` is float32 on a processor, bfloat16 pays on a GPU.
    """

    def __init__(self, folder: Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        config = json.loads((folder / "config.json").read_text())
        self.width: int = config["hidden_size"]
        self.inner: int = config["intermediate_size"]
        self.layers: int = config["num_hidden_layers"]
        self.heads: int = config["num_attention_heads"]
        self.max_tokens: int = config["max_position_embeddings"]
        self._tiny: float = config["layer_norm_eps"]
        self.device = torch.device(device)
        weights = load_file(folder / "model.safetensors", device)
        self._weights = {n: value.to(dtype) for n, value in weights.items() if not n.startswith("pooler.")}
        self._fuse()
        self.packed = PackedLinears()

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

    @property
    def sizes(self) -> Sizes:
        """What a graph of it must know beside the weights."""
        return Sizes(self.width, self.inner, self.layers, self.heads, self._tiny)

    @property
    def vocabulary(self) -> int:
        """How many tokens it knows."""
        return len(self._weights["embeddings.word_embeddings.weight"])

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """Its layers' parameters by name as float32 views, query, key and value apart."""
        found = {}
        for layer in range(self.layers):
            prefix = f"encoder.layer.{layer}."
            for name, value in self._weights.items():
                if name.startswith(prefix) and ".qkv." not in name:
                    found[name] = value.numpy()
            for part, kind in itertools.product(_FUSED, ("weight", "bias")):
                name = f"{prefix}attention.self.{part}.{kind}"
                target, rows = self._place_of(name)
                found[name] = self._weights[target][rows].numpy()
        return found

    def start(self, tokens: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """What the first layer is given: token ids and their positions in their rows, both [n] -> [n, width]."""
        hidden = functional.embedding(tokens, self._weights["embeddings.word_embeddings.weight"])
        return self._norm("embeddings", hidden.add_(self._positions[places]))

    def changed(self, tensors: Mapping[str, torch.Tensor]) -> Bert:
        """This encoder with parameters of its own for some of its names; all others are shared, not copied.

        Raises ValueError for a name or shape that it does not have. Position and type tables cannot be changed.
        """
        other = copy.copy(self)
        other._weights = dict(self._weights)
        fused: set[str] = set()
        places = {name: self._place_of(name) for name in tensors}
        other.packed = self.packed.without({place.removesuffix(".weight") for place, _ in places.values()})
        for name, value in tensors.items():
            target, rows = places[name]
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

    def own_bytes(self, base: Bert) -> int:
        """Bytes that a changed encoder holds beside its artefact: fused tensors and packed matrices."""
        own = [(name, value) for name, value in self._weights.items() if value is not base._weights[name]]
        fused = sum(int(value.nbytes) for name, value in own if ".qkv." in name)
        packed = [value for name, value in own if name.startswith("encoder.") and value.dim() == 2]
        return fused + sum(int(value.nbytes) for value in packed)

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
        """Token ids per row (1..max_tokens each) -> unit-norm embeddings [len(rows), width], float32 on the CPU."""
        order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
        runs = list(_runs([len(rows[index]) for index in order]))
        where = torch.tensor(order)
        adapted = [_adapted(mix.bank, mix.slots[where], runs, self.device) for mix in mixes]
        rest = [0] * (-sum(map(len, rows)) % STEP)  # behind the last run, read by nobody
        tokens = torch.tensor([*(t for index in order for t in rows[index]), *rest], device=self.device)
        places = torch.cat([torch.arange(run.length).repeat(run.last - run.first) for run in runs])
        places = functional.pad(places, (0, len(rest)))
        hidden = self.start(tokens, places.to(self.device))
        for layer in range(self.layers):
            hidden = self._layer(f"encoder.layer.{layer}", hidden, runs, adapted)
        pooled = torch.cat(
            [hidden[r.start : r.stop].view(r.last - r.first, r.length, self.width).mean(1) for r in runs]
        )
        found = torch.empty(pooled.shape)
        found[where] = functional.normalize(pooled.float(), dim=1).cpu()
        return found

    def _layer(
        self, name: str, hidden: torch.Tensor, runs: list[_Run], adapted: list[_Adapted]
    ) -> torch.Tensor:
        qkv = self._linear(f"{name}.attention.self.qkv", hidden)
        for part, module in enumerate(("query", "key", "value")):
            target = qkv[:, part * self.width : (part + 1) * self.width]
            self._adapt(f"{name}.attention.self.{module}", hidden, target, adapted)
        mixed = self._attend(qkv, runs)
        out = self._linear(f"{name}.attention.output.dense", mixed)
        self._adapt(f"{name}.attention.output.dense", mixed, out, adapted)
        hidden = self._norm(f"{name}.attention.output", out.add_(hidden))
        inner = self._linear(f"{name}.intermediate.dense", hidden)
        self._adapt(f"{name}.intermediate.dense", hidden, inner, adapted)
        inner = functional.gelu(inner)
        out = self._linear(f"{name}.output.dense", inner)
        self._adapt(f"{name}.output.dense", inner, out, adapted)
        return self._norm(f"{name}.output", out.add_(hidden))

    def _attend(self, qkv: torch.Tensor, runs: list[_Run]) -> torch.Tensor:
        out = qkv.new_zeros(qkv.shape[0], self.width)
        for run in runs:
            rows = run.last - run.first
            shaped = qkv[run.start : run.stop].view(rows, run.length, 3, self.heads, self.width // self.heads)
            query, key, value = shaped.permute(2, 0, 3, 1, 4)
            mixed = functional.scaled_dot_product_attention(query, key, value)
            out[run.start : run.stop] = mixed.transpose(1, 2).reshape(-1, self.width)
        return out

    def _linear(self, name: str, hidden: torch.Tensor) -> torch.Tensor:
        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        return self.packed.product(name, hidden, weight, bias)

    def _norm(self, name: str, hidden: torch.Tensor) -> torch.Tensor:
        weight, bias = self._weights[f"{name}.LayerNorm.weight"], self._weights[f"{name}.LayerNorm.bias"]
        return functional.layer_norm(hidden, (self.width,), weight, bias, self._tiny)

    @staticmethod
    def _adapt(name: str, given: torch.Tensor, out: torch.Tensor, adapted: list[_Adapted]) -> None:
        """Add every row's own low-rank product for this layer to `out` in place."""
        for one in adapted:
            if not one.bank.holders[f"{name}.B"]:
                continue
            for run, slots in one.runs:
                rows = given[run.start : run.stop].view(len(slots), run.length, -1)
                down, up = own_factors(one.bank, name, slots, rows.dtype)
                target = out[run.start : run.stop].view(len(slots), run.length, -1)
                low = torch.bmm(down, rows.transpose(1, 2))  # this way round it is up to twice as fast
                target.baddbmm_(low.transpose(1, 2), up.transpose(1, 2))


def _adapted(bank: SlotBank, slots: torch.Tensor, runs: list[_Run], device: torch.device) -> _Adapted:
    """The runs in which some row has an adapter of this bank: slots [rows] in the order of the sorted batch."""
    own = [(run, slots[run.first : run.last]) for run in runs]
    return _Adapted(bank, [(run, some.to(device)) for run, some in own if some.any()])


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
