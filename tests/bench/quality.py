"""What a quality report costs: CPU seconds and memory for labelled texts, beside reading their words alone.

Asked: 100,000 texts in well under a minute of one core. Rows come from memory: opening them in the vault is
measured by tests/bench/inspection.py and costs a few microseconds each.

Run: python -m tests.bench.quality [ROWS]
"""

from __future__ import annotations

import random
import resource
import sys
import time
from collections.abc import Iterator

from modeling.core.quality import MOST_TEXTS, Looking, Seen, measure
from modeling.core.quality_words import words_of

ASKED_SECONDS = 30.0
COLUMNS = ("person", "text", "label", "age", "ward")


def rows(count: int) -> Iterator[Seen]:
    """Texts of 20 to 80 words out of 20,000; every hundredth one repeats its neighbour with a word exchanged."""
    chance = random.Random(1)
    words = [f"word{number}" for number in range(20_000)]
    text: list[str] = []
    for number in range(count):
        text = chance.choices(words, k=chance.randint(20, 80)) if number % 100 else [*text[1:], "other"]
        cells = {"person": f"P{number // 3}", "text": " ".join(text), "label": f"class {number % 20}"}
        cells |= {"age": str(number % 83), "ward": "ABCD"[number % 4]}
        yield Seen(number // 3, number % 5 == 0, number + 2, cells)


def main() -> None:
    """Print one line for each part."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    made = list(rows(count))
    start, idle = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for row in made:
        words_of(row.cells["text"])
    reading = time.process_time() - start
    looking = Looking(COLUMNS, texts=("text",), label="label", named=("person",), rows=count)
    start = time.process_time()
    *_, report = measure(looking, made)
    took = time.process_time() - start
    assert isinstance(report, dict)
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - idle) / 1024
    print(f"{'':34}{'measured':>12}{'asked':>12}")
    print(f"{f'report on {count:,} texts, CPU s':34}{took:12.1f}{ASKED_SECONDS * count / 100_000:12.1f}")
    print(f"{'the words of the texts alone':34}{reading:12.1f}")
    print(f"{'memory above the rows, MiB':34}{more:12.0f}{'512':>12}")
    print(
        f"{'near-duplicates found, planted':34}{len_found(report):12,}{min(count, MOST_TEXTS) // 100 - 1:12,}"
    )


def len_found(report: dict[str, object]) -> int:
    """Pairs of rows: each has two of the counted rows."""
    near = report["near"]
    assert isinstance(near, dict)
    return int(near["rows"]) // 2


if __name__ == "__main__":
    main()
