"""An address that does not exist: programs get the OpenAI error body, people get a page."""

from __future__ import annotations

import pytest
from django.test import Client

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("path", ["/v1/nope", "/v1/fine_tuning/nope", "/v1/"])
def test_programs_get_json(path: str) -> None:
    answer = Client().get(path)
    assert answer.status_code == 404
    assert answer["Content-Type"].startswith("application/json")
    error = answer.json()["error"]
    assert (error["code"], error["type"]) == ("unknown_url", "invalid_request_error")
    assert path in error["message"]


def test_people_get_a_page() -> None:
    answer = Client().get("/nope/")
    assert answer.status_code == 404
    assert "Go to the start page" in answer.content.decode()
