"""The chat head: gradients of single units, their clipped sum, answer tokens only, and a whole job on a tiny model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from modeling.core import bases, chat_plans, heads, planning
from modeling.core.chat_adapter import Adapter, Answers, clipped_sum, quality, unit_gradients
from modeling.core.chat_hidden import FrozenChat
from modeling.core.chat_run import chosen_rows
from modeling.core.chat_tokens import ChatTokens
from modeling.core.types import (
    CannotTrain,
    Charge,
    Checkpoint,
    Event,
    HeldOut,
    Plan,
    Recipe,
    Shape,
    Trained,
    TrainingData,
)
from tests.core.tiny_chat import VOCABULARY, WIDTH, WORDS, talk, write_models

METHODS = ("final_hidden", "top_layers", "lora")
RECIPE = Recipe(task="chat", base="smollm2-135m", epsilon=8.0)


@pytest.fixture(scope="module")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder where the chat base is a random two-layer Llama of width 32."""
    return write_models(tmp_path_factory.mktemp("models"))


def answers(units: int = 6, seed: int = 0) -> tuple[Adapter, Answers, torch.Tensor]:
    """Random answers of several lengths (unit 2 owns two conversations), a moved adapter and a vocabulary."""
    source = torch.Generator().manual_seed(seed)
    adapter = Adapter(WIDTH)
    adapter.flat += 0.3 * torch.randn(adapter.flat.shape, generator=source)
    owner = np.concatenate([np.full(2 + unit % 4, unit * 3) for unit in range(units)])
    weight = torch.cat([torch.full((2 + unit % 4,), 1 / (2 + unit % 4)) for unit in range(units)])
    hidden = torch.randn(len(owner), WIDTH, generator=source)
    targets = torch.randint(WORDS, (len(owner),), generator=source)
    vocabulary = torch.randn(WORDS, WIDTH, generator=source)
    return adapter, Answers(hidden, targets, owner, weight), vocabulary


def looped_gradients(adapter: Adapter, found: Answers, vocabulary: torch.Tensor) -> torch.Tensor:
    """One autograd pass per unit."""
    rows = []
    for unit in np.unique(found.owner):
        mine = torch.from_numpy(found.owner == unit)
        copy = Adapter(WIDTH)
        copy.flat = adapter.flat.clone().requires_grad_()
        logits = copy.apply(found.hidden[mine]) @ vocabulary.T
        losses = torch.nn.functional.cross_entropy(logits, found.targets[mine], reduction="none")
        (losses * found.weight[mine]).sum().backward()
        assert copy.flat.grad is not None
        rows.append(copy.flat.grad)
    return torch.stack(rows)


def test_gradients_of_units_equal_a_loop() -> None:
    adapter, found, vocabulary = answers()
    quick = unit_gradients(adapter, found, vocabulary)
    slow = looped_gradients(adapter, found, vocabulary)
    assert quick.shape == (6, 2 * 8 * WIDTH + WIDTH)
    error = (quick - slow).norm(dim=1) / slow.norm(dim=1)
    assert float(error.max()) < 1e-5


@pytest.mark.parametrize("clip", [0.1, 1.0, 50.0])
def test_the_clipped_sum_equals_a_loop(clip: float) -> None:
    adapter, found, vocabulary = answers()
    total = np.zeros(2 * 8 * WIDTH + WIDTH)
    for row in looped_gradients(adapter, found, vocabulary).double().numpy():
        total += row * min(1.0, clip / np.linalg.norm(row))
    quick = clipped_sum(unit_gradients(adapter, found, vocabulary), clip)
    assert np.linalg.norm(quick - total) / np.linalg.norm(total) < 1e-5


def test_one_unit_moves_the_sum_by_at_most_the_clip() -> None:
    rows = torch.tensor([[3.0, 4.0], [float("nan"), 1.0], [float("inf"), 0.0], [0.1, 0.0]])
    np.testing.assert_allclose(clipped_sum(rows[:1], 0.5), [0.3, 0.4])
    for row in rows:
        assert np.linalg.norm(clipped_sum(row[None], 0.5)) <= 0.5 + 1e-12


def test_a_units_gradient_does_not_depend_on_the_others() -> None:
    adapter, found, vocabulary = answers()
    together = unit_gradients(adapter, found, vocabulary)
    mine = torch.from_numpy(found.owner == 9)
    alone = Answers(found.hidden[mine], found.targets[mine], found.owner[mine.numpy()], found.weight[mine])
    torch.testing.assert_close(
        unit_gradients(adapter, alone, vocabulary)[0], together[3], rtol=1e-5, atol=1e-6
    )


def test_a_fresh_adapter_changes_nothing() -> None:
    hidden = torch.randn(5, WIDTH)
    torch.testing.assert_close(Adapter(WIDTH).apply(hidden), hidden)


def test_quality_is_per_unit() -> None:
    adapter, found, vocabulary = answers()
    scores = quality(adapter, found, vocabulary)
    assert scores.shape == (6, 2)
    mine = torch.from_numpy(found.owner == 0)
    logits = adapter.apply(found.hidden[mine]) @ vocabulary.T
    expected = torch.nn.functional.cross_entropy(logits, found.targets[mine])
    assert scores[0, 1] == pytest.approx(float(expected), rel=1e-5)


def test_only_the_assistants_words_are_learnt(tiny_models: Path) -> None:
    tokens = ChatTokens(bases.path(tiny_models, "smollm2-135m"))
    found = tokens.encode(talk("red", rounds=2))
    words = [VOCABULARY[number] for number in found.ids[found.answers]]
    assert words == ["red", "<|unk|>", "red", "<|im_end|>"] * 2
    assert len(tokens.encode(talk("red", rounds=2), max_tokens=12).ids) == 12


@pytest.mark.real_weights
def test_only_the_assistants_words_are_learnt_with_the_real_template() -> None:
    tokens = ChatTokens(bases.path(Path(os.environ["MODELS_DIR"]), "smollm2-135m"))
    turns = [
        {"role": "user", "content": "How much\nis £5.20?"},
        {"role": "assistant", "content": "Fine. \n\n12 é"},
        {"role": "user", "content": "Thanks"},
        {"role": "assistant", "content": "Bye."},
    ]
    found = tokens.encode(turns)
    assert tokens.decode(found.ids[found.answers]) == "Fine. \n\n12 é<|im_end|>Bye.<|im_end|>"


def test_cached_states_do_not_depend_on_the_batch(tiny_models: Path) -> None:
    folder = bases.path(tiny_models, "smollm2-135m")
    tokens, frozen = ChatTokens(folder), FrozenChat(folder, torch.device("cpu"))
    conversations = [tokens.encode(talk("red", rounds=rounds)) for rounds in (3, 1, 2)]
    together = dict(frozen.states(conversations))
    for index, conversation in enumerate(conversations):
        alone = dict(frozen.states([conversation]))[0]
        assert alone.shape == (len(conversation.answers), WIDTH)
        torch.testing.assert_close(together[index].float(), alone.float(), rtol=2e-2, atol=2e-2)


def test_a_shared_system_text_is_read_once_and_changes_nothing(tiny_models: Path) -> None:
    folder = bases.path(tiny_models, "smollm2-135m")
    tokens, frozen = ChatTokens(folder), FrozenChat(folder, torch.device("cpu"), dtype=torch.float32)
    talks = [
        talk(colour, rounds=rounds, system="red " * 8) for colour in ("red", "blue") for rounds in (1, 2)
    ]
    conversations = [tokens.encode(turns) for turns in talks]
    assert min(item.lead for item in conversations) >= 16
    together = dict(frozen.states(conversations))
    for index, conversation in enumerate(conversations):
        alone = dict(frozen.states([conversation]))[0]  # one conversation is no group: it is read whole
        torch.testing.assert_close(together[index], alone, rtol=1e-5, atol=1e-5)


def small_plan(method: str = "final_hidden", *, epsilon: float | None = 8.0, steps: int = 3) -> Plan:
    reason = "a test" if epsilon is None else ""
    recipe = replace(RECIPE, method=method, epsilon=epsilon, privacy_off_reason=reason, max_steps=steps)
    return planning.plan(recipe, Shape(160, 40, rows=240))


@pytest.fixture(scope="module")
def data() -> TrainingData:
    """200 people, every fifth with two conversations; every fifth held out."""
    units = [*range(200), *range(0, 200, 5)]
    conversations = [talk("red" if unit % 3 else "blue", rounds=1 + unit % 2) for unit in units]
    return TrainingData(units, [unit % 5 == 4 for unit in range(200)], conversations=conversations)


def run(
    plan: Plan,
    data: TrainingData,
    models_dir: Path,
    *,
    resume: Checkpoint | None = None,
    spent: dict[str, int] | None = None,
) -> Iterator[Event]:
    head = heads.load("chat", plan.method)
    return head.train(plan, data, models_dir=models_dir, resume=resume, spent=spent or {})


@pytest.mark.parametrize("method", METHODS)
def test_a_job_runs_end_to_end(tiny_models: Path, data: TrainingData, method: str) -> None:
    events = list(run(small_plan(method), data, tiny_models))
    order = [event.mechanism if isinstance(event, Charge) else type(event).__name__ for event in events]
    steps = ["train", "Checkpoint", "Progress"] * 3
    assert [name for name in order if name != "Phase"] == [
        *("held_out", "HeldOut"),
        *steps,
        *("held_out", "HeldOut"),
        "Trained",
    ]
    trained = events[-1]
    assert isinstance(trained, Trained)
    assert trained.config["method"] == method
    rank = chat_plans.METHODS[method].rank
    assert trained.config["rank"] == rank
    shapes = {name: value.shape for name, value in trained.tensors.items()}
    if method == "final_hidden":
        assert shapes == {"adapter.A": (rank, WIDTH), "adapter.B": (WIDTH, rank), "adapter.bias": (WIDTH,)}
    else:
        assert len(shapes) == 2 * 2 * 7  # both layers of the tiny model, seven linear ones each
        assert shapes["lora.model.layers.1.mlp.down_proj.A"] == (8, 64)
        assert shapes["lora.model.layers.0.self_attn.k_proj.B"] == (16, 8)
        assert trained.config["alpha"] == 8.0
    assert set(trained.metrics) >= {
        "token_accuracy",
        "token_accuracy_before",
        "answer_loss",
        "answer_loss_before",
    }


@pytest.mark.parametrize("method", METHODS)
def test_without_privacy_the_model_learns(tiny_models: Path, data: TrainingData, method: str) -> None:
    events = list(run(small_plan(method, epsilon=None, steps=24), data, tiny_models))
    assert not [event for event in events if isinstance(event, Charge)]
    trained = events[-1]
    assert isinstance(trained, Trained)
    assert trained.metrics["answer_loss"] < trained.metrics["answer_loss_before"] - 0.01


@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_job_runs_only_what_is_left(tiny_models: Path, data: TrainingData, method: str) -> None:
    plan = small_plan(method)
    checkpoint = next(event for event in run(plan, data, tiny_models) if isinstance(event, Checkpoint))
    spent = {"train": 2, "held_out": 1}  # the second step was charged and then lost
    again = list(run(plan, data, tiny_models, resume=checkpoint, spent=spent))
    assert [event.first for event in again if isinstance(event, Charge) and event.mechanism == "train"] == [2]
    assert len([event for event in again if isinstance(event, HeldOut)]) == 1
    last = [event for event in again if isinstance(event, Checkpoint)][-1]
    assert set(last.tensors) == set(checkpoint.tensors)
    assert any((last.tensors[name] != checkpoint.tensors[name]).any() for name in last.tensors)


@pytest.mark.parametrize("method", METHODS)
def test_an_empty_batch_is_a_step_of_noise_alone(tiny_models: Path, data: TrainingData, method: str) -> None:
    """Nobody has an answer, so nobody has a gradient: what changes is noise."""
    silent = replace(data, conversations=[[{"role": "user", "content": "hello"}]] * len(data.units))
    events = list(run(small_plan(method, steps=2), silent, tiny_models))
    states = [event.tensors for event in events if isinstance(event, Checkpoint)]
    assert len(states) == 2
    name = next(name for name in states[0] if name == "flat" or name.endswith("B.weight"))
    assert np.isfinite(states[1][name]).all()
    assert (states[0][name] != states[1][name]).any()


def test_nobody_counts_for_more_than_one_in_the_held_out_sums(tiny_models: Path, data: TrainingData) -> None:
    events = run(small_plan(epsilon=None, steps=1), data, tiny_models)
    shown = [event for event in events if isinstance(event, HeldOut)]
    assert all(0 <= event.accuracy <= 1 and event.total == 40 for event in shown)


def test_the_plan_caps_people_and_meets_its_epsilon() -> None:
    plan = planning.plan(RECIPE, Shape(9_000, 1_000, rows=10_000))
    train = plan.mechanisms[0]
    assert plan.method == "final_hidden"
    assert plan.settings["people"] == chat_plans.LARGEST_TRAIN_UNITS
    assert train.sampling_rate == plan.settings["batch"] / chat_plans.LARGEST_TRAIN_UNITS
    assert plan.epsilon == pytest.approx(8.0, abs=0.02)
    assert "drawn at random" in plan.notes[0]


def test_five_thousand_people_all_take_part() -> None:
    plan = planning.plan(RECIPE, Shape(5_000, 1_000, rows=6_000))
    assert plan.settings["people"] == 5_000
    assert not any("drawn at random" in note for note in plan.notes)


def test_the_device_chooses_the_method() -> None:
    assert planning.plan(RECIPE, Shape(5_000, 1_000, rows=6_000), "cuda").method == "lora"
    assert planning.plan(RECIPE, Shape(5_000, 1_000, rows=6_000), "cpu").method == "final_hidden"
    slow = planning.plan(replace(RECIPE, method="lora"), Shape(5_000, 1_000, rows=6_000), "cpu")
    assert any("without a GPU" in note for note in slow.notes)


def test_caps_hold_for_people_and_conversations() -> None:
    plan = planning.plan(RECIPE, Shape(7_500, 300, rows=46_800))
    units = [row % 7_800 for row in range(46_800)]
    data = TrainingData(units, [unit >= 7_500 for unit in range(7_800)], conversations=[[]] * 46_800)
    train, held_out = chosen_rows(plan, data)
    assert len({units[row] for row in train}) == chat_plans.LARGEST_TRAIN_UNITS
    assert len(train) == chat_plans.LARGEST_READ
    assert {units[row] for row in held_out} <= set(range(7_500, 7_800))
    assert len({units[row] for row in held_out}) == chat_plans.LARGEST_HELD_OUT_UNITS


def test_few_people_may_bring_several_conversations_each() -> None:
    assert planning.plan(RECIPE, Shape(1_000, 200, rows=4_800)).settings["conversations_each"] == 4
    assert planning.plan(RECIPE, Shape(3_000, 200, rows=12_800)).settings["conversations_each"] == 2


def test_the_plan_says_what_to_expect() -> None:
    many = planning.plan(RECIPE, Shape(5_000, 1_000, rows=6_000))
    few = planning.plan(replace(RECIPE, epsilon=1.0), Shape(160, 40, rows=200))
    assert many.settings["expected_quality"] == "good"
    assert 0 < float(many.settings["expected_low"]) < float(many.settings["expected_high"]) < 1
    assert few.settings["expected_quality"] == "too small"
    assert any("Do not bother" in note for note in few.notes)
    assert not any("Do not bother" in note for note in many.notes)


def test_too_few_people_are_refused() -> None:
    with pytest.raises(CannotTrain, match="100 people are too few"):
        planning.plan(RECIPE, Shape(100, 20, rows=120))
