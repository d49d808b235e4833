"""Private steps on a torch module: Opacus' per-example gradients, our clipping per unit, noise and empty batches.

The only file that imports opacus. Its loader, engine, noise and checkpoints are not used (rules 1, 3, 6 and 8).
"""

from __future__ import annotations

import warnings
from typing import Protocol

import torch
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import nn

from modeling.core.noise import NoiseSource

# The first adapter's input needs no gradient by design; torch warns of it once a step.
warnings.filterwarnings("ignore", message="Full backward hook is firing when gradients are computed")


class Stepper(Protocol):
    """Accumulates micro-batches into one step of an optimizer."""

    model: nn.Module

    def accumulate(self, row_losses: torch.Tensor, units: torch.Tensor) -> None:
        """Add a micro-batch: losses [b], one a row, and the unit [b] of each row; a unit is never cut in two."""
        ...

    def finish(self) -> None:
        """Take the step over what was accumulated, which may be nothing."""
        ...


class UnitOptimizer(DPOptimizer):  # type: ignore[misc]
    """Opacus' optimizer with clipping per unit, noise from our source and a constant normaliser."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        sigma: float,
        clip: float,
        expected_batch: float,
        source: NoiseSource,
    ) -> None:
        super().__init__(
            optimizer,
            noise_multiplier=sigma,
            max_grad_norm=clip,
            expected_batch_size=None,
            loss_reduction="sum",
        )
        self._normaliser = expected_batch
        self._source = source
        self.units: torch.Tensor | None = None  # [b] dense unit index of each row of the micro-batch

    def clip_and_accumulate(self) -> None:
        """Sum each unit's row gradients in float32, then clip and add up units."""
        for parameter in self.params:
            rows = self._get_flat_grad_sample(parameter).to(torch.float32)
            # One broken row must not turn the noised sum into NaN: that would tell that it is there.
            rows = torch.nan_to_num(rows, nan=0.0, posinf=0.0, neginf=0.0)
            if self.units is not None and len(rows):
                count = int(self.units.max()) + 1
                merged = torch.zeros((count, *rows.shape[1:]), device=rows.device)
                rows = merged.index_add_(0, self.units, rows)
            parameter.grad_sample = rows
        super().clip_and_accumulate()

    def add_noise(self) -> None:
        """The summed gradients plus sigma · clip · N(0, 1), drawn in float64."""
        scale = self.noise_multiplier * self.max_grad_norm
        for parameter in self.params:
            summed = parameter.summed_grad
            noise = torch.from_numpy(self._source.normal(summed.numel())).reshape(summed.shape)
            noisy = summed.to("cpu", torch.float64) + scale * noise
            parameter.grad = noisy.to(parameter.device, parameter.dtype).view_as(parameter)
            parameter.summed_grad = None

    def scale_grad(self) -> None:
        """Divide by the expected batch, a constant of the plan, never by the realised one."""
        for parameter in self.params:
            parameter.grad /= self._normaliser


class PrivateStepper:
    """Per-example gradients by hooks, clipped per unit and noised once a step."""

    def __init__(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        sigma: float,
        clip: float,
        expected_batch: float,
        source: NoiseSource,
    ) -> None:
        """`optimizer` must hold every trainable parameter of `module`, or ValueError: what it misses would leak."""
        _check_covered(module, optimizer)
        self.model: nn.Module = GradSampleModule(module.train(), loss_reduction="sum")
        self.optimizer = UnitOptimizer(
            optimizer, sigma=sigma, clip=clip, expected_batch=expected_batch, source=source
        )

    def accumulate(self, row_losses: torch.Tensor, units: torch.Tensor) -> None:
        """Clip and add a micro-batch. A unit's gradient is the mean over its rows."""
        _, dense, sizes = torch.unique(units, return_inverse=True, return_counts=True)
        (row_losses / sizes[dense]).sum().backward()
        self.optimizer.units = dense if len(sizes) < len(dense) else None
        self.optimizer.signal_skip_step(True)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def finish(self) -> None:
        """Noise and step. It ends every step with an empty micro-batch, so an empty batch is a noise-only step."""
        for parameter in self.optimizer.params:
            parameter.grad_sample = torch.zeros((0, *parameter.shape), device=parameter.device)
        self.optimizer.units = None
        self.optimizer.signal_skip_step(False)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


class OpenStepper:
    """The same steps without privacy: no per-example gradients, no clip, no noise."""

    def __init__(self, module: nn.Module, optimizer: torch.optim.Optimizer, *, expected_batch: float) -> None:
        self.model: nn.Module = module.train()
        self.optimizer = optimizer
        self._normaliser = expected_batch

    def accumulate(self, row_losses: torch.Tensor, units: torch.Tensor) -> None:
        """Add a micro-batch's gradients, a unit's being the mean over its rows."""
        _, dense, sizes = torch.unique(units, return_inverse=True, return_counts=True)
        (row_losses / sizes[dense]).sum().backward()

    def finish(self) -> None:
        """Divide by the expected batch and step; nothing accumulated is no step."""
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad /= self._normaliser
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def _check_covered(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    missing = [
        name for name, value in module.named_parameters() if value.requires_grad and id(value) not in held
    ]
    if missing:
        raise ValueError(f"parameters outside the private optimizer: {', '.join(missing)}")
