"""The job's newer fields with hostile values: always 400 that names the field, never a fault of ours."""

from __future__ import annotations

from typing import Any

import pytest

from tenants.models import Tenant
from tests.modeling.clinic import uploaded

CUSTOM = b"person_id,tenure,plan,visits,left\n" + b"".join(
    f"p{row},{row % 60},{'abc'[row % 3]},{row % 7},{'yes' if row % 4 else 'no'}\n".encode()
    for row in range(400)
)
FINE: dict[str, Any] = {"name": "tenure", "low": 0, "high": 60}
HUGE = 10**400
CASES: list[tuple[str, dict[str, Any]]] = [
    ("features", {"features": "tenure"}),
    ("features", {"features": {"name": "tenure"}}),
    ("features", {"features": [None]}),
    ("features", {"features": [[]]}),
    ("features", {"features": []}),
    ("features", {"features": [{}]}),
    ("features", {"features": [{"name": ["x"]}]}),
    ("features", {"features": [{"name": {"a": 1}}]}),
    ("features", {"features": [{"name": "x" * 300}]}),
    ("features", {"features": [{"name": "te\u0000nure"}]}),
    ("features", {"features": [{"name": "\ud800"}]}),
    ("features", {"features": [{**FINE, "low": "nan"}]}),
    ("features", {"features": [{**FINE, "low": "NaN", "high": "NaN"}]}),
    ("features", {"features": [{**FINE, "high": "inf"}]}),
    ("features", {"features": [{**FINE, "high": "1e999"}]}),
    ("features", {"features": [{**FINE, "high": HUGE}]}),
    ("features", {"features": [{**FINE, "low": -HUGE}]}),
    ("features", {"features": [{**FINE, "high": None}]}),
    ("features", {"features": [{**FINE, "high": [1]}]}),
    ("features", {"features": [{**FINE, "high": {"a": 1}}]}),
    ("features", {"features": [{**FINE, "low": 60}]}),
    ("features", {"features": [{**FINE, "low": -1.7e308, "high": 1.7e308}]}),
    ("features", {"features": [FINE, FINE]}),
    ("features", {"features": [{"name": "plan", "categories": ["a"] * 1001}]}),
    ("features", {"features": [{"name": "plan", "categories": ["a", "a"]}]}),
    ("features", {"features": [{"name": "plan", "categories": "abc"}]}),
    ("features", {"features": [{"name": "plan", "categories": {"a": 1}}]}),
    ("features", {"features": [{"name": "plan", "categories": [["a"]]}]}),
    ("features", {"features": [{"name": "plan", "categories": ["\ud800"]}]}),
    ("features", {"features": [{"name": "plan", "categories": ["\u0000"]}]}),
    ("features", {"features": [{"name": "plan", "kind": "text"}]}),
    ("features", {"features": [{"name": "plan", "kind": ["number"]}]}),
    ("features", {"features": [{"name": "plan", "kind": "number", "low": 0, "high": 1}] * 1001}),
    ("features", {"features": [{"name": "left", "kind": "category"}]}),
    ("features", {"features": [{"name": "person_id", "kind": "category"}]}),
    ("target", {"task": "regression", "columns": {"label": "visits"}, "features": [FINE], "target": "x"}),
    ("target", {"task": "regression", "columns": {"label": "visits"}, "features": [FINE], "target": [0, 1]}),
    (
        "target",
        {"task": "regression", "columns": {"label": "visits"}, "features": [FINE], "target": {"low": 0}},
    ),
    (
        "target",
        {
            "task": "regression",
            "columns": {"label": "visits"},
            "features": [FINE],
            "target": {"low": 0, "high": HUGE},
        },
    ),
    (
        "target",
        {
            "task": "regression",
            "columns": {"label": "visits"},
            "features": [FINE],
            "target": {"low": "nan", "high": 1},
        },
    ),
    (
        "target",
        {
            "task": "regression",
            "columns": {"label": "visits"},
            "features": [FINE],
            "target": {"low": 1, "high": 1},
        },
    ),
    (
        "target",  # a run would spend epsilon and then have no number for its error
        {
            "task": "regression",
            "columns": {"label": "visits"},
            "features": [FINE],
            "target": {"low": -1.7e308, "high": 1.7e308},
        },
    ),
    ("protected", {"features": [FINE], "protected": "plan"}),
    ("protected", {"features": [FINE], "protected": {"plan": 1}}),
    ("protected", {"features": [FINE], "protected": [{"name": "plan"}]}),
    ("protected", {"features": [FINE], "protected": ["nothing"]}),
    ("protected", {"features": [FINE], "protected": ["tenure"]}),
    ("protected", {"features": [FINE], "protected": ["plan"] * 9}),
    ("protected", {"features": [FINE], "protected": ["person_id"]}),
    ("protected", {"features": [FINE], "protected": ["left"]}),
    ("sweep", {"features": [FINE], "sweep": 5}),
    ("sweep", {"features": [FINE], "sweep": []}),
    ("sweep", {"features": [FINE], "sweep": {}}),
    ("sweep", {"features": [FINE], "sweep": {"runs": "nan"}}),
    ("sweep", {"features": [FINE], "sweep": {"runs": "inf"}}),
    ("sweep", {"features": [FINE], "sweep": {"runs": HUGE}}),
    ("sweep", {"features": [FINE], "sweep": {"runs": -5}}),
    ("sweep", {"features": [FINE], "sweep": {"runs": [5]}}),
    ("audit", {"features": [FINE], "audit": "maybe"}),
    ("audit", {"features": [FINE], "audit": [True]}),
    ("audit", {"features": [FINE], "audit": {"a": 1}}),
    ("multi_label", {"features": [FINE], "multi_label": "perhaps"}),
    ("multi_label", {"features": [FINE], "multi_label": {}}),
    ("priority", {"features": [FINE], "priority": "urgent"}),
    ("priority", {"features": [FINE], "priority": 1}),
    ("priority", {"features": [FINE], "priority": ["high"]}),
    ("priority", {"features": [FINE], "priority": {"high": 1}}),
    ("privacy", {"features": [FINE], "privacy": {"epsilon": "nan"}}),
    ("privacy", {"features": [FINE], "privacy": {"epsilon": HUGE}}),
    ("privacy", {"features": [FINE], "privacy": {"delta": HUGE}}),
    ("privacy", {"features": [FINE], "privacy": {"delta": "nan"}}),
    ("privacy", {"features": [FINE], "privacy": {"unit": "\ud800"}}),
    ("columns", {"features": [FINE], "columns": {"label": HUGE}}),
    ("columns", {"features": [FINE], "columns": {"label\u0000": "left"}}),
    ("labels", {"features": [FINE], "labels": ["\ud800", "b"]}),
    ("labels", {"features": [FINE], "labels": [str(one) for one in range(1001)]}),
    ("max_steps", {"features": [FINE], "max_steps": HUGE}),
    ("method", {"features": [FINE], "method": {"type": HUGE}}),
    ("suffix", {"features": [FINE], "suffix": "\ud800"}),
]


@pytest.mark.parametrize("method", ["head", "lora"])
def test_a_delta_that_the_accountant_cannot_reach_is_refused(
    api: Any, acme: Tenant, words_file: str, method: str
) -> None:
    for delta in (5e-324, 1e-300, 1e-15, 0.5):
        body = {"training_file": words_file, "method": method, "privacy": {"epsilon": 8, "delta": delta}}
        answer = api.post("/v1/fine_tuning/quote", body)
        assert answer.status_code == 400, answer.content
        assert answer.json()["error"]["param"] == "privacy.delta"


@pytest.fixture
def table(people: Any) -> tuple[Any, str]:
    tenant: Tenant = people.globex
    api = people.api("globex")
    return api, uploaded(api, tenant, CUSTOM, name="custom.csv")


@pytest.mark.parametrize("path", ["quote", "jobs"])
def test_hostile_values_are_refused_by_field(table: tuple[Any, str], path: str) -> None:
    api, file_id = table
    api.client.raise_request_exception = False
    base = {"training_file": file_id, "columns": {"unit": "person_id", "label": "left"}}
    wrong = []
    for param, body in CASES:
        columns = (
            {**base["columns"], **body.get("columns", {})}
            if isinstance(body.get("columns", {}), dict)
            else None
        )
        answer = api.post(
            f"/v1/fine_tuning/{path}", {**base, **body, **({"columns": columns} if columns else {})}
        )
        try:
            found = answer.json()["error"]["param"]
        except (ValueError, KeyError, TypeError):
            found = answer.content[:200]
        if answer.status_code != 400 or not str(found).startswith(param):
            wrong.append((str(body)[:150], answer.status_code, found, answer.content[:200]))
    assert wrong == [], "\n".join(map(str, wrong))


def test_a_harmless_body_is_taken(table: tuple[Any, str]) -> None:
    """The control: what the hostile bodies differ from is accepted."""
    api, file_id = table
    body = {
        "training_file": file_id,
        "columns": {"unit": "person_id", "label": "left"},
        "features": [FINE],
        "protected": ["plan"],
        "priority": "high",
    }
    answer = api.post("/v1/fine_tuning/quote", body)
    assert answer.status_code == 200, answer.content
