"""Private steps on a torch module: per-example gradients, our clipping per unit, noise and empty batches.

The only file that imports opacus. Its loader, engine, noise and checkpoints are not used (rules 1, 3, 6 and 8).
"""

from __future__ import annotations

import warnings
from typing import Any, Protocol

import torch
from opacus import GradSampleModule
from opacus.distributed import DifferentiallyPrivateDistributedDataParallel
from opacus.optimizers import DistributedDPOptimizer, DPOptimizer
from torch import nn

from modeling.core import ranks
from modeling.core.ghost import Recorder, Units
from modeling.core.noise import NoiseSource

# The first adapter's input needs no gradient by design; torch warns of it once a step.
warnings.filterwarnings("ignore", message="Full backward hook is firing when gradients are computed")

# Rounded to bfloat16, a norm is off by up to 1.1 % [measured]: clip that much lower, so that the bound still holds.
FAST_MARGIN = 0.98


class Stepper(Protocol):
    """Accumulates micro-batches into one step of an optimizer. Under several ranks each adds its own units' part."""

    model: nn.Module

    def accumulate(self, row_losses: torch.Tensor, units: torch.Tensor) -> None:
        """Add a micro-batch: losses [b], one a row, and the unit [b] of each row; a unit is never cut in two.

        Either all of it is added or, when memory runs out on the way, nothing.
        """
        ...

    def discard(self) -> None:
        """Forget what a micro-batch left that broke off before it was added."""
        ...

    def finish(self) -> None:
        """Take the step over what was accumulated, which may be nothing."""
        ...


class _UnitSums:
    """Clipping per unit, noise from our source and a constant normaliser, for Opacus' optimizers.

    Mixed into DPOptimizer and DistributedDPOptimizer; `prepare` must be called once.
    """

    params: list[Any]
    max_grad_norm: float
    noise_multiplier: float

    def prepare(self, *, expected_batch: float, source: NoiseSource) -> None:
        """Set the constant normaliser and the noise source."""
        self._normaliser = expected_batch
        self._source = source
        self.units: torch.Tensor | None = None  # [b] dense unit index of each row; None: each row is a unit

    def clip_and_accumulate(self) -> None:
        """Sum each unit's row gradients in float32, clip, and add up units.

        Everything is computed before the first sum changes.
        """
        found = [self._rows(parameter) for parameter in self.params]
        squares = torch.stack([rows.square().sum(1) for rows in found]).sum(0)
        # One broken row must not turn the noised sum into NaN: that would tell that it is there.
        broken = ~torch.isfinite(squares)
        factors = (self.max_grad_norm / (squares.sqrt() + 1e-6)).clamp(max=1.0)
        if bool(broken.any()):
            factors = factors.masked_fill(broken, 0.0)
            found = [rows.masked_fill(broken[:, None], 0.0) for rows in found]
        parts = [factors @ rows for rows in found]
        for parameter, part in zip(self.params, parts, strict=True):
            if parameter.summed_grad is None:
                parameter.summed_grad = part.view_as(parameter)
            else:
                parameter.summed_grad += part.view_as(parameter)

    def _rows(self, parameter: Any) -> torch.Tensor:
        """Each unit's gradient of a parameter, float32 [units, size]."""
        rows: torch.Tensor = parameter.grad_sample.flatten(1).to(torch.float32)
        if self.units is None:
            return rows
        merged = torch.zeros((int(self.units.max()) + 1, rows.shape[1]), device=rows.device)
        return merged.index_add_(0, self.units, rows)

    def add_noise(self) -> None:
        """Put the summed gradients plus sigma · clip · N(0, 1), drawn in float64, in place; only rank 0 adds noise."""
        scale = self.noise_multiplier * self.max_grad_norm if ranks.rank() == 0 else 0.0
        for parameter in self.params:
            summed = parameter.summed_grad
            parameter.summed_grad = None
            if summed is None:
                summed = torch.zeros_like(parameter, dtype=torch.float32)
            parameter.grad = _noised(summed, scale, self._source).to(parameter.dtype)

    def scale_grad(self) -> None:
        """Divide by the expected batch, a constant of the plan, never by the realised one."""
        for parameter in self.params:
            parameter.grad /= self._normaliser


class UnitOptimizer(_UnitSums, DPOptimizer):  # type: ignore[misc]
    """One process."""


class RankedUnitOptimizer(_UnitSums, DistributedDPOptimizer):  # type: ignore[misc]
    """One rank of several: sums of clipped gradients and rank 0's noise are added over ranks."""


class PrivateStepper:
    """Per-example gradients by Opacus' hooks, clipped per unit and noised once a step."""

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
        several = ranks.size() > 1
        inner = DifferentiallyPrivateDistributedDataParallel(module.train()) if several else module.train()
        self.model: nn.Module = GradSampleModule(inner, loss_reduction="sum")
        kind = RankedUnitOptimizer if several else UnitOptimizer
        self.optimizer = kind(
            optimizer,
            noise_multiplier=sigma,
            max_grad_norm=clip,
            expected_batch_size=None,
            loss_reduction="sum",
        )
        self.optimizer.prepare(expected_batch=expected_batch, source=source)

    def accumulate(self, row_losses: torch.Tensor, units: torch.Tensor) -> None:
        """Clip and add a micro-batch. A unit's gradient is the mean over its rows."""
        _, dense, sizes = torch.unique(units, return_inverse=True, return_counts=True)
        (row_losses / sizes[dense]).sum().backward()
        self.optimizer.units = dense if len(sizes) < len(dense) else None
        self.optimizer.clip_and_accumulate()
        self._clear()

    def discard(self) -> None:
        """Drop activations and gradients of a pass that broke off."""
        for layer in self.model.modules():
            vars(layer).pop("activations", None)
            vars(layer).pop("max_batch_len", None)
        for parameter in self.optimizer.params:
            parameter._forward_counter = 0
            vars(parameter).pop("_current_grad_sample", None)
        self._clear()

    def _clear(self) -> None:
        for parameter in self.optimizer.params:
            parameter.grad = parameter.grad_sample = None

    def finish(self) -> None:
        """Noise and step; with nothing accumulated, a step of noise alone."""
        self.optimizer.add_noise()
        self.optimizer.scale_grad()
        if isinstance(self.optimizer, RankedUnitOptimizer):
            self.optimizer.reduce_gradients()
        self.optimizer.original_optimizer.step()
        self._clear()


class GhostStepper:
    """Clipped sums without any unit's gradient, for models too large to write those out; noised once a step."""

    def __init__(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        sigma: float,
        clip: float,
        expected_batch: float,
        source: NoiseSource,
        fast: bool = False,
    ) -> None:
        """As PrivateStepper; `fast`: the model computes in bfloat16, so its products may too."""
        _check_covered(module, optimizer)
        ranks.align(module)
        self.model: nn.Module = module.train()
        self.optimizer = optimizer
        self._recorder = Recorder(module)
        self._sums = {id(value): torch.zeros_like(value) for value in self._recorder.parameters}
        self._scale, self._clip = sigma * clip, clip * (FAST_MARGIN if fast else 1.0)
        self._normaliser, self._source, self._fast = expected_batch, source, fast

    def accumulate(self, row_losses: torch.Tensor, units: torch.Tensor) -> None:
        """Clip and add a micro-batch. A unit's gradient is the mean over its rows."""
        _, dense, sizes = torch.unique(units, return_inverse=True, return_counts=True)
        loss = (row_losses / sizes[dense]).sum()
        parts = self._recorder.clipped(loss, Units.of(dense, sizes), self._clip, fast=self._fast)
        for part in parts:
            part.add_to(self._sums[id(part.parameter)])

    def discard(self) -> None:
        """Drop the records of a pass that broke off."""
        self._recorder.forget()

    def finish(self) -> None:
        """Noise and step; with nothing accumulated, a step of noise alone."""
        scale = self._scale if ranks.rank() == 0 else 0.0
        for parameter in self._recorder.parameters:
            total = self._sums[id(parameter)]
            noisy = _noised(total, scale, self._source)
            ranks.add_up(noisy)
            parameter.grad = noisy.div_(self._normaliser).to(parameter.dtype)
        self.optimizer.step()
        for parameter in self._recorder.parameters:
            parameter.grad = None
            self._sums[id(parameter)].zero_()


class OpenStepper:
    """The same steps without privacy: no per-example gradients, no clip, no noise."""

    def __init__(self, module: nn.Module, optimizer: torch.optim.Optimizer, *, expected_batch: float) -> None:
        ranks.align(module)
        self.model: nn.Module = module.train()
        self.optimizer = optimizer
        self._normaliser = expected_batch

    def accumulate(self, row_losses: torch.Tensor, units: torch.Tensor) -> None:
        """Add a micro-batch's gradients, a unit's being the mean over its rows."""
        _, dense, sizes = torch.unique(units, return_inverse=True, return_counts=True)
        parameters = self._parameters()
        loss = (row_losses / sizes[dense]).sum()
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is None:
                continue
            if parameter.grad is None:
                parameter.grad = gradient
            else:
                parameter.grad += gradient

    def discard(self) -> None:
        """Nothing to forget: gradients are added only once all of them are there."""

    def finish(self) -> None:
        """Divide by the expected batch and step; nothing accumulated is no step."""
        for parameter in self._parameters():
            if parameter.grad is None and ranks.size() > 1:
                parameter.grad = torch.zeros_like(parameter)
            if parameter.grad is not None:
                ranks.add_up(parameter.grad)
                parameter.grad /= self._normaliser
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _parameters(self) -> list[nn.Parameter]:
        return [value for group in self.optimizer.param_groups for value in group["params"]]


def _noised(total: torch.Tensor, scale: float, source: NoiseSource) -> torch.Tensor:
    """A float32 copy of `total` plus scale · N(0, 1), on its device."""
    flat = total.detach().to("cpu", torch.float32, copy=True).flatten()
    if scale:
        source.add_to(flat.numpy(), scale)
    return flat.to(total.device).view_as(total)


def _check_covered(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    trained: dict[str, Any] = {
        name: value for name, value in module.named_parameters() if value.requires_grad
    }
    missing = [name for name, value in trained.items() if id(value) not in held]
    if missing:
        raise ValueError(f"parameters outside the private optimizer: {', '.join(missing)}")
