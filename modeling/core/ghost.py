"""Ghost clipping in one backward pass: norms of whole units from inner products, then one weighted sum of gradients.

Book-keeping after Bu, Wang, Zha & Karypis 2022 (arXiv 2210.00038): the gradient at each layer's output is taken once,
gives the norms, and is used again for the clipped sum, so no second backward pass and no gradient of a unit is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import nn
from torch.nn import functional

Tensor: TypeAlias = torch.Tensor
_DIRECT_FLOATS = 1 << 23  # gradients of units written out at once where that is cheaper than inner products
_LAYERS = (nn.Linear, nn.LayerNorm, nn.Embedding)


@dataclass(frozen=True)
class Part:
    """What a micro-batch adds to one parameter: `values`, or rows of it at `index`."""

    parameter: nn.Parameter
    values: Tensor
    index: Tensor | None = None

    def add_to(self, total: Tensor) -> None:
        """Add in place; allocates nothing, so it cannot run out of memory half way."""
        if self.index is None:
            total.add_(self.values)
        else:
            total.index_add_(0, self.index, self.values)


@dataclass(frozen=True)
class Units:
    """Rows of a micro-batch sorted so that units of equal size lie together, each unit's rows side by side."""

    order: Tensor | None  # [b] or None when the rows already lie so
    unit: Tensor  # [b] position of each sorted row's unit
    groups: tuple[tuple[int, int, int], ...]  # (first row, last row + 1, rows of each unit)

    @classmethod
    def of(cls, dense: Tensor, sizes: Tensor) -> Units:
        """From the unit [b] of each row (0..u-1) and the rows [u] of each unit."""
        key = sizes[dense] * len(sizes) + dense
        order = torch.argsort(key, stable=True)
        lying = bool((order[1:] > order[:-1]).all())
        row_sizes = sizes[dense][order]
        groups, start = [], 0
        kinds, counts = torch.unique_consecutive(row_sizes, return_counts=True)
        for size, count in zip(kinds.tolist(), counts.tolist(), strict=True):
            groups.append((start, start + count, size))
            start += count
        starts = torch.ones_like(order, dtype=torch.bool)
        starts[1:] = dense[order][1:] != dense[order][:-1]
        return cls(None if lying else order, starts.cumsum(0) - 1, tuple(groups))

    def sorted(self, values: Tensor) -> Tensor:
        """Rows of `values` [b, ...] in the order of the groups."""
        return values if self.order is None else values[self.order]

    def merge(self, values: Tensor) -> Iterator[Tensor]:
        """Sorted [b, t, d] -> for every group [units, rows · t, d]: a unit's rows behind one another."""
        for start, stop, size in self.groups:
            part = values[start:stop]
            yield part.reshape(len(part) // size, size * part.shape[1], *part.shape[2:])


class Recorder:
    """Keeps inputs and outputs of a module's trained layers from a forward pass to the clipping."""

    def __init__(self, module: nn.Module) -> None:
        """Raises ValueError for a trained parameter of a layer whose norms it cannot compute."""
        self._seen: dict[nn.Module, tuple[Tensor, Tensor]] = {}
        self.parameters: list[nn.Parameter] = []
        for name, layer in module.named_modules():
            own = [value for value in layer.parameters(recurse=False) if value.requires_grad]
            if not own:
                continue
            if not isinstance(layer, _LAYERS):
                raise ValueError(f"no ghost norm for {type(layer).__name__} ({name})")
            self.parameters += own
            layer.register_forward_hook(self._keep)
        if len({id(value) for value in self.parameters}) != len(self.parameters):
            raise ValueError("tied parameters have no ghost norm")

    def _keep(self, layer: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        if not (torch.is_grad_enabled() and output.requires_grad):
            return
        if layer in self._seen:
            raise RuntimeError("a trained layer ran twice in one micro-batch")
        self._seen[layer] = (given[0].detach(), output)

    def forget(self) -> None:
        """Drop what a forward pass left."""
        self._seen.clear()

    def clipped(self, loss: Tensor, units: Units, clip: float, *, fast: bool) -> list[Part]:
        """Sum over units of the unit's gradient of `loss`, clipped to norm `clip`. A broken unit adds nothing.

        `fast` allows matrix products of rounded inputs (sums stay float32), for a loss that was computed so anyway.
        """
        seen, self._seen = self._seen, {}
        gradients = torch.autograd.grad(loss, [output for _, output in seen.values()])
        layers = [
            _LayerGradient(layer, units.sorted(given), units.sorted(gradient))
            for (layer, (given, _)), gradient in zip(seen.items(), gradients, strict=True)
        ]
        del seen, gradients
        with _precision("medium" if fast else "highest"):
            squares = sum((layer.squares(units) for layer in layers), torch.zeros(()))
            norms = torch.sqrt(torch.as_tensor(squares).clamp(min=0))
            broken = ~torch.isfinite(norms)
            factors = torch.where(broken, 0.0, (clip / (norms + 1e-6)).clamp(max=1.0))[units.unit]
            rows = broken[units.unit] if bool(broken.any()) else None
            return [part for layer in layers for part in layer.parts(factors, rows)]


@contextmanager
def _precision(name: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


class _LayerGradient:
    """One layer's inputs [b, t, in] (ids [b, t] for a table) and gradients at its output [b, t, out], float32."""

    def __init__(self, layer: nn.Module, given: Tensor, gradient: Tensor) -> None:
        self.layer = layer
        flat = gradient.dim() == 2
        self.given = given.unsqueeze(1) if flat else given
        self.gradient = (gradient.unsqueeze(1) if flat else gradient).float()
        if isinstance(layer, nn.LayerNorm):
            self.given = functional.layer_norm(self.given.float(), layer.normalized_shape, eps=layer.eps)
        elif isinstance(layer, nn.Linear):
            self.given = self.given.float()
        elif layer.padding_idx is not None:  # that row of a table never learns
            self.gradient = self.gradient.masked_fill((given == layer.padding_idx).unsqueeze(-1), 0)

    def squares(self, units: Units) -> Tensor:
        """Each unit's squared gradient norm over this layer's parameters, [units]."""
        kind: Callable[[Tensor, Tensor], Tensor] = {
            nn.Linear: self._linear,
            nn.LayerNorm: self._norm,
            nn.Embedding: self._table,
        }[type(self.layer)]
        pairs = zip(units.merge(self.given), units.merge(self.gradient), strict=True)
        return torch.cat([kind(given, gradient) for given, gradient in pairs])

    def _linear(self, given: Tensor, gradient: Tensor) -> Tensor:
        total = torch.zeros(len(given), device=given.device)
        if self.layer.weight.requires_grad:
            total += _product_squares(given, gradient)
        if self.layer.bias is not None and self.layer.bias.requires_grad:
            total += gradient.sum(1).square().sum(1)
        return total

    def _norm(self, given: Tensor, gradient: Tensor) -> Tensor:
        total = torch.zeros(len(given), device=given.device)
        if self.layer.weight.requires_grad:
            total += (given * gradient).sum(1).square().sum(1)
        if self.layer.bias is not None and self.layer.bias.requires_grad:
            total += gradient.sum(1).square().sum(1)
        return total

    @staticmethod
    def _table(given: Tensor, gradient: Tensor) -> Tensor:
        """Rows of a table meet where the same id comes twice."""
        same = (given.unsqueeze(2) == given.unsqueeze(1)).to(gradient.dtype)
        return (torch.bmm(gradient, gradient.transpose(1, 2)) * same).sum((1, 2))

    def parts(self, factors: Tensor, broken: Tensor | None) -> list[Part]:
        """What the rows add to each parameter when row i counts `factors`[i] times; `broken` rows add nothing."""
        given, gradient = self.given, self.gradient * factors[:, None, None]
        if broken is not None:
            gradient[broken] = 0
            if given.is_floating_point():
                given = given.masked_fill(broken[:, None, None], 0)
        flat, wide = gradient.flatten(0, 1), given.flatten(0, 1)
        weight, bias = self.layer.weight, getattr(self.layer, "bias", None)
        found = []
        if weight.requires_grad and isinstance(self.layer, nn.Linear):
            found.append(Part(weight, flat.t() @ wide))
        elif weight.requires_grad and isinstance(self.layer, nn.LayerNorm):
            found.append(Part(weight, (flat * wide).sum(0)))
        elif weight.requires_grad:
            found.append(Part(weight, flat, wide))
        if bias is not None and bias.requires_grad:
            found.append(Part(bias, flat.sum(0)))
        return found


def _product_squares(given: Tensor, gradient: Tensor) -> Tensor:
    """|Σ_t g_t x_tᵀ|² for every unit, from inner products or, for long texts, from the gradient itself: [units]."""
    length, wide, out = given.shape[1], given.shape[2], gradient.shape[2]
    if 2 * length * length <= wide * out:
        pairs = torch.bmm(given, given.transpose(1, 2))
        pairs *= torch.bmm(gradient, gradient.transpose(1, 2))
        return pairs.sum((1, 2))
    many = max(1, _DIRECT_FLOATS // (wide * out))
    found = [
        torch.bmm(part.transpose(1, 2), other).square().sum((1, 2))
        for part, other in zip(gradient.split(many), given.split(many), strict=True)
    ]
    return torch.cat(found)
