"""On public data: the printed quality bands hold what is measured, and calibrated confidences come true."""

from __future__ import annotations

import csv
import io
from functools import cache

import numpy as np
import pytest

from modeling.core import bases, planning
from modeling.core.encoder import Encoder
from modeling.core.heads.classify import fit
from modeling.core.predictor import classify_probabilities
from modeling.core.types import Recipe, Shape, Trained
from modeling.packs import PACKS
from tests.bench import text_bands
from tests.bench.clinic_rows import DATA_DIR
from tests.bench.text_rows import TextSet

pytestmark = pytest.mark.real_weights
LARGEST_ERROR = 0.1  # what 240 rows can tell; tests/bench/clinic_accuracy.py measures it on 4,322


@cache
def _sample(pack: str, rows: int) -> TextSet:
    """The first rows of a vertical's labelled sample, embedded."""
    sample = next(sample for sample in PACKS[pack].samples if sample.task == "classification")
    table = list(csv.DictReader(io.StringIO(sample.build().decode())))[:rows]
    names = tuple(sorted({row[sample.columns["label"]] for row in table}))
    labels = np.array([names.index(row[sample.columns["label"]]) for row in table])
    encoder = Encoder(bases.path(DATA_DIR / "models", "minilm-l6"))
    features = encoder.embed_all([row[sample.columns["text"]] for row in table])
    return TextSet(pack, labels, features, names, encoder.embed_all(names))


@pytest.mark.slow
def test_the_printed_band_holds_what_is_measured() -> None:
    runs = list(text_bands.runs_of(_sample("medical", 3_500), (800, 2_500), seed=601))
    runs += text_bands.runs_of(_sample("finance", 1_600), (250,), seed=602)
    assert len(runs) >= 6
    outside = [run for run in runs if not run.is_inside]
    assert len(outside) <= 1, outside


@pytest.mark.slow
def test_calibrated_confidences_come_true() -> None:
    """A private job on 1,200 ICD descriptions: its fitted temperature on rows that it never saw."""
    data = _sample("medical", 2_400)
    train, held_out = text_bands.split(data, 1_200, seed=603)
    released = held_out.only(np.arange(0, len(held_out.labels), 2))
    unseen = held_out.only(np.arange(1, len(held_out.labels), 2))
    units = len(released.labels)
    recipe = Recipe("classification", "minilm-l6", "head", labels=data.names, epsilon=8.0)
    plan = planning.plan(recipe, Shape(1_200, units, 1_200 + units, classes=len(data.names)))
    trained = list(fit(plan, train, released, data.name_features))[-1]
    assert isinstance(trained, Trained)
    chances = classify_probabilities(trained.tensors, trained.config, unseen.features)
    sure, right = chances.max(axis=1), chances.argmax(axis=1) == unseen.labels
    bins = np.minimum((sure * 8).astype(int), 7)
    gaps = [abs((right[bins == b] - sure[bins == b]).mean()) * (bins == b).mean() for b in set(bins)]
    assert sum(gaps) < LARGEST_ERROR
    below = trained.config["abstain_below"]
    answered = sure >= below
    found = trained.report["calibration"]
    assert answered.mean() == pytest.approx(found["answered"], abs=0.15)
    assert (
        right[answered].mean() > right[~answered].mean() + 0.1
    )  # what it leaves to people is what it gets wrong
    assert right[answered].mean() == pytest.approx(found["accuracy_answered"], abs=0.12)
