"""Chat on a CPU: how much of what a model gains without privacy it still gains with it, and the time of a whole job.

`python -m tests.bench.chat_quality` tunes on short English dialogues (chatterbot-corpus: about 700 conversations, each
standing for seven people, so that n = 5,000) and measures the loss on answers to questions that nobody asked in
training. Runs share one reading of the conversations, but epsilon 8, which is one whole private job from texts to
artefact. `bank` as an argument adds a whole job on 5,000 of the product's bank conversations (120 tokens each),
`layers` adds private runs of the top layers.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from modeling.core import bases, heads, planning
from modeling.core.chat_hidden import Cache, FrozenChat
from modeling.core.chat_layers import LayerCache
from modeling.core.chat_run import Run, Tuner
from modeling.core.chat_tokens import ChatTokens
from modeling.core.chat_tuners import FinalHiddenTuner, TopLayersTuner
from modeling.core.noise import NoiseSource
from modeling.core.types import Phase, Plan, Recipe, Shape, Trained, TrainingData
from modeling.packs.samples.bank import bank_conversations
from tests.bench.chat_rows import Talk, dialogues

MODELS = Path(__file__).resolve().parents[2] / ".data" / "models"
BASE = "smollm2-135m"
ASKED = {8.0: 0.70, 3.0: 0.65}
ASKED_MINUTES = 15


class Bench:
    """The conversations, read once for both methods."""

    def __init__(self, train: Sequence[Talk], held_out: Sequence[Talk]) -> None:
        self.folder = bases.path(MODELS, BASE)
        self.people, self.others = len(train), len(held_out)
        tokens = ChatTokens(self.folder)
        self.conversations = [tokens.encode(talk) for talk in (*train, *held_out)]
        self.opening = tokens.opening()
        units = range(len(self.conversations))
        self.final = Cache(units, self.conversations, limit_bytes=4 << 30)  # repeated ones are held once
        self.layers = LayerCache(units, self.conversations, limit_bytes=4 << 30)
        frozen = FrozenChat(self.folder, torch.device("cpu"))
        started = time.process_time()
        same: dict[bytes, list[int]] = {}
        for index, item in enumerate(self.conversations):
            same.setdefault(item.ids.tobytes(), []).append(index)
        firsts = [members[0] for members in same.values()]
        for number, read in frozen.read([self.conversations[first] for first in firsts], top=4):
            for index in same[self.conversations[firsts[number]].ids.tobytes()]:
                self.final.put(index, read)
                self.layers.put(index, read)
        length = sum(len(item.ids) for item in self.conversations) / len(self.conversations)
        print(
            f"read {len(firsts):,} different conversations of {len(self.conversations):,} people "
            f"({length:.0f} tokens) in {time.process_time() - started:.0f} s of CPU time"
        )

    def tuner(self, plan: Plan) -> Tuner:
        """A fresh one for a plan."""
        frozen, noise = FrozenChat(self.folder, torch.device("cpu")), NoiseSource()
        if plan.method == "final_hidden":
            return FinalHiddenTuner(plan, frozen, self.final, noise)
        return TopLayersTuner(plan, frozen, self.layers, noise, invocation=self.opening)

    def loss(self, tuner: Tuner) -> float:
        """The mean over held-out conversations of the mean over each one's answer tokens, in nats."""
        found = tuner.quality(range(self.people, self.people + self.others))
        return float(found[:, 1].mean())

    def run(self, method: str, epsilon: float | None) -> tuple[float, float]:
        """(held-out loss, CPU seconds of the steps)."""
        plan = plan_of(method, epsilon, self.people)
        tuner = self.tuner(plan)
        started = time.process_time()
        run = Run(
            plan, tuner, people=range(self.people), others=[], resume=None, spent={}, noise=NoiseSource()
        )
        for _event in run.events(time.monotonic()):
            pass
        seconds = time.process_time() - started
        return self.loss(tuner), seconds


def plan_of(method: str, epsilon: float | None, people: int) -> Plan:
    """The product's own plan, without the held-out release: the bench looks at the held-out people itself."""
    reason = "" if epsilon else "a bench"
    recipe = Recipe("chat", BASE, method, epsilon=epsilon, privacy_off_reason=reason)
    return planning.plan(recipe, Shape(people, 0, rows=people))


def whole_job(talks: Sequence[Talk], held_out: int) -> tuple[float, Trained]:
    """(CPU seconds, what was trained) of one private job at epsilon 8 by the default method, everything included."""
    recipe = Recipe("chat", BASE, epsilon=8.0)
    shape = Shape(len(talks) - held_out, held_out, rows=len(talks))
    started = time.process_time()
    plan = planning.plan(recipe, shape)
    data = TrainingData(
        range(len(talks)), [unit >= shape.train_units for unit in range(len(talks))], conversations=talks
    )
    head = heads.load("chat", plan.method)
    last = None
    for event in head.train(plan, data, models_dir=MODELS, resume=None, spent={}):
        last = event
        if isinstance(event, Phase) and event.done == event.total:
            print(f"  reading: {time.process_time() - started:.0f} s of CPU time", flush=True)
    assert isinstance(last, Trained)
    seconds = time.process_time() - started
    print(
        f"  whole job of {shape.train_units:,} people: {seconds / 60:.1f} CPU minutes, asked {ASKED_MINUTES}; "
        f"planned {float(plan.settings['estimated_seconds']) / 60:.1f}; released "
        f"{ {name: round(value, 3) for name, value in last.metrics.items()} }",
        flush=True,
    )
    return seconds, last


def job_loss(bench: Bench, trained: Trained) -> float:
    """The held-out loss of a job's artefact."""
    tuner = bench.tuner(plan_of("final_hidden", None, bench.people))
    assert isinstance(tuner, FinalHiddenTuner)
    parts = [torch.from_numpy(trained.tensors[f"adapter.{name}"]).flatten() for name in ("A", "B", "bias")]
    tuner.adapter.flat.copy_(torch.cat(parts))
    return bench.loss(tuner)


def show(name: str, loss: float, seconds: float) -> None:
    print(f"{name:28} held-out answer loss {loss:6.3f}   steps {seconds:5.0f} s of CPU time", flush=True)


def main(arguments: list[str]) -> None:
    torch.set_num_threads(1)
    started = time.process_time()
    train, held_out = dialogues()
    bench = Bench(train, held_out)
    base = bench.loss(bench.tuner(plan_of("final_hidden", None, bench.people)))
    show("base model", base, 0.0)
    found: dict[tuple[str, float | None], float] = {}
    runs: list[tuple[str, float | None]] = [
        ("top_layers", None),
        ("final_hidden", 3.0),
        ("final_hidden", None),
    ]
    if "layers" in arguments:
        runs += [("top_layers", 8.0), ("top_layers", 3.0)]
    for method, epsilon in runs:
        found[method, epsilon], seconds = bench.run(method, epsilon)
        name = f"{method}, epsilon {epsilon:g}" if epsilon else f"{method}, no privacy"
        show(name, found[method, epsilon], seconds)
    seconds, trained = whole_job([*train, *held_out], len(held_out))
    found["final_hidden", 8.0] = job_loss(bench, trained)
    show("final_hidden, epsilon 8", found["final_hidden", 8.0], seconds)
    best = min(found["top_layers", None], found["final_hidden", None])
    print(f"\n{'share of the gain without privacy':36}{'of the best':>14}{'same method':>14}{'asked':>8}")
    for epsilon, asked in ASKED.items():
        gain = base - found["final_hidden", epsilon]
        same = gain / (base - found["final_hidden", None])
        print(f"final_hidden, epsilon {epsilon:<14g}{gain / (base - best):14.2f}{same:14.2f}{asked:8.2f}")
    if "bank" in arguments:
        whole_job([*bank_conversations(), *bank_conversations()[:200]], 200)
    print(f"bench: {(time.process_time() - started) / 60:.1f} CPU minutes")


if __name__ == "__main__":
    main(sys.argv[1:])
