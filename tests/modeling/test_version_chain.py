"""A chain of versions is what a plain list would be; every version stays as it was; people keep their handles."""

from __future__ import annotations

import os
import random
from collections import Counter
from typing import Any

import pytest

from modeling.models import Dataset, DatasetVersion, UnitKey
from modeling.rows import rebuild_content
from modeling.units import held_out_key, is_held_out
from tenants.scope import scope
from tests.modeling.chained import asked, first_version, handles_of, made, newest, rows_of
from tests.modeling.clinic import uploaded

Row = tuple[str, str, str]
SEEDS = int(os.environ.get("CHAIN_SEEDS", "1"))
COLUMNS = ("label", "note", "person_id")  # in the order of names, as rows_of gives them


def csv(rows: list[Row], order: tuple[int, ...] = (0, 1, 2)) -> bytes:
    """A file of these rows, its columns in this order."""
    lines = [[COLUMNS[at] for at in order], *([row[at] for at in order] for row in rows)]
    return "".join(",".join(line) + "\n" for line in lines).encode()


def some_rows(draw: random.Random, people: list[int], each: int = 3) -> list[Row]:
    found = [
        (f"l{draw.randrange(3)}", f"note {draw.randrange(40)} of p{one}", f"p{one}")
        for one in people
        for _ in range(draw.randint(1, each))
    ]
    draw.shuffle(found)
    return found


@pytest.mark.parametrize("seed", range(SEEDS))
def test_any_chain_equals_a_plain_list(acme: Any, api: Any, seed: int) -> None:
    """Rows of people: append, replace and remove at random against a list of rows; every version is read again."""
    draw = random.Random(seed)
    plain = some_rows(draw, draw.sample(range(30), 20))
    version = first_version(api, acme, csv(plain))
    assert version.unit_column == "person_id"
    dataset, history = version.dataset.public_id, [plain]
    sides: dict[bytes, bool] = {}
    for _step in range(5):
        mode = draw.choice(["append", "replace", "remove"])
        people = draw.sample(range(36), draw.randint(1, 8))
        names = {f"p{one}" for one in people}
        if mode == "remove":
            names = names & {row[2] for row in plain} or {plain[0][2]}
            body: dict[str, Any] = {"units": sorted(names)}
            plain = [row for row in plain if row[2] not in names]
        else:
            rows = some_rows(draw, people)
            order = tuple(draw.sample(range(3), 3))
            body = {"file": uploaded(api, acme, csv(rows, order))}
            plain = ([row for row in plain if row[2] not in names] if mode == "replace" else plain) + rows
        found = made(api, acme, dataset, mode, **body)
        assert found["status"] == "ready", found
        history.append(plain)
    with scope(acme):
        versions = list(DatasetVersion.objects.of(acme).filter(dataset__public_id=dataset).order_by("number"))
        key = held_out_key(acme)
    assert len(versions) == len(history)
    for one, rows in zip(versions, history, strict=True):
        assert Counter(rows_of(newest_of(acme, one))) == Counter(rows)
        assert (one.rows, one.units) == (len(rows), len({row[2] for row in rows}))
        for handle in handles_of(newest_of(acme, one)):
            assert sides.setdefault(handle, is_held_out(key, handle)) == is_held_out(key, handle)


def newest_of(tenant: Any, version: DatasetVersion) -> DatasetVersion:
    """The version with its dataset."""
    with scope(tenant):
        return DatasetVersion.objects.of(tenant).select_related("dataset").get(pk=version.pk)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_rows_that_are_people_keep_their_handles(acme: Any, api: Any, seed: int) -> None:
    """Without a unit column a key column names rows: corrected ones keep line, handle and so their side."""
    draw = random.Random(seed)
    plain = {f"r{n}": f"some words of row {draw.randrange(9)}" for n in range(25)}
    version = first_version(api, acme, keyed(plain), name="rows.csv")
    assert version.unit_column == ""
    dataset, before = version.dataset.public_id, {}
    for handle, rows in handles_of(version).items():
        before[rows[0][1][0]] = (handle, rows[0][0])
    for _step in range(4):
        mode = draw.choice(["append", "replace", "remove"])
        if mode == "remove":
            names = draw.sample(sorted(plain), 3)
            body: dict[str, Any] = {"units": names, "key": "code"}
            plain = {name: text for name, text in plain.items() if name not in names}
        elif mode == "replace":
            changed = {name: f"other words {draw.randrange(99)}" for name in draw.sample(sorted(plain), 4)}
            changed |= {f"r{draw.randrange(100, 200)}": "a new one here"}
            body = {"file": uploaded(api, acme, keyed(changed)), "key": "code"}
            plain |= changed
        else:
            more = {f"a{draw.randrange(10**6)}": "words that are added" for _ in range(3)}
            body, plain = {"file": uploaded(api, acme, keyed(more))}, plain | more
        found = made(api, acme, dataset, mode, **body)
        assert found["status"] == "ready", found
        now = newest(acme, dataset)
        assert {row[0]: row[1] for row in rows_of(now)} == plain
        for handle, rows in handles_of(now).items():
            ((line, (name, _text)),) = rows
            assert before.setdefault(name, (handle, line)) == (handle, line)


def keyed(rows: dict[str, str]) -> bytes:
    return ("code,text\n" + "".join(f"{name},{text}\n" for name, text in rows.items())).encode()


def test_the_rows_hash_knows_rows_and_not_how_they_came(acme: Any, api: Any) -> None:
    draw = random.Random(5)
    one, two = some_rows(draw, list(range(10))), some_rows(draw, list(range(10, 15)))
    apart = first_version(api, acme, csv(one))
    made(api, acme, apart.dataset.public_id, "append", file=uploaded(api, acme, csv(two, (2, 0, 1))))
    other = first_version(api, acme, csv(two))
    made(api, acme, other.dataset.public_id, "append", file=uploaded(api, acme, csv(one)))
    first, second = newest(acme, apart.dataset.public_id), newest(acme, other.dataset.public_id)
    assert first.rows_hash == first.content_hash == second.content_hash
    made(api, acme, second.dataset.public_id, "remove", units=["p3"])
    assert newest(acme, second.dataset.public_id).rows_hash != first.rows_hash


def test_the_file_s_own_dataset_goes_into_the_other(acme: Any, api: Any) -> None:
    draw = random.Random(1)
    base = first_version(api, acme, csv(some_rows(draw, list(range(8)))))
    file = uploaded(api, acme, csv(some_rows(draw, list(range(6, 12)))))
    source = api.get(f"/v1/files/{file}").json()["dataset"]
    found = made(api, acme, base.dataset.public_id, "append", file=file)
    assert found["changes"]["people_added"] == 4
    assert found["changes"]["people_changed"] == 2
    assert api.get(f"/v1/datasets/{source}").status_code == 404
    assert api.get(f"/v1/files/{file}").json()["dataset"] == base.dataset.public_id
    assert api.get(f"/v1/files/{file}/content").status_code == 410
    assert len(api.get("/v1/datasets").json()["data"]) == 1
    with scope(acme):
        gone = Dataset.objects.of(acme).get(public_id=source)
        assert gone.merged_into_id == base.dataset_id
        assert not UnitKey.objects.of(acme).filter(dataset=gone).exists()
    assert api.delete(f"/v1/files/{file}").json()["error"]["code"] == "file_in_versions"
    assert api.delete(f"/v1/datasets/{base.dataset.public_id}").json()["deleted"]
    assert api.get(f"/v1/files/{file}").status_code == 404
    with scope(acme):
        assert not DatasetVersion.objects.of(acme).exclude(segments=None).exists()


def test_what_does_not_fit_is_refused_with_its_reason(acme: Any, api: Any) -> None:
    rows = some_rows(random.Random(2), list(range(6)))
    dataset = first_version(api, acme, csv(rows)).dataset.public_id
    other = uploaded(api, acme, b"person_id,note,amount\np1,some words here,3\np1,more words now,4\n")
    refused = asked(api, dataset, "append", file=other).json()["error"]
    assert refused["code"] == "columns_differ"
    assert "label" in refused["message"]
    assert "amount" in refused["message"]
    assert asked(api, dataset, "remove").json()["error"]["code"] == "units_required"
    assert asked(api, dataset, "append").json()["error"]["code"] == "file_required"
    assert asked(api, dataset, "append", file="file-none").status_code == 404
    everybody = sorted({row[2] for row in rows})
    assert made(api, acme, dataset, "remove", units=everybody)["error"]["code"] == "empty_version"
    assert made(api, acme, dataset, "remove", units=["stranger"])["error"]["code"] == "nothing_changed"
    same = uploaded(api, acme, csv(rows))
    assert made(api, acme, dataset, "replace", file=same)["error"]["code"] == "nothing_changed"
    assert newest(acme, dataset).number == 1
    assert b"".join(rebuild_content(newest(acme, dataset))) == csv(rows)


def test_one_at_a_time(acme: Any, api: Any) -> None:
    rows = some_rows(random.Random(3), list(range(6)))
    dataset = first_version(api, acme, csv(rows)).dataset.public_id
    assert asked(api, dataset, "remove", units=["p1"]).json()["status"] == "queued"
    second = asked(api, dataset, "remove", units=["p2"])
    assert (second.status_code, second.json()["error"]["code"]) == (409, "version_in_progress")
    assert api.delete(f"/v1/datasets/{dataset}").status_code == 409


def test_a_line_without_an_end_and_a_key_that_names_two_rows(acme: Any, api: Any) -> None:
    dataset = first_version(
        api, acme, keyed({"a": "words of one", "b": "words of two"})[:-1]
    ).dataset.public_id
    made(api, acme, dataset, "append", file=uploaded(api, acme, keyed({"c": "words of three"})[:-1]))
    whole = b"".join(rebuild_content(newest(acme, dataset)))
    assert whole == keyed({"a": "words of one", "b": "words of two", "c": "words of three"})
    twice = uploaded(api, acme, keyed({"a": "new words of one"}) + b"a,newer words of one\n")
    refused = made(api, acme, dataset, "replace", file=twice, key="code")["error"]
    assert refused["code"] == "key_not_unique"
    assert "2 and 3" in refused["message"]


def test_a_catalogue_is_corrected_by_its_ids(acme: Any, api: Any) -> None:
    def items(rows: dict[str, str]) -> bytes:
        return ("item_id,title\n" + "".join(f"{item},{title}\n" for item, title in rows.items())).encode()

    plain = {f"i{n}": f"title of thing {n}" for n in range(30)}
    version = first_version(api, acme, items(plain), name="items.csv", purpose="user_data")
    dataset = version.dataset.public_id
    file = uploaded(api, acme, items({"i3": "another title", "i99": "a new thing"}), purpose="user_data")
    found = made(api, acme, dataset, "replace", file=file)
    assert found["changes"] == {
        "rows_added": 1, "rows_removed": 0, "rows_changed": 1,
        "people_added": 0, "people_removed": 0, "people_changed": 0, "people_erased": 0,
    }  # fmt: skip
    assert {row[0]: row[1] for row in rows_of(newest(acme, dataset))} == plain | {
        "i3": "another title",
        "i99": "a new thing",
    }
    made(api, acme, dataset, "remove", units=["i4", "i5"])
    assert len(rows_of(newest(acme, dataset))) == 29
