"""What is what: roles, unit, sensitive attributes and declared bounds by page and API, and training that takes them."""

from __future__ import annotations

import re
from typing import Any

import pytest

from modeling.actions import quoting
from modeling.actions.specs import JobSpec, PrivacySpec
from modeling.models import Dataset, DatasetVersion, Job
from modeling.packs.samples.loans import loan_csv
from saas.lib.errors import Refusal
from tenants.models import Tenant
from tenants.scope import scope
from tests.modeling.clinic import uploaded, words_csv

VISITS = b"patient_id,note,chapter,visit_date,sex,ward,stay_days\n" + b"\n".join(
    b"P%d,word%d word%d word%d,%s,2026-01-%02d,%s,w%d,%d"
    % (n // 2, n, n + 1, n % 7, (b"A", b"B")[n % 2], 1 + n % 28, (b"female", b"male")[n % 2], n % 4, n % 9)
    for n in range(400)
)


def dataset_of(tenant: Tenant, file_id: str) -> Dataset:
    with scope(tenant):
        return DatasetVersion.objects.of(tenant).filter(file__public_id=file_id).latest("number").dataset


def asked(tenant: Tenant, file_id: str, **fields: Any) -> Any:
    """What a job of this file would be."""
    with scope(tenant):
        spec = JobSpec(training_file=file_id, privacy=PrivacySpec(mode="off", reason="a test"), **fields)
        return quoting.ask(tenant, spec).resolved().plan.recipe


def form_of(page: str) -> dict[str, str]:
    """What a browser would send of the page of columns."""
    form = dict(re.findall(r'<input class="input[^"]*" name="(c\d+_\w+)" value="([^"]*)"', page))
    form |= dict(re.findall(r'<textarea[^>]* name="(c\d+_\w+)"[^>]*>(.*?)</textarea>', page, re.DOTALL))
    for name, body in re.findall(r'<select[^>]* name="(c\d+_role)"[^>]*>(.*?)</select>', page, re.DOTALL):
        form[name] = re.findall(r'<option value="([^"]*)" selected', body)[0]
    return form | ({"each_row": "1"} if re.search(r'name="each_row" value="1" checked', page) else {})


def numbers_of(page: str) -> dict[str, str]:
    """Column name to the prefix of its fields."""
    return {
        name: prefix for prefix, name in re.findall(r'name="(c\d+)_role" aria-label="What (\S+) is"', page)
    }


def test_it_works(api: Any, acme: Tenant) -> None:
    file_id = uploaded(api, acme, VISITS)
    where = f"/v1/datasets/{dataset_of(acme, file_id).public_id}"
    guesses = {one["column"]: (one["role"], one["reason"]) for one in api.get(where).json()["guesses"]}
    assert {name: role for name, (role, _) in guesses.items()} == {
        "patient_id": "unit", "note": "text", "chapter": "label", "visit_date": "timestamp", "sex": "sensitive",
        "ward": "leave", "stay_days": "leave",
    }  # fmt: skip
    assert all(reason.endswith(".") for _, reason in guesses.values())
    columns = {
        "label": "ward",
        "text": "note",
        "unit": "patient_id",
        "timestamp": "visit_date",
        "sensitive": "sex",
    }
    wards = {"kind": "category", "values": ["w3", "w2", "w1", "w0"]}
    answer = api.post(where, {"columns": columns, "declared": {"ward": wards}})
    assert answer.status_code == 200, answer.content
    body = answer.json()
    assert body["columns"] == {**columns, "sensitive": ["sex"]}
    assert body["declared"] == {"ward": wards}
    assert (body["task"], body["unit"]) == ("classification", "patient_id")
    assert api.get(where).json() == body
    assert asked(acme, file_id).labels == ("w3", "w2", "w1", "w0")
    assert asked(acme, file_id, columns={"label": "chapter"}).labels == ("A", "B")


@pytest.mark.parametrize(
    ("columns", "declared", "code", "param"),
    [
        ({"text": "note", "label": "chapter"}, None, "unit_required", "columns.unit"),
        ({"text": "nowhere", "unit": ""}, None, "column_not_found", "columns.text"),
        ({"words": "note", "unit": ""}, None, "unknown_role", "columns"),
        ({"text": "note", "label": "note", "unit": ""}, None, "two_roles", "columns.label"),
        ({"text": ["note", "ward"], "unit": ""}, None, "one_column_only", "columns.text"),
        ({"messages": "note", "unit": ""}, None, "invalid_column", "columns.messages"),
        ({"prompt": "note", "unit": ""}, None, "column_required", "columns.prompt"),
        ({"user": "patient_id", "item": "ward", "unit": ""}, None, "unit_is_user", "columns.unit"),
        ({"label": "chapter", "feature": "stay_days", "unit": ""}, None, "bounds_required", "declared"),
        ({"label": "chapter", "feature": ["ward"], "unit": ""}, None, "categories_required", "declared"),
        ({"label": "chapter", "feature": ["note"], "unit": ""}, None, "invalid_column", "columns.feature"),
        ({"label": "chapter", "sensitive": ["ward"], "unit": ""}, None, "categories_required", "declared"),
        (None, {"stay_days": {"kind": "number", "low": 9, "high": 1}}, "invalid_declaration", "declared"),
        (None, {"stay_days": {"kind": "number", "low": 9}}, "invalid_declaration", "declared"),
        (None, {"ward": {"kind": "category", "values": []}}, "invalid_declaration", "declared"),
        (None, {"visit_date": {"kind": "number", "low": 0, "high": 1}}, "invalid_declaration", "declared"),
        (None, {"nowhere": {"kind": "number", "low": 0, "high": 1}}, "column_not_found", "declared"),
        ({"catalogue_id": "ward", "unit": ""}, None, "only_for_catalogues", "columns.catalogue_id"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(
    visits: tuple[Any, str], columns: Any, declared: Any, code: str, param: str
) -> None:
    api, where = visits
    sent = {"columns": columns, "declared": declared}
    answer = api.post(where, {name: value for name, value in sent.items() if value is not None})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, code, param)
    assert "P1" not in error["message"]


@pytest.fixture(scope="module")
def visits(database: None) -> tuple[Any, str]:
    """One dataset for all refusals: nothing of them is kept."""
    from tests.make import People

    people = People()
    api = people.api("acme")
    file_id = uploaded(api, people.acme, VISITS)
    return api, f"/v1/datasets/{dataset_of(people.acme, file_id).public_id}"


def test_a_table_learns_what_was_declared(people: Any) -> None:
    bank, api = people.globex, people.api("globex")
    content = b"\n".join(loan_csv().splitlines()[:801])
    file_id = uploaded(api, bank, content, name="loans.csv")
    where = f"/v1/datasets/{dataset_of(bank, file_id).public_id}"
    columns = {
        "label": "defaulted",
        "unit": "",
        "feature": ["annual_income", "home"],
        "sensitive": ["sex", "age"],
    }
    declared = {"annual_income": {"kind": "number", "low": 5000, "high": 90000}}
    assert api.post(where, {"columns": columns, "declared": declared}).status_code == 200
    recipe = asked(bank, file_id)
    assert [(one.name, one.low, one.high) for one in recipe.features] == [
        ("annual_income", 5000, 90000),
        ("home", 0, 0),
    ]
    assert {one.name for one in recipe.protected} == {"sex", "age"}
    own = asked(bank, file_id, features=({"name": "loan_amount", "low": 0, "high": 9},), protected=("home",))
    assert ([one.name for one in own.features], [one.name for one in own.protected]) == (
        ["loan_amount"],
        ["home"],
    )
    with pytest.raises(Refusal, match="sensitive attribute"):
        asked(bank, file_id, features=({"name": "sex", "kind": "category"},))
    loans = {"kind": "number", "low": 0, "high": 50_000}
    columns |= {"label": "loan_amount"}
    answer = api.post(where, {"columns": columns, "declared": declared | {"loan_amount": loans}})
    assert answer.json()["task"] == "regression"
    regression = asked(bank, file_id)
    assert (regression.task, regression.target.high) == ("regression", 50_000)


def test_bounds_come_from_the_vertical_and_never_from_the_rows(people: Any, bob: Any) -> None:
    acme, api = people.acme, people.api("acme")
    rows = "\n".join(f"{30 + n % 20},{n % 5},{(n * 7) % 3},{('no', 'yes')[n % 2]}" for n in range(200))
    file_id = uploaded(api, acme, f"bmi,odd_score,ward,diabetic\n{rows}".encode())
    dataset = dataset_of(acme, file_id)
    page = bob.get(f"/t/{acme.slug}/data/{dataset.public_id}/columns/").content.decode()
    form, at = form_of(page), numbers_of(page)
    assert (form[f"{at['bmi']}_low"], form[f"{at['bmi']}_high"]) == ("10", "60")  # not 30 and 49
    assert (form[f"{at['odd_score']}_low"], form[f"{at['odd_score']}_high"]) == ("", "")
    assert "We do not look." in page


def test_the_page_declares_all_at_once(people: Any, api: Any, acme: Tenant, bob: Any, vera: Any) -> None:
    dataset = dataset_of(acme, uploaded(api, acme, VISITS))
    url = f"/t/{acme.slug}/data/{dataset.public_id}/columns/"
    page = bob.get(url).content.decode()
    form, at = form_of(page), numbers_of(page)
    assert (form[f"{at['sex']}_role"], form[f"{at['patient_id']}_role"]) == ("sensitive", "unit")
    wrong = form | {
        f"{at['stay_days']}_role": "feature",
        f"{at['ward']}_role": "label",
        f"{at['patient_id']}_role": "leave",
    }
    answer = bob.post(url, wrong)
    assert answer.status_code == 422
    shown = answer.content.decode()
    assert shown.count('class="field__error"') == 3
    for sentence in (
        "Say whose record a row is",
        "Write the lowest and the highest value",
        "is the label to learn already",
    ):
        assert sentence in shown
    good = form | {
        f"{at['ward']}_role": "feature", f"{at['ward']}_values": "w0, w1; w2,w3,w3",
        f"{at['stay_days']}_role": "feature", f"{at['stay_days']}_low": "0", f"{at['stay_days']}_high": "30,5",
    }  # fmt: skip
    assert bob.post(url, good).status_code == 302
    body = api.get(f"/v1/datasets/{dataset.public_id}").json()
    assert body["columns"]["feature"] == ["stay_days", "ward"]
    assert body["declared"]["stay_days"] == {"kind": "number", "low": 0, "high": 30.5}
    assert body["declared"]["ward"]["values"] == ["w0", "w1", "w2", "w3"]
    assert form_of(bob.get(url).content.decode())[f"{at['ward']}_values"] == "w0\nw1\nw2\nw3"
    detail = bob.get(f"/t/{acme.slug}/data/{dataset.public_id}/").content.decode()
    assert "0 – 30.5" in detail
    assert vera.get(url).status_code == 403


def test_another_unit_is_confirmed_and_cuts_the_rows_again(api: Any, acme: Tenant, bob: Any) -> None:
    dataset = dataset_of(acme, uploaded(api, acme, VISITS))
    url = f"/t/{acme.slug}/data/{dataset.public_id}/columns/"
    page = bob.get(url).content.decode()
    form, at = form_of(page), numbers_of(page)
    form |= {f"{at['patient_id']}_role": "leave", "each_row": "1"}
    answer = bob.post(url, form)
    assert answer.status_code == 422
    assert "Yes, cut the rows again" in answer.content.decode()
    assert api.get(f"/v1/datasets/{dataset.public_id}").json()["unit"] == "patient_id"
    assert bob.post(url, form | {"confirm_unit": "1"}).status_code == 302
    body = api.get(f"/v1/datasets/{dataset.public_id}").json()
    assert (body["unit"], body["versions"][0]["units"], body["versions"][1]["units"]) == ("", 400, 200)


def test_the_unit_stays_once_a_private_job_ran(api: Any, acme: Tenant, bob: Any) -> None:
    file_id = uploaded(api, acme, words_csv(700, people=350))
    dataset = dataset_of(acme, file_id)
    body = {"training_file": file_id, "privacy": {"epsilon": 2, "unit": "person_id"}}
    assert api.post("/v1/fine_tuning/jobs", body).status_code == 200
    with scope(acme):
        assert Job.objects.of(acme).filter(dataset_version__dataset=dataset).exists()
    where = f"/v1/datasets/{dataset.public_id}"
    answer = api.post(where, {"columns": {"text": "text", "label": "label", "unit": ""}})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "unit_fixed")
    assert api.post(where, {"columns": {"text": "text", "label": "label"}}).json()["unit"] == "person_id"
    page = bob.get(f"/t/{acme.slug}/data/{dataset.public_id}/columns/").content.decode()
    assert "Fixed by the first private run" in page
    assert 'name="each_row"' not in page


def test_a_job_needs_no_schema_and_may_say_otherwise(api: Any, acme: Tenant) -> None:
    """The control: a dataset that nobody declared trains as guessed, and a label gathered for another column is not
    taken for this one's."""
    file_id = uploaded(api, acme, VISITS)
    assert asked(acme, file_id).labels == ("A", "B")
    where = f"/v1/datasets/{dataset_of(acme, file_id).public_id}"
    api.post(where, {"columns": {"text": "note", "label": "ward", "unit": "patient_id"}})
    assert asked(acme, file_id).labels == ("w0", "w1", "w2", "w3")
