"""What differs between two versions, against a plain comparison; values for members only, cut and escaped."""

from __future__ import annotations

import os
import random
from collections import Counter
from typing import Any

import pytest

from modeling.actions import version_diffs
from modeling.core.row_changes import RowsHash, pair
from modeling.models import VersionDiff
from modeling.tasks.versions import compare_versions
from tenants.scope import scope
from tests.modeling.chained import first_version, made
from tests.modeling.clinic import uploaded


def table(rows: list[tuple[str, str, str]]) -> bytes:
    return ("person_id,note,label\n" + "".join(",".join(row) + "\n" for row in rows)).encode()


def plain_diff(old: list[Any], new: list[Any]) -> tuple[Counter[str], Counter[str]]:
    """Rows and people that differ, worked out over sets."""
    rows, people = Counter[str](), Counter[str]()
    for name in {row[0] for row in old + new}:
        before, after = Counter(r for r in old if r[0] == name), Counter(r for r in new if r[0] == name)
        gone, come = (before - after).total(), (after - before).total()
        rows["changed"] += min(gone, come)
        rows["added"] += max(0, come - gone)
        rows["removed"] += max(0, gone - come)
        if gone or come:
            people["changed" if before and after else "added" if after else "removed"] += 1
    return rows, people


@pytest.mark.parametrize("seed", range(int(os.environ.get("CHAIN_SEEDS", "1"))))
def test_a_diff_is_what_a_plain_comparison_finds(acme: Any, api: Any, seed: int) -> None:
    draw = random.Random(seed)

    def rows_of(people: list[int]) -> list[tuple[str, str, str]]:
        return [
            (f"p{one}", f"note {draw.randrange(5)} here", f"l{draw.randrange(3)}")
            for one in people
            for _ in range(3)
        ]

    old, new = rows_of(list(range(12))), rows_of(draw.sample(range(16), 8))
    dataset = first_version(api, acme, table(old)).dataset.public_id
    made(api, acme, dataset, "replace", file=uploaded(api, acme, table(new)))
    made(api, acme, dataset, "remove", units=["p1", "p2"])
    names = {row[0] for row in new}
    after = [row for row in old if row[0] not in names] + new
    after = [row for row in after if row[0] not in ("p1", "p2")]
    found = api.get(f"/v1/datasets/{dataset}/diff", **{"from": 1, "to": 3, "limit": 100}).json()
    rows, people = plain_diff(old, after)
    assert found["rows"] == {kind: rows[kind] for kind in ("added", "removed", "changed")}
    assert found["people"] == {kind: people[kind] for kind in ("added", "removed", "changed")}
    labels = {row["label"]: (row["before"], row["after"]) for row in found["classes"]}
    assert labels == {
        name: (sum(r[2] == name for r in old), sum(r[2] == name for r in after)) for name in labels
    }
    assert len(found["data"]) == found["listed"] == rows.total()
    for row in found["data"]:
        if row["kind"] == "changed":
            assert row["before"] != row["after"]
            assert tuple(row["before"].values()) in old
        if row["after"] is not None:
            assert tuple(row["after"].values()) in after
    back = api.get(f"/v1/datasets/{dataset}/diff", **{"from": 3, "to": 1}).json()
    assert back["rows"]["added"] == rows["removed"]
    assert back["rows"]["changed"] == rows["changed"]


def test_pages_kinds_and_what_is_refused(acme: Any, api: Any) -> None:
    old = [(f"p{n}", f"note {n} stands here", "a" if n % 2 else "b") for n in range(60) for _ in range(2)]
    dataset = first_version(api, acme, table(old)).dataset.public_id
    more = [(f"q{n}", f"note {n} stands here", "a") for n in range(30)]
    made(api, acme, dataset, "append", file=uploaded(api, acme, table(more)))
    path, sides = f"/v1/datasets/{dataset}/diff", {"from": 1, "to": 2}
    first = api.get(path, **sides, limit=20).json()
    rest = api.get(path, **sides, limit=20, offset=20).json()
    assert (len(first["data"]), first["has_more"], len(rest["data"]), rest["has_more"]) == (
        20,
        True,
        10,
        False,
    )
    lines = [row["second_line"] for row in first["data"] + rest["data"]]
    assert lines == sorted(set(lines))
    assert api.get(path, **sides, kind="removed").json()["data"] == []
    assert api.get(path, **sides, kind="moved").status_code == 400
    assert api.get(path, **{"from": 1, "to": 9}).status_code == 404
    assert api.get(path, **{"from": "one", "to": 2}).status_code == 400


def test_large_versions_are_compared_in_the_background(
    acme: Any, api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modeling import grouping

    monkeypatch.setattr(version_diffs, "AT_ONCE_ROWS", 10)
    monkeypatch.setattr(grouping.Spool.__init__, "__defaults__", (2_000, grouping.PARTITIONS))
    old = [(f"p{n}", "some words, quoted".replace(",", ""), "a") for n in range(50)]
    dataset = first_version(api, acme, table(old * 2)).dataset.public_id
    made(api, acme, dataset, "remove", units=["p1"])
    query = {"from": 1, "to": 2}
    assert api.get(f"/v1/datasets/{dataset}/diff", **query).json()["status"] == "in_progress"
    with scope(acme):
        (diff,) = VersionDiff.objects.of(acme)
    compare_versions(tenant_id=str(acme.pk), diff_id=str(diff.pk))
    found = api.get(f"/v1/datasets/{dataset}/diff", **query).json()
    assert (found["status"], found["rows"]["removed"], found["people"]["removed"]) == ("ready", 2, 1)


def test_pairing_and_hashing_by_themselves() -> None:
    found = pair([b"a", b"b", b"b", b"c"], [b"b", b"x", b"a"])
    assert found.same == [(1, 0), (0, 2)]
    assert found.changed == [(2, 1)]
    assert (found.removed, found.added) == ([3], [])
    rows = [["1", "x"], ["2", "y"], ["2", "y"]]

    def hashed(rows: list[list[str]], columns: list[str], key: bytes = b"k" * 32) -> str:
        made_hash = RowsHash(key, columns)
        for row in rows:
            made_hash.add(row)
        return made_hash.hexdigest()

    whole = hashed(rows, ["a", "b"])
    assert whole == hashed(rows[::-1], ["a", "b"])
    assert whole == hashed([row[::-1] for row in rows], ["b", "a"])
    assert whole != hashed(rows[:2], ["a", "b"])
    assert whole != hashed(rows, ["a", "c"])
    assert whole != hashed(rows, ["a", "b"], b"l" * 32)
