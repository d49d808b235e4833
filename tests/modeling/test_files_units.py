"""Units of privacy: one person, one handle; cuts change until they are fixed; and one person can go."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest

from modeling.actions import datasets
from modeling.actions.datasets import (
    is_held_out,
    overlapping_datasets,
    read_handles,
    read_rows,
    resegment,
    shred_unit,
)
from modeling.models import Dataset, DatasetVersion, UnitKey
from modeling.units import handle_key, person_handle
from saas.lib.errors import Refusal
from tenants import vault
from tenants.scope import scope
from tests.modeling.test_files_api import inspect

HEADER = "patient_id,note,triage\n"


def table(people: range, rows_each: int = 3, seed: int = 0) -> bytes:
    """Rows of some people, shuffled."""
    lines = [
        f"P{person},note {n} of person {person} says it hurts,{'urgent' if n else 'routine'}\n"
        for person in people
        for n in range(rows_each)
    ]
    random.Random(seed).shuffle(lines)
    return (HEADER + "".join(lines)).encode()


def add(
    tenant: Any, api: Any, content: bytes, name: str = "notes.csv", purpose: str = "fine-tune"
) -> DatasetVersion:
    """Upload and inspect; returns the version."""
    file = api.upload(name, content, purpose).json()
    inspect(tenant, file["id"])
    with scope(tenant):
        versions = DatasetVersion.objects.of(tenant).filter(file__public_id=file["id"])
        return versions.select_related("dataset").order_by("-number")[0]


def test_it_works(acme: Any, api: Any) -> None:
    version = add(acme, api, table(range(50)))
    assert (version.rows, version.units, version.unit_column) == (150, 50, "patient_id")
    rows = list(read_rows(version, columns=["patient_id", "triage"]))
    order = [row.handle for row in rows]
    assert len({*order}) == 50
    assert sum(first != second for first, second in pairwise(order)) == 49
    key = handle_key(acme)
    assert all(row.handle == person_handle(key, row.values["patient_id"]) for row in rows)
    assert set(rows[0].values) == {"patient_id", "triage"}
    assert list(dict.fromkeys(order)) == list(read_handles(version))
    assert version.labels == ["routine", "urgent"]


def test_json_values_keep_lists_and_become_texts(acme: Any, api: Any) -> None:
    talk = '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]'
    talk += ', "n": 1, "x": null}\n'
    version = add(acme, api, talk.encode() * 2, "talk.jsonl")
    first, second = read_rows(version)
    assert first.values["messages"][1] == {"role": "assistant", "content": "a"}
    assert (first.values["n"], first.values["x"]) == ("1", "")
    assert first.handle != second.handle  # equal rows are two people


def test_the_same_file_twice_gives_the_same_handles(acme: Any, api: Any) -> None:
    content = (
        b"text,label\n"
        + b"".join(b"some words here now %d,l%d\n" % (n // 2, n % 2) for n in range(60))
        + b"dup,l1\n" * 3
    )
    first, second = add(acme, api, content), add(acme, api, content)
    assert first.units == 63
    assert list(read_handles(first)) == list(read_handles(second))
    assert first.content_hash == second.content_hash
    with scope(acme):
        assert [one.pk for one in overlapping_datasets(first.dataset)] == [second.dataset_id]


def test_files_that_share_people_overlap_in_whatever_cut(acme: Any, api: Any) -> None:
    base = add(acme, api, table(range(40)))
    shared = add(acme, api, table(range(39, 60), seed=1))
    apart = add(acme, api, table(range(100, 140)))
    renamed = add(
        acme, api, table(range(40)).replace(b"patient_id", b"cell")
    )  # the same rows, each one person
    assert renamed.unit_column == ""
    with scope(acme):
        found = {one.pk for one in overlapping_datasets(base.dataset)}
        assert found == {shared.dataset_id, renamed.dataset_id}
        assert overlapping_datasets(apart.dataset) == []


def test_tenants_never_share_handles(acme: Any, globex: Any, api: Any, globex_api: Any) -> None:
    ours, theirs = add(acme, api, table(range(10))), add(globex, globex_api, table(range(10)))
    assert not set(read_handles(ours)) & set(read_handles(theirs))
    assert ours.content_hash != theirs.content_hash


def test_a_dataset_can_be_cut_again_until_its_unit_is_fixed(acme: Any, api: Any) -> None:
    content = table(range(30))
    version = add(acme, api, content)
    with scope(acme):
        by_row = resegment(version, "")
    assert (by_row.number, by_row.units, by_row.unit_column, by_row.dataset.unit_column) == (2, 90, "", "")
    assert b"".join(datasets.rebuild_content(by_row)) == content
    with scope(acme):
        assert UnitKey.objects.of(acme).filter(dataset=by_row.dataset).count() == 90
        former = DatasetVersion.objects.of(acme).get(pk=version.pk)
        assert former.segments_id is None
        with pytest.raises(Refusal):
            next(read_rows(former))
        back = resegment(by_row, "patient_id")
        assert back.units == 30
        assert resegment(back, "patient_id").pk == back.pk
        Dataset.objects.of(acme).filter(pk=back.dataset_id).update(unit_fixed=True)
        with pytest.raises(Refusal) as caught:
            resegment(back, "")
    assert caught.value.code == "unit_fixed"
    assert b"".join(datasets.rebuild_content(back)) == content


def test_an_unknown_unit_column_is_refused(acme: Any, api: Any) -> None:
    version = add(acme, api, table(range(5)))
    with scope(acme), pytest.raises(Refusal) as caught:
        resegment(version, "nobody")
    assert caught.value.code == "column_not_found"


def test_one_person_can_be_shredded(acme: Any, api: Any) -> None:
    version = add(acme, api, table(range(20)))
    gone = person_handle(handle_key(acme), " p7 ")
    before = [(row.handle, row.number) for row in read_rows(version)]
    with scope(acme):
        assert shred_unit(version.dataset, gone)
        assert not shred_unit(version.dataset, gone)
    after = [(row.handle, row.number) for row in read_rows(version)]
    assert after == [row for row in before if row[0] != gone]
    assert len(after) == 57
    content = b"".join(datasets.rebuild_content(version))
    assert b"P7," not in content
    assert b"P8," in content


def test_a_shredded_person_stays_shredded_in_the_next_cut(acme: Any, api: Any) -> None:
    version = add(acme, api, table(range(20)))
    with scope(acme):
        shred_unit(version.dataset, person_handle(handle_key(acme), "P7"))
        by_row = resegment(version, "")
    assert by_row.rows == 57
    assert not [row for row in read_rows(by_row) if row.values["patient_id"] == "P7"]


def test_a_shredded_dataset_opens_no_more(acme: Any, api: Any) -> None:
    version = add(acme, api, table(range(5)))
    with scope(acme):
        from modeling.models import DatasetKey

        DatasetKey.objects.of(acme).filter(dataset=version.dataset).delete()
    with pytest.raises(vault.KeyDestroyed):
        next(read_rows(version))


def test_rows_without_a_name_are_one_unit(acme: Any, api: Any) -> None:
    version = add(acme, api, table(range(10)) + b",nobody wrote this note here,urgent\n" * 4)
    assert (version.rows, version.units) == (34, 11)
    assert version.schema["rows_without_unit"] == 4


def test_a_catalogue_has_no_people(acme: Any, api: Any) -> None:
    content = b"item_id,title\n" + b"".join(b"I%d,thing number %d\n" % (n, n) for n in range(500))
    version = add(acme, api, content, "items.csv", "user_data")
    assert version.dataset.is_catalogue
    assert (version.rows, version.units) == (500, 0)
    assert version.dataset.columns == {"catalogue_id": "item_id", "catalogue_text": "title"}
    assert [row.values["item_id"] for row in read_rows(version)][:3] == ["I0", "I1", "I2"]
    assert b"".join(datasets.rebuild_content(version)) == content
    with scope(acme):
        assert overlapping_datasets(version.dataset) == []


def test_the_held_out_fifth_is_fixed_by_the_person(acme: Any, api: Any, globex: Any) -> None:
    key = datasets.held_out_key(acme)
    naming = handle_key(acme)
    handles = [person_handle(naming, f"P{n}") for n in range(4_000)]
    drawn = [is_held_out(key, handle) for handle in handles]
    assert abs(sum(drawn) / len(drawn) - 0.2) < 0.025
    assert drawn == [is_held_out(key, handle) for handle in handles]
    other = datasets.held_out_key(globex)
    assert drawn != [is_held_out(other, handle) for handle in handles]


def test_deleting_a_file_keeps_its_lineage_once_something_was_spent(acme: Any, api: Any) -> None:
    from modeling.models import PrivacyAccount

    content = table(range(20))
    version = add(acme, api, content)
    with scope(acme):
        account = PrivacyAccount.objects.of(acme).create(
            unit_label="patient_id", lifetime_epsilon=24, delta=1e-5
        )
        Dataset.objects.of(acme).filter(pk=version.dataset_id).update(account=account)
        public_id = version.file.public_id if version.file else ""
    assert api.delete(f"/v1/files/{public_id}").status_code == 200
    again = add(acme, api, content)
    with scope(acme):
        assert [one.pk for one in overlapping_datasets(again.dataset)] == [version.dataset_id]
        assert (
            not UnitKey.objects.of(acme).filter(dataset_id=version.dataset_id).exclude(wrapped=b"").exists()
        )


def test_large_files_spill_sealed_and_come_back_whole(
    acme: Any, api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modeling import grouping

    monkeypatch.setattr(grouping.Spool.__init__, "__defaults__", (20_000, grouping.PARTITIONS))
    content = table(range(400))
    version = add(acme, api, content)
    assert (version.rows, version.units) == (1_200, 400)
    assert b"".join(datasets.rebuild_content(version)) == content
