"""What text training carries from step to step: trainable parameters, Adam's moments, the average of iterates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from modeling.core.text_model import TextModel
from modeling.core.types import Plan, Tensors

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


class TextState:
    """The optimizer of a TextModel's encoder (or its adapters) and head, and the mean iterate of the last half."""

    def __init__(self, model: TextModel, plan: Plan) -> None:
        settings = plan.settings
        named = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
        self.parameters: dict[str, torch.nn.Parameter] = dict(named)
        encoder = [value for name, value in named if not name.startswith("head.")]
        self.optimizer: torch.optim.Optimizer = torch.optim.Adam(
            [
                {"params": encoder, "lr": float(settings["encoder_rate"])},
                {"params": [model.head.weight], "lr": float(settings["head_rate"])},
            ],
            betas=(0.9, 0.99),
        )
        self._steps = plan.steps
        self._sums = {name: torch.zeros_like(value) for name, value in named}
        self._count = 0

    def average(self, step: int) -> None:
        """Count the iterate after this step (1-based) into the average, if the last half has begun."""
        if 2 * step <= self._steps:
            return
        for name, value in self.parameters.items():
            self._sums[name] += value.detach()
        self._count += 1

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The model with the average iterate in place of the current one, while the context lasts."""
        if not self._count:
            yield
            return
        current = {name: value.detach().clone() for name, value in self.parameters.items()}
        self._put({name: total / self._count for name, total in self._sums.items()})
        try:
            yield
        finally:
            self._put(current)

    def _put(self, values: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(values[name])

    def tensors(self) -> Tensors:
        """Everything a resumed run needs: all of it post-processing of noised sums, no random state."""
        found: Tensors = {"count": np.array([self._count], dtype=np.int64)}
        for name, value in self.parameters.items():
            found[f"value.{name}"] = value.detach().cpu().numpy().copy()
            found[f"sum.{name}"] = self._sums[name].cpu().numpy().copy()
            state = self.optimizer.state[value]
            for moment in _MOMENTS:
                if moment in state:
                    found[f"{moment}.{name}"] = state[moment].cpu().numpy().copy()
        return found

    def restore(self, tensors: Tensors) -> None:
        """The inverse of `tensors`."""
        self._count = int(tensors["count"][0])
        self._put({name: torch.from_numpy(tensors[f"value.{name}"]) for name in self.parameters})
        for name, value in self.parameters.items():
            self._sums[name] = torch.from_numpy(tensors[f"sum.{name}"].copy()).to(value.device)
            for moment in _MOMENTS:
                stored = tensors.get(f"{moment}.{name}")
                if stored is not None:
                    where = "cpu" if moment == "step" else value.device
                    self.optimizer.state[value][moment] = torch.from_numpy(np.array(stored)).to(where)
