"""Text classification by private LoRA: adapters and head trained under Opacus with Poisson-sampled units."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from modeling.core import accounting, bases, evaluation, planning
from modeling.core.device import choose
from modeling.core.encoder import WINDOW, Tokens, pad
from modeling.core.heads.classify import NAME_SCALE, TextHead, head_weights
from modeling.core.heads.classify_rows import Rows, config_of, split_rows
from modeling.core.lora_state import LoraState
from modeling.core.noise import NoiseSource
from modeling.core.predictor import classify_logits
from modeling.core.privacy import OpenStepper, PrivateStepper, Stepper
from modeling.core.sampling import PoissonSampler
from modeling.core.spending import Spending
from modeling.core.text_model import TextModel, TokenRows, micro_batches, token_rows
from modeling.core.types import (
    Array,
    Checkpoint,
    CoreError,
    Event,
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

RANK = 8
CLIP = 1.0
BATCH = 768  # expected units a step
STEPS = 24
RELEASES = 5  # each costs a pass over the held-out rows
HEAD_SHARE = 0.7  # of mu²: the budget of the head's start, which carries most of the accuracy
START = "head_start"
ADAPTER_RATE = 5e-4
HEAD_RATE = 0.005
MICRO_BATCH_TOKENS = 2048
HELD_OUT_TOKENS = 4096


class TextLoraHead:
    """Rank-8 adapters on the encoder's queries and values with the softmax head, in one private optimizer.

    The head starts from the full-batch recipe on frozen embeddings, which takes most of the budget and seconds;
    the Poisson-subsampled steps then train adapters and head together.
    """

    task = "classification"
    method = "lora"

    def plan(self, recipe: Recipe, shape: Shape, device: str) -> Plan:
        """Two mechanisms that meet epsilon together, by PLD; raises CannotTrain when too little can be learnt."""
        delta = planning.delta_of(recipe, shape)
        steps = min(STEPS, recipe.max_steps or STEPS)
        rate = min(1.0, BATCH / shape.train_units)
        head = _head_plan(recipe, shape, delta, device)
        settings: dict[str, float | int | str | bool] = {
            "sampling_rate": rate,
            "expected_batch": rate * shape.train_units,
            "releases": RELEASES,
            "rank": RANK,
            "alpha": float(RANK),
            "lora_rate": ADAPTER_RATE,
            "head_rate": HEAD_RATE,
            "temperature": head.settings["temperature"],
            "device": device,
        }
        if recipe.epsilon is None:
            return Plan(recipe, self.method, shape, (), delta, None, steps, settings, planning.OPEN_NOTES)
        planning.check_batch(rate * shape.train_units)
        rho = accounting.gaussian_mu(recipe.epsilon, delta) * shape.train_units / shape.classes
        found = planning.check_quality(recipe, shape, rho=rho)
        start = replace(head.mechanisms[0], name=START)
        sigma = accounting.sigma_for(recipe.epsilon, delta, count=steps, sampling_rate=rate, beside=[start])
        held_out = evaluation.mechanism_for(
            shape.held_out_units, epsilon=recipe.epsilon, delta=delta, steps=steps, releases=RELEASES
        )
        train = Mechanism("train", sigma, rate, steps, clip=CLIP)
        mechanisms = (start, train) if held_out is None else (start, train, held_out)
        settings |= {"rho": rho, "expected_quality": found.name}
        notes = planning.quality_notes(found, shape, rho=rho)
        epsilon = accounting.epsilon(mechanisms, delta)
        return Plan(recipe, self.method, shape, mechanisms, delta, epsilon, steps, settings, notes)

    def train(
        self,
        plan: Plan,
        data: TrainingData,
        *,
        models_dir: Path,
        resume: Checkpoint | None,
        spent: Mapping[str, int],
    ) -> Iterator[Event]:
        """Tokenise (spends nothing), then charge, step and report one step at a time."""
        folder = bases.path(models_dir, plan.recipe.base)
        yield from fit(plan, data, folder, resume=resume, spent=spent)


def _head_plan(recipe: Recipe, shape: Shape, delta: float, device: str) -> Plan:
    """The plan of the head's start: the head recipe on HEAD_SHARE of mu², with nothing held out."""
    epsilon = None
    if recipe.epsilon is not None:
        mu = accounting.gaussian_mu(recipe.epsilon, delta) * math.sqrt(HEAD_SHARE)
        epsilon = accounting.gaussian_epsilon(mu, delta)
    part = replace(recipe, method="head", epsilon=epsilon, delta=delta, max_steps=None)
    return TextHead().numbers(part, replace(shape, held_out_units=0), device)


def fit(
    plan: Plan,
    data: TrainingData,
    folder: Path,
    *,
    resume: Checkpoint | None = None,
    spent: Mapping[str, int] | None = None,
) -> Iterator[Event]:
    """The run with the base model in `folder`."""
    train, held_out = split_rows(data)
    started = time.monotonic()
    tokens = Tokens(folder)
    rows = token_rows(tokens(train.texts), train.labels, train.units)
    held_out_ids = tokens(held_out.texts)
    total = len(train.texts) + len(held_out.texts)
    yield Phase("tokenising", total, total, time.monotonic() - started)
    run = _Run(plan, rows, held_out, held_out_ids, folder, spent or {}, resume)
    if resume is None:
        yield from run.start_head(train)
    yield from run.events()


class _Run:
    """One attempt at a plan."""

    def __init__(
        self,
        plan: Plan,
        rows: TokenRows,
        held_out: Rows,
        held_out_ids: list[list[int]],
        folder: Path,
        spent: Mapping[str, int],
        resume: Checkpoint | None,
    ) -> None:
        self.plan, self.rows, self.held_out_ids = plan, rows, held_out_ids
        self.spending = Spending(plan, spent)
        self.noise = NoiseSource()
        self.mechanism = next((item for item in plan.mechanisms if item.name == "train"), None)
        self.step = self.spending.used("train") if self.mechanism else (resume.step if resume else 0)
        if resume is None and self.step >= plan.steps:
            raise CoreError(
                "All reserved steps were used and no checkpoint is left.", code="reservation_used"
            )
        self.device = choose(str(plan.settings["device"]))
        self.tokens = Tokens(folder)
        self.model = _start(plan, folder, self.device)
        self.names = self.model.embed(self.tokens(plan.recipe.labels), batch_tokens=HELD_OUT_TOKENS)
        self.model.set_head(np.pad(NAME_SCALE * self.names, ((0, 0), (0, 1))))
        self.state = LoraState(self.model, plan)
        if resume:
            self.state.restore(resume.tensors)
        self.sampler = PoissonSampler(rows.units, float(plan.settings["sampling_rate"]))
        self.stepper = self._stepper()
        self.evaluator = evaluation.Evaluator(
            plan, self.spending, held_out.labels, held_out.units, source=self.noise
        )

    def _stepper(self) -> Stepper:
        expected = float(self.plan.settings["expected_batch"])
        if self.mechanism is None:
            return OpenStepper(self.model, self.state.optimizer, expected_batch=expected)
        return PrivateStepper(
            self.model,
            self.state.optimizer,
            sigma=self.mechanism.sigma,
            clip=self.mechanism.clip,
            expected_batch=expected,
            source=self.noise,
        )

    def start_head(self, train: Rows) -> Iterator[Event]:
        """Train the head on embeddings while the adapters still change nothing, unless that was charged before."""
        head = _head_plan(
            self.plan.recipe, self.plan.shape, self.plan.delta, str(self.plan.settings["device"])
        )
        if self.mechanism and self.spending.used(START):
            return  # an attempt that left no checkpoint: its budget is gone, the class names must do
        total, started = len(train.texts), time.monotonic()
        features = np.empty((total, self.names.shape[1]), dtype=np.float32)
        ids = self.tokens(train.texts)
        for first in range(0, total, WINDOW):
            features[first : first + WINDOW] = self.model.embed(
                ids[first : first + WINDOW], batch_tokens=HELD_OUT_TOKENS
            )
            yield Phase("embedding", min(first + WINDOW, total), total, time.monotonic() - started)
        if self.mechanism:
            yield self.spending.charge(START, self.spending.remaining(START))
            # What was reserved is what runs, also where today's recipe would give other numbers.
            reserved = next(item for item in self.plan.mechanisms if item.name == START)
            head = replace(head, mechanisms=(reserved,), steps=reserved.count)
        self.model.set_head(head_weights(head, replace(train, features=features), self.names))
        yield Checkpoint(self.step, self.state.tensors())

    def events(self) -> Iterator[Event]:
        started, first = time.monotonic(), self.step
        total = self.plan.steps
        while self.step < total:
            if self.mechanism:
                yield self.spending.charge("train", 1)
            self._take_step()
            yield Checkpoint(self.step, self.state.tensors())
            if self.step in self.evaluator.stops:
                yield from self.evaluator.run(self.step, self._logits)
            seconds = time.monotonic() - started
            yield Progress(
                self.step,
                total,
                self.spending.epsilon(),
                # The expected batch, not the realised one: how many units were sampled is private.
                examples_per_second=(self.step - first)
                * float(self.plan.settings["expected_batch"])
                / seconds,
                seconds=seconds,
                seconds_left=(total - self.step) * seconds / (self.step - first),
            )
        # Nothing to do unless the attempt before this one stopped between its last step and the release of it.
        yield from self.evaluator.run(self.step, self._logits)
        seconds = time.monotonic() - started
        yield Trained(self._result(), self._config(), self.evaluator.metrics(self.step), self.step, seconds)

    def _take_step(self) -> None:
        """One logical step over a Poisson batch, in micro-batches."""
        chosen = self.sampler.draw()
        for rows, units in micro_batches(self.rows, chosen, batch_tokens=MICRO_BATCH_TOKENS):
            logits = self.stepper.model(*pad([self.rows.ids[row] for row in rows], self.device))
            labels = torch.from_numpy(self.rows.labels[rows]).to(self.device)
            losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
            self.stepper.accumulate(losses, torch.from_numpy(units).to(self.device))
        self.stepper.finish()
        self.step += 1
        self.state.average(self.step)

    def _logits(self) -> Array:
        """Of the held-out rows, by the model as it would be stored now."""
        with self.state.averaged():
            features = self.model.embed(self.held_out_ids, batch_tokens=HELD_OUT_TOKENS)
            return classify_logits(self.model.tensors(), {}, features)

    def _result(self) -> Tensors:
        with self.state.averaged():
            return self.model.tensors()

    def _config(self) -> dict[str, object]:
        return {
            **config_of(self.plan),
            "rank": self.plan.settings["rank"],
            "alpha": self.plan.settings["alpha"],
        }


def _start(plan: Plan, folder: Path, device: torch.device) -> TextModel:
    """The base model with adapters that change nothing yet."""
    settings = plan.settings
    labels = plan.recipe.labels
    return TextModel(
        folder, classes=len(labels), rank=int(settings["rank"]), alpha=float(settings["alpha"]), device=device
    )
