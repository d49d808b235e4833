"""What the engine computes for a tuned conversation is what training computed, also beside others in one batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
import torch

from modeling.core import bases, chat_lora
from modeling.core.chat_hidden import FrozenChat
from modeling.core.chat_layers import LayerCache, TopLayers
from modeling.core.chat_tokens import ChatTokens, Conversation
from modeling.core.lora import read as read_lora
from modeling.core.types import Tensors
from modeling.serving.bank import SlotBank
from modeling.serving.decoder import Llama
from modeling.serving.store import Artifact, CacheKey
from modeling.serving.tunings import Tuning, Tunings, lora_tensors, mixes
from modeling.serving.wire import EngineRefusal
from tests.core.tiny_chat import talk, write_models

CPU = torch.device("cpu")
RANK = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bases.path(write_models(tmp_path_factory.mktemp("models"), layers=4), "smollm2-135m")


@pytest.fixture(scope="module")
def item(folder: Path) -> Conversation:
    return ChatTokens(folder).encode(talk("red", rounds=2))


def made(tensors: Tensors, name: str, **config: object) -> Artifact:
    config = {"task": "chat", "rank": RANK, "alpha": 2.0 * RANK} | config
    return Artifact(CacheKey("acme", name, name.encode()), tensors, config, 0)


def top_layers(folder: Path, item: Conversation) -> tuple[Artifact, torch.Tensor]:
    """An artefact as trained, and the core's logits for the last turn's words [words, vocabulary]."""
    frozen = FrozenChat(folder, CPU, dtype=torch.float32)
    cache = LayerCache([0], [item])
    for index, read in frozen.read([item], top=2):
        cache.put(index, read)
    model = TopLayers(frozen, top=2, rank=RANK)
    model.alpha = 2.0 * RANK
    model.flat += 0.2 * torch.randn(len(model.flat), generator=torch.Generator().manual_seed(1))
    example = list(cache.whole([0]))[-1]
    with torch.no_grad():
        model._copies(1)
        hidden, _, _ = model._picked([example])
    opening = ChatTokens(folder).opening()
    return made(model.tensors(), "top", invocation=opening), hidden @ frozen.vocabulary.T


def whole_lora(folder: Path, item: Conversation) -> tuple[Artifact, torch.Tensor]:
    """The same of LoRA through the whole model."""
    torch.manual_seed(2)
    model = chat_lora.ChatModel(folder, rank=RANK, alpha=2.0 * RANK, device=CPU, dtype=torch.float32)
    with torch.no_grad():
        for value in model.parameters():
            if value.requires_grad:
                value.add_(0.2 * torch.randn(value.shape))
        hidden = model(torch.from_numpy(item.ids)[None], torch.ones(1, len(item.ids), dtype=torch.int64))[0]
    turn = item.turns[-1]
    return made(read_lora(model.model), "lora"), hidden[turn.first - 1 : turn.last - 1] @ model.vocabulary.T


async def pinned(bank: SlotBank, artifact: Artifact, model: Llama) -> int:
    async def tensors() -> dict[str, torch.Tensor]:
        return lora_tensors(artifact, model)

    return await bank.pin(artifact.key, tensors)


def engine_logits(
    model: Llama, item: Conversation, tunings: list[Tuning], pieces: int = 100
) -> list[torch.Tensor]:
    """Logits of the last turn's words, for the same conversation in one slot per tuning, all stepping together."""
    turn = item.turns[-1]
    prompt, words = item.ids[: turn.first].tolist(), item.ids[turn.first : turn.last].tolist()
    first = []
    for slot, tuning in enumerate(tunings):
        plain = tuning.plain_tokens(len(prompt))
        hidden = None
        for start, stop, mixed in ((0, plain, []), (plain, len(prompt), mixes([tuning]))):
            for at in range(start, stop, pieces):
                hidden = model.prefill(slot, prompt[at : min(at + pieces, stop)], at, mixed)
        assert hidden is not None
        first.append(hidden)
    rows = [model.logits(torch.cat(first), None, [0] * len(tunings))]
    for done, word in enumerate(words[:-1]):
        hidden = model.step([word] * len(tunings), [len(prompt) + done] * len(tunings), mixes(tunings))
        rows.append(model.logits(hidden, None, [0] * len(tunings)))
    return list(torch.stack(rows).unbind(1))


class Bench:
    """An engine's decoder with both artefacts in its bank, and the core's logits for each."""

    def __init__(self, folder: Path, item: Conversation) -> None:
        self.model = Llama(folder, slots=4, context=128, dtype=torch.float32)
        self.bank = SlotBank(self.model.lora_shapes(8), slots=4)
        self.top, self.top_logits = top_layers(folder, item)
        self.lora, self.lora_logits = whole_lora(folder, item)


@pytest_asyncio.fixture
async def bench(folder: Path, item: Conversation) -> Bench:
    return Bench(folder, item)


@pytest.mark.asyncio
async def test_both_kinds_and_the_plain_base_in_one_batch(bench: Bench, item: Conversation) -> None:
    model, bank = bench.model, bench.bank
    top = Tuning(lora=bank, slot=await pinned(bank, bench.top, model), opening=3)
    lora = Tuning(lora=bank, slot=await pinned(bank, bench.lora, model))
    found = engine_logits(model, item, [top, Tuning(), lora])
    torch.testing.assert_close(found[0], bench.top_logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[2], bench.lora_logits, rtol=1e-4, atol=1e-5)
    (alone,) = engine_logits(emptied(model), item, [Tuning()])
    torch.testing.assert_close(found[1], alone, rtol=1e-4, atol=1e-5)
    assert (found[0] - found[1]).abs().max() > 0.1  # the control: the adapters say something else


def emptied(model: Llama) -> Llama:
    """The same decoder with an empty cache."""
    for slot in range(4):
        model.forget(slot, model.context)
    return model


@pytest.mark.asyncio
async def test_a_long_prompt_in_pieces_is_the_same(bench: Bench, item: Conversation) -> None:
    top = Tuning(lora=bench.bank, slot=await pinned(bench.bank, bench.top, bench.model), opening=3)
    (whole,) = engine_logits(bench.model, item, [top])
    (parts,) = engine_logits(emptied(bench.model), item, [top], pieces=2)
    torch.testing.assert_close(whole, parts, rtol=1e-4, atol=1e-5)


@pytest.mark.asyncio
async def test_adapters_in_two_banks_step_together(bench: Bench, item: Conversation) -> None:
    other = SlotBank(bench.model.lora_shapes(16), slots=2)
    top = Tuning(lora=bench.bank, slot=await pinned(bench.bank, bench.top, bench.model), opening=3)
    lora = Tuning(lora=other, slot=await pinned(other, bench.lora, bench.model))
    found = engine_logits(bench.model, item, [lora, top])
    torch.testing.assert_close(found[0], bench.lora_logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[1], bench.top_logits, rtol=1e-4, atol=1e-5)


class OneArtifact:
    """A store that holds one artefact, whatever is asked for."""

    def __init__(self, artifact: Artifact) -> None:
        self._artifact = artifact

    async def get(self, _reference: object) -> Artifact:
        return self._artifact


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rank": 400}, "rank"),
        ({"alpha": None}, "alpha"),
        ({"rank": 2}, "do not fit"),
        ({"invocation": [1, 2, 3]}, "how an answer opens"),
        ({"task": "classification"}, "not a chat model"),
    ],
)
async def test_what_does_not_fit_is_refused(
    bench: Bench, item: Conversation, change: dict[str, object], words: str
) -> None:
    artifact = made(bench.top.tensors, "broken", **(bench.top.config | change))
    tunings = Tunings(bench.model, OneArtifact(artifact))  # type: ignore[arg-type]
    with pytest.raises(EngineRefusal, match=words):
        async with tunings.pinned(object(), item.ids[: item.turns[-1].first].tolist()):  # type: ignore[arg-type]
            pass


@pytest.mark.asyncio
async def test_a_pinned_model_knows_its_opening_and_leaves_with_its_tenant(
    bench: Bench, item: Conversation
) -> None:
    prompt = item.ids[: item.turns[-1].first].tolist()
    tunings = Tunings(bench.model, OneArtifact(bench.top))  # type: ignore[arg-type]
    async with tunings.pinned(object(), prompt) as tuning:  # type: ignore[arg-type]
        assert tuning.plain_tokens(len(prompt)) == len(prompt) - 3
        assert tuning.lora is not None
        assert np.any(tuning.lora.tables["model.layers.3.mlp.up_proj.B"][tuning.slot].numpy())
    assert tunings.purge("acme", None) == 1
    assert not any(table.any() for bank in tunings.banks for table in bank.tables.values())
