"""An audit inside a job: canaries are planted beside the customer's people, survive a crash, and end in the report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from modeling.core import audit_canaries, planning
from modeling.core.audit_canaries import COINS, SEED
from modeling.core.training import train
from modeling.core.types import (
    CannotTrain,
    Charge,
    Checkpoint,
    Event,
    Plan,
    Recipe,
    Shape,
    Trained,
    TrainingData,
)
from modeling.packs.samples.clinic import clinic_rows
from tests.core import tiny_text

PEOPLE = 1500


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tiny_text.make_base(folder)
    return folder


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return tiny_text.make_data(PEOPLE)


def plan_of(data: TrainingData, **changes: object) -> Plan:
    return planning.plan(tiny_text.make_recipe("head", audit=True, **changes), tiny_text.shape_of(data))


def run(plan: Plan, data: TrainingData, models_dir: Path, **options: object) -> list[Event]:
    return list(train(plan, data, models_dir=models_dir, **options))  # type: ignore[arg-type]


def test_the_report_says_what_was_found(models_dir: Path, data: TrainingData) -> None:
    plan = plan_of(data)
    trained = run(plan, data, models_dir)[-1]
    assert isinstance(trained, Trained)
    found = trained.report["audit"]
    assert found["canaries"] == 120  # a tenth of the 1,200 who train
    assert found["guesses"] == 24
    assert 0 <= found["epsilon_lower_bound"] <= plan.epsilon  # type: ignore[operator]
    assert found["verdict"] == "no violation detected"
    assert not any(name.startswith("audit.") for name in trained.tensors)


def test_a_job_without_an_audit_has_none(models_dir: Path, data: TrainingData) -> None:
    plan = planning.plan(tiny_text.make_recipe("head"), tiny_text.shape_of(data))
    trained = run(plan, data, models_dir)[-1]
    assert isinstance(trained, Trained)
    assert "audit" not in trained.report


def test_half_the_canaries_are_planted_as_people_of_their_own(models_dir: Path, data: TrainingData) -> None:
    plan = plan_of(data)
    canaries = audit_canaries.make(plan, tiny_text_folder(models_dir), None)
    planted = audit_canaries.plant(data, canaries)
    added = len(planted.held_out) - len(data.held_out)
    assert added == int(canaries.coins.sum())
    assert len(set(planted.units)) == len(set(data.units)) + added
    assert not any(planted.held_out[len(data.held_out) :])
    assert planted.texts[: len(data.texts)] == data.texts
    others = audit_canaries.make(plan, tiny_text_folder(models_dir), None)
    assert others.texts != canaries.texts


def tiny_text_folder(models_dir: Path) -> Path:
    return next(models_dir.iterdir())


def test_a_resumed_run_knows_its_canaries_again(models_dir: Path, data: TrainingData) -> None:
    plan = plan_of(data)
    first: list[Event] = []
    for event in train(plan, data, models_dir=models_dir):
        first.append(event)
        if isinstance(event, Checkpoint) and len([one for one in first if isinstance(one, Checkpoint)]) == 3:
            break
    stopped = first[-1]
    assert isinstance(stopped, Checkpoint)
    spent: dict[str, int] = {}
    for event in first:
        if isinstance(event, Charge):
            spent[event.mechanism] = spent.get(event.mechanism, 0) + event.count
    rest = run(plan, data, models_dir, resume=stopped, spent=spent)
    after = next(event for event in rest if isinstance(event, Checkpoint))
    assert np.array_equal(after.tensors[SEED], stopped.tensors[SEED])
    assert np.array_equal(after.tensors[COINS], stopped.tensors[COINS])
    assert isinstance(rest[-1], Trained)
    assert rest[-1].report["audit"]["canaries"] == len(stopped.tensors[COINS])


@pytest.mark.real_weights
def test_a_model_without_privacy_gives_its_canaries_away(settings: object) -> None:
    """The control: on real embeddings a caller of the endpoint finds nearly all canaries of a model without privacy."""
    rows = clinic_rows()[:PEOPLE]
    names = tuple(sorted({name for _, name in rows}))
    real = TrainingData(
        units=range(PEOPLE),
        held_out=[False] * PEOPLE,
        texts=[text for text, _ in rows],
        labels=[names.index(name) for _, name in rows],
    )
    recipe = Recipe(
        "classification",
        "minilm-l6",
        "head",
        labels=names,
        epsilon=None,
        privacy_off_reason="a control",
        audit=True,
    )
    plan = planning.plan(recipe, Shape(PEOPLE, 0, PEOPLE, classes=len(names)))
    trained = run(plan, real, settings.MODELS_DIR)[-1]  # type: ignore[attr-defined]
    assert isinstance(trained, Trained)
    found = trained.report["audit"]
    assert found["correct"] > 0.8 * found["guesses"]
    assert found["epsilon_lower_bound"] > 0.5
    assert found["epsilon_claimed"] is None


def test_refused_where_it_could_not_say_anything(data: TrainingData) -> None:
    with pytest.raises(CannotTrain, match="audit") as refused:
        plan_of(tiny_text.make_data(400))
    assert refused.value.code == "audit_not_offered"
    with pytest.raises(CannotTrain, match="offered"):
        planning.plan(tiny_text.make_recipe("lora", audit=True), tiny_text.shape_of(data))
