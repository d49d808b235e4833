"""A small network on a table's features: Poisson batches, Adam, the mean of the last half; checkpoints of all of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch import nn

from modeling.core.linear_run import Watcher
from modeling.core.noise import NoiseSource
from modeling.core.privacy import OpenStepper, PrivateStepper, Stepper
from modeling.core.sampling import PoissonSampler
from modeling.core.spending import Spending
from modeling.core.table_rows import TableRows
from modeling.core.types import Array, Checkpoint, CoreError, Event, Plan, Progress, Tensors

BLOCKS = 20  # charges, checkpoints and progress events of a run
UNITS_AT_ONCE = 512
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Network(nn.Module):  # type: ignore[misc]
    """Features [b, d] to outputs [b, K] through one hidden layer."""

    def __init__(self, width: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, hidden)
        self.out = nn.Linear(hidden, outputs)
        nn.init.normal_(self.hidden.weight)  # rows have unit norm: activations start with a spread of one
        nn.init.zeros_(self.hidden.bias)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Tanh keeps activations, and with them gradients, bounded."""
        found: torch.Tensor = self.out(torch.tanh(self.hidden(rows)))
        return found


class _Batches:
    """Training rows by unit: a unit is drawn whole."""

    def __init__(self, rows: TableRows, units: int, rate: float) -> None:
        """`units` is the public number of units: who has no row that fits the recipe adds an empty gradient."""
        _, dense = np.unique(rows.units, return_inverse=True)
        order = np.argsort(dense, kind="stable")
        self._rows = torch.from_numpy(np.nan_to_num(rows.features[order]))
        self._answers = torch.from_numpy(np.ascontiguousarray(rows.answers[order]))
        self._units = dense[order].astype(np.int64)
        self._starts = np.searchsorted(self._units, np.arange(units + 1))
        self._sampler = PoissonSampler(units, rate)

    def draw(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """(features, answers, units) of one Poisson batch in parts; a unit is never cut in two. May give nothing."""
        chosen = self._sampler.draw()
        for start in range(0, len(chosen), UNITS_AT_ONCE):
            part = chosen[start : start + UNITS_AT_ONCE]
            starts, sizes = self._starts[part], self._starts[part + 1] - self._starts[part]
            if total := int(sizes.sum()):
                # Row numbers of all its units: each unit's first row, then counting on to its last.
                at = np.repeat(starts - np.cumsum(sizes) + sizes, sizes) + np.arange(total)
                rows = torch.from_numpy(at)
                yield self._rows[rows], self._answers[rows], torch.from_numpy(self._units[at])


class NetworkRun:
    """One attempt at a plan; settings: sampling_rate, expected_batch, learning_rate, hidden."""

    def __init__(
        self,
        plan: Plan,
        train: TableRows,
        *,
        outputs: int,
        loss: Loss,
        spending: Spending,
        source: NoiseSource,
        resume: Checkpoint | None,
    ) -> None:
        """`loss` gives one number a row of (outputs [b, K], answers [b]); raises CoreError when no step is left."""
        settings = plan.settings
        self._plan, self._spending, self._loss = plan, spending, loss
        self._mechanism = next((item for item in plan.mechanisms if item.name == "train"), None)
        self.step = spending.used("train") if self._mechanism else (resume.step if resume else 0)
        if resume is None and self.step >= plan.steps:
            raise CoreError(
                "All reserved steps were used and no checkpoint is left.", code="reservation_used"
            )
        self._batches = _Batches(train, plan.shape.train_units, float(settings["sampling_rate"]))
        self._model = Network(train.features.shape[1], int(settings["hidden"]), outputs)
        self._optimizer = torch.optim.Adam(self._model.parameters(), lr=float(settings["learning_rate"]))
        self._sums = {name: np.zeros_like(value, dtype=np.float64) for name, value in self._current().items()}
        self._averaged = 0
        if resume:
            self._restore(resume.tensors)
        self._stepper = self._make_stepper(source)

    def _make_stepper(self, source: NoiseSource) -> Stepper:
        expected = float(self._plan.settings["expected_batch"])
        if self._mechanism is None:
            return OpenStepper(self._model, self._optimizer, expected_batch=expected)
        return PrivateStepper(
            self._model,
            self._optimizer,
            sigma=self._mechanism.sigma,
            clip=self._mechanism.clip,
            expected_batch=expected,
            source=source,
        )

    def tensors(self) -> Tensors:
        """The artefact's tensors: the mean iterate of the last half, or the current one before that half begins."""
        if not self._averaged:
            found = self._current()
        else:
            found = {name: (total / self._averaged).astype(np.float32) for name, total in self._sums.items()}
        return {f"network.{name}": value for name, value in found.items()}

    def events(self, watcher: Watcher, outputs: Callable[[], Array]) -> Iterator[Event]:
        """Run what remains; afterwards `tensors` is the result."""
        started, first, total = time.monotonic(), self.step, self._plan.steps
        size = max(1, math.ceil(total / BLOCKS))
        ends = sorted({*range(size, total, size), *watcher.stops, total})
        for stop in (end for end in ends if end > self.step):
            if self._mechanism:
                yield self._spending.charge("train", stop - self.step)
            while self.step < stop:
                self._take_step()
            yield Checkpoint(self.step, self._state())
            if stop in watcher.stops:
                yield from watcher.run(self.step, outputs)
            seconds = max(time.monotonic() - started, 1e-9)
            yield Progress(
                self.step,
                total,
                self._spending.epsilon(),
                # The expected batch, not the realised one: how many units were sampled is private.
                examples_per_second=(self.step - first)
                * float(self._plan.settings["expected_batch"])
                / seconds,
                seconds=seconds,
                seconds_left=(total - self.step) * seconds / (self.step - first),
            )
        # Nothing to do unless the attempt before this one stopped between its last step and the release of it.
        yield from watcher.run(self.step, outputs)

    def _take_step(self) -> None:
        for rows, answers, units in self._batches.draw():
            self._stepper.accumulate(self._loss(self._stepper.model(rows), answers), units)
        self._stepper.finish()
        self.step += 1
        if 2 * self.step > self._plan.steps:
            for name, value in self._current().items():
                self._sums[name] += value
            self._averaged += 1

    def _current(self) -> dict[str, Array]:
        return {name: value.detach().numpy().copy() for name, value in self._model.named_parameters()}

    def _state(self) -> Tensors:
        """Everything a resumed run needs: post-processing of noised sums, no random state."""
        found: Tensors = {"averaged": np.array([self._averaged], dtype=np.int64)}
        for name, value in self._model.named_parameters():
            found[f"value.{name}"] = value.detach().numpy().copy()
            found[f"sum.{name}"] = self._sums[name].copy()
            moments: Mapping[str, torch.Tensor] = self._optimizer.state[value]
            found |= {f"{one}.{name}": moments[one].numpy().copy() for one in _MOMENTS if one in moments}
        return found

    def _restore(self, tensors: Tensors) -> None:
        self._averaged = int(tensors["averaged"][0])
        for name, value in self._model.named_parameters():
            with torch.no_grad():
                value.copy_(torch.from_numpy(tensors[f"value.{name}"]))
            self._sums[name] = np.array(tensors[f"sum.{name}"], dtype=np.float64)
            kept = {one: tensors.get(f"{one}.{name}") for one in _MOMENTS}
            self._optimizer.state[value] = {
                one: torch.from_numpy(np.array(moment)) for one, moment in kept.items() if moment is not None
            }


def class_loss(outputs: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
    """Cross-entropy [b] of class indices."""
    return nn.functional.cross_entropy(outputs, answers, reduction="none")


def number_loss(outputs: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
    """Huber's loss [b] of places in [-1, 1]."""
    return nn.functional.huber_loss(outputs[:, 0], answers, reduction="none")
