"""A corpus of hostile files as generators, each with the rule that must answer it; cells hold a canary."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from modeling.core.tables import Budget

CANARY = "Tr0ubadour-canary"
MIB = 1 << 20
BUDGET = Budget(decoded_bytes=64 * MIB)


@dataclass(frozen=True)
class Hostile:
    """One file: how to make it, and the rule that refuses it, or (`row`) that leaves rows of it out."""

    name: str
    make: Callable[[], bytes | Iterable[bytes]]
    rule: str
    row: bool = False
    declared: dict[str, str] = field(default_factory=dict)
    budget: Budget = BUDGET


CORPUS: dict[str, Hostile] = {}


def add(case: str, make: Callable[[], bytes | Iterable[bytes]], rule: str, **more: Any) -> None:
    """Put a case into the corpus; `name` is x.csv unless given."""
    assert case not in CORPUS, case
    CORPUS[case] = Hostile(more.pop("name", "x.csv"), make, rule, **more)


def given(content: bytes) -> Callable[[], bytes]:
    """A maker of bytes that are there already."""
    return lambda: content


def forever(chunk: bytes, *first: bytes) -> Iterator[bytes]:
    """Some chunks, then one without end."""
    yield from first
    while True:
        yield chunk


def whole_corpus() -> dict[str, Hostile]:
    """All cases: text, JSON, encodings, archives, Parquet, disguises."""
    from tests.core import hostile_archives, hostile_disguises, hostile_parquet, hostile_texts

    if not CORPUS:
        for part in (hostile_texts, hostile_disguises, hostile_archives, hostile_parquet):
            part.fill()
    return CORPUS


# A part of every family for the default suite: what once was a bug, and one of each rule.
EVERYDAY = (
    "csv: 10 million columns",
    "csv: a quote never closed",
    "csv: NUL in a cell",
    "csv: ragged, one short",
    "csv: blank lines without end",
    "json: a million digits",
    "json: deep lists",
    "json: NaN",
    "json: 1e999",
    "json: duplicate keys",
    "json: a lone surrogate",
    "encoding: overlong NUL",
    "encoding: utf-16-le cut in half",
    "encoding: declared rot13",
    "disguise: pickle protocol 4 as x.csv",
    "disguise: PDF as x.jsonl",
    "gzip: cut short at 90 %",
    "gzip: nested gzip",
    "zip: two files",
    "zip: encrypted",
    "zip: the list names another file",
    "zip: bytes after its end",
    "parquet: half a file",
    "parquet: bomb of one text",
    "parquet: a cell of infinity",
    "parquet: row count that lies",
    "parquet: a column of structs",
)
