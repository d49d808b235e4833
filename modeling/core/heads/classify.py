"""Text classification by a private linear head on cached frozen embeddings: one class a row, or several labels."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from modeling.core import accounting, bases, evaluation, expectations, planning
from modeling.core.device import choose
from modeling.core.heads.classify_rows import Rows, config_of, embed_rows, split_rows
from modeling.core.noise import NoiseSource
from modeling.core.predictor import classify_logits
from modeling.core.softmax_head import BIAS_FEATURE, head_for
from modeling.core.spending import Spending
from modeling.core.types import (
    Array,
    Checkpoint,
    CoreError,
    Event,
    Mechanism,
    Plan,
    Progress,
    Recipe,
    Shape,
    Tensors,
    Trained,
    TrainingData,
)

MOMENTUM = 0.8
NAME_SCALE = 10.0
CENTRE_SHARE = 0.5  # of the mean of the class names' embeddings, taken off every row
BLOCKS = 32  # charges, checkpoints and progress events of a run
STEPS_WITHOUT_PRIVACY = 300
# Without privacy: strengths of the pull to the class names (as sums over people), tried on a part of the training rows.
PULLS_WITHOUT_PRIVACY = (1.0, 0.3, 0.1, 0.03)
ROWS_TO_TRY_ON = 3_000


@dataclass(frozen=True)
class Constants:
    """What is fixed in advance for one kind of labels; chosen on public data, so it costs a tenant nothing."""

    rate: float  # of r / (sqrt(T) C): a step's noise has this size in every weight
    bias: float  # the constant feature
    offset: float  # added to every label's score at the start
    open_rate: float  # without privacy, by number of classes for one class a row


# One class a row: recipe T1 of the privacy notes with a centre, a smaller bias feature and the names' start at every
# size. On ICD chapters (split seeds from 100 on, not those of the bench) against T1: +.005 at n = 700, +.011 at 3,000,
# +.006 at epsilon 1 and +.002 at epsilon 8 with all rows; on six other text sets -.004 to +.007, on average +.001.
# Without privacy the rate is stable: curvature is at most 1.25/K at equal chances, heavy ball allows 18/curvature.
ONE_LABEL = Constants(rate=0.3, bias=0.15, offset=0.0, open_rate=14.0)
# Several labels a row: chosen on ICD chapters with seven more labels (side, encounter, sequela, unspecified; 1.6 labels
# a row). Without privacy a label's curvature is at most a quarter of the rows' largest spread, so heavy ball allows 72
# over that spread.
SEVERAL_LABELS = Constants(rate=0.45, bias=0.25, offset=-3.0, open_rate=60.0)


def constants_of(recipe: Recipe) -> Constants:
    """The constants for the recipe's kind of labels."""
    return SEVERAL_LABELS if recipe.multi_label else ONE_LABEL


class TextHead:
    """Full-batch noisy gradient descent on a softmax or sigmoid head; one Gaussian mechanism with q = 1."""

    task = "classification"
    method = "head"

    def plan(self, recipe: Recipe, shape: Shape, device: str) -> Plan:
        """T1's constants from mu·n and the number of classes; raises CannotTrain when too little can be learnt."""
        if recipe.epsilon is not None:
            mu = accounting.gaussian_mu(recipe.epsilon, planning.delta_of(recipe, shape))
            planning.check_quality(recipe, shape, rho=mu * shape.train_units / shape.classes)
        return self.numbers(recipe, shape, device)

    def numbers(self, recipe: Recipe, shape: Shape, device: str) -> Plan:
        """The plan without the check that enough can be learnt: also the first part of another recipe."""
        delta = planning.delta_of(recipe, shape)
        if recipe.epsilon is None:
            return self._open_plan(recipe, shape, device, delta)
        constants = constants_of(recipe)
        mu = accounting.gaussian_mu(recipe.epsilon, delta)
        r = mu * shape.train_units
        rho = r / shape.classes
        expected = expectations.expected_several if recipe.multi_label else expectations.expected_text
        found = expected(rho, shape.classes, shape.train_units)
        steps = min(max(round(0.9 * math.sqrt(r)), 5), 400)
        steps = min(steps, recipe.max_steps or steps)
        clip = 0.15 if r > 3000 and not recipe.multi_label else 0.3
        train = Mechanism("train", math.sqrt(steps) / mu, 1.0, steps, clip=clip)
        held_out = evaluation.mechanisms_for(
            shape.held_out_units, epsilon=recipe.epsilon, delta=delta, steps=steps
        )
        settings: dict[str, float | int | str | bool] = {
            "learning_rate": constants.rate * r / (math.sqrt(steps) * clip),
            "momentum": MOMENTUM,
            "releases": evaluation.RELEASES,
            "name_start": True,
            "temperature": temperature(rho),
            "rho": rho,
            "device": device,
            **expectations.settings_of(found),
        }
        notes = planning.quality_notes(found, shape, rho=rho) + label_notes(recipe)
        if not any(item.name == evaluation.MECHANISM for item in held_out):
            notes += ("Too few people are held out to release an accuracy that means anything.",)
        mechanisms = (train, *held_out)
        epsilon = accounting.epsilon(mechanisms, delta)
        return Plan(recipe, self.method, shape, mechanisms, delta, epsilon, steps, settings, notes)

    def _open_plan(self, recipe: Recipe, shape: Shape, device: str, delta: float) -> Plan:
        """The same run without noise, clipping or mechanisms."""
        steps = min(STEPS_WITHOUT_PRIVACY, recipe.max_steps or STEPS_WITHOUT_PRIVACY)
        rate = constants_of(recipe).open_rate
        settings: dict[str, float | int | str | bool] = {
            "learning_rate": rate if recipe.multi_label else rate * shape.classes,
            "momentum": MOMENTUM,
            "releases": evaluation.RELEASES,
            "name_start": True,
            "temperature": 1.0,
            "device": device,
        }
        notes = planning.OPEN_NOTES + label_notes(recipe)
        return Plan(recipe, self.method, shape, (), delta, None, steps, settings, notes)

    def train(
        self,
        plan: Plan,
        data: TrainingData,
        *,
        models_dir: Path,
        resume: Checkpoint | None,
        spent: Mapping[str, int],
    ) -> Iterator[Event]:
        """Embed once (spends nothing), then charge, step and report block by block."""
        from modeling.core.encoder import Encoder  # here, so that planning does not load torch

        folder = bases.path(models_dir, plan.recipe.base)
        encoder = Encoder(folder, device=choose(str(plan.settings["device"])))
        train, held_out = split_rows(data, classes=len(plan.recipe.labels) if plan.recipe.multi_label else 0)
        features = yield from embed_rows(encoder, train, held_out)
        names = encoder.embed_all(plan.recipe.labels)
        yield from fit(plan, features[0], features[1], names, resume=resume, spent=spent)


def label_notes(recipe: Recipe) -> tuple[str, ...]:
    """What the held-out figure means where rows have several labels; nothing otherwise."""
    if not recipe.multi_label:
        return ()
    note = (
        "Rows have several labels: the held-out figure is the overlap of given and true labels "
        "(labels in both over labels in either), averaged over rows."
    )
    return (note,)


def temperature(rho: float) -> float:
    """What logits are divided by for calibrated confidence, by rho = mu n / K.

    Fitted once on public data (ICD-10-CM descriptions, n = 300 to 17,285, epsilon 1 to 8: best value .83 at rho 10,
    1.2 at 100, 1.8 at 1,400; calibration error .01 to .03 after it), so it costs a tenant nothing.
    """
    return min(max(0.15 + 0.225 * math.log(rho), 0.8), 2.0)


def fit(
    plan: Plan,
    train: Rows,
    held_out: Rows,
    names: Array,
    *,
    resume: Checkpoint | None = None,
    spent: Mapping[str, int] | None = None,
) -> Iterator[Event]:
    """The run on embedded rows (`Rows.features` filled in); `names` are the class names' embeddings [K, d]."""
    yield from _Run(plan, train, held_out, names, resume, spent or {}).events()


def head_weights(plan: Plan, train: Rows, names: Array) -> Array:
    """Run all steps of a head's plan at once, already charged by the caller: weights [K, d + 1] for features with
    BIAS_FEATURE appended.
    """
    run = _Run(plan, train, train.none(), names, None, {})
    run.take_steps(plan.steps)
    tensors = run.tensors()
    bias = tensors["head.bias"] / np.float32(BIAS_FEATURE)
    return np.concatenate([tensors["head.weight"], bias[:, None]], axis=1)


def _best_pull(plan: Plan, train: Rows, names: Array) -> float:
    """The pull to the class names that does best on a fifth of (some of) the training people: without privacy only."""
    chosen = np.random.default_rng(0).permutation(len(train.labels))[:ROWS_TO_TRY_ON]
    part = train.only(chosen)
    is_kept = part.units % 5 != 0
    learnt, judged = part.only(np.flatnonzero(is_kept)), part.only(np.flatnonzero(~is_kept))
    if not len(learnt.labels) or not len(judged.labels):
        return PULLS_WITHOUT_PRIVACY[0]
    smaller = replace(plan, shape=replace(plan.shape, train_units=len(np.unique(learnt.units))))

    def score(pull: float) -> float:
        run = _Run(smaller, learnt, learnt.none(), names, None, {}, pull=pull)
        run.take_steps(plan.steps)
        logits = classify_logits(run.tensors(), {}, judged.features)
        return float(evaluation.row_scores(logits, judged.labels).mean())

    return max(PULLS_WITHOUT_PRIVACY, key=score)


@dataclass
class _State:
    """What a step changes: weights and velocity [K, d + 1], and the sum of the iterates averaged so far."""

    weights: Array
    velocity: Array
    total: npt.NDArray[np.float64]
    averaged: int = 0

    def result(self) -> Array:
        """The mean iterate of the last half, or the current one before that half begins."""
        return np.asarray(self.total / self.averaged, dtype=np.float32) if self.averaged else self.weights

    def tensors(self) -> Tensors:
        counts = np.array([self.averaged], dtype=np.int64)
        return {
            "weights": self.weights.copy(),
            "velocity": self.velocity.copy(),
            "total": self.total.copy(),
            "averaged": counts,
        }


class _Run:
    """One attempt at a plan."""

    def __init__(
        self,
        plan: Plan,
        train: Rows,
        held_out: Rows,
        names: Array,
        resume: Checkpoint | None,
        spent: Mapping[str, int],
        *,
        pull: float | None = None,
    ) -> None:
        self.plan = plan
        self.constants = constants_of(plan.recipe)
        self.centre = np.float32(CENTRE_SHARE) * names.mean(axis=0)
        self.rows = head_for(
            train.features - self.centre, train.labels, train.units, bias=self.constants.bias
        )
        self.held_out = held_out
        self.spending = Spending(plan, spent)
        self.noise = NoiseSource()
        self.mechanism = next((item for item in plan.mechanisms if item.partition == "train"), None)
        self.step = (
            self.spending.used(self.mechanism.name) if self.mechanism else (resume.step if resume else 0)
        )
        self.rate = float(plan.settings["learning_rate"])
        if plan.recipe.multi_label and not self.mechanism:
            self.rate /= max(self.rows.spread(), 1e-3)
        self.pull = pull if pull is not None or self.mechanism else _best_pull(plan, train, names)
        self.start = self._start(names)
        self.state = _resumed(resume) if resume else self._start(names)
        self.evaluator = evaluation.Evaluator(
            plan, self.spending, held_out.labels, held_out.units, source=self.noise
        )
        if resume is None and self.step >= plan.steps:
            raise CoreError(
                "All reserved steps were used and no checkpoint is left.", code="reservation_used"
            )

    def _start(self, names: Array) -> _State:
        shape = (len(self.plan.recipe.labels), names.shape[1] + 1)
        weights = np.zeros(shape, dtype=np.float32)
        weights[:, -1] = self.constants.offset / self.constants.bias
        if self.plan.settings["name_start"]:
            weights[:, :-1] = NAME_SCALE * names
        return _State(weights, np.zeros(shape, dtype=np.float32), np.zeros(shape))

    def events(self) -> Iterator[Event]:
        started, first = time.monotonic(), self.step
        total = self.plan.steps
        for stop in _stops(self.step, total, self.evaluator.stops):
            count = stop - self.step
            if self.mechanism:
                yield self.spending.charge(self.mechanism.name, count)
            self.take_steps(count)
            yield Checkpoint(self.step, self.state.tensors())
            if stop in self.evaluator.stops:
                yield from self.evaluator.run(self.step, self._logits)
            seconds = time.monotonic() - started
            rate = (self.step - first) / max(seconds, 1e-9)
            yield Progress(
                self.step,
                total,
                self.spending.epsilon(),
                # Of the public number of people: how many have a row that fits the recipe is private.
                examples_per_second=rate * self.plan.shape.train_units,
                seconds=seconds,
                seconds_left=(total - self.step) / rate,
            )
        # Nothing to do unless the attempt before this one stopped between its last step and the release of it.
        yield from self.evaluator.run(self.step, self._logits)
        yield from self.evaluator.calibrate(self._logits)
        yield self._trained(time.monotonic() - started)

    def take_steps(self, count: int) -> None:
        """Run `count` charged compositions."""
        for _ in range(count):
            self._take_step()

    def _take_step(self) -> None:
        """v = .8 v + .2 g, W −= lr v, with g the noised clipped sum over the constant number of units."""
        state, settings = self.state, self.plan.settings
        clip = self.mechanism.clip if self.mechanism else None
        total = self.rows.gradient(state.weights, clip=clip).astype(np.float64)
        if self.mechanism:
            scale = self.mechanism.sigma * self.mechanism.clip
            total += scale * self.noise.normal(total.size).reshape(total.shape)
        gradient = total / self.plan.shape.train_units
        if self.pull:
            gradient += self.pull / self.plan.shape.train_units * (state.weights - self.start.weights)
        momentum = float(settings["momentum"])
        state.velocity = np.asarray(momentum * state.velocity + (1 - momentum) * gradient, dtype=np.float32)
        state.weights = state.weights - np.float32(self.rate) * state.velocity
        self.step += 1
        if 2 * self.step > self.plan.steps:
            state.total += state.weights
            state.averaged += 1

    def _logits(self) -> Array:
        """Of the held-out rows, by the model as it would be stored now."""
        return classify_logits(self.tensors(), {}, self.held_out.features)

    def tensors(self) -> Tensors:
        """The head as it would be stored now, for features that nothing was taken off."""
        weights = self.state.result()
        bias = weights[:, -1] * np.float32(self.constants.bias) - weights[:, :-1] @ self.centre
        return {"head.weight": weights[:, :-1].copy(), "head.bias": bias}

    def _trained(self, seconds: float) -> Trained:
        metrics = self.evaluator.metrics(self.step)
        config = config_of(self.plan) | self.evaluator.config()
        return Trained(self.tensors(), config, metrics, self.step, seconds, report=self.evaluator.report())


def _resumed(resume: Checkpoint) -> _State:
    tensors = resume.tensors
    return _State(
        tensors["weights"], tensors["velocity"], tensors["total"].copy(), int(tensors["averaged"][0])
    )


def _stops(step: int, steps: int, releases: list[int]) -> list[int]:
    """Where blocks end after `step`: about BLOCKS evenly spread points, every release, and the last step."""
    size = max(1, math.ceil(steps / BLOCKS))
    return sorted(stop for stop in {*range(size, steps, size), *releases, steps} if stop > step)
