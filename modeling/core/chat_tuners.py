"""The two CPU methods of chat: read once through the frozen model, then train adapters on what was cached."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modeling.core import bases, chat_adapter, chat_layers
from modeling.core.chat_adapter import Adapter, clipped_sum
from modeling.core.chat_hidden import Cache, FrozenChat
from modeling.core.chat_layers import Example, LayerCache, TopLayers
from modeling.core.chat_plans import TOKENS_PER_CONVERSATION
from modeling.core.chat_run import NoisedAdam, Run, Vector, chosen_rows
from modeling.core.chat_tokens import ChatTokens, Conversation
from modeling.core.device import choose
from modeling.core.noise import NoiseSource
from modeling.core.types import Checkpoint, Event, Phase, Plan, Tensors, TrainingData


class FinalHiddenTuner:
    """Rank-r adapter with bias behind the last layer."""

    def __init__(self, plan: Plan, frozen: FrozenChat, cache: Cache, noise: NoiseSource) -> None:
        self.adapter = Adapter(frozen.width, rank=int(plan.settings["rank"]), device=frozen.device)
        self._adam = NoisedAdam(self.adapter.flat, plan, noise)
        self._cache, self._vocabulary = cache, frozen.vocabulary
        self._choice = np.random.default_rng()

    def step(self, units: Sequence[int]) -> None:
        """See Tuner."""
        self._adam.step(self.summed(units))

    def summed(self, units: Sequence[int]) -> Vector:
        """The clipped sum over these units, float64 [parameters]."""
        answers = self._cache.answers(units, tokens=TOKENS_PER_CONVERSATION, choice=self._choice)
        if answers is None:
            return np.zeros(self.adapter.flat.numel())
        return clipped_sum(
            chat_adapter.unit_gradients(self.adapter, answers, self._vocabulary), self._adam.clip
        )

    def quality(self, units: Sequence[int]) -> Vector:
        """See Tuner."""
        answers = self._cache.answers(units, tokens=None, choice=self._choice)
        if answers is None:
            return np.zeros((0, 2))
        return chat_adapter.quality(self.adapter, answers, self._vocabulary)

    def state(self) -> Tensors:
        """See Tuner."""
        return self._adam.state()

    def restore(self, tensors: Tensors) -> None:
        """See Tuner."""
        self._adam.restore(tensors)

    def tensors(self) -> Tensors:
        """See Tuner."""
        return self.adapter.tensors()

    def config(self) -> dict[str, Any]:
        """See Tuner."""
        return {"rank": self.adapter.rank}


class TopLayersTuner:
    """LoRA on every linear layer of the top layers, from the answer's opening on."""

    def __init__(
        self, plan: Plan, frozen: FrozenChat, cache: LayerCache, noise: NoiseSource, *, invocation: list[int]
    ) -> None:
        self.model = TopLayers(frozen, top=int(plan.settings["top_layers"]), rank=int(plan.settings["rank"]))
        self._adam = NoisedAdam(self.model.flat, plan, noise)
        self._cache, self._invocation = cache, invocation
        self._choice = np.random.default_rng()

    def step(self, units: Sequence[int]) -> None:
        """See Tuner."""
        examples = self._cache.training(units, tokens=TOKENS_PER_CONVERSATION, choice=self._choice)
        self._adam.step(self.summed(examples))

    def summed(self, examples: Sequence[Example]) -> Vector:
        """The clipped sum over the units of these examples, float64 [parameters]."""
        total = np.zeros(self.model.flat.numel())
        for rows in chat_layers.unit_gradients(self.model, examples):
            total += clipped_sum(rows, self._adam.clip)
        return total

    def quality(self, units: Sequence[int]) -> Vector:
        """See Tuner."""
        examples = list(self._cache.whole(units))
        return chat_layers.quality(self.model, examples) if examples else np.zeros((0, 2))

    def state(self) -> Tensors:
        """See Tuner."""
        return self._adam.state()

    def restore(self, tensors: Tensors) -> None:
        """See Tuner."""
        self._adam.restore(tensors)

    def tensors(self) -> Tensors:
        """See Tuner."""
        return self.model.tensors()

    def config(self) -> dict[str, Any]:
        """See Tuner."""
        return {"rank": self.model.rank, "alpha": self.model.alpha, "invocation": self._invocation}


def train(
    plan: Plan,
    data: TrainingData,
    *,
    models_dir: Path,
    resume: Checkpoint | None,
    spent: Mapping[str, int],
) -> Iterator[Event]:
    """Read and cache (spends nothing), then charge and step one by one; held-out before and after."""
    folder = bases.path(models_dir, plan.recipe.base)
    started = time.monotonic()
    train_rows, held_out = chosen_rows(plan, data)
    rows = [*train_rows, *held_out]
    tokens = ChatTokens(folder)
    conversations = [tokens.encode(data.conversations[row], int(plan.settings["max_tokens"])) for row in rows]
    units = [data.units[row] for row in rows]
    frozen = FrozenChat(folder, choose(str(plan.settings["device"])))
    noise = NoiseSource()
    tuner: FinalHiddenTuner | TopLayersTuner
    if plan.method == "final_hidden":
        final = Cache(units, conversations)
        yield from _fill(final, frozen, conversations, top=0, started=started)
        tuner = FinalHiddenTuner(plan, frozen, final, noise)
    else:
        layers = LayerCache(units, conversations)
        top = int(plan.settings["top_layers"])
        yield from _fill(layers, frozen, conversations, top=top, started=started)
        tuner = TopLayersTuner(plan, frozen, layers, noise, invocation=tokens.opening())
    people = sorted({data.units[row] for row in train_rows})
    others = sorted({data.units[row] for row in held_out})
    run = Run(plan, tuner, people=people, others=others, resume=resume, spent=spent, noise=noise)
    yield from run.events(started)


def _fill(
    cache: Cache | LayerCache,
    frozen: FrozenChat,
    conversations: list[Conversation],
    *,
    top: int,
    started: float,
) -> Iterator[Event]:
    """Run the frozen model over all chosen conversations, reporting rows done."""
    total, every = len(conversations), max(1, len(conversations) // 50)
    yield Phase("reading", 0, total, time.monotonic() - started)
    for done, (index, read) in enumerate(frozen.read(conversations, top=top), start=1):
        cache.put(index, read)
        if done % every == 0 or done == total:
            yield Phase("reading", done, total, time.monotonic() - started)
