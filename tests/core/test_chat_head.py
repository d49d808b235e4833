"""The chat head: gradients of single units, their clipped sum, answer tokens only, and a whole job on a tiny model."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from modeling.core import bases, planning
from modeling.core.chat_adapter import Adapter, Answers, clipped_sum, quality, unit_gradients
from modeling.core.chat_hidden import FrozenChat
from modeling.core.chat_tokens import ChatTokens
from modeling.core.heads import chat
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

WIDTH, WORDS = 32, 40
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VOCABULARY = [
    "<|unk|>",
    "<|im_start|>",
    "<|im_end|>",
    "\n",
    "system",
    "user",
    "assistant",
    "red",
    "blue",
    "hello",
]
RECIPE = Recipe(task="chat", base="smollm2-135m", epsilon=8.0)


@pytest.fixture(scope="module")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder where the chat base is a random two-layer Llama of width 32."""
    models_dir = tmp_path_factory.mktemp("models")
    folder = models_dir / bases.BASES["smollm2-135m"].folder_name
    torch.manual_seed(3)
    config = LlamaConfig(
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=WORDS,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer = Tokenizer(
        models.WordLevel({word: number for number, word in enumerate(VOCABULARY)}, unk_token="<|unk|>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(
        Regex(r"<\|im_start\|>|<\|im_end\|>|\n|\w+| "), behavior="isolated"
    )
    tokenizer.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<|unk|>", eos_token="<|im_end|>", chat_template=TEMPLATE
    ).save_pretrained(folder)
    return models_dir


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


def talk(colour: str, *, rounds: int = 1) -> list[dict[str, str]]:
    turns = [{"role": "system", "content": "hello"}]
    for _ in range(rounds):
        turns += [
            {"role": "user", "content": f"hello {colour}"},
            {"role": "assistant", "content": f"{colour} {colour}"},
        ]
    return turns


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


def small_plan(*, epsilon: float | None = 8.0, steps: int = 3) -> Plan:
    reason = "a test" if epsilon is None else ""
    recipe = replace(RECIPE, epsilon=epsilon, privacy_off_reason=reason, max_steps=steps)
    return planning.plan(recipe, Shape(160, 40, rows=240))


@pytest.fixture(scope="module")
def data() -> TrainingData:
    """200 people, every fifth with two conversations; every fifth held out."""
    units = [*range(200), *range(0, 200, 5)]
    conversations = [talk("red" if unit % 3 else "blue", rounds=1 + unit % 2) for unit in units]
    return TrainingData(units, [unit % 5 == 4 for unit in range(200)], conversations=conversations)


def run(plan: Plan, data: TrainingData, models_dir: Path) -> list[Event]:
    return list(chat.FinalHiddenHead().train(plan, data, models_dir=models_dir, resume=None, spent={}))


def test_a_job_runs_end_to_end(tiny_models: Path, data: TrainingData) -> None:
    events = run(small_plan(), data, tiny_models)
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
    assert {name: value.shape for name, value in trained.tensors.items()} == {
        "adapter.A": (8, WIDTH),
        "adapter.B": (WIDTH, 8),
        "adapter.bias": (WIDTH,),
    }
    assert trained.config["rank"] == 8
    assert set(trained.metrics) >= {
        "token_accuracy",
        "token_accuracy_before",
        "answer_loss",
        "answer_loss_before",
    }


def test_without_privacy_the_model_learns(tiny_models: Path, data: TrainingData) -> None:
    events = run(small_plan(epsilon=None, steps=24), data, tiny_models)
    assert not [event for event in events if isinstance(event, Charge)]
    trained = events[-1]
    assert isinstance(trained, Trained)
    assert trained.metrics["answer_loss"] < trained.metrics["answer_loss_before"]


def test_a_resumed_job_runs_only_what_is_left(tiny_models: Path, data: TrainingData) -> None:
    plan = small_plan()
    generator = chat.FinalHiddenHead().train(plan, data, models_dir=tiny_models, resume=None, spent={})
    checkpoint = next(event for event in generator if isinstance(event, Checkpoint))
    spent = {"train": 2, "held_out": 1}  # the second step was charged and then lost
    again = list(
        chat.FinalHiddenHead().train(plan, data, models_dir=tiny_models, resume=checkpoint, spent=spent)
    )
    assert [event.first for event in again if isinstance(event, Charge) and event.mechanism == "train"] == [2]
    assert len([event for event in again if isinstance(event, HeldOut)]) == 1


def test_nobody_counts_for_more_than_one_in_the_held_out_sums(tiny_models: Path, data: TrainingData) -> None:
    events = run(small_plan(epsilon=None, steps=1), data, tiny_models)
    shown = [event for event in events if isinstance(event, HeldOut)]
    assert all(0 <= event.accuracy <= 1 and event.total == 40 for event in shown)


def test_the_plan_caps_people_and_meets_its_epsilon() -> None:
    plan = planning.plan(RECIPE, Shape(4_000, 1_000, rows=5_000))
    train = plan.mechanisms[0]
    assert plan.settings["people"] == chat.LARGEST_TRAIN_UNITS
    assert train.sampling_rate == 256 / chat.LARGEST_TRAIN_UNITS
    assert plan.epsilon == pytest.approx(8.0, abs=0.02)
    assert len(plan.notes) == 1


def test_caps_hold_for_people_and_conversations() -> None:
    plan = planning.plan(RECIPE, Shape(1_500, 300, rows=10_800))
    units = [row % 1_800 for row in range(10_800)]
    data = TrainingData(units, [unit >= 1_500 for unit in range(1_800)], conversations=[[]] * 10_800)
    train, held_out = chat.chosen_rows(plan, data)
    assert len({units[row] for row in train}) == chat.LARGEST_TRAIN_UNITS
    assert len(train) == chat.LARGEST_TRAIN_UNITS * chat.CONVERSATIONS_PER_UNIT
    assert {units[row] for row in held_out} <= set(range(1_500, 1_800))
    assert len({units[row] for row in held_out}) == chat.LARGEST_HELD_OUT_UNITS


def test_too_few_people_are_refused() -> None:
    with pytest.raises(CannotTrain, match="100 people are too few"):
        planning.plan(RECIPE, Shape(100, 20, rows=120))
