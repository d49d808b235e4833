"""An audit inside a customer's own job: made-up people are planted by coin flips, and the finished model is asked."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from modeling.core import audit, bases
from modeling.core.heads.base import Head
from modeling.core.predictor import classify_probabilities
from modeling.core.types import (
    CannotTrain,
    Checkpoint,
    Event,
    Plan,
    Shape,
    Tensors,
    Trained,
    TrainingData,
)

MOST, FEWEST = 1000, 100
SHARE = 0.1  # canaries per person of the customer's: half of them end up in the training data
WORDS = 6
SHORTEST_WORD = 4
SEED, COINS = "audit.seed", "audit.coins"


@dataclass(frozen=True)
class Canaries:
    """Made-up people: random words under a random label, and the coins that say who is planted.

    They are nobody's data, so they cost nobody privacy; the coins are secret until the model is done.
    """

    seed: npt.NDArray[np.uint64]  # [4]
    coins: npt.NDArray[np.bool_]  # [m]
    texts: tuple[str, ...]
    labels: npt.NDArray[np.int64]  # [m]

    def tensors(self) -> Tensors:
        """What a resumed attempt needs to know the same canaries again."""
        return {SEED: self.seed, COINS: self.coins.astype(np.uint8)}


def check(plan: Plan) -> None:
    """Refuse an audit where it could not say anything; raises CannotTrain."""
    if not plan.recipe.audit:
        return
    if (plan.recipe.task, plan.method) != ("classification", "head") or plan.recipe.multi_label:
        raise CannotTrain(
            "An audit with canaries is offered for text classification with the method “head”; leave audit out.",
            code="audit_not_offered",
        )
    if count_for(plan.shape) < FEWEST:
        needed = round(FEWEST / SHARE)
        raise CannotTrain(
            f"An audit needs at least {needed:,} people to train on: fewer canaries could show nothing.",
            code="audit_not_offered",
        )


def count_for(shape: Shape) -> int:
    """How many canaries a job gets, by the public number of people."""
    return min(MOST, int(SHARE * shape.train_units))


def make(plan: Plan, folder: Path, resume: Checkpoint | None) -> Canaries:
    """New canaries, or those of the attempt that left `resume`; words come from the base model's public vocabulary."""
    count = count_for(plan.shape)
    if resume is not None and SEED in resume.tensors:
        seed, coins = resume.tensors[SEED], resume.tensors[COINS].astype(bool)
    else:
        seed, coins = np.frombuffer(os.urandom(32), dtype=np.uint64), audit.coins(count)
    random = np.random.default_rng([int(word) for word in seed])
    lines = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
    words = [word for word in lines if word.isascii() and word.isalnum() and len(word) >= SHORTEST_WORD]
    chosen = random.integers(len(words), size=(count, WORDS))
    texts = tuple(" ".join(words[index] for index in row) for row in chosen)
    labels = random.integers(len(plan.recipe.labels), size=count)
    return Canaries(seed, coins, texts, labels)


def plant(data: TrainingData, canaries: Canaries) -> TrainingData:
    """The rows with those canaries whose coin said so, each a unit of its own on the training side."""
    chosen = np.flatnonzero(canaries.coins)
    first = len(data.held_out)
    return replace(
        data,
        units=[*data.units, *range(first, first + len(chosen))],
        held_out=[*data.held_out, *[False] * len(chosen)],
        texts=[*data.texts, *[canaries.texts[index] for index in chosen]],
        labels=[*data.labels, *[int(canaries.labels[index]) for index in chosen]],
    )


def judge(plan: Plan, canaries: Canaries, trained: Trained, folder: Path) -> audit.Audit:
    """Ask the finished model for the confidence in each canary's label: all that a caller of the endpoint sees."""
    from modeling.core.device import choose
    from modeling.core.encoder import Encoder  # here, so that planning does not load torch

    features = Encoder(folder, device=choose(str(plan.settings["device"]))).embed_all(canaries.texts)
    confidence = classify_probabilities(trained.tensors, trained.config, features)
    own = confidence[np.arange(len(features)), canaries.labels]
    scores = np.log(np.maximum(own, 1e-12)) - np.log(np.maximum(confidence, 1e-12)).mean(axis=1)
    return audit.judge(scores.astype(np.float64), canaries.coins, claimed=plan.epsilon, delta=plan.delta)


def audited(
    head: Head,
    plan: Plan,
    data: TrainingData,
    *,
    models_dir: Path,
    resume: Checkpoint | None,
    spent: Mapping[str, int],
) -> Iterator[Event]:
    """The head's run on the planted rows; its last event carries the audit in its report."""
    folder = bases.path(models_dir, plan.recipe.base)
    canaries = make(plan, folder, resume)
    planted = plant(data, canaries)
    for event in head.train(plan, planted, models_dir=models_dir, resume=_without(resume), spent=spent):
        if isinstance(event, Checkpoint):
            yield replace(event, tensors={**event.tensors, **canaries.tensors()})
        elif isinstance(event, Trained):
            found = judge(plan, canaries, event, folder)
            yield replace(event, report={**event.report, "audit": found.as_report()})
        else:
            yield event


def _without(resume: Checkpoint | None) -> Checkpoint | None:
    if resume is None:
        return None
    own = {name: value for name, value in resume.tensors.items() if name not in (SEED, COINS)}
    return replace(resume, tensors=own)
