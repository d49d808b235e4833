"""CPU time of one example in one private step: `python -m tests.bench.chat_speed`.

Bank conversations of about 120 tokens with 50 in the answers, read once; steps of the expected batch, one thread. The
two methods take turns. LoRA through the whole model is shown for comparison on a few examples.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import numpy as np
import torch

from modeling.core import bases, planning
from modeling.core.chat_hidden import Cache, FrozenChat
from modeling.core.chat_layers import LayerCache
from modeling.core.chat_lora import ChatModel, LoraTuner
from modeling.core.chat_run import Tuner
from modeling.core.chat_tokens import ChatTokens
from modeling.core.chat_tuners import FinalHiddenTuner, TopLayersTuner
from modeling.core.noise import NoiseSource
from modeling.core.types import Plan, Recipe, Shape
from modeling.packs.samples.bank import bank_conversations

MODELS = Path(__file__).resolve().parents[2] / ".data" / "models"
ASKED = {"final_hidden": 12, "top_layers": 25}
PEOPLE, BATCH, ROUNDS = 200, 64, 5
CPU = torch.device("cpu")


def _plan(method: str) -> Plan:
    recipe = Recipe("chat", "smollm2-135m", method, epsilon=8.0)
    return planning.plan(recipe, Shape(5_000, 0, rows=5_000))


def _milliseconds(tuner: Tuner, units: list[int]) -> float:
    started = time.process_time()
    tuner.step(units)
    return 1000 * (time.process_time() - started) / len(units)


def main() -> None:
    torch.set_num_threads(1)
    folder = bases.path(MODELS, "smollm2-135m")
    tokens, frozen = ChatTokens(folder), FrozenChat(folder, CPU)
    conversations = [tokens.encode(talk) for talk in bank_conversations()[:PEOPLE]]
    final, layers = Cache(range(PEOPLE), conversations), LayerCache(range(PEOPLE), conversations)
    started = time.process_time()
    for index, read in frozen.read(conversations, top=4):
        final.put(index, read)
        layers.put(index, read)
    reading = 1000 * (time.process_time() - started) / PEOPLE
    noise = NoiseSource()
    tuners: dict[str, Tuner] = {
        "final_hidden": FinalHiddenTuner(_plan("final_hidden"), frozen, final, noise),
        "top_layers": TopLayersTuner(
            _plan("top_layers"), FrozenChat(folder, CPU), layers, noise, invocation=tokens.opening()
        ),
    }
    found: dict[str, list[float]] = {name: [] for name in tuners}
    random = np.random.default_rng(0)
    for _ in range(ROUNDS + 1):
        units = sorted(random.choice(PEOPLE, BATCH, replace=False).tolist())
        for name, tuner in tuners.items():
            found[name].append(_milliseconds(tuner, units))
    whole = ChatModel(folder, rank=8, alpha=8.0, device=CPU)
    lora = LoraTuner(_plan("lora"), whole, range(PEOPLE), conversations, noise)
    length = sum(len(item.ids) for item in conversations) / PEOPLE
    kind = str(frozen.vocabulary.dtype).removeprefix("torch.")
    print(f"reading once: {reading:.0f} ms of CPU time a conversation of {length:.0f} tokens, {kind}")
    print(f"{'step of a batch of ' + str(BATCH):28}{'ms an example':>16}{'from – to':>16}{'asked':>8}")
    for name, times in found.items():
        kept = times[1:]  # the first round warms up
        spread = f"{min(kept):.1f} – {max(kept):.1f}"
        print(f"{name:28}{statistics.median(kept):16.1f}{spread:>16}{ASKED[name]:8}")
    print(f"{'lora (16 examples)':28}{_milliseconds(lora, list(range(16))):16.1f}{'':16}{'-':>8}")


if __name__ == "__main__":
    main()
