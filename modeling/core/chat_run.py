"""One attempt at a chat plan, the same for every method: charges, steps, checkpoints and held-out releases."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from modeling.core import evaluation
from modeling.core.chat_plans import CONVERSATIONS_PER_UNIT, LARGEST_LOSS, TRAIN
from modeling.core.noise import Keystream, NoiseSource
from modeling.core.sampling import PoissonSampler
from modeling.core.spending import Spending
from modeling.core.types import (
    Checkpoint,
    CoreError,
    Event,
    HeldOut,
    Mechanism,
    Plan,
    Progress,
    Tensors,
    Trained,
    TrainingData,
)

Vector = npt.NDArray[np.float64]
BETAS = (0.9, 0.999)


class Tuner(Protocol):
    """A model with adapters, and one way to take a noised step on them."""

    def step(self, units: Sequence[int]) -> None:
        """One step on the sampled units, which may be none: then it is a noise-only step."""
        ...

    def quality(self, units: Sequence[int]) -> Vector:
        """(share of tokens guessed, loss in nats) of each unit that has answers [units, 2]; private until noised."""
        ...

    def state(self) -> Tensors:
        """What a resumed run needs; no random state."""
        ...

    def restore(self, tensors: Tensors) -> None:
        """The inverse of `state`."""
        ...

    def tensors(self) -> Tensors:
        """What the artefact stores."""
        ...

    def config(self) -> dict[str, Any]:
        """What the artefact's config says beyond task, base and method."""
        ...


def mechanism_of(plan: Plan, name: str) -> Mechanism | None:
    """The plan's mechanism of this name; None when privacy is off or there is none."""
    return next((item for item in plan.mechanisms if item.name == name), None)


class NoisedAdam:
    """Adam on a flat parameter vector, given noised clipped sums over the constant expected batch."""

    def __init__(self, flat: torch.Tensor, plan: Plan, noise: NoiseSource) -> None:
        self.flat, self._noise = flat, noise
        self._mechanism = mechanism_of(plan, TRAIN)
        # Without privacy too: unclipped, a few conversations with large gradients keep the run from settling.
        self.clip = self._mechanism.clip if self._mechanism else float(plan.settings["clip"])
        self._batch, self._rate = float(plan.settings["batch"]), float(plan.settings["learning_rate"])
        self._first, self._second = torch.zeros_like(flat), torch.zeros_like(flat)
        self._updates = 0

    def step(self, total: Vector) -> None:
        """Noise the clipped sum, divide it by the expected batch, and update the vector in place."""
        if self._mechanism:
            total = total + self._mechanism.sigma * self._mechanism.clip * self._noise.normal(total.size)
        gradient = torch.from_numpy(total / self._batch).to(self.flat)
        self._updates += 1
        self._first.mul_(BETAS[0]).add_(gradient, alpha=1 - BETAS[0])
        self._second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        rate = self._rate / (1 - BETAS[0] ** self._updates)
        spread = (self._second / (1 - BETAS[1] ** self._updates)).sqrt_().add_(1e-8)
        self.flat.addcdiv_(self._first, spread, value=-rate)

    def state(self) -> Tensors:
        """The vector, its moments and the number of updates."""
        found = {"flat": self.flat, "first": self._first, "second": self._second}
        tensors: Tensors = {name: value.cpu().numpy().copy() for name, value in found.items()}
        return tensors | {"updates": np.array([self._updates], dtype=np.int64)}

    def restore(self, tensors: Tensors) -> None:
        """The inverse of `state`."""
        self._updates = int(tensors["updates"][0])
        for name, target in (("flat", self.flat), ("first", self._first), ("second", self._second)):
            target.copy_(torch.from_numpy(np.asarray(tensors[name])))


def chosen_rows(plan: Plan, data: TrainingData) -> tuple[list[int], list[int]]:
    """Rows of the people who take part, (train, held out): random people up to the public caps, first rows first."""
    if len(data.conversations) != len(data.units):
        raise CoreError("Conversations and units differ in number.", code="broken_data")
    coins = Keystream().uniform(len(data.held_out))
    chosen: set[int] = set()
    for part, cap in ((False, int(plan.settings["people"])), (True, int(plan.settings["held_out_people"]))):
        units = [unit for unit, held_out in enumerate(data.held_out) if held_out == part]
        chosen.update(sorted(units, key=lambda unit: coins[unit])[:cap])
    each = int(plan.settings.get("conversations_each", CONVERSATIONS_PER_UNIT))
    rows: tuple[list[int], list[int]] = ([], [])
    seen: dict[int, int] = {}
    for row, unit in enumerate(data.units):
        seen[unit] = seen.get(unit, 0) + 1
        if unit in chosen and seen[unit] <= each:
            rows[bool(data.held_out[unit])].append(row)
    return rows


class Run:
    """One attempt at a plan with a tuner; `people` train and `others` are held out, by unit number."""

    def __init__(
        self,
        plan: Plan,
        tuner: Tuner,
        *,
        people: Sequence[int],
        others: Sequence[int],
        resume: Checkpoint | None,
        spent: Mapping[str, int],
        noise: NoiseSource,
    ) -> None:
        self.plan, self.tuner, self.people, self.others = plan, tuner, people, others
        self.mechanism = mechanism_of(plan, TRAIN)
        self.spending, self.noise = Spending(plan, spent), noise
        self.step = self.spending.used(TRAIN) if self.mechanism else (resume.step if resume else 0)
        self.metrics: dict[str, float] = {}
        rate = float(plan.settings["batch"]) / float(plan.settings["people"])
        self.sampler = PoissonSampler(len(people), self.mechanism.sampling_rate if self.mechanism else rate)
        if resume is not None:
            tuner.restore(resume.tensors)

    def events(self, started: float) -> Iterator[Event]:
        """Held-out before, then charge and step one by one, held-out after, and what was trained."""
        if self.step == 0 and not self.spending.used(evaluation.MECHANISM):
            yield from self._evaluate("_before")
        began, first = time.monotonic(), self.step
        while self.step < self.plan.steps:
            if self.mechanism:
                yield self.spending.charge(TRAIN, 1)
            self.tuner.step([self.people[index] for index in self.sampler.draw()])
            self.step += 1
            yield Checkpoint(self.step, self.tuner.state())
            yield self._progress(first, time.monotonic() - began)
        yield from self._evaluate("")
        recipe = self.plan.recipe
        config = {"format": 1, "task": "chat", "base": recipe.base, "method": self.plan.method}
        config |= self.tuner.config()
        seconds = time.monotonic() - started
        yield Trained(self.tuner.tensors(), config, self.metrics, self.step, seconds)

    def _evaluate(self, moment: str) -> Generator[Event, None, None]:
        """One release of (token accuracy, clipped loss), each person's pair scaled to norm at most 1."""
        total = int(self.plan.settings["held_out_people"])
        held_out = mechanism_of(self.plan, evaluation.MECHANISM)
        if not total or (self.mechanism and not self.spending.remaining(evaluation.MECHANISM)):
            return
        if held_out:
            yield self.spending.charge(evaluation.MECHANISM, 1)
        scale = (held_out.sigma if held_out else 0.0) * math.sqrt(2.0)
        accuracy, loss = (self._held_out_sums() + scale * self.noise.normal(2)) / total
        accuracy = float(np.clip(accuracy, 0.0, 1.0))
        loss = float(np.clip(loss, 0.0, 1.0)) * LARGEST_LOSS
        self.metrics |= {f"token_accuracy{moment}": accuracy, f"answer_loss{moment}": loss}
        self.metrics |= {"noise_error": scale / total, "held_out_people": float(total)}
        yield HeldOut(self.step, accuracy, scale / total, total)

    def _held_out_sums(self) -> Vector:
        """Sums over people of two numbers in [0, 1]: hence the sqrt 2 in the noise. Nobody without answers counts."""
        found = np.nan_to_num(self.tuner.quality(self.others), nan=LARGEST_LOSS, posinf=LARGEST_LOSS)
        sums: Vector = np.clip(found / np.array([1.0, LARGEST_LOSS]), 0.0, 1.0).sum(axis=0)
        return sums

    def _progress(self, first: int, seconds: float) -> Progress:
        rate = (self.step - first) / max(seconds, 1e-9)
        return Progress(
            self.step,
            self.plan.steps,
            self.spending.epsilon(),
            examples_per_second=rate * float(self.plan.settings["batch"]),
            seconds=seconds,
            seconds_left=(self.plan.steps - self.step) / rate,
        )
