"""Training a text model in private steps: what LoRA and full fine-tuning share, from the plan to the last event."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from modeling.core import accounting, evaluation, expectations, planning, ranks
from modeling.core.device import choose
from modeling.core.encoder import WINDOW, Tokens, pad
from modeling.core.heads.classify import (
    CENTRE_SHARE,
    NAME_SCALE,
    TextHead,
    constants_of,
    head_weights,
    label_notes,
)
from modeling.core.heads.classify_rows import Rows, config_of, split_rows
from modeling.core.memory import Indices, MicroBatches, TokenRows, token_budget, token_rows
from modeling.core.noise import NoiseSource
from modeling.core.predictor import classify_logits
from modeling.core.privacy import GhostStepper, OpenStepper, PrivateStepper, Stepper
from modeling.core.sampling import PoissonSampler
from modeling.core.softmax_head import BIAS_FEATURE
from modeling.core.spending import Spending
from modeling.core.text_model import TextModel
from modeling.core.text_state import TextState
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

START = "head_start"
RELEASES = 5  # each costs a pass over the held-out rows
HELD_OUT_TOKENS = 4096
LONGEST_OPEN_RUN = 600  # steps without privacy


@dataclass(frozen=True)
class Constants:
    """What a method fixes in advance: chosen on public data, so it costs a tenant nothing."""

    method: str
    batch: int  # expected units a step
    steps: int
    head_share: float  # of mu²: the budget of the head's start
    encoder_rate: float
    head_rate: float
    rank: int  # of the adapters; 0: all layers train
    clip: float
    checkpoint_steps: int  # a checkpoint every so many steps
    open_batch: int
    open_epochs: float
    open_encoder_rate: float


def make_plan(constants: Constants, recipe: Recipe, shape: Shape, device: str) -> Plan:
    """Two mechanisms that meet epsilon together, by PLD; raises CannotTrain when too little can be learnt."""
    delta = planning.delta_of(recipe, shape)
    if recipe.epsilon is None:
        return _open_plan(constants, recipe, shape, delta, device)
    rate = min(1.0, constants.batch / shape.train_units)
    planning.check_batch(rate * shape.train_units)
    rho = accounting.gaussian_mu(recipe.epsilon, delta) * shape.train_units / shape.classes
    found = planning.check_quality(recipe, shape, rho=rho)
    steps = min(constants.steps, recipe.max_steps or constants.steps)
    head = head_plan(constants.head_share, recipe, shape, delta, device)
    start = replace(head.mechanisms[0], name=START)
    sigma = accounting.sigma_for(recipe.epsilon, delta, count=steps, sampling_rate=rate, beside=[start])
    held_out = evaluation.mechanisms_for(
        shape.held_out_units, epsilon=recipe.epsilon, delta=delta, steps=steps, releases=RELEASES
    )
    train = Mechanism("train", sigma, rate, steps, clip=constants.clip)
    mechanisms = (start, train, *held_out)
    settings = _settings(constants, rate, shape, device) | {
        "temperature": head.settings["temperature"],
        "rho": rho,
        **expectations.settings_of(found),
    }
    notes = planning.quality_notes(found, shape, rho=rho) + label_notes(recipe)
    epsilon = accounting.epsilon(mechanisms, delta)
    return Plan(recipe, constants.method, shape, mechanisms, delta, epsilon, steps, settings, notes)


def _open_plan(constants: Constants, recipe: Recipe, shape: Shape, delta: float, device: str) -> Plan:
    """Without privacy small batches cost nothing, so there are more steps."""
    batch = min(constants.open_batch, shape.train_units)
    steps = math.ceil(constants.open_epochs * shape.train_units / batch)
    steps = min(max(steps, constants.steps), recipe.max_steps or LONGEST_OPEN_RUN, LONGEST_OPEN_RUN)
    settings = _settings(constants, batch / shape.train_units, shape, device)
    settings |= {"encoder_rate": constants.open_encoder_rate, "temperature": 1.0}
    settings |= {"checkpoint_steps": max(constants.checkpoint_steps, math.ceil(steps / 24))}
    notes = planning.OPEN_NOTES + label_notes(recipe)
    return Plan(recipe, constants.method, shape, (), delta, None, steps, settings, notes)


def _settings(
    constants: Constants, rate: float, shape: Shape, device: str
) -> dict[str, float | int | str | bool]:
    return {
        "sampling_rate": rate,
        "expected_batch": rate * shape.train_units,
        "releases": RELEASES,
        "rank": constants.rank,
        "alpha": float(constants.rank),
        "encoder_rate": constants.encoder_rate,
        "head_rate": constants.head_rate,
        "head_share": constants.head_share,
        "checkpoint_steps": constants.checkpoint_steps,
        "device": device,
    }


def head_plan(share: float, recipe: Recipe, shape: Shape, delta: float, device: str) -> Plan:
    """The plan of the head's start: the head recipe on `share` of mu², with nothing held out."""
    epsilon = None
    if recipe.epsilon is not None:
        mu = accounting.gaussian_mu(recipe.epsilon, delta) * math.sqrt(share)
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
    """The run with the base model in `folder`: tokenise (spends nothing), then charge, step and report."""
    recipe = plan.recipe
    train, held_out = split_rows(data, classes=len(recipe.labels) if recipe.multi_label else 0)
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
    """One attempt at a plan; under several ranks, this rank's part of it (units rank, rank + size, …)."""

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
        self.model = _model(plan, folder, self.device)
        self.names = self.model.embed(self.tokens(plan.recipe.labels), batch_tokens=HELD_OUT_TOKENS)
        self.model.set_head(_name_head(plan.recipe, self.names))
        self.state = TextState(self.model, plan)
        if resume:
            self.state.restore(resume.tensors)
        # Own coins in every rank over its own units: together they are one Poisson batch.
        self.mine = np.arange(ranks.rank(), rows.units, ranks.size())
        self.sampler = PoissonSampler(len(self.mine), float(plan.settings["sampling_rate"]))
        self.stepper = self._stepper()
        self.batches = MicroBatches(rows, tokens=self._micro_batch_tokens())
        self.evaluator = evaluation.Evaluator(
            plan, self.spending, held_out.labels, held_out.units, source=self.noise
        )

    def _stepper(self) -> Stepper:
        expected = float(self.plan.settings["expected_batch"])
        model, optimizer, mechanism = self.model, self.state.optimizer, self.mechanism
        if mechanism is None:
            return OpenStepper(model, optimizer, expected_batch=expected)
        sigma, clip, source = mechanism.sigma, mechanism.clip, self.noise
        if self.plan.settings["rank"]:
            return PrivateStepper(
                model, optimizer, sigma=sigma, clip=clip, expected_batch=expected, source=source
            )
        return GhostStepper(
            model, optimizer, sigma=sigma, clip=clip, expected_batch=expected, source=source, fast=model.fast
        )

    def _micro_batch_tokens(self) -> int:
        config = self.model.encoder.config
        longest = max(map(len, self.rows.ids), default=1)
        tokens = token_budget(
            self.device,
            layers=config.num_hidden_layers,
            width=config.hidden_size,
            heads=config.num_attention_heads,
            longest=longest,
        )
        # Less than 1 after an attempt that was lost, perhaps because the kernel killed it for its memory.
        return max(1, int(float(self.plan.settings.get("memory_scale", 1.0)) * tokens))

    def start_head(self, train: Rows) -> Iterator[Event]:
        """Train the head on embeddings while the encoder is still the base, unless that was charged before."""
        if self.mechanism and self.spending.used(START):
            return  # an attempt that left no checkpoint: its budget is gone, the class names must do
        features = np.zeros((0, self.names.shape[1]), dtype=np.float32)
        if ranks.rank() == 0:
            features = yield from self._embedded(train.texts)
        if self.mechanism:
            yield self.spending.charge(START, self.spending.remaining(START))
        if ranks.rank() == 0:
            head = self._head_plan()
            self.model.set_head(head_weights(head, replace(train, features=features), self.names))
        ranks.align(self.model)
        yield Checkpoint(self.step, self.state.tensors())

    def _embedded(self, texts: list[str]) -> Generator[Event, None, Array]:
        """Embeddings [n, d], reporting rows done."""
        started, ids = time.monotonic(), self.tokens(texts)
        features = np.empty((len(texts), self.names.shape[1]), dtype=np.float32)
        for first in range(0, len(texts), WINDOW):
            features[first : first + WINDOW] = self.model.embed(
                ids[first : first + WINDOW], batch_tokens=HELD_OUT_TOKENS
            )
            done = min(first + WINDOW, len(texts))
            yield Phase("embedding", done, len(texts), time.monotonic() - started)
        return features

    def _head_plan(self) -> Plan:
        """What was reserved is what runs, also where today's recipe would give other numbers."""
        plan = self.plan
        share, device = float(plan.settings["head_share"]), str(plan.settings["device"])
        head = head_plan(share, plan.recipe, plan.shape, plan.delta, device)
        if self.mechanism is None:
            return head
        reserved = next(item for item in plan.mechanisms if item.name == START)
        return replace(head, mechanisms=(reserved,), steps=reserved.count)

    def events(self) -> Iterator[Event]:
        """Steps from where the run stands to its end."""
        started, first = time.monotonic(), self.step
        total, every = self.plan.steps, int(self.plan.settings["checkpoint_steps"])
        while self.step < total:
            if self.mechanism:
                yield self.spending.charge("train", 1)
            self._take_step()
            if self.step % every == 0 or self.step == total:
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
        metrics = self.evaluator.metrics(self.step)
        yield from self.evaluator.calibrate(self._logits)
        config, report = self._config() | self.evaluator.config(), self.evaluator.report()
        yield Trained(self._result(), config, metrics, self.step, seconds, report=report)

    def _take_step(self) -> None:
        """One logical step over a Poisson batch, in micro-batches."""
        self.batches.accumulate(self.mine[self.sampler.draw()], self.stepper, self._losses)
        self.stepper.finish()
        self.step += 1
        self.state.average(self.step)

    def _losses(self, index: Indices) -> torch.Tensor:
        """One loss a row, float32 [b]: cross-entropy, or the sum of a logistic loss for each label."""
        logits = self.stepper.model(*pad([self.rows.ids[row] for row in index], self.device))
        labels = torch.from_numpy(self.rows.labels[index]).to(self.device)
        if labels.dim() == 1:
            return torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        found = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, labels.to(logits.dtype), reduction="none"
        )
        return found.sum(1)

    def _logits(self) -> Array:
        """Of the held-out rows, by the model as it would be stored now. Only rank 0's are released."""
        if ranks.rank() != 0:
            return np.zeros((len(self.held_out_ids), len(self.plan.recipe.labels)), dtype=np.float32)
        with self.state.averaged():
            features = self.model.embed(self.held_out_ids, batch_tokens=HELD_OUT_TOKENS)
            return classify_logits(self.model.tensors(), {}, features)

    def _result(self) -> Tensors:
        with self.state.averaged():
            return self.model.tensors()

    def _config(self) -> dict[str, object]:
        config = config_of(self.plan)
        if rank := self.plan.settings["rank"]:
            config |= {"rank": rank, "alpha": self.plan.settings["alpha"]}
        return config


def _name_head(recipe: Recipe, names: Array) -> Array:
    """The head that the class names' embeddings [K, d] alone give: weights [K, d + 1], as the head's recipe starts."""
    weights = NAME_SCALE * names
    centre = np.float32(CENTRE_SHARE) * names.mean(axis=0)
    bias = (constants_of(recipe).offset - weights @ centre) / np.float32(BIAS_FEATURE)
    return np.concatenate([weights, bias[:, None]], axis=1)


def _model(plan: Plan, folder: Path, device: torch.device) -> TextModel:
    """The base model, with adapters that change nothing yet where the plan has a rank."""
    settings = plan.settings
    return TextModel(
        folder,
        classes=len(plan.recipe.labels),
        rank=int(settings["rank"]),
        alpha=float(settings["alpha"]),
        device=device,
    )
