"""Jobs on tables through HTTP: declared bounds and categories, protected attributes, a number as the answer."""

from __future__ import annotations

from typing import Any

import pytest

from modeling.models import Job
from modeling.packs.samples.loans import loan_csv
from tenants.models import Tenant
from tests.modeling.clinic import row_of, started, train, uploaded

ROWS = 1_500


@pytest.fixture
def bank(people: Any) -> Tenant:
    tenant: Tenant = people.globex
    return tenant


@pytest.fixture
def bank_api(people: Any) -> Any:
    return people.api("globex")


@pytest.fixture
def loans(bank_api: Any, bank: Tenant) -> str:
    """The first rows of the sample; its public id."""
    content = b"\n".join(loan_csv().splitlines()[: ROWS + 1])
    return uploaded(bank_api, bank, content, name="loans.csv")


def test_it_works(bank_api: Any, bank: Tenant, loans: str) -> None:
    """Nothing but the file: the vertical knows bounds and categories, and compares sex and age."""
    quote = bank_api.post("/v1/fine_tuning/quote", {"training_file": loans}).json()
    assert (quote["task"], quote["model"], quote["method"]) == ("classification", "tabular", "additive")
    assert quote["columns"] == {"label": "defaulted"}
    assert quote["labels"] == ["no", "yes"]
    job = train(bank, started(bank_api, loans)["id"])
    assert job.state == Job.State.SUCCEEDED
    assert job.base == "tabular"
    assert job.epsilon is not None
    assert job.epsilon <= 8.0
    assert set(job.spent) == {"train", "held_out", "calibration", "fairness"}
    assert job.model_version is not None
    card = job.model_version.card
    assert {"sex", "age"}.isdisjoint(card["data"]["features"])
    assert card["data"]["protected"] == ["age", "sex"]
    assert "lists of categories" in card["data"]["declared_public"]
    assert 0.6 < card["metrics"]["accuracy"] <= 1
    by_attribute = {one["attribute"]: one for one in card["report"]["fairness"]}
    assert [group["group"] for group in by_attribute["sex"]["groups"]] == ["female", "male", "other"]
    sizes = [group["people"] for group in by_attribute["age"]["groups"]]
    assert sum(sizes) == pytest.approx(0.2 * ROWS, rel=0.3)
    assert by_attribute["age"]["positive"] == "yes"


def test_a_number_is_predicted_inside_its_declared_bounds(bank_api: Any, bank: Tenant, loans: str) -> None:
    body = {
        "task": "regression",
        "columns": {"label": "annual_income"},
        "features": [{"name": "years_employed"}, {"name": "home"}, {"name": "loan_amount"}],
        "target": {"low": 0, "high": 100_000},
    }
    job = train(bank, started(bank_api, loans, **body)["id"])
    assert job.state == Job.State.SUCCEEDED
    assert job.model_version is not None
    metrics = job.model_version.card["metrics"]
    assert 3_000 < metrics["mean_absolute_error"] < 25_000
    assert metrics["mean_absolute_error"] < metrics["nine_in_ten_within"] < 70_000
    assert job.model_version.card["report"]["fairness"][0]["groups"][0]["mean_absolute_error"] > 0


def test_a_network_is_trained_when_it_is_asked_for(bank_api: Any, bank: Tenant, loans: str) -> None:
    job = train(bank, started(bank_api, loans, method="network", max_steps=8)["id"])
    assert job.state == Job.State.SUCCEEDED
    assert job.method == "network"
    assert job.plan["mechanisms"][0]["sampling_rate"] < 1


CUSTOM = b"tenure,plan,visits,left\n" + b"".join(
    f"{row % 60},{'abc'[row % 3]},{row % 7},{'yes' if row % 4 else 'no'}\n".encode() for row in range(400)
)
REFUSED = [
    ({}, "bounds_required", "tenure"),
    (
        {"features": [{"name": "tenure", "low": 0, "high": 60}, {"name": "plan"}]},
        "categories_required",
        "plan",
    ),
    ({"features": [{"name": "tenure", "low": 60, "high": 0}]}, "invalid_features", "tenure"),
    ({"features": [{"name": "nothing"}]}, "column_not_found", "nothing"),
    ({"features": [{"name": "left", "kind": "category"}]}, "invalid_features", "left"),
    (
        {"features": [{"name": "plan", "kind": "category"}], "protected": ["plan"]},
        "protected_feature",
        "plan",
    ),
    ({"features": [{"name": "plan", "kind": "category"}], "method": "head"}, "unknown_method", "head"),
    ({"task": "regression", "columns": {"label": "visits"}}, "bounds_required", "tenure"),
    ({"task": "chat", "model": "tabular"}, "model_task_mismatch", "tabular"),
]


@pytest.mark.parametrize(("body", "code", "named"), REFUSED, ids=[str(at) for at in range(len(REFUSED))])
def test_what_is_not_declared_is_refused_by_name(
    bank_api: Any, bank: Tenant, body: dict[str, Any], code: str, named: str
) -> None:
    file_id = uploaded(bank_api, bank, CUSTOM, name="custom.csv")
    answer = bank_api.post("/v1/fine_tuning/quote", {"training_file": file_id, **body})
    assert answer.status_code == 400, answer.content
    error = answer.json()["error"]
    assert error["code"] == code
    assert named in error["message"]


def test_categories_of_a_named_column_are_declared_public(bank_api: Any, bank: Tenant) -> None:
    file_id = uploaded(bank_api, bank, CUSTOM, name="custom.csv")
    features = [{"name": "tenure", "low": 0, "high": 60}, {"name": "plan", "kind": "category"}]
    job = row_of(bank, started(bank_api, file_id, features=features)["id"])
    assert job.plan["recipe"]["features"][1]["categories"] == ["a", "b", "c"]
