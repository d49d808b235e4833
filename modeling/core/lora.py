"""Low-rank adapters on the linear layers of a frozen model: attach, read out, put back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from modeling.core.types import Tensors


class LoraLinear(nn.Module):  # type: ignore[misc]
    """y = base(x) + alpha/rank · B(A(x)); only A [rank, in] and B [out, rank] train, and B starts at zero."""

    def __init__(self, base: nn.Linear, *, rank: int, alpha: float) -> None:
        super().__init__()
        self.base = base
        self.A = nn.Linear(base.in_features, rank, bias=False)
        self.B = nn.Linear(rank, base.out_features, bias=False)
        self.scale = alpha / rank
        nn.init.kaiming_uniform_(self.A.weight, a=math.sqrt(5))
        nn.init.zeros_(self.B.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] -> [..., out]."""
        result: torch.Tensor = self.base(x) + self.scale * self.B(self.A(x))
        return result


def attach(model: nn.Module, *, names: Sequence[str], rank: int, alpha: float) -> None:
    """Freeze the model and replace every linear layer whose last name is in `names` by a LoraLinear."""
    model.requires_grad_(False)
    found = [(path, module) for path, module in model.named_modules() if path.rsplit(".", 1)[-1] in names]
    for path, module in found:
        if not isinstance(module, nn.Linear):
            continue
        parent = model.get_submodule(path.rpartition(".")[0])
        setattr(parent, path.rpartition(".")[2], LoraLinear(module, rank=rank, alpha=alpha))


def layers(model: nn.Module) -> dict[str, LoraLinear]:
    """The adapters by the path of the layer they wrap."""
    return {path: module for path, module in model.named_modules() if isinstance(module, LoraLinear)}


def read(model: nn.Module) -> Tensors:
    """`lora.<module path>.A` and `.B` as float32 arrays: what an artefact stores."""
    found: Tensors = {}
    for path, layer in layers(model).items():
        found[f"lora.{path}.A"] = layer.A.weight.detach().cpu().numpy().copy()
        found[f"lora.{path}.B"] = layer.B.weight.detach().cpu().numpy().copy()
    return found


def write(model: nn.Module, tensors: Tensors) -> None:
    """Put an artefact's adapters into a model with the same layers attached; raises KeyError when one is missing."""
    with torch.no_grad():
        for path, layer in layers(model).items():
            layer.A.weight.copy_(torch.from_numpy(np.asarray(tensors[f"lora.{path}.A"])))
            layer.B.weight.copy_(torch.from_numpy(np.asarray(tensors[f"lora.{path}.B"])))


def attach_artifact(model: nn.Module, tensors: Tensors, config: dict[str, Any]) -> None:
    """Attach the adapters of an artefact (its layers, rank and alpha) to a frozen model."""
    suffix = ".A"
    paths = [
        name[len("lora.") : -len(suffix)]
        for name in tensors
        if name.startswith("lora.") and name.endswith(suffix)
    ]
    names = sorted({path.rsplit(".", 1)[-1] for path in paths})
    attach(model, names=names, rank=int(config["rank"]), alpha=float(config["alpha"]))
    write(model, tensors)
