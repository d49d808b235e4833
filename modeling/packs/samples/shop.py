"""Fern & Co's demo files: a synthetic catalogue of 2,000 items and the interactions of 50,000 synthetic people.

A person's taste is a direction in a space where 70 % of an item's place comes from the words of its text and 30 % from
something no text tells. All arithmetic that decides an outcome is on integers (or exact in float32), so every machine
makes the same bytes.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
from datetime import date, timedelta
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from modeling.packs.base import Sample
from modeling.packs.samples.shop_words import COLOURS, KINDS, MATERIALS, PURPOSES, STYLES

ITEMS = 2_000
PEOPLE = 50_000
TEXT_SHARE = 0.7  # share of the variance of an item's place that its text explains
DIMENSIONS = 20
TASTE = 10.0  # how strongly taste decides, in nats at full agreement
POPULARITY = 0.65  # exponent of the flattened Zipf law
UNIT = 256  # fixed-point steps of one nat, and of one unit of length
_ATTRIBUTE_WEIGHTS = (8, 7, 3, 2, 4, 3)  # department, kind, material, colour, style, purpose
_BLOCK = 2_500
SEED = 30_260_100  # of the demo files; another gives another world of the same law, for benches

Integers = npt.NDArray[np.int64]


class _Stream:
    """Raw 64-bit words of PCG64 (a stream numpy promises to keep), turned into integers by tables."""

    def __init__(self, seed: int) -> None:
        self._source = np.random.PCG64(seed)

    def words(self, count: int) -> npt.NDArray[np.uint16]:
        raw = self._source.random_raw(-(-count // 4))
        words: npt.NDArray[np.uint16] = np.asarray(raw, dtype="<u8").view("<u2")[:count].astype(np.uint16)
        return words

    def normal(self, rows: int, columns: int) -> Integers:
        """Gaussian integers of standard deviation 1024."""
        drawn: Integers = _NORMAL[self.words(rows * columns) >> 4].reshape(rows, columns)
        return drawn

    def below(self, limit: int, count: int) -> Integers:
        return (self.words(count).astype(np.int64) * limit) >> 16


_NORMAL: Integers = np.array(
    [round(1024 * NormalDist().inv_cdf((i + 0.5) / 4096)) for i in range(4096)], dtype=np.int64
)
_GUMBEL: npt.NDArray[np.int32] = np.array(
    [round(UNIT * -math.log(-math.log((i + 0.5) / 65536))) for i in range(65536)], dtype=np.int32
)


def _scaled(vectors: Integers, length: float) -> Integers:
    """Rows brought to the given length and rounded; sums are of integers, so exact in any order."""
    norms = np.sqrt((vectors * vectors).sum(axis=1).astype(np.float64))
    scaled: Integers = np.rint(vectors * (length / norms)[:, None]).astype(np.int64)
    return scaled


def _attributes(seed: int) -> list[tuple[int, int, int, int, int, int]]:
    """(department, kind, material, colour, style, purpose) of each item: ten variants of 200 kinds, all different."""
    stream = _Stream(seed + 1)
    kinds_per_department = len(next(iter(KINDS.values())))
    found: dict[tuple[int, int, int, int, int, int], None] = {}
    for kind in range(len(KINDS) * kinds_per_department):
        wanted = len(found) + ITEMS // (len(KINDS) * kinds_per_department)
        while len(found) < wanted:
            drawn = [int(stream.below(len(words), 1)[0]) for words in (MATERIALS, COLOURS, STYLES, PURPOSES)]
            found[(kind // kinds_per_department, kind, drawn[0], drawn[1], drawn[2], drawn[3])] = None
    return sorted(found, key=lambda item: hashlib.sha256(repr(item).encode()).digest())


def _item_id(index: int) -> str:
    return f"F{index + 1:04d}"


def shop_items(seed: int = SEED) -> list[tuple[str, str, str]]:
    """(item_id, title, text) of the catalogue."""
    departments = list(KINDS)
    kinds = [kind for group in KINDS.values() for kind in group]
    items = []
    for index, (department, kind, material, colour, style, purpose) in enumerate(_attributes(seed)):
        title = f"{MATERIALS[material].capitalize()} {kinds[kind]}, {COLOURS[colour]}"
        text = f"{title}. {departments[department]}; {STYLES[style]}, {PURPOSES[purpose]}."
        items.append((_item_id(index), title, text))
    return items


def _item_vectors(seed: int, text_share: float) -> Integers:
    """[ITEMS, DIMENSIONS] of length UNIT: `text_share` of the squared length from attribute words, the rest free."""
    stream = _Stream(seed + 2)
    attributes = np.array(_attributes(seed), dtype=np.int64)
    told = np.zeros((ITEMS, DIMENSIONS), dtype=np.int64)
    for column, weight in enumerate(_ATTRIBUTE_WEIGHTS):
        table = stream.normal(int(attributes[:, column].max()) + 1, DIMENSIONS)
        told += weight * table[attributes[:, column]]
    told = _scaled(told, 4096 * math.sqrt(text_share))
    free = _scaled(stream.normal(ITEMS, DIMENSIONS), 4096 * math.sqrt(1 - text_share))
    return _scaled(told + free, UNIT)


def _popularity(seed: int) -> Integers:
    """log popularity of each item in fixed point: a flattened Zipf over a seeded order."""
    ranks = np.argsort(_Stream(seed + 3).words(ITEMS), kind="stable")
    table = np.array(
        [round(-POPULARITY * UNIT * math.log(rank + 12)) for rank in range(ITEMS)], dtype=np.int64
    )
    popularity = np.empty(ITEMS, dtype=np.int64)
    popularity[ranks] = table
    return popularity


def shop_choices(seed: int = SEED, text_share: float = TEXT_SHARE) -> list[Integers]:
    """For each person the distinct items chosen, most wanted first: Gumbel top-k of taste plus popularity."""
    stream = _Stream(seed + 4)
    items = _item_vectors(seed, text_share).astype(np.float32)
    popularity = _popularity(seed).astype(np.int32)
    columns = np.arange(ITEMS, dtype=np.int32)
    choices: list[Integers] = []
    for _start in range(0, PEOPLE, _BLOCK):
        people = _scaled(stream.normal(_BLOCK, DIMENSIONS), UNIT * TASTE).astype(np.float32)
        sizes = 5 + (stream.below(1 << 8, _BLOCK) * stream.below(1 << 8, _BLOCK) * 20 >> 16)
        agreement = (people @ items.T).astype(np.int32) >> 8  # integers below 2^24: exact in float32
        scores = agreement + popularity + _GUMBEL[stream.words(_BLOCK * ITEMS)].reshape(_BLOCK, ITEMS)
        scores = scores * 2048 + columns  # no two equal, so the choice below is unique
        best = np.argpartition(scores, ITEMS - 24, axis=1)[:, ITEMS - 24 :]
        ranked = np.take_along_axis(
            best, np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1), axis=1
        )
        choices.extend(row[:size] for row, size in zip(ranked, sizes, strict=True))
    return choices


def shop_catalogue_csv() -> bytes:
    """The catalogue as UTF-8 CSV with the columns item_id, title, department, colour, text."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(("item_id", "title", "department", "colour", "text"))
    departments = list(KINDS)
    for (item, title, text), attributes in zip(shop_items(), _attributes(SEED), strict=True):
        writer.writerow((item, title, departments[attributes[0]], COLOURS[attributes[3]], text))
    return sink.getvalue().encode()


def shop_interactions_csv() -> bytes:
    """The interactions as UTF-8 CSV with the columns user_id, item_id, bought_on, in the order of the days."""
    choices = shop_choices()
    sizes = np.array([len(row) for row in choices])
    people = np.repeat(np.arange(PEOPLE), sizes)
    items = np.concatenate(choices)
    days = _Stream(SEED + 5).below(365, len(items))
    order = np.lexsort((items, people, days))
    names = [_item_id(index) for index in range(ITEMS)]
    dates = [(date(2026, 1, 1) + timedelta(days=day)).isoformat() for day in range(365)]
    rows = zip(people[order].tolist(), items[order].tolist(), days[order].tolist(), strict=True)
    lines = [f"U{person + 1:05d},{names[item]},{dates[day]}" for person, item, day in rows]
    return ("user_id,item_id,bought_on\n" + "\n".join(lines) + "\n").encode()


SHOP_CATALOGUE = Sample(
    slug="shop-catalogue",
    title="Catalogue of 2,000 items (synthetic)",
    filename="fern-co-catalogue-synthetic.csv",
    purpose="user_data",
    format="csv",
    task="",
    columns={"catalogue_id": "item_id", "catalogue_text": "text"},
    unit="",
    rows=ITEMS,
    sha256="4a5dfd089981c9ed36e519a55acb5812c8e858339529550eb448b611ee4e93e6",
    is_synthetic=True,
    licence="Synthetic, made by Cloister's seeded generator: free to use.",
    about="Synthetic: no such shop, and nothing in it is for sale.",
    build=shop_catalogue_csv,
)
SHOP_INTERACTIONS = Sample(
    slug="shop-interactions",
    title="Purchases of 50,000 people (synthetic)",
    filename="fern-co-interactions-synthetic.csv",
    purpose="fine-tune",
    format="csv",
    task="recommendation",
    columns={"user": "user_id", "item": "item_id", "unit": "user_id"},
    unit="user_id",
    rows=474_594,
    sha256="e03fc35a9c6d0e07ee2dc7e22b84f755e8f273670cc78f27742d489be02c409b",
    is_synthetic=True,
    licence="Synthetic, made by Cloister's seeded generator: free to use.",
    about="Synthetic: 70 % of taste follows the words of an item's text, 30 % does not. No purchase in it happened.",
    build=shop_interactions_csv,
    catalogue="shop-catalogue",
)
