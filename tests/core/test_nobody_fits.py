"""Where no row fits the recipe a private run makes the same releases: which it makes must not tell who is there."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from modeling.core import planning
from modeling.core.heads.classify_rows import split_rows
from modeling.core.heads.classify_trials import TextTrials
from modeling.core.training import train
from modeling.core.types import Charge, Event, HeldOut, Plan, Shape, Trained, TrainingData
from tests.core.tiny_chat import write_models
from tests.core.tiny_table import NOWHERE, make_plan, make_table
from tests.core.tiny_text import make_base, make_data, make_recipe, shape_of

TEXTS = make_data(1_500)
TABLE = make_table(1_500)


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    make_base(models)
    return write_models(models)


def _releases(plan: Plan, data: TrainingData, models_dir: Path) -> tuple[Counter[str], int]:
    """Compositions charged by mechanism, and how many held-out figures were told."""
    events: list[Event] = list(train(plan, data, models_dir=models_dir))
    assert isinstance(events[-1], Trained)
    charged: Counter[str] = Counter()
    for event in events:
        if isinstance(event, Charge):
            charged[event.mechanism] += event.count
    assert set(events[-1].report) <= {"calibration", "fairness"}
    return charged, sum(isinstance(event, HeldOut) for event in events)


def _all_of(plan: Plan) -> dict[str, int]:
    return {mechanism.name: mechanism.count for mechanism in plan.mechanisms}


@pytest.mark.parametrize("method", ["head", "lora", "full"])
def test_texts(models_dir: Path, method: str) -> None:
    plan = planning.plan(make_recipe(method, max_steps=4), shape_of(TEXTS))
    charged, told = _releases(plan, replace(TEXTS, units=(), texts=(), labels=()), models_dir)
    assert charged == _all_of(plan)
    assert told == plan.mechanisms[-2].count  # the live accuracies; the calibration comes last


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("method", ["additive", "network"])
def test_tables(task: str, method: str) -> None:
    plan = make_plan(TABLE, task=task, method=method, max_steps=8)
    empty = replace(
        TABLE, units=(), labels=(), targets=(), cells=dict.fromkeys(TABLE.cells, ()), groups={"sex": ()}
    )
    charged, told = _releases(plan, empty, NOWHERE)
    assert charged == _all_of(plan)
    assert told == _all_of(plan)["held_out"]


@pytest.mark.parametrize("method", ["final_hidden", "top_layers", "lora"])
def test_conversations(models_dir: Path, method: str) -> None:
    recipe = replace(make_recipe(method, max_steps=2), task="chat", base="smollm2-135m", labels=())
    plan = planning.plan(recipe, Shape(300, 100, 400))
    held_out = [unit >= 300 for unit in range(400)]
    charged, told = _releases(plan, TrainingData(units=(), held_out=held_out), models_dir)
    assert charged == _all_of(plan)
    assert told == 2


def test_a_sweeps_runs() -> None:
    empty, _ = split_rows(replace(TEXTS, units=(), texts=(), labels=()))
    scores = TextTrials(empty, empty, empty.features).scores({})
    assert scores.sum() == 0
