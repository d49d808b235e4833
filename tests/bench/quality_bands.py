"""How often the printed quality band holds the measured figure, over every bench of bands: asked in 90 % of 60 runs.

A bench takes part by offering `band_runs()`: an iterator of runs (data set x people x epsilon) with name, units,
epsilon, low, high, ratio (the measured figure in the band's own measure) and is_inside.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from tests.bench import text_bands, text_rows

ASKED, FEWEST = 0.9, 60
OTHERS = {"tables": "tests.bench.tabular_bands", "recommendation": "tests.bench.recommend_bands"}
CLINIC_SEED = 733  # none that the bands or the text bench were made with


class BandRun(Protocol):
    """One printed band and what was measured."""

    @property
    def name(self) -> str: ...

    @property
    def units(self) -> int: ...

    @property
    def epsilon(self) -> float: ...

    @property
    def low(self) -> float: ...

    @property
    def high(self) -> float: ...

    @property
    def ratio(self) -> float: ...

    @property
    def is_inside(self) -> bool: ...


def text_runs() -> Iterator[BandRun]:
    """The private text head on ICD chapters and on sets that its bands were not fitted on."""
    yield from clinic_runs(text_bands.CLINIC_SIZES, seed=CLINIC_SEED)
    for number, name in enumerate(text_rows.OTHERS):
        yield from text_bands.runs_of(text_rows.load(name), text_bands.SIZES, seed=number)


def clinic_runs(sizes: tuple[int, ...], *, seed: int) -> Iterator[BandRun]:
    """Runs on free data alone: what continuous integration can do."""
    yield from text_bands.runs_of(text_rows.clinic(), sizes, seed=seed)


def sources() -> dict[str, Callable[[], Iterable[BandRun]] | None]:
    """What there is to count; None for a kind of data whose bench of bands does not exist."""
    found: dict[str, Callable[[], Iterable[BandRun]] | None] = {"text": text_runs}
    for kind, module in OTHERS.items():
        try:
            found[kind] = importlib.import_module(module).band_runs
        except ModuleNotFoundError as error:
            if error.name != module:
                raise
            found[kind] = None
    return found


def share_inside(runs: list[BandRun]) -> float:
    """The share of runs whose band held the measured figure."""
    return sum(run.is_inside for run in runs) / len(runs)


def main() -> int:
    started, everything = time.process_time(), []
    print(f"{'kind':>15} {'data':>16} {'people':>8} {'epsilon':>8}  {'band':>11}  measured")
    for kind, offered in sources().items():
        if offered is None:
            print(f"{kind:>15} not counted: it has no bench of bands")
            continue
        runs = list(offered())
        everything += runs
        for run in runs:
            print(
                f"{kind:>15} {run.name:>16} {run.units:>8,} {run.epsilon:>8g}  {run.low:>5.2f}–{run.high:.2f}  "
                f"{run.ratio:>8.3f}  {'' if run.is_inside else 'outside'}"
            )
        print(f"{kind:>15} {len(runs)} runs, {share_inside(runs):.1%} inside")
    share = share_inside(everything)
    print(f"all: {len(everything)} runs (asked {FEWEST}), {share:.1%} inside (asked {ASKED:.0%})")
    print(f"{time.process_time() - started:.0f} s of CPU time")
    return 0 if share >= ASKED else 1


if __name__ == "__main__":
    sys.exit(main())
