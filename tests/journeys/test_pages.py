"""Every page of the product: opens for members, absent for strangers, teaches when empty, hides what is not allowed."""

from __future__ import annotations

import io
import re
import zipfile
from typing import Any

import pytest
from django.test import Client

from modeling.actions.inspection import inspect_file
from modeling.models import Dataset, DatasetVersion, File, Job
from tenants.models import Tenant
from tenants.scope import scope

PAGES = (
    "",
    "data/",
    "training/",
    "models/",
    "endpoints/",
    "predictions/",
    "playground/",
    "batches/",
    "privacy/",
    "team/",
    "keys/",
    "audit/",
    "billing/",
    "settings/",
)
EDITING = ("data/upload/", "training/new/", "batches/new/")
ROWS = b"patient_id,note,triage\n" + b"".join(
    b"p%d,the patient reports a pain of kind %d,%s\n" % (n // 2, n, b"urgent" if n % 3 else b"routine")
    for n in range(400)
)


def upload(
    browser: Any, tenant: Tenant, content: bytes = ROWS, name: str = "triage.csv", *, encoding: str = ""
) -> str:
    """Upload through the page, inspect as the worker would, and return the dataset's page."""
    from django.core.files.uploadedfile import SimpleUploadedFile

    sent = {"purpose": "fine-tune", "encoding": encoding, "file": SimpleUploadedFile(name, content)}
    answer = browser.post(f"/t/{tenant.slug}/data/upload/", sent)
    assert answer.status_code == 302, answer.content
    with scope(tenant):
        file = File.objects.of(tenant).get(public_id=answer.url.rstrip("/").rsplit("/", 1)[1])
    inspect_file(tenant.pk, file.pk)
    return str(answer.url)


@pytest.mark.parametrize("path", PAGES + EDITING)
def test_it_opens_for_the_owner(acme: Tenant, alice: Any, path: str) -> None:
    answer = alice.get(f"/t/{acme.slug}/{path}")
    assert answer.status_code == 200
    text = answer.content.decode()
    assert f'href="/t/{acme.slug}/data/"' in text
    assert re.search(r"<h1>\s*\S", text)


@pytest.mark.parametrize("path", PAGES + EDITING)
def test_it_is_absent_for_a_stranger(acme: Tenant, carol: Any, path: str) -> None:
    assert carol.get(f"/t/{acme.slug}/{path}").status_code == 404
    assert carol.get(f"/t/no-such-tenant/{path}").status_code == 404


@pytest.mark.parametrize("path", PAGES)
def test_a_signed_out_person_is_asked_to_sign_in(acme: Tenant, path: str) -> None:
    answer: Any = Client().get(f"/t/{acme.slug}/{path}")
    assert answer.status_code == 302
    assert answer.url.startswith("/accounts/login/")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("data/", "No data yet"),
        ("training/", "No training run yet"),
        ("training/new/", "First the data"),
        ("models/", "No model yet"),
        ("privacy/", "Nothing was spent"),
        ("", "Bring data"),
    ],
)
def test_empty_pages_teach(acme: Tenant, alice: Any, path: str, words: str) -> None:
    assert words in alice.get(f"/t/{acme.slug}/{path}").content.decode()


def test_a_viewer_sees_pages_without_buttons_that_change_anything(
    acme: Tenant, alice: Any, vera: Any
) -> None:
    place = upload(alice, acme)
    dataset = alice.get(place).url
    for page in (
        f"/t/{acme.slug}/",
        f"/t/{acme.slug}/data/",
        f"/t/{acme.slug}/training/",
        f"/t/{acme.slug}/models/",
        dataset,
    ):
        owner, viewer = alice.get(page).content.decode(), vera.get(page).content.decode()
        assert _mutations(viewer) == set(), page
        assert _changes(viewer) == set(), page
        assert _changes(owner), page  # the control: an owner does see them
    assert vera.get(f"/t/{acme.slug}/training/new/").status_code == 403
    assert vera.post(f"{dataset}delete/", {"confirmation": "triage.csv"}).status_code == 403


def _mutations(text: str) -> set[str]:
    """Addresses of forms that post, but for signing out."""
    forms = re.findall(r"<form[^>]*>", text)
    posts = [form for form in forms if 'method="post"' in form]
    return {re.findall(r'action="([^"]*)"', form)[0] for form in posts} - {"/accounts/logout/"}


def _changes(text: str) -> set[str]:
    return _mutations(text) | set(re.findall(r'href="([^"]*(?:/upload/|/training/new/)[^"]*)"', text))


def test_an_upload_becomes_a_dataset_with_its_guesses_and_errors(acme: Tenant, alice: Any) -> None:
    place = upload(alice, acme, ROWS + b"p9,one field short\n")
    page = alice.get(place, follow=True).content.decode()
    assert "the label to learn" in page
    assert "whose record it is" in page
    assert "Wrong number of fields" in page
    assert ">402<" in page  # the line of the bad row


def test_members_see_a_few_rows_when_they_ask_and_viewers_never(acme: Tenant, alice: Any, vera: Any) -> None:
    cell = "<b>worst</b> pain, and " + "very " * 40 + "long"
    content = b"\n".join(ROWS.split(b"\n")[:5]) + f'\np9,"{cell}",urgent\n'.encode()
    place = alice.get(upload(alice, acme, content)).url
    closed, opened = alice.get(place).content.decode(), alice.get(f"{place}?rows=1").content.decode()
    assert ("Show a few rows" in closed, "A few rows" in closed) == (True, False)
    assert opened.count("<td>urgent</td>") + opened.count("<td>routine</td>") == 5
    assert "<td>&lt;b&gt;worst&lt;/b&gt; pain, and very " in opened
    assert "…</td>" in opened
    assert "<b>worst" not in opened
    for page in (vera.get(place), vera.get(f"{place}?rows=1")):
        assert page.status_code == 200
        assert "few rows" not in page.content.decode()
        assert "worst" not in page.content.decode()


def test_a_file_that_cannot_be_used_says_what_to_do(acme: Tenant, alice: Any) -> None:
    sheet = io.BytesIO()
    with zipfile.ZipFile(sheet, "w") as workbook:
        workbook.writestr("[Content_Types].xml", "<Types/>")
        workbook.writestr("xl/workbook.xml", "<workbook/>")
    place = upload(alice, acme, sheet.getvalue(), "sheet.xlsx")
    page = alice.get(place)
    assert page.status_code == 200
    assert "cannot be used" in page.content.decode()
    assert "Export the sheet as CSV" in page.content.decode()


def test_the_form_takes_the_encoding_that_a_check_asks_for(acme: Tenant, alice: Any) -> None:
    content = ROWS + "p9,Fieber und Übelkeit,urgent\n".encode() + b"p9,\xdcbelkeit,urgent\n"
    refused = alice.get(upload(alice, acme, content)).content.decode()
    assert "encoding" in refused
    place = upload(alice, acme, content, encoding="cp1252")
    assert "the label to learn" in alice.get(place, follow=True).content.decode()
    assert 'value="cp1252"' in alice.get(f"/t/{acme.slug}/data/upload/").content.decode()


def test_the_price_comes_before_the_button(acme: Tenant, alice: Any) -> None:
    upload(alice, acme)
    page = alice.get(f"/t/{acme.slug}/training/new/").content.decode()
    assert 0 < page.index("Before you start") < page.index("Start training")


def test_an_upload_by_script_answers_with_the_place_to_go(acme: Tenant, alice: Any) -> None:
    from django.core.files.uploadedfile import SimpleUploadedFile

    sent = {"purpose": "fine-tune", "file": SimpleUploadedFile("a.csv", ROWS)}
    answer = alice.post(f"/t/{acme.slug}/data/upload/", sent, headers={"accept": "application/json"})
    assert answer.status_code == 201
    assert answer.json()["location"].startswith(f"/t/{acme.slug}/data/file-")
    place = f"/t/{acme.slug}/data/upload/"
    refused = alice.post(place, {"purpose": "fine-tune"}, headers={"accept": "application/json"})
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "file"


def test_an_upload_needs_the_token_of_its_form(acme: Tenant, people: Any) -> None:
    from django.core.files.uploadedfile import SimpleUploadedFile

    strict = Client(enforce_csrf_checks=True)
    strict.force_login(people.user("alice"), backend="django.contrib.auth.backends.ModelBackend")
    sent = {"purpose": "fine-tune", "file": SimpleUploadedFile("a.csv", ROWS)}
    assert strict.post(f"/t/{acme.slug}/data/upload/", sent).status_code == 403
    with scope(acme):
        assert not File.objects.of(acme).exists()


def test_deleting_asks_for_the_name(acme: Tenant, alice: Any) -> None:
    dataset = alice.get(upload(alice, acme)).url
    assert alice.post(f"{dataset}delete/", {"confirmation": "triage"}).status_code == 400
    assert alice.get(dataset).status_code == 200
    assert alice.post(f"{dataset}delete/", {"confirmation": "triage.csv"}).status_code == 302
    assert alice.get(dataset).status_code == 404


def test_the_unit_of_privacy_can_be_changed_before_the_first_run(acme: Tenant, alice: Any) -> None:
    dataset = alice.get(upload(alice, acme)).url
    assert "200" in _figure(alice.get(dataset).content.decode(), "People")
    page = alice.get(f"{dataset}columns/").content.decode()
    unit = re.search(r'name="(c\d+_role)" aria-label="What patient_id is"', page)
    assert unit
    sent = {unit[1]: "leave", "each_row": "1"}
    assert alice.post(f"{dataset}columns/", sent).status_code == 422  # not without being confirmed
    assert alice.post(f"{dataset}columns/", sent | {"confirm_unit": "1"}).status_code == 302
    assert "400" in _figure(alice.get(dataset).content.decode(), "People")


def _figure(text: str, label: str) -> str:
    found = re.search(rf'figure__label">{label}</div><div class="figure__value">([^<]*)<', text)
    assert found, label
    return found[1]


def test_the_quote_follows_the_choice_and_costs_nothing(acme: Tenant, alice: Any) -> None:
    alice.get(upload(alice, acme))
    quoted = alice.get(f"/t/{acme.slug}/training/new/", {"level": "3"}).content.decode()
    assert "epsilon 3.0 per patient" in quoted
    with scope(acme):
        assert not Job.objects.of(acme).exists()
        assert not Dataset.objects.of(acme).get().unit_fixed
    wrong = alice.get(f"/t/{acme.slug}/training/new/", {"level": "own", "epsilon": "-1"}).content.decode()
    assert "field__error" in wrong


def test_an_audit_can_be_asked_for_and_says_what_it_needs(acme: Tenant, alice: Any) -> None:
    alice.get(upload(alice, acme))
    page = f"/t/{acme.slug}/training/new/"
    assert 'name="audit"' in alice.get(page).content.decode()
    assert "An audit needs at least 1,000 people" in alice.get(page, {"audit": "on"}).content.decode()


def test_a_run_starts_is_listed_and_can_be_cancelled(acme: Tenant, alice: Any, carol: Any) -> None:
    dataset = alice.get(upload(alice, acme)).url
    public_id = dataset.rstrip("/").rsplit("/", 1)[1]
    sent = {"dataset": public_id, "level": "8", "method": "head", "suffix": "triage"}
    started = alice.post(f"/t/{acme.slug}/training/new/", sent)
    assert started.status_code == 302, started.content
    page = alice.get(started.url).content.decode()
    assert 'data-last-seq="2"' in page
    assert "Waiting for a free worker" in page
    assert "triage · triage.csv" in alice.get(f"/t/{acme.slug}/training/").content.decode()
    assert carol.get(started.url).status_code == 404
    part = alice.get(started.url, {"part": "summary"}).content.decode()
    assert 'id="job-summary"' in part
    assert "<html" not in part
    assert alice.post(f"{started.url}cancel/").status_code == 302
    assert "The run was cancelled." in alice.get(started.url).content.decode()
    assert "data-job-ended" in alice.get(started.url, {"part": "summary"}).content.decode()


def test_the_privacy_page_shows_the_reservation_and_the_export_has_it(acme: Tenant, alice: Any) -> None:
    dataset = alice.get(upload(alice, acme)).url
    alice.post(
        f"/t/{acme.slug}/training/new/", {"dataset": dataset.rstrip("/").rsplit("/", 1)[1], "level": "3"}
    )
    page = alice.get(f"/t/{acme.slug}/privacy/").content.decode()
    assert "chain verified" in page
    assert "reserved" in page
    ledger = alice.get(f"/t/{acme.slug}/privacy/ledger.json").json()
    assert {entry["kind"] for entry in ledger["entries"]} == {"reserved"}
    assert ledger["head"]["seq"] == len(ledger["entries"])


@pytest.mark.slow
def test_a_sample_is_offered_added_and_trained_at_one_press(acme: Tenant, alice: Any) -> None:
    home = f"/t/{acme.slug}/"
    assert "Add the data" in alice.get(home).content.decode()
    assert (
        alice.post(f"{home}training/sample/", {"sample": "clinic-icd10", "method": "head"}).status_code == 404
    )
    assert alice.post(f"{home}data/sample/", {"sample": "clinic-icd10"}).status_code == 302
    with scope(acme):
        file = File.objects.of(acme).get()
    inspect_file(acme.pk, file.pk)
    assert "with LoRA" in alice.get(home).content.decode()
    started = alice.post(f"{home}training/sample/", {"sample": "clinic-icd10", "method": "lora"})
    assert started.status_code == 302
    with scope(acme):
        job = Job.objects.of(acme).get()
        assert (job.method, job.state) == ("lora", "queued")
        shape = job.plan["shape"]
        assert DatasetVersion.objects.of(acme).get().units == shape["train_units"] + shape["held_out_units"]


def test_the_first_page_is_small_and_asks_nobody_else(acme: Tenant, alice: Any) -> None:
    for address in ("/", f"/t/{acme.slug}/"):
        browser = Client() if address == "/" else alice
        answer = browser.get(address)
        text = answer.content.decode()
        assert len(answer.content) < 40_000
        assert not re.findall(r'(?:src|href)="(?:https?:)?//(?!localhost)', text)
        policy = answer.headers["Content-Security-Policy"]
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy


def test_demo_sign_ins_are_absent_without_the_demo() -> None:
    assert "Demo sign-ins" not in Client().get("/").content.decode()
    assert Client().post("/demo/sign-in/", {"email": "clinic@example.com"}).status_code == 404


def test_error_pages_speak(acme: Tenant, alice: Any) -> None:
    missing = alice.get(f"/t/{acme.slug}/models/nothing/")
    assert missing.status_code == 404
    assert "Nothing here" in missing.content.decode()
    refused = alice.post(f"/t/{acme.slug}/data/sample/", {"sample": "nothing"})
    assert refused.status_code == 404
    assert "There is no such sample." in refused.content.decode()
