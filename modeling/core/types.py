"""What crosses the border between the core and its callers: recipe, plan, data and training events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float32]
Tensors: TypeAlias = dict[str, npt.NDArray[Any]]


class CoreError(Exception):
    """An expected refusal of the core: a code and a sentence for the user."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class CannotTrain(CoreError):
    """The request cannot be both private and useful (privacy rule: refuse before any gradient)."""


@dataclass(frozen=True)
class Feature:
    """A declared column of a table: the bounds of a number, or all categories; public by declaration.

    A missing cell, a number outside its bounds and an unknown category are all allowed: they are clamped or left out.
    """

    name: str
    kind: str  # number | category
    low: float = 0.0
    high: float = 0.0
    categories: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """What the customer asked for.

    `epsilon` is None when privacy is off (then `privacy_off_reason` says why). `unit` is the name of the
    column that says whose record a row is; "" means that each row is one person.
    """

    task: str  # classification | regression | recommendation | chat
    base: str  # minilm-l6 | tabular | smollm2-135m
    method: str = "auto"  # a key of heads.HEADS, or auto
    labels: tuple[str, ...] = ()
    epsilon: float | None = 8.0
    delta: float | None = None  # None: the house rule min(1e-5, 1/n^1.1)
    unit: str = ""
    max_steps: int | None = None
    privacy_off_reason: str = ""
    large_epsilon_allowed: bool = False  # an owner's explicit override for epsilon > 10
    multi_label: bool = False  # each row has any number of the labels
    features: tuple[Feature, ...] = ()  # base "tabular": the columns to learn from
    target: Feature | None = None  # regression: the number to predict, with its declared bounds
    protected: tuple[
        Feature, ...
    ] = ()  # attributes of the fairness report: categories only, never learnt from
    sweep_runs: float = 0.0  # expected number of runs of a sweep; 0: one run
    audit: bool = False  # plant canaries and report how well they can be told from the outside


@dataclass(frozen=True)
class Shape:
    """Public facts about the data (public by declaration): counts of units and rows, classes, items."""

    train_units: int
    held_out_units: int
    rows: int
    classes: int = 0
    items: int = 0


@dataclass(frozen=True)
class Mechanism:
    """One Gaussian mechanism, composed `count` times.

    Noise of standard deviation sigma * clip on a sum of clip-bounded contributions over Poisson-sampled (rate q) units
    of one partition. q = 1 means all units at every step.
    """

    name: str  # train | held_out | release
    sigma: float
    sampling_rate: float
    count: int
    clip: float = 1.0
    partition: str = (
        "train"  # train | held_out: disjoint units, so the job's epsilon is the larger of the two
    )
    # More than 0: the whole is run a Poisson(repeats) number of times and only the best result leaves (private
    # selection, Papernot & Steinke 2022); epsilon is then by Renyi accounting.
    repeats: float = 0.0


@dataclass(frozen=True)
class Plan:
    """A recipe resolved into numbers before the first gradient: JSON-ready, and what the ledger reserves."""

    recipe: Recipe
    method: str
    shape: Shape
    mechanisms: tuple[Mechanism, ...]  # empty when privacy is off
    delta: float
    epsilon: float | None  # planned, PLD or exact curve, zero-out adjacency, worst partition
    steps: int
    settings: Mapping[str, float | int | str | bool] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # plain sentences for the user, e.g. why the fallback was chosen


@dataclass(frozen=True)
class TrainingData:
    """Decrypted rows in memory, held by the worker alone.

    `units[i]` is the index of the unit that row i belongs to, 0..n_units-1. Classification: `texts` and `labels`
    (index into recipe.labels). Chat: `conversations` of {"role", "content"} turns. Recommendation: `histories[u]` lists
    the items of unit u by index, `catalogue` the (id, text) pairs in index order, `catalogue_columns` other cells.
    Tables: `cells`, with `labels` or `targets`. `held_out[u]` says that unit u is held out.
    """

    units: Sequence[int]
    held_out: Sequence[bool]
    texts: Sequence[str] = ()
    labels: Sequence[int] = ()
    conversations: Sequence[Sequence[Mapping[str, str]]] = ()
    histories: Sequence[Sequence[int]] = ()
    catalogue: Sequence[tuple[str, str]] = ()
    catalogue_columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    label_sets: Sequence[Sequence[int]] = ()  # multi-label: the labels of each row, in place of `labels`
    cells: Mapping[str, Sequence[Any]] = field(default_factory=dict)  # tables: raw cells by feature name
    targets: Sequence[float] = ()  # regression
    groups: Mapping[str, Sequence[int]] = field(
        default_factory=dict
    )  # protected name -> category of each row, or -1


@dataclass(frozen=True)
class Phase:
    """Work that spends nothing and is measured in rows (embedding, caching)."""

    name: str
    done: int
    total: int
    seconds: float


@dataclass(frozen=True)
class Charge:
    """About to run compositions first..first+count-1 of the named mechanism: commit the charge, then resume."""

    mechanism: str
    first: int
    count: int


@dataclass(frozen=True)
class Progress:
    """Public telemetry after a block of steps; raw loss and accuracy of private rows never appear here."""

    step: int
    steps: int
    epsilon: float | None  # spent so far
    examples_per_second: float
    seconds: float
    seconds_left: float


@dataclass(frozen=True)
class HeldOut:
    """A noised, charged release of the held-out correct count: an accuracy and its standard error from the noise."""

    step: int
    accuracy: float
    noise_error: float
    total: int


@dataclass(frozen=True)
class Checkpoint:
    """State to resume from with fresh randomness (no random state inside)."""

    step: int
    tensors: Tensors


@dataclass(frozen=True)
class Trained:
    """The last event: what to store and what the card may say."""

    tensors: Tensors
    config: dict[str, Any]
    metrics: dict[str, float]  # only released (noised and charged) or public numbers
    steps: int
    seconds: float
    report: dict[str, Any] = field(
        default_factory=dict
    )  # the same for the card: calibration, fairness, sweep, audit


Event: TypeAlias = Phase | Charge | Progress | HeldOut | Checkpoint | Trained
