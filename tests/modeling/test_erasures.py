"""One person erased: unreadable in every version and in a restored copy, neighbours as they were, no name kept."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection

from modeling.actions import erasures
from modeling.core import receipts as envelopes
from modeling.core.segments import SegmentBroken
from modeling.models import DatasetVersion, Erasure, UnitKey, VersionDiff
from modeling.rows import open_rows, rebuild_content
from modeling.units import handle_key, person_handle
from tenants import tombstones
from tenants.scope import scope
from tests.modeling.chained import first_version, handles_of, made, newest, rows_of
from tests.modeling.clinic import as_owner, uploaded

NAME = "zebulon canary 17"


def table(names: list[str], each: int = 3, *, seed: int = 0) -> bytes:
    """Rows of some people."""
    lines = [
        f"{name},note {seed} {n} about somebody,{'urgent' if n % 2 else 'routine'}\n"
        for name in names
        for n in range(each)
    ]
    return ("patient_id,note,triage\n" + "".join(lines)).encode()


NAMES = [f"P{n}" for n in range(12)]


def chain(api: Any, tenant: Any) -> list[DatasetVersion]:
    """Three versions of a dataset in which NAME has rows, the newest last."""
    version = first_version(api, tenant, table([*NAMES, NAME]))
    dataset = version.dataset.public_id
    made(api, tenant, dataset, "append", file=uploaded(api, tenant, table([NAME, "P3", "new"], seed=1)))
    made(api, tenant, dataset, "remove", units=["P5"])
    with scope(tenant):
        rows = (
            DatasetVersion.objects.of(tenant)
            .filter(dataset=version.dataset)
            .select_related("dataset", "segments")
        )
        return list(rows.order_by("number"))


def test_the_person_is_gone_from_every_version_and_from_a_restored_copy(acme: Any, api: Any) -> None:
    versions = chain(api, acme)
    dataset = versions[0].dataset
    handle = person_handle(handle_key(acme), NAME)
    before = [handles_of(version) for version in versions]
    texts = [b"".join(rebuild_content(version)) for version in versions]
    assert all(NAME.encode() in text for text in texts)
    kept = keys_of(acme, dataset)[handle]
    answer = api.post(f"/v1/datasets/{dataset.public_id}/erasures", {"unit": f" {NAME.upper()} "})
    assert answer.status_code == 200, answer.content
    assert answer.json()["datasets"] == [{"dataset": dataset.public_id, "rows": 6, "versions": [1, 2, 3]}]

    def check_gone() -> None:
        for version, old, text in zip(versions, before, texts, strict=True):
            assert handles_of(version) == {one: rows for one, rows in old.items() if one != handle}
            left = [line for line in text.splitlines(keepends=True) if NAME.encode() not in line]
            assert b"".join(rebuild_content(version)) == b"".join(left)

    check_gone()
    put_back = "UPDATE modeling_unitkey SET wrapped = %s WHERE dataset_id = %s AND handle = %s"
    assert as_owner(acme, put_back, kept, dataset.pk, handle) == 1
    as_owner(acme, "DELETE FROM tenants_tombstone WHERE kind = 'unit'")
    assert [handles_of(version) for version in versions] == before, (
        "the control: with the key it is all readable"
    )
    assert tombstones.replay() >= 1
    check_gone()
    borrowed = keys_of(acme, dataset)[person_handle(handle_key(acme), "P1")]
    with scope(acme):
        UnitKey.objects.of(acme).filter(dataset=dataset, handle=handle).update(wrapped=borrowed)
    with pytest.raises(SegmentBroken):  # no other person's key opens the rows
        list(open_rows(versions[0], only={handle}))


def keys_of(tenant: Any, dataset: Any) -> dict[bytes, bytes]:
    with scope(tenant):
        rows = UnitKey.objects.of(tenant).filter(dataset=dataset).values_list("handle", "wrapped")
        return {bytes(handle): bytes(wrapped) for handle, wrapped in rows}


def test_a_file_that_brings_the_person_again_finds_them_erased(acme: Any, api: Any) -> None:
    versions = chain(api, acme)
    dataset = versions[0].dataset.public_id
    api.post(f"/v1/datasets/{dataset}/erasures", {"unit": NAME})
    found = made(api, acme, dataset, "append", file=uploaded(api, acme, table([NAME, "fresh"], seed=2)))
    assert found["changes"]["people_erased"] == 1
    assert found["changes"]["people_added"] == 1
    assert not [row for row in rows_of(newest(acme, dataset)) if NAME in row]
    again = api.post(f"/v1/datasets/{dataset}/erasures", {"unit": NAME})
    assert (again.status_code, again.json()["error"]["code"]) == (409, "already_erased")
    nobody = api.post(f"/v1/datasets/{dataset}/erasures", {"unit": "somebody else"})
    assert nobody.status_code == 404


def test_whoever_was_erased_from_a_file_stays_erased_where_its_rows_go(acme: Any, api: Any) -> None:
    dataset = first_version(api, acme, table(NAMES)).dataset.public_id
    source = first_version(api, acme, table([NAME, "Q1"], seed=3))
    file = source.file.public_id if source.file else ""
    api.post(f"/v1/datasets/{source.dataset.public_id}/erasures", {"unit": NAME})
    assert made(api, acme, dataset, "append", file=file)["changes"]["people_added"] == 1
    found = made(api, acme, dataset, "append", file=uploaded(api, acme, table([NAME, "Q2"], seed=4)))
    assert (found["changes"]["people_added"], found["changes"]["people_erased"]) == (1, 1)
    assert not [row for row in rows_of(newest(acme, dataset)) if NAME in row]


def test_everywhere_reaches_other_datasets_and_no_name_is_kept(acme: Any, api: Any) -> None:
    versions = chain(api, acme)
    dataset = versions[0].dataset.public_id
    other = first_version(api, acme, table([NAME, "Q1"], seed=7))
    body = api.post(f"/v1/datasets/{dataset}/erasures", {"unit": NAME, "everywhere": True}).json()
    assert [one["dataset"] for one in body["datasets"]] == [dataset, other.dataset.public_id]
    assert not [row for row in rows_of(other) if NAME in row]
    listed = api.get(f"/v1/datasets/{other.dataset.public_id}/erasures").json()["data"]
    assert [one["id"] for one in listed] == [body["id"]]
    assert (
        api.get(f"/v1/datasets/{dataset}/erasures/{body['id']}").json()["certificate"] == body["certificate"]
    )
    assert not tables_with(acme, NAME)
    assert tables_with(acme, dataset), "the control: what is there is found"
    check_certificate(acme, api, body, versions)


def check_certificate(acme: Any, api: Any, body: dict[str, Any], versions: list[DatasetVersion]) -> None:
    """Signed by the installation's key, and no other text is."""
    dataset = versions[0].dataset.public_id
    keys = {one["keyid"]: one["pem"] for one in api.get("/v1/receipt_keys").json()["data"]}
    envelope = body["certificate"]
    pinned = envelopes.public_key(keys[envelope["signatures"][0]["keyid"]].encode())
    signed = envelopes.open_envelope(envelope, pinned=pinned, predicate_type=erasures.PREDICATE_TYPE)
    assert signed.predicate["datasets"] == body["datasets"]
    assert signed.subject(f"{dataset}/versions/3") == versions[2].content_hash
    assert signed.predicate["person"] == erasures.person_tag(acme, person_handle(handle_key(acme), NAME))
    with pytest.raises(envelopes.BrokenReceipt):
        envelopes.open_envelope(envelope, pinned=pinned)  # it is no receipt of a training run
    broken = envelope | {"payload": envelope["payload"][:-8] + "AAAAAAA="}
    with pytest.raises(envelopes.BrokenReceipt):
        envelopes.open_envelope(broken, pinned=pinned, predicate_type=erasures.PREDICATE_TYPE)


def tables_with(tenant: Any, text: str) -> list[str]:
    """The tenant's tables that hold this text somewhere."""
    found = []
    with scope(tenant), connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' "
            "WHERE c.relkind = 'r' AND has_table_privilege(c.oid, 'SELECT')"
        )
        for (table_name,) in cursor.fetchall():
            cursor.execute(f'SELECT 1 FROM "{table_name}" t WHERE t::text ILIKE %s LIMIT 1', [f"%{text}%"])
            found += [table_name] if cursor.fetchone() else []
    return found


def test_a_row_that_is_a_person_goes_by_its_line_and_its_twins_stay(acme: Any, api: Any) -> None:
    content = b"text,label\n" + b"the same words again,a\n" * 3 + b"other words stand here,b\n" * 2
    version = first_version(api, acme, content)
    dataset = version.dataset.public_id
    assert (
        api.post(f"/v1/datasets/{dataset}/erasures", {"unit": "x"}).json()["error"]["code"] == "line_required"
    )
    body = api.post(f"/v1/datasets/{dataset}/erasures", {"line": 3}).json()
    assert body["datasets"][0]["rows"] == 1
    assert len(list(open_rows(version))) == 4
    found = made(
        api,
        acme,
        dataset,
        "append",
        file=uploaded(api, acme, b"text,label\nthe same words again,a\nnew words,b\n"),
    )
    assert found["changes"]["people_erased"] == 1, "a row like an erased one is taken for it"
    assert len(rows_of(newest(acme, dataset))) == 5
    assert api.post(f"/v1/datasets/{dataset}/erasures", {"line": 999}).status_code == 404


def test_what_was_worked_out_of_the_rows_is_forgotten(acme: Any, api: Any) -> None:
    versions = chain(api, acme)
    dataset = versions[0].dataset.public_id
    query = {"from": 1, "to": 2}
    before = api.get(f"/v1/datasets/{dataset}/diff", **query).json()
    assert before["rows"]["added"] == 9
    api.post(f"/v1/datasets/{dataset}/erasures", {"unit": NAME})
    with scope(acme):
        assert not VersionDiff.objects.of(acme).exists()
        assert Erasure.objects.of(acme).count() == 1
    after = api.get(f"/v1/datasets/{dataset}/diff", **query)
    assert after.json()["rows"]["added"] == 6
    assert NAME.encode() not in after.content
