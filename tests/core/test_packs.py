"""Packs and their demo data: repeatable to the byte, free to redistribute, labelled, and read as meant."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter

import pytest

from modeling.core.columns import guess_roles, measure
from modeling.core.tables import Findings, Reading, open_table
from modeling.packs import PACKS
from modeling.packs.base import ROLES, Sample

SAMPLES = [sample for pack in PACKS.values() for sample in pack.samples]
_built: dict[str, bytes] = {}


def built(sample: Sample) -> bytes:
    """A sample's bytes, made once for all tests."""
    if sample.slug not in _built:
        _built[sample.slug] = sample.build()
    return _built[sample.slug]


def test_it_works() -> None:
    assert list(PACKS) == ["general", "medical", "finance", "retail"]
    ceilings = {slug: (pack.epsilon_ceiling, pack.lifetime_epsilon) for slug, pack in PACKS.items()}
    assert ceilings == {"general": (10, 30), "medical": (8, 24), "finance": (8, 24), "retail": (10, 30)}
    assert {pack.wording["person"] for pack in PACKS.values()} == {"person", "patient", "customer", "shopper"}


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.slug)
def test_a_sample_has_its_published_digest_and_rows(sample: Sample) -> None:
    content = built(sample)
    assert hashlib.sha256(content).hexdigest() == sample.sha256
    findings = Findings()
    table = open_table([content], Reading(sample.filename), findings)
    rows = list(table)
    assert len(rows) == sample.rows
    assert not findings.by_rule
    assert table.layout.format == sample.format


@pytest.mark.parametrize("pack", PACKS.values(), ids=lambda pack: pack.slug)
def test_the_pack_guesses_its_own_samples(pack: object) -> None:
    for sample in pack.samples:  # type: ignore[attr-defined]
        table = open_table([built(sample)], Reading(sample.filename), Findings())
        rows = [row.values for row, _ in zip(table, range(5_000), strict=False)]
        hints = {role: pack.hints(role) for role in ROLES}  # type: ignore[attr-defined]
        guesses = guess_roles(
            measure(table.layout.columns, rows), hints, is_catalogue=sample.purpose == "user_data"
        )
        assert guesses.task == sample.task
        assert {role: guess.column for role, guess in guesses.roles.items()} == dict(sample.columns)
        assert guesses.column("unit") == sample.unit


def test_synthetic_data_says_so() -> None:
    for sample in SAMPLES:
        assert sample.licence
        if sample.is_synthetic:
            assert "synthetic" in sample.filename
            assert "synthetic" in sample.title
            assert sample.about.startswith("Synthetic")
    assert [sample.slug for sample in SAMPLES if not sample.is_synthetic] == ["clinic-icd10"]


def test_the_clinic_has_21_chapters_of_unique_descriptions() -> None:
    clinic = PACKS["medical"].samples[0]
    rows = list(csv.reader(io.StringIO(built(clinic).decode())))[1:]
    chapters = Counter(chapter for _, chapter in rows)
    assert len(rows) == len({text for text, _ in rows}) == 21_607
    assert len(chapters) == 21
    assert max(chapters.values()) == 1_500
    assert min(chapters.values()) == 323


def test_the_bank_has_topics_returning_customers_and_conversations() -> None:
    messages, conversations, _loans = PACKS["finance"].samples
    rows = list(csv.reader(io.StringIO(built(messages).decode())))[1:]
    per_customer = Counter(customer for customer, _, _ in rows)
    assert len({topic for _, _, topic in rows}) == 10
    assert len(rows) == len({text for _, text, _ in rows}) == 8_000
    assert 2_000 < len(per_customer) < 3_200
    assert sum(count > 1 for count in per_customer.values()) > 1_500
    talks = [json.loads(line)["messages"] for line in built(conversations).splitlines()]
    assert len(talks) == 5_000
    assert all(talk[0]["role"] == "system" and talk[-1]["role"] == "assistant" for talk in talks)
    assert {len(talk) for talk in talks} == {3, 5}


def test_the_shop_has_50000_people_whose_taste_follows_text() -> None:
    interactions, catalogue = PACKS["retail"].samples
    items = list(csv.DictReader(io.StringIO(built(catalogue).decode())))
    assert (
        len(items)
        == len({item["item_id"] for item in items})
        == len({item["text"] for item in items})
        == 2_000
    )
    assert interactions.catalogue == catalogue.slug
    people: dict[str, set[str]] = {}
    for row in csv.DictReader(io.StringIO(built(interactions).decode())):
        people.setdefault(row["user_id"], set()).add(row["item_id"])
    assert len(people) == 50_000
    assert min(map(len, people.values())) >= 5
    department = {item["item_id"]: item["text"].split(". ")[1].split(";")[0] for item in items}
    share = [
        Counter(department[item] for item in chosen).most_common(1)[0][1] / len(chosen)
        for chosen in list(people.values())[:5_000]
    ]
    assert sum(share) / len(share) > 0.38  # ten departments: by chance a person's favourite would hold .29
