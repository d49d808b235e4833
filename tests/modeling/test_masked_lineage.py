"""Rows that are one person each, masked or joined since: uploaded once more, they are the same people."""

from __future__ import annotations

from typing import Any

import pytest

from modeling.actions.datasets import overlapping_datasets
from modeling.models import Job, PrivacyAccount
from tenants.scope import scope
from tests.modeling.chained import first_version, made, newest
from tests.modeling.test_personal_screening import content_of, kept

LINES = [f"Please call me back under +44 20 7946 {n:04d} about it,{'ab'[n % 2]}" for n in range(12)]
EVERY_ROW = "\n".join(["note,triage", *LINES, ""]).encode()
ROWS = "text,label\n" + "".join(f"words of number {n} stand here,{'ab'[n % 2]}\n" for n in range(12))


@pytest.mark.parametrize("when", ["inspected", "later"])
def test_masked_rows_uploaded_again_are_the_same_people(acme: Any, api: Any, when: str) -> None:
    file = kept(api, acme, "mask" if when == "inspected" else "report", EVERY_ROW)
    if when == "later":
        api.post("/v1/personal_data_policy", {"entities": {"phone": "mask"}})
        made(api, acme, file["dataset"], "mask")
    first = newest(acme, file["dataset"])
    text = EVERY_ROW.decode()
    for n in range(12):
        text = text.replace(f"+44 20 7946 {n:04d}", "[PHONE]", 1)
    masked = b"".join(sorted(text.encode().splitlines(keepends=True), reverse=True))
    if when == "inspected":
        assert content_of(api, file) == text
    second = first_version(api, acme, masked)
    with scope(acme):
        assert first.unit_column == second.unit_column == ""
        assert overlapping_datasets(second.dataset) == [first.dataset]


@pytest.mark.parametrize("was_trained", [True, False])
def test_rows_joined_after_a_job_of_their_own_are_added_on_both_sides(
    acme: Any, api: Any, was_trained: bool
) -> None:
    version = first_version(api, acme, ROWS.encode())
    source = first_version(api, acme, ROWS.replace("number", "letter").encode())
    with scope(acme):
        account = PrivacyAccount.objects.of(acme).create(unit_label="row", lifetime_epsilon=30, delta=1e-5)
        type(source.dataset).objects.of(acme).filter(pk=source.dataset_id).update(account=account)
        if was_trained:
            Job.objects.of(acme).create(dataset_version=source, file=source.file)
    assert source.file is not None
    made(api, acme, version.dataset.public_id, "append", file=source.file.public_id)
    with scope(acme):
        account.refresh_from_db()
        assert account.is_parallel is not was_trained
        assert newest(acme, version.dataset.public_id).dataset.account_id == account.pk


def test_who_was_erased_before_their_row_was_masked_again_stays_erased(acme: Any, api: Any) -> None:
    file = kept(api, acme, "mask", EVERY_ROW.replace(b"about it", b"about that"))
    erased = api.post(f"/v1/datasets/{file['dataset']}/erasures", {"line": 5})
    assert erased.status_code == 200, erased.content
    again = kept(api, acme, "mask", EVERY_ROW.replace(b"about it", b"about that"))
    change = made(api, acme, file["dataset"], "append", file=again["id"])
    assert change["changes"]["people_erased"] == 1
    assert change["changes"]["rows_added"] == 11
