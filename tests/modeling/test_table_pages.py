"""Pages of table models without JavaScript: declare columns, see the quote, train, read the card, try a row."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest

from modeling.core.types import Feature
from modeling.models import DatasetVersion, Job
from modeling.packs.samples.loans import loan_csv
from modeling.queries.table_examples import example_row
from tenants.models import Tenant
from tenants.scope import scope
from tests.modeling.clinic import train, uploaded


@pytest.fixture
def bank(people: Any) -> Tenant:
    tenant: Tenant = people.globex
    return tenant


@pytest.fixture
def dataset(people: Any, bank: Tenant) -> str:
    content = b"\n".join(loan_csv().splitlines()[:1501])
    file_id = uploaded(people.api("globex"), bank, content, name="loans.csv")
    with scope(bank):
        return str(DatasetVersion.objects.of(bank).get(file__public_id=file_id).dataset.public_id)


def fields(page: str) -> dict[str, str]:
    """What a browser would send: inputs and selected options by name."""
    found = dict(re.findall(r'<input class="input[^"]*"[^>]* name="(c\d+_\w+)" value="([^"]*)"', page))
    for name, body in re.findall(
        r'<select[^>]* name="(c\d+_use|target)"[^>]*>(.*?)</select>', page, re.DOTALL
    ):
        found[name] = re.findall(r'<option value="([^"]*)" selected', body)[0]
    return found


def test_it_works(people: Any, bank: Tenant, dataset: str) -> None:
    browser = people.browser("carol")
    url = f"/t/{bank.slug}/training/new/"
    page = browser.get(url, {"dataset": dataset}).content.decode()
    sent = fields(page)
    assert sent["target"] == "defaulted"
    uses = dict(re.findall(r'name="(c\d+)_use" aria-label="Use of ([a-z_]+)"', page))
    number = {name: prefix for prefix, name in uses.items()}
    assert sent[f"{number['age']}_use"] == sent[f"{number['sex']}_use"] == "compare"
    assert sent[f"{number['loan_amount']}_use"] == "learn"
    assert (sent[f"{number['loan_amount']}_low"], sent[f"{number['loan_amount']}_high"]) == ("0", "50000")
    body = {**sent, "dataset": dataset, "columns_of": dataset, "answer": "classification", "level": "8"}
    body[f"{number['annual_income']}_high"] = "150000"
    body[f"{number['home']}_use"] = "leave"
    answer = browser.post(url, body)
    assert answer.status_code == 302, answer.content.decode()
    with scope(bank):
        job = Job.objects.of(bank).get()
    declared = {one["name"]: one for one in job.plan["recipe"]["features"]}
    assert declared["annual_income"]["high"] == 150_000
    assert "home" not in declared
    assert {one["name"] for one in job.plan["recipe"]["protected"]} == {"age", "sex"}
    done = train(bank, job.public_id)
    assert done.model_version is not None
    card = browser.get(f"/t/{bank.slug}/models/{done.model_version.short_id}/").content.decode()
    assert "Fairness: sex" in card
    assert "loan_amount" in card
    play = browser.get(f"/t/{bank.slug}/playground/", {"model": done.model_version.name}).content.decode()
    assert "annual_income" in play
    assert 'name="cell0"' in play


def test_a_number_asks_for_its_bounds(people: Any, bank: Tenant, dataset: str) -> None:
    browser = people.browser("carol")
    url = f"/t/{bank.slug}/training/new/"
    sent = {"dataset": dataset, "columns_of": dataset, "target": "open_accounts", "answer": "regression"}
    page = browser.get(url, sent).content.decode()
    assert 'name="target_low" value="0"' in page
    broken = browser.get(url, {**sent, "target_low": "few"}).content.decode()
    assert "must be numbers" in broken
    assert "Regression" in page
    emptied = browser.get(url, {**sent, "target_low": "", "target_high": ""}).content.decode()
    assert 'name="target_high" value="20"' in emptied  # what the vertical knows comes back


def test_fields_of_another_dataset_are_forgotten(people: Any, bank: Tenant, dataset: str) -> None:
    browser = people.browser("carol")
    sent = {"dataset": dataset, "columns_of": "ds-other", "target": "home", "c0_use": "leave"}
    page = browser.get(f"/t/{bank.slug}/training/new/", sent).content.decode()
    assert fields(page)["target"] == "defaulted"


def test_an_example_row_lies_inside_any_bounds() -> None:
    widest = sys.float_info.max
    features = (
        Feature("wide", "number", low=-widest, high=widest),
        Feature("age", "number", low=18, high=90),
        Feature("small", "number", low=0, high=1),
    )
    row = example_row(features)
    assert row["age"] == 47
    assert row["small"] == 0.4
    assert -widest <= row["wide"] <= widest


def test_a_category_of_the_form_has_the_bound_of_the_api(people: Any, bank: Tenant, dataset: str) -> None:
    page = f"/t/{bank.slug}/training/new/"
    first = people.browser("carol").get(page, {"dataset": dataset}).content.decode()
    field = re.search(r'name="(c\d+)_categories"', first)
    assert field
    sent = {"dataset": dataset, "columns_of": dataset, f"{field[1]}_use": "learn"}
    sent[f"{field[1]}_categories"] = "a, b, " + "x" * 201
    assert "more than 200 characters" in people.browser("carol").get(page, sent).content.decode()
