"""Pages of versions: the chain and its picture, the form, the difference escaped and private, erasing asked twice."""

from __future__ import annotations

from typing import Any

import pytest

from modeling.actions import holds, version_making
from modeling.models import Endpoint, Erasure, VersionChange
from tenants.audit import SYSTEM
from tenants.scope import scope
from tests.modeling.chained import first_version, made, newest
from tests.modeling.clinic import started, train, uploaded, words_csv

ROWS = [f"p{n},note {n} stands here,{'yes' if n % 2 else 'no'}\n" for n in range(30) for _ in range(2)]
HEAD = "person_id,note,label\n"
NASTY = "<script>alert(1)</script> " + "long " * 100


@pytest.fixture
def pages(acme: Any, api: Any) -> Any:
    """(address of the dataset's page, dataset id) of a dataset with two versions."""
    dataset = first_version(api, acme, (HEAD + "".join(ROWS)).encode(), name="notes.csv").dataset.public_id
    more = uploaded(api, acme, f"{HEAD}q1,{NASTY},yes\n".encode(), name="more.csv")
    made(api, acme, dataset, "append", file=more)
    return f"/t/{acme.slug}/data/{dataset}/", dataset


def test_the_chain_is_for_all_and_a_difference_private_cut_and_escaped(
    pages: Any, bob: Any, vera: Any
) -> None:
    address, _dataset = pages
    page = bob.get(address).content.decode()
    assert "Rows added: more.csv" in page
    assert "1 row added" in page
    assert "Compare with 1" in page
    assert "Make the version" in page
    seen = vera.get(address).content.decode()
    assert "Rows added: more.csv" in seen
    assert "Compare with 1" not in seen
    assert "Make the version" not in seen
    page = bob.get(f"{address}diff/?from=1&to=2").content.decode()
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert(1)" not in page
    assert NASTY not in page
    assert "long …" in page or "long long" in page
    assert len(page) < 30_000
    assert vera.get(f"{address}diff/?from=1&to=2").status_code == 403
    assert vera.get(f"{address}erasures/").status_code == 403


def test_a_version_is_made_from_the_page_and_its_progress_shown(acme: Any, pages: Any, bob: Any) -> None:
    address, dataset = pages
    answer = bob.post(f"{address}versions/", {"mode": "remove", "units": "p1\n p2 \n\n"}, follow=True)
    assert "Version 3 is being made" in answer.content.decode()
    with scope(acme):
        change = VersionChange.objects.of(acme).get(state="queued")
    version_making.make(acme.pk, change.pk)
    assert newest(acme, dataset).units == 29
    refused = bob.post(f"{address}versions/", {"mode": "remove", "units": ""})
    assert refused.status_code == 400
    assert b"Name the people to remove" in refused.content
    nobody = bob.post(f"{address}versions/", {"mode": "remove", "units": "stranger"}, follow=True)
    with scope(acme):
        version_making.make(acme.pk, VersionChange.objects.of(acme).get(state="queued").pk)
    page = bob.get(address).content.decode()
    assert nobody.status_code == 200
    assert "Version 4 could not be made" in page


def test_erasing_asks_for_the_name_of_the_dataset(acme: Any, pages: Any, bob: Any) -> None:
    address, _dataset = pages
    page = bob.get(f"{address}erasures/").content.decode()
    assert "Nobody was erased from this dataset." in page
    wrong = bob.post(f"{address}erasures/", {"unit": "p3", "confirmation": "notes"})
    assert wrong.status_code == 400
    with scope(acme):
        assert not Erasure.objects.of(acme).exists()
    unknown = bob.post(f"{address}erasures/", {"unit": "who", "confirmation": "notes.csv"})
    assert unknown.status_code == 404
    assert b"Nobody of this name" in unknown.content
    done = bob.post(f"{address}erasures/", {"unit": "p3", "confirmation": "notes.csv"}, follow=True)
    text = done.content.decode()
    assert "2 rows in 1 dataset" in text
    with scope(acme):
        erasure = Erasure.objects.of(acme).get()
    certificate = bob.get(f"{address}erasures/{erasure.public_id}.json")
    assert certificate.json() == erasure.certificate
    assert bob.post(f"{address}delete/", {"confirmation": "notes.csv"}).status_code == 302
    assert bob.get(address).status_code == 404


def test_the_page_says_who_was_erased_since_and_what_is_held(
    acme: Any, api: Any, pages: Any, bob: Any, vera: Any
) -> None:
    address, dataset = pages
    assert "erased since" not in bob.get(address).content.decode()
    bob.post(f"{address}erasures/", {"unit": "p3", "confirmation": "notes.csv"})
    page = bob.get(address).content.decode()
    assert "2 of them were erased since" in page
    assert ", 1 erased since" in page
    assert "erased since" not in vera.get(address).content.decode()
    made(api, acme, dataset, "remove", units=["p5"])
    assert newest(acme, dataset).units == 29
    assert "erased since" not in bob.get(address).content.decode()
    assert "2 rows removed" in bob.get(address).content.decode()
    assert "legal hold</a> keeps this" not in page
    with scope(acme):
        holds.place(acme, SYSTEM, reason="Case 17")
    assert "legal hold</a> keeps this" in bob.get(address).content.decode()


def test_the_picture_leads_from_file_to_endpoint_and_back(acme: Any, api: Any, bob: Any, tiny: Any) -> None:
    dataset = first_version(api, acme, words_csv(700, people=350)).dataset.public_id
    file = api.get("/v1/files").json()["data"][0]["id"]
    made(api, acme, dataset, "remove", units=["person 1", "person 2"])
    off = {"mode": "off", "reason": "a test"}
    assert api.post("/v1/fine_tuning/jobs", {"training_file": file, "dataset_version": 9}).status_code == 404
    job = started(api, file, privacy=off, dataset_version=1)
    assert job["data"]["version"] == 1
    assert started(api, file, privacy=off)["data"]["version"] == 2
    done = train(acme, job["id"])
    assert done.model_version is not None, done.error
    name = done.model_version.name
    with scope(acme):
        Endpoint.objects.of(acme).create(name="triage", version=done.model_version)
    page = bob.get(f"/t/{acme.slug}/data/{dataset}/").content.decode()
    flow = page[page.index('class="flow"') :]
    order = [
        flow.index(word)
        for word in ("clinic.csv", "Version 1", job["id"], done.model_version.short_id, "triage")
    ]
    assert order == sorted(order)
    back = bob.get(f"/t/{acme.slug}/models/{done.model_version.short_id}/").content.decode()
    assert "Which data made this model" in back
    assert newest(acme, dataset).parent is not None
    assert api.get(f"/v1/models/{name}").json()["data"]["version"] == 1
    assert name in api.get(f"/v1/datasets/{dataset}/versions/1").json()["models"]
    assert api.get(f"/v1/models/{name}/card").json()["data"]["version"] == 1
    body = api.post(f"/v1/datasets/{dataset}/erasures", {"unit": "person 7"}).json()
    (told,) = body["models"]
    assert (told["model"], told["job"], told["private"]) == (name, job["id"], False)
    assert told["side"] in ("train", "held_out")
    assert len(body["open_jobs"]) == 1, "the run that waits is told, too"
    gone = api.post(f"/v1/datasets/{dataset}/erasures", {"unit": "person 1"}).json()
    assert gone["datasets"][0]["versions"] == [1], "removed from the second, still in the first"
