"""A sweep: the best of a random, secret number of runs of a head on a public grid of settings, at its true cost.

Private selection (Papernot & Steinke 2022, arXiv 2110.03620, theorem 6). One base run draws a candidate at random from
the grid, trains it and scores it on held-out people with noise. It is repeated a Poisson(m) number of times, and only
the best model, its settings and its score leave. The epsilon asked for is that of the whole procedure.

The theorem keeps the number of runs secret, and a run's duration is seen: so a sweep always takes `limit` runs of equal
length, of which those beyond the drawn number are made and thrown away. The chance that more are drawn is HIDDEN.

Crashes: the whole is charged before the first gradient. A sweep that stopped in order between two runs goes on from its
checkpoint, and nothing is run twice: its result has the distribution of one that never stopped. One that was cut
inside a run ends: to run anything again would be a composition that nobody reserved. (So does one that was stopped in
the few milliseconds in which the start of a run is being written down.)
"""

from __future__ import annotations

import importlib
import itertools
import math
import secrets
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import pdtr, pdtrc

from modeling.core import accounting, evaluation, heads
from modeling.core.noise import NoiseSource
from modeling.core.spending import Spending
from modeling.core.types import (
    CannotTrain,
    Checkpoint,
    CoreError,
    Event,
    HeldOut,
    Mechanism,
    Plan,
    Progress,
    Recipe,
    Shape,
    Tensors,
    Trained,
    TrainingData,
)

TRAIN, SCORE, FINAL = "train", "sweep_score", evaluation.MECHANISM
FEWEST_RUNS = 5.0  # below it the chance exp(-m) that no run is drawn, and nothing learnt, is above 1 in 150
MOST_RUNS = 50.0
HIDDEN = (
    1e-16  # chance that more runs are drawn than a sweep's length hides; accounting.TAIL_SHARE pays for it
)
RATE_FACTORS = (0.5, 1.0, 2.0)
CLIP_FACTORS = (0.5, 1.0, 2.0)
# (task, method) -> what makes the trials of a head from its data; imported only when a sweep runs.
TRIALS: dict[tuple[str, str], str] = {
    ("classification", "head"): "modeling.core.heads.classify_trials:prepare",
}


class Trials(Protocol):
    """What a head offers to a sweep, on features that were worked out once and are shared by all runs."""

    def untrained(self, plan: Plan) -> Tensors:
        """The artefact before any step: made of public things only."""
        ...

    def fit(self, plan: Plan) -> Tensors:
        """The artefact after all steps of the plan's one mechanism, which the caller has charged."""
        ...

    def scores(self, tensors: Tensors) -> npt.NDArray[np.float64]:
        """How right the artefact is for each held-out unit, in [0, 1]."""
        ...

    def config(self, plan: Plan) -> dict[str, object]:
        """The artefact's config."""
        ...


@dataclass(frozen=True)
class Candidate:
    """Settings of one run, around those of the recipe."""

    rate: float
    clip: float
    starts_at_names: bool | None  # None where the head knows no such start

    def settings(self, plan: Plan) -> Plan:
        """The plan of one run with these settings: same steps and same noise multiplier, so the same cost and time."""
        train = next(item for item in plan.mechanisms if item.name == TRAIN)
        changed = dict(plan.settings)
        # A step's size goes with rate times clip: keep it while the clip changes, then apply the factor.
        changed["learning_rate"] = float(changed["learning_rate"]) * self.rate / self.clip
        if self.starts_at_names is not None:
            changed["name_start"] = self.starts_at_names
        mechanism = replace(train, repeats=0.0, clip=train.clip * self.clip)
        return replace(plan, mechanisms=(mechanism,), settings=changed)

    def words(self) -> dict[str, float | str]:
        """For the card."""
        start = {} if self.starts_at_names is None else {"start": "names" if self.starts_at_names else "zero"}
        return {"learning_rate_factor": self.rate, "clip_factor": self.clip, **start}


def grid(plan: Plan) -> tuple[Candidate, ...]:
    """The public candidates, fixed in advance: the recipe's own settings are among them."""
    starts: tuple[bool | None, ...] = (True, False) if "name_start" in plan.settings else (None,)
    return tuple(
        Candidate(rate, clip, start) for rate in RATE_FACTORS for clip in CLIP_FACTORS for start in starts
    )


@cache
def limit(runs: float) -> int:
    """How many runs a sweep always takes, so that its length does not tell how many counted."""
    return next(number for number in itertools.count(1) if pdtrc(number, runs) <= HIDDEN)


def plan(recipe: Recipe, shape: Shape, device: str) -> Plan:
    """The plan of a sweep that meets the recipe's epsilon as a whole; raises CannotTrain where it cannot."""
    _check(recipe)
    head = heads.load(recipe.task, recipe.method, base=recipe.base)
    assert recipe.epsilon is not None
    alone = head.plan(replace(recipe, sweep_runs=0.0), shape, device)
    target, delta, runs = recipe.epsilon, alone.delta, recipe.sweep_runs
    mu = 1 / accounting.sigma_for(target, delta, count=1, repeats=runs)
    base = head.plan(
        replace(recipe, sweep_runs=0.0, epsilon=accounting.gaussian_epsilon(mu, delta)), shape, device
    )
    train = next(item for item in base.mechanisms if item.partition == "train")
    train = replace(train, name=TRAIN, sigma=math.sqrt(train.count) / mu, repeats=runs)
    mechanisms = (train, *_held_out(shape.held_out_units, target, delta, runs))
    trials = limit(runs)
    return replace(
        base,
        recipe=recipe,
        mechanisms=mechanisms,
        epsilon=accounting.epsilon(mechanisms, delta),
        settings={**base.settings, "sweep_runs": runs, "sweep_trials": trials},
        notes=(*base.notes, *_notes(base, runs, trials)),
    )


def _check(recipe: Recipe) -> None:
    able = [method for task, method in TRIALS if task == recipe.task and recipe.base != heads.TABULAR]
    if not able or recipe.method not in ("auto", *able):
        raise CannotTrain("Only the private head for texts has a sweep.", code="no_sweep")
    if recipe.epsilon is None:
        raise CannotTrain(
            "A sweep bounds what choosing among private runs gives away; without privacy start the runs one by one.",
            code="no_sweep",
        )
    if not FEWEST_RUNS <= recipe.sweep_runs <= MOST_RUNS:
        raise CannotTrain(
            f"A sweep takes {FEWEST_RUNS:g} to {MOST_RUNS:g} runs on average.", code="invalid_sweep"
        )
    if recipe.audit:
        raise CannotTrain("A sweep cannot be audited by canaries: audit a single run.", code="no_sweep")


def _held_out(units: int, target: float, delta: float, runs: float) -> tuple[Mechanism, Mechanism]:
    """The score of every run, and one fresh look at the winner: a best score is too good, a fresh look is not."""
    parts = [
        Mechanism(SCORE, 1.0, 1.0, 1, partition="held_out", repeats=runs),
        Mechanism(FINAL, 1.0, 1.0, 1, partition="held_out"),
    ]
    sigma = max(accounting.selection_sigma(target, delta, parts), evaluation.NOISE_GOAL * units)
    if units < evaluation.SMALLEST_UNITS or sigma / units > evaluation.LARGEST_NOISE:
        raise CannotTrain(
            f"{units:,} held-out people are too few to tell one run of a sweep from another: about "
            f"{math.ceil(sigma / evaluation.LARGEST_NOISE):,} would be enough. Train a single run instead.",
            code="too_few_units",
        )
    return replace(parts[0], sigma=sigma), replace(parts[1], sigma=sigma)


def _notes(base: Plan, runs: float, trials: int) -> tuple[str, ...]:
    return (
        (
            f"A sweep: {runs:g} runs on average with settings drawn from {len(grid(base))} candidates, and only the "
            f"best leaves. Epsilon is that of the whole; each run by itself has {base.epsilon or 0:.2g}. Where the "
            "usual settings fit, a single run at the whole epsilon is more accurate."
        ),
        f"How many runs count stays secret, so it always takes as long as {trials}.",
    )


def train(
    plan: Plan,
    data: TrainingData,
    *,
    models_dir: Path,
    resume: Checkpoint | None,
    spent: Mapping[str, int],
) -> Iterator[Event]:
    """Run a sweep; raises CoreError when an earlier attempt was cut inside a run."""
    state = begin(plan, resume, spent)
    module, name = TRIALS[plan.recipe.task, plan.method].split(":")
    prepare = getattr(importlib.import_module(module), name)
    trials = yield from prepare(plan, data, models_dir)
    yield from Sweep(plan, trials, state, Spending(plan, spent)).events()


@dataclass
class State:
    """Where a sweep stands between two runs; `drawn` is the secret number that counts. Kept in sealed checkpoints."""

    drawn: int
    started: int = 0
    finished: int = 0
    choice: int = -1
    score: float = -math.inf
    best: Tensors | None = None

    def checkpoint(self) -> Checkpoint:
        numbers = np.array([self.drawn, self.started, self.finished, self.choice], dtype=np.int64)
        tensors: Tensors = {"sweep.numbers": numbers, "sweep.score": np.array([self.score])}
        return Checkpoint(self.finished, {**tensors, **(self.best or {})})


def begin(plan: Plan, resume: Checkpoint | None, spent: Mapping[str, int]) -> State:
    """A new draw, or the state of an attempt that stopped in order; raises CoreError for one that was cut."""
    if not spent.get(TRAIN):
        return State(drawn=draw(plan.recipe.sweep_runs))
    numbers = [int(number) for number in resume.tensors["sweep.numbers"]] if resume else []
    if resume is None or numbers[1] != numbers[2]:
        raise CoreError(
            "The sweep was cut off in the middle of a run. Its privacy was charged as a whole before it began, and "
            "running any part of it again would cost more than was set aside. Start a new run.",
            code="sweep_interrupted",
        )
    best = {name: value for name, value in resume.tensors.items() if not name.startswith("sweep.")}
    score = float(resume.tensors["sweep.score"][0])
    return State(numbers[0], numbers[1], numbers[2], numbers[3], score, best or None)


def draw(mean: float) -> int:
    """A Poisson number from the operating system's entropy."""
    drawn = (secrets.randbits(53) + 0.5) * 2.0**-53
    return next(number for number in itertools.count() if pdtr(number, mean) >= drawn)


class Sweep:
    """One attempt at a sweep."""

    def __init__(self, plan: Plan, trials: Trials, state: State, spending: Spending) -> None:
        self.plan, self.trials, self.state, self.spending = plan, trials, state, spending
        self.grid = grid(plan)
        self.noise = NoiseSource()
        self.sigmas = {item.name: item.sigma for item in plan.mechanisms}
        self.total = max(int(plan.settings["sweep_trials"]), state.drawn)

    def events(self) -> Iterator[Event]:
        """Charge the whole, make the runs, look at the winner once more."""
        started, first = time.monotonic(), self.state.finished
        for name in (TRAIN, SCORE):
            if self.spending.remaining(name):
                yield self.spending.charge(name, self.spending.remaining(name))
        while self.state.finished < self.total:
            self.state.started += 1
            yield self.state.checkpoint()
            self._run()
            self.state.finished += 1
            yield self.state.checkpoint()
            yield self._progress(time.monotonic() - started, first)
        tensors = self.trials.untrained(self.plan) if self.state.best is None else self.state.best
        metrics = yield from self._final(tensors)
        yield Trained(
            tensors,
            self.trials.config(self.plan),
            metrics,
            self.plan.steps,
            time.monotonic() - started,
            report={"sweep": self._report()},
        )

    def _run(self) -> None:
        """One base run; those beyond the drawn number are made in full and thrown away."""
        choice = secrets.randbelow(len(self.grid))
        tensors = self.trials.fit(self.grid[choice].settings(self.plan))
        score = float(self.trials.scores(tensors).sum())
        score += self.sigmas[SCORE] * float(self.noise.normal(1)[0])
        if self.state.finished < self.state.drawn and score > self.state.score:
            self.state.choice, self.state.score, self.state.best = choice, score, tensors

    def _progress(self, seconds: float, first: int) -> Progress:
        each = seconds / max(self.state.finished - first, 1)
        return Progress(
            self.state.finished,
            self.total,
            self.spending.epsilon(),
            examples_per_second=self.plan.shape.train_units * self.plan.steps / max(each, 1e-9),
            seconds=seconds,
            seconds_left=each * (self.total - self.state.finished),
        )

    def _final(self, tensors: Tensors) -> Generator[Event, None, dict[str, float]]:
        """The winner's accuracy from noise of its own; nothing when an earlier attempt had charged it already."""
        if not self.spending.remaining(FINAL):
            return {}
        yield self.spending.charge(FINAL, 1)
        found: HeldOut = evaluation.release(
            self.trials.scores(tensors),
            sigma=self.sigmas[FINAL],
            total=self.plan.shape.held_out_units,
            step=self.plan.steps,
            source=self.noise,
        )
        yield found
        return {"accuracy": found.accuracy, "accuracy_noise_error": found.noise_error}

    def _report(self) -> dict[str, object]:
        """What the card says; the number of runs that counted is in none of it."""
        chosen: dict[str, float | str] = {}
        if self.state.choice >= 0:
            share = self.state.score / max(self.plan.shape.held_out_units, 1)
            chosen = {**self.grid[self.state.choice].words(), "score": min(max(share, 0.0), 1.0)}
        return {
            "expected_runs": self.plan.recipe.sweep_runs,
            "distribution": "poisson",
            "candidates": len(self.grid),
            "chosen": chosen,
        }
