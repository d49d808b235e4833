"""The Merkle commitment: RFC 6962's own vectors, proofs of every leaf, order-free, salted, and bound to its job."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from typing import Any

import pytest

from modeling.core import commitment, merkle
from modeling.core.types import Recipe, TrainingData

KEY = b"k" * 32
RECIPE = Recipe(task="classification", base="minilm-l6", labels=("yes", "no"), unit="person")


def data_of(order: list[int], *, changed: int | None = None) -> tuple[TrainingData, list[bytes]]:
    """Ten people with two rows each, read in some order; every fifth is held out."""
    rows = [(f"text {person}.{row}", person % 2) for person in order for row in (0, 1)]
    texts = [
        f"{text}!" if changed is not None and text.startswith(f"text {changed}.") else text
        for text, _ in rows
    ]
    data = TrainingData(
        units=[at // 2 for at in range(len(rows))],
        held_out=[person % 5 == 0 for person in order],
        texts=texts,
        labels=[label for _, label in rows],
    )
    return data, [hashlib.sha256(b"%d" % person).digest()[:16] for person in order]


def made(
    order: list[int], *, job: str = "ftjob-1", key: bytes = KEY, changed: int | None = None
) -> dict[str, Any]:
    data, handles = data_of(order, changed=changed)
    return commitment.commit(RECIPE, data, handles, key=key, job=job, rows=20)


def test_it_works() -> None:
    found = made(list(range(10)))
    assert found["train"]["units"] == 8
    assert found["held_out"]["units"] == 2
    assert found["rows"] == 20
    assert found["train"]["root"] != found["held_out"]["root"]


def test_the_order_of_reading_does_not_matter() -> None:
    """Another worker, another attempt: the same root."""
    expected = made(list(range(10)))
    assert made([9, 3, 5, 1, 0, 7, 2, 8, 6, 4]) == expected
    assert made(list(range(10)), job="ftjob-2") != expected
    assert made(list(range(10)), key=b"x" * 32) != expected


def test_any_row_moves_its_sides_root() -> None:
    before, after = made(list(range(10))), made(list(range(10)), changed=3)
    assert before["train"]["root"] != after["train"]["root"]
    assert before["held_out"] == after["held_out"]


def test_every_person_can_be_proven() -> None:
    data, handles = data_of(list(range(10)))
    found = made(list(range(10)))
    for number, handle in enumerate(handles):
        proof = commitment.prove(RECIPE, data, handles, key=KEY, job="ftjob-1", handle=handle)
        assert commitment.root_of_proof(proof) == found[proof["side"]]["root"]
        assert [row["text"] for row in proof["rows"]] == [f"text {number}.0", f"text {number}.1"]
        assert proof["rows"][0]["label"] == ("yes", "no")[number % 2]
    with pytest.raises(KeyError):
        commitment.prove(RECIPE, data, handles, key=KEY, job="ftjob-1", handle=b"?" * 16)


def test_a_guess_at_the_rows_says_nothing_without_the_salt() -> None:
    """The leaf of known rows is not the hash of these rows alone, and two people with equal rows differ."""
    rows = [commitment.row_bytes({"text": "flu", "label": "yes"})]
    digest = merkle.rows_digest(rows)
    first, second = (merkle.leaf(commitment.salt(KEY, "ftjob-1", bytes([n]) * 16), digest) for n in (1, 2))
    assert len({first, second, merkle.leaf(b"\0" * 32, digest), digest}) == 4


def test_every_kind_of_data_is_committed_to() -> None:
    base = TrainingData(units=[0, 1], held_out=[False, True])
    table = replace(base, cells={"age": [1.5, None]}, targets=[0.25, 3.0], groups={"sex": [0, -1]})
    chat = replace(
        base, conversations=[[{"role": "user", "content": "hi"}], [{"role": "user", "content": "ho"}]]
    )
    many = replace(base, texts=["a", "b"], label_sets=[[1, 0], []])
    items = replace(base, units=[0, 1], histories=[[1, 0], []], catalogue=[("i0", "x"), ("i1", "y")])
    expected = [
        {"cells": {"age": 1.5}, "target": 0.25, "groups": {"sex": 0}},
        {"messages": [{"role": "user", "content": "hi"}]},
        {"text": "a", "labels": ["no", "yes"]},
    ]
    for data, row in zip((table, chat, many), expected, strict=True):
        assert commitment.unit_rows(RECIPE, data)[0] == [row]
    assert commitment.unit_rows(RECIPE, items) == [[{"item": "i1"}, {"item": "i0"}], []]
    handles = [b"a" * 16, b"b" * 16]
    roots = {
        commitment.commit(RECIPE, data, handles, key=KEY, job="j", rows=2)["train"]["root"]
        for data in (table, chat, many, items)
    }
    assert len(roots) == 4
    with pytest.raises(ValueError, match="handles"):
        commitment.commit(RECIPE, table, handles[:1], key=KEY, job="j", rows=2)


def recursive(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, as it is written: split at the largest power of two below n."""
    if len(leaves) == 1:
        return leaves[0]
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    return hashlib.sha256(b"\x01" + recursive(leaves[:half]) + recursive(leaves[half:])).digest()


@pytest.mark.parametrize("size", [*range(1, 20), 31, 32, 33, 100])
def test_the_tree_is_that_of_rfc_6962_and_every_path_leads_up(size: int) -> None:
    leaves = [os.urandom(32) for _ in range(size)]
    root = merkle.root(leaves)
    assert root == recursive(leaves)
    for index, leaf in enumerate(leaves):
        siblings = merkle.path(leaves, index)
        assert merkle.root_from(leaf, index=index, size=size, siblings=siblings) == root
        for other in {(index + 1) % size, index ^ 1} - {index}:
            if other < size:
                try:
                    assert merkle.root_from(leaf, index=other, size=size, siblings=siblings) != root
                except ValueError:
                    continue
        if siblings:
            with pytest.raises(ValueError, match="short"):
                merkle.root_from(leaf, index=index, size=size, siblings=siblings[:-1])
        with pytest.raises(ValueError, match="long"):
            merkle.root_from(leaf, index=index, size=size, siblings=[*siblings, leaf])


def test_nothing_has_a_root_too() -> None:
    assert merkle.root([]) == hashlib.sha256(b"").digest()
    with pytest.raises(ValueError, match="outside"):
        merkle.root_from(b"x" * 32, index=0, size=0, siblings=[])
    with pytest.raises(IndexError):
        merkle.path([b"x" * 32], 1)
