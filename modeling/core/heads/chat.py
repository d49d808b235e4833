"""Chat by a final-hidden adapter on cached frozen states: per-unit clipped, Poisson-sampled, noised steps."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from modeling.core import accounting, bases, evaluation, planning
from modeling.core.chat_adapter import RANK, Adapter, clipped_sum, quality, unit_gradients
from modeling.core.chat_hidden import Cache, FrozenChat
from modeling.core.chat_tokens import MAX_TOKENS, ChatTokens, Conversation
from modeling.core.device import choose
from modeling.core.noise import Keystream, NoiseSource
from modeling.core.sampling import PoissonSampler
from modeling.core.spending import Spending
from modeling.core.types import (
    CannotTrain,
    Checkpoint,
    CoreError,
    Event,
    HeldOut,
    Mechanism,
    Phase,
    Plan,
    Progress,
    Recipe,
    Shape,
    Tensors,
    Trained,
    TrainingData,
)

TRAIN = "train"
BATCH = 256
STEPS = 24
CLIP = 1.0
LEARNING_RATE = (
    8e-3  # 24 steps at 4e-3 stop short of what the noise allows (.77 against .91 of the gain at epsilon 8)
)
BETAS = (0.9, 0.999)
# Public caps: they bound the processor time of a job and what one person can contribute.
LARGEST_TRAIN_UNITS = 1024
LARGEST_HELD_OUT_UNITS = 200
CONVERSATIONS_PER_UNIT = 4
TOKENS_PER_CONVERSATION = 16  # random answer tokens of a conversation that a step looks at
SMALLEST_UNITS = 128
LARGEST_LOSS = 10.0  # nats; a person's loss counts at most this much in the held-out release
Vector = npt.NDArray[np.float64]


class FinalHiddenHead:
    """Rank-8 adapter with bias behind the last layer; nothing else of the model changes."""

    task = "chat"
    method = "final_hidden"

    def plan(self, recipe: Recipe, shape: Shape, device: str) -> Plan:
        """Fixed steps over at most LARGEST_TRAIN_UNITS people; raises CannotTrain for too few."""
        people = min(shape.train_units, LARGEST_TRAIN_UNITS)
        if people < SMALLEST_UNITS:
            raise CannotTrain(
                f"{shape.train_units} people are too few to teach a chat model: bring at least {SMALLEST_UNITS}.",
                code="too_few_units",
            )
        batch = min(BATCH, people // 4)
        planning.check_batch(batch)
        steps = min(STEPS, recipe.max_steps or STEPS)
        delta = planning.delta_of(recipe, shape)
        mechanisms = _mechanisms(recipe, shape, delta, rate=batch / people, steps=steps)
        notes: tuple[str, ...] = ()
        if shape.train_units > people:
            notes = (f"To stay within minutes, {people:,} people drawn at random are used for training.",)
        return Plan(
            recipe=recipe,
            method=self.method,
            shape=shape,
            mechanisms=mechanisms,
            delta=delta,
            epsilon=accounting.epsilon(mechanisms, delta) if mechanisms else None,
            steps=steps,
            settings={
                "people": people,
                "held_out_people": min(shape.held_out_units, LARGEST_HELD_OUT_UNITS),
                "batch": batch,
                "learning_rate": LEARNING_RATE,
                "rank": RANK,
                "max_tokens": MAX_TOKENS,
                "device": device,
            },
            notes=notes,
        )

    def train(
        self,
        plan: Plan,
        data: TrainingData,
        *,
        models_dir: Path,
        resume: Checkpoint | None,
        spent: Mapping[str, int],
    ) -> Iterator[Event]:
        """Cache once (spends nothing), then charge and step one by one; held-out before and after."""
        folder = bases.path(models_dir, plan.recipe.base)
        started = time.monotonic()
        train, held_out = chosen_rows(plan, data)
        tokens = ChatTokens(folder)
        frozen = FrozenChat(folder, choose(str(plan.settings["device"])))
        conversations = [tokens.encode(data.conversations[row]) for row in (*train, *held_out)]
        cache = Cache([data.units[row] for row in (*train, *held_out)], conversations)
        yield from _fill(cache, frozen, conversations, started)
        people = sorted({data.units[row] for row in train})
        others = sorted({data.units[row] for row in held_out})
        yield from _Run(plan, cache, frozen, people, others, resume, spent).events(started)


def _mechanisms(
    recipe: Recipe, shape: Shape, delta: float, *, rate: float, steps: int
) -> tuple[Mechanism, ...]:
    if recipe.epsilon is None:
        return ()
    sigma = accounting.sigma_for(recipe.epsilon, delta, count=steps, sampling_rate=rate)
    train = Mechanism(TRAIN, sigma, rate, steps, clip=CLIP)
    units = min(shape.held_out_units, LARGEST_HELD_OUT_UNITS)
    held_out = evaluation.mechanism_for(units, epsilon=recipe.epsilon, delta=delta, steps=2)
    return (train,) if held_out is None else (train, held_out)


def chosen_rows(plan: Plan, data: TrainingData) -> tuple[list[int], list[int]]:
    """Rows of the people who take part, (train, held out): random people up to the public caps, first rows first."""
    if len(data.conversations) != len(data.units):
        raise CoreError("Conversations and units differ in number.", code="broken_data")
    coins = Keystream().uniform(len(data.held_out))
    chosen: set[int] = set()
    for part, cap in ((False, int(plan.settings["people"])), (True, int(plan.settings["held_out_people"]))):
        units = [unit for unit, held_out in enumerate(data.held_out) if held_out == part]
        chosen.update(sorted(units, key=lambda unit: coins[unit])[:cap])
    rows: tuple[list[int], list[int]] = ([], [])
    seen: dict[int, int] = {}
    for row, unit in enumerate(data.units):
        seen[unit] = seen.get(unit, 0) + 1
        if unit in chosen and seen[unit] <= CONVERSATIONS_PER_UNIT:
            rows[bool(data.held_out[unit])].append(row)
    return rows


def _fill(
    cache: Cache, frozen: FrozenChat, conversations: list[Conversation], started: float
) -> Iterator[Event]:
    """Run the frozen model over all chosen conversations, reporting rows done."""
    total, every = len(conversations), max(1, len(conversations) // 50)
    yield Phase("reading", 0, total, time.monotonic() - started)
    for done, (index, hidden) in enumerate(frozen.states(conversations), start=1):
        cache.put(index, hidden)
        if done % every == 0 or done == total:
            yield Phase("reading", done, total, time.monotonic() - started)


@dataclass
class _Moments:
    """Adam's running means of the noised gradient and its square."""

    first: torch.Tensor
    second: torch.Tensor


class _Run:
    """One attempt at a plan."""

    def __init__(
        self,
        plan: Plan,
        cache: Cache,
        frozen: FrozenChat,
        people: list[int],
        others: list[int],
        resume: Checkpoint | None,
        spent: Mapping[str, int],
    ) -> None:
        self.plan, self.cache, self.vocabulary = plan, cache, frozen.vocabulary
        self.people, self.others = people, others
        self.mechanism = next((item for item in plan.mechanisms if item.name == TRAIN), None)
        self.adapter = Adapter(frozen.width, device=frozen.device)
        self.moments = _Moments(torch.zeros_like(self.adapter.flat), torch.zeros_like(self.adapter.flat))
        self.spending, self.noise = Spending(plan, spent), NoiseSource()
        self.choice = np.random.default_rng()
        self.updates = 0
        self.step = self.spending.used(TRAIN) if self.mechanism else (resume.step if resume else 0)
        self.metrics: dict[str, float] = {}
        rate = float(plan.settings["batch"]) / float(plan.settings["people"])
        self.sampler = PoissonSampler(len(people), self.mechanism.sampling_rate if self.mechanism else rate)
        if resume is not None:
            self._restore(resume.tensors)

    def events(self, started: float) -> Iterator[Event]:
        if self.step == 0 and not self.spending.used(evaluation.MECHANISM):
            yield from self._evaluate("_before")
        began, first = time.monotonic(), self.step
        while self.step < self.plan.steps:
            if self.mechanism:
                yield self.spending.charge(TRAIN, 1)
            self._take_step()
            yield Checkpoint(self.step, self._state())
            yield self._progress(first, time.monotonic() - began)
        yield from self._evaluate("")
        config = {
            "format": 1,
            "task": "chat",
            "base": self.plan.recipe.base,
            "method": self.plan.method,
            "rank": self.adapter.rank,
        }
        seconds = time.monotonic() - started
        yield Trained(self.adapter.tensors(), config, self.metrics, self.step, seconds)

    def _take_step(self) -> None:
        """Adam on the noised clipped sum over the constant expected batch; an empty batch is a noise-only step."""
        units = [self.people[index] for index in self.sampler.draw()]
        total = self._summed(units)
        if self.mechanism:
            total += self.mechanism.sigma * self.mechanism.clip * self.noise.normal(total.size)
        gradient = torch.from_numpy(total / float(self.plan.settings["batch"])).to(self.adapter.flat)
        self.updates += 1
        first, second = self.moments.first, self.moments.second
        first.mul_(BETAS[0]).add_(gradient, alpha=1 - BETAS[0])
        second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        rate = float(self.plan.settings["learning_rate"]) / (1 - BETAS[0] ** self.updates)
        spread = (second / (1 - BETAS[1] ** self.updates)).sqrt_().add_(1e-8)
        self.adapter.flat.addcdiv_(first, spread, value=-rate)
        self.step += 1

    def _summed(self, units: list[int]) -> Vector:
        answers = self.cache.answers(units, tokens=TOKENS_PER_CONVERSATION, choice=self.choice)
        if answers is None:
            return np.zeros(self.adapter.flat.numel())
        gradients = unit_gradients(self.adapter, answers, self.vocabulary)
        return clipped_sum(gradients, self.mechanism.clip if self.mechanism else None)

    def _evaluate(self, moment: str) -> Generator[Event, None, None]:
        """One release of (token accuracy, clipped loss), each person's pair scaled to norm at most 1."""
        total = int(self.plan.settings["held_out_people"])
        held_out = next((item for item in self.plan.mechanisms if item.name == evaluation.MECHANISM), None)
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
        answers = self.cache.answers(self.others, tokens=None, choice=self.choice)
        if answers is None:
            return np.zeros(2)
        found = np.nan_to_num(
            quality(self.adapter, answers, self.vocabulary), nan=LARGEST_LOSS, posinf=LARGEST_LOSS
        )
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

    def _state(self) -> Tensors:
        state = {"flat": self.adapter.flat, "first": self.moments.first, "second": self.moments.second}
        tensors: Tensors = {name: value.cpu().numpy().copy() for name, value in state.items()}
        return tensors | {"updates": np.array([self.updates], dtype=np.int64)}

    def _restore(self, tensors: Tensors) -> None:
        self.updates = int(tensors["updates"][0])
        self.adapter.flat.copy_(torch.from_numpy(tensors["flat"]))
        self.moments = replace(
            self.moments,
            first=torch.from_numpy(tensors["first"]).to(self.adapter.flat),
            second=torch.from_numpy(tensors["second"]).to(self.adapter.flat),
        )
