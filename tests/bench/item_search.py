"""How fast the exact best 20 of a catalogue are found: CPU time of one thread, beside faiss, turn by turn."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import faiss
import numpy as np

from modeling.core.recommend_columns import Columns, encode
from modeling.core.recommend_ranking import Wish, rank
from modeling.core.recommend_scores import ItemModel, best
from modeling.core.types import Tensors
from tests.serving.made import Artifacts, EngineProcess

WIDTH, K = 64, 20
TURNS = 80
FILTER = {"category": ["c1", "c4", "c9"]}
ASKED_MS, ASKED_RATIO = 3.0, 1.35
ASKED_AT = 100_000
_TICKS = os.sysconf("SC_CLK_TCK")


def artefact(items: int, *, learned: bool) -> tuple[Tensors, dict[str, object]]:
    """A recommender of so many items; `learned` adds the two parts that a private run of two rounds has."""
    chance = np.random.default_rng(0)

    def matrix(width: int) -> np.ndarray:
        return chance.standard_normal((items, width)).astype(np.float32)

    tensors: Tensors = {
        "items.features": matrix(WIDTH),
        "items.log_p": np.zeros(items, np.float32),
        "direction": np.zeros(WIDTH, np.float32),
    }
    names = {"features": "items.features", "vectors": "items.features", "direction": "direction"}
    parts = [names | {"taste": 0.0, "neighbour": 1.0}]
    for number, width in enumerate((64, 40) if learned else ()):
        own = {name: f"round{number}.{name}" for name in ("features", "vectors", "direction", "lengths")}
        tensors |= {own["features"]: matrix(width), own["vectors"]: matrix(width)}
        tensors |= {own["direction"]: np.zeros(width, np.float32), own["lengths"]: np.ones(items, np.float32)}
        parts.append(own | {"taste": 0.5, "neighbour": 2.0})
    more, columns = encode({"category": [f"c{number % 20}" for number in range(items)]})
    config = {"format": 1, "task": "recommendation", "base": "minilm-l6", "method": "ssr", "parts": parts}
    return tensors | more, config | {"items": [f"item-{at}" for at in range(items)], "columns": columns}


def in_turns(works: dict[str, Callable[[int], object]]) -> dict[str, float]:
    """The median CPU milliseconds of each, taken turn by turn."""
    spent: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(TURNS):
        for name, work in works.items():
            started = time.process_time_ns()
            work(turn)
            spent[name].append((time.process_time_ns() - started) / 1e6)
    return {name: float(np.median(times)) for name, times in spent.items()}


def search(items: int) -> dict[str, float]:
    """Milliseconds by way of asking; all find 20 items of `items`."""
    tensors, config = artefact(items, learned=False)
    model, columns = ItemModel(tensors, config), Columns(tensors, config)
    looks = tensors["items.features"]
    index = faiss.IndexFlatIP(WIDTH)
    index.add(looks)
    queries = np.random.default_rng(1).standard_normal((TURNS, WIDTH)).astype(np.float32)
    out = [f"item-{at}" for at in range(0, items, max(1, items // 1000))]

    def wish(turn: int, **more: object) -> object:
        return rank(model, columns, looks, Wish(history=[f"item-{turn}"], k=K, **more))  # type: ignore[arg-type]

    kept = np.packbits(columns.kept(FILTER), bitorder="little")
    chosen = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(kept))  # type: ignore[call-arg, arg-type]
    whole, learned_config = artefact(items, learned=True)
    learned, its_columns = ItemModel(whole, learned_config), Columns(whole, learned_config)
    return in_turns(
        {
            "faiss flat": lambda turn: index.search(queries[turn][None], K),
            "dot products and best 20": lambda turn: best(looks @ queries[turn], K),
            "whole answer": wish,
            "1,000 excluded": lambda turn: wish(turn, exclude=out),
            "faiss flat, a selector made before": lambda turn: index.search(
                queries[turn][None], K, params=chosen
            ),
            "a filter of 3 of 20 categories": lambda turn: wish(turn, kept=FILTER),
            "diversity .3": lambda turn: wish(turn, diversity=0.3),
            "whole answer, 2 learned rounds": lambda turn: rank(
                learned, its_columns, looks, Wish(history=[f"item-{turn}"], k=K)
            ),
        }
    )


def through_the_engine(items: int) -> tuple[float, float]:
    """(CPU ms of the engine process a request, wall ms) through its socket, on a model of two learned rounds."""
    with tempfile.TemporaryDirectory() as folder:
        made = Artifacts(Path(folder)).seal(*artefact(items, learned=True), tenant="bench")
        engine = EngineProcess(Path(folder) / "engine.sock")
        try:
            engine.wait_for("minilm-l6")

            def ask(turn: int) -> None:
                engine.ask(
                    "recommend", tenant="bench", base="minilm-l6", artifact=made.body,
                    history=[f"item-{turn}"], k=K,
                )  # fmt: skip

            ask(0)
            before, started = _cpu(engine.process.pid), time.perf_counter()
            for turn in range(TURNS * 3):
                ask(turn)
            wall = time.perf_counter() - started
            return (_cpu(engine.process.pid) - before) / (TURNS * 3) * 1000, wall / (TURNS * 3) * 1000
        finally:
            engine.stop()


def _cpu(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def main() -> None:
    faiss.omp_set_num_threads(1)
    print(
        f"Best {K} of n items of {WIDTH} numbers: median CPU ms of one thread over {TURNS} turns, and times faiss flat"
    )
    found = {items: search(items) for items in (10_000, ASKED_AT, 300_000)}
    print(f"{'':<36}" + "".join(f"{items:>20,}" for items in found) + f"   asked at {ASKED_AT:,}")
    for name in found[ASKED_AT]:
        cells = "".join(
            f"{times[name]:>13.3f} {times[name] / times['faiss flat']:>5.2f}x" for times in found.values()
        )
        asked = f"   <= {ASKED_MS:g} ms, <= {ASKED_RATIO:g}x" if name == "dot products and best 20" else ""
        print(f"{name:<36}{cells}{asked}")
    cpu, wall = through_the_engine(ASKED_AT)
    print(
        f"through the engine's socket, {ASKED_AT:,} items, 2 learned rounds: {cpu:.2f} CPU ms, {wall:.2f} ms a request"
    )


if __name__ == "__main__":
    main()
