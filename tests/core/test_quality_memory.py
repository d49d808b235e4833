"""Measuring quality stays small in memory whatever a hostile file holds: long rows, long labels, a thousand columns."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from modeling.core.quality import Looking, Seen, measure

MIB = 1024.0


def long_texts() -> tuple[Looking, Iterator[Seen]]:
    text = " ".join(f"w{n % 977}" for n in range(100_000))
    rows = (Seen(n, False, n + 2, {"text": f"{text} {n}", "label": "a"}) for n in range(25))
    return Looking(columns=["text", "label"], texts=["text"], label="label", rows=25), rows


def long_labels() -> tuple[Looking, Iterator[Seen]]:
    rows = (Seen(n, False, n + 2, {"text": "one two", "label": f"{n}" + "x" * 1_000_000}) for n in range(250))
    return Looking(columns=["text", "label"], texts=["text"], label="label", rows=250), rows


def many_columns() -> tuple[Looking, Iterator[Seen]]:
    columns = [f"c{n}" for n in range(1_000)]
    rows = (
        Seen(n, False, n + 2, {**{name: f"{n} {name}" for name in columns}, "label": str(n % 2)})
        for n in range(900)
    )
    return Looking(columns=[*columns, "label"], label="label", rows=900), rows


CASES = {"texts": long_texts, "labels": long_labels, "columns": many_columns}
RUN = (
    "import resource, sys; from tests.core.test_quality_memory import CASES, grown; print(grown(sys.argv[1]))"
)


def grown(case: str) -> float:
    """MiB by which the process grew while it measured."""
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _step in measure(*CASES[case]()):
        pass
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / MIB


@pytest.mark.parametrize("case", CASES)
def test_it_stays_small(case: str) -> None:
    done = subprocess.run([sys.executable, "-c", RUN, case], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 180
