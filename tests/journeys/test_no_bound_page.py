"""The privacy page states no epsilon for people on whom a job ran without privacy, and says whose record a row is."""

from __future__ import annotations

from typing import Any

import pytest

from tenants.models import Tenant
from tests.journeys.test_pages import upload
from tests.modeling.clinic import started


@pytest.mark.parametrize(
    ("privacy", "is_bounded"),
    [({"epsilon": 2}, True), ({"mode": "off", "reason": "a control"}, False)],
)
def test_an_epsilon_is_stated_only_where_there_is_a_bound(
    api: Any, acme: Tenant, alice: Any, privacy: dict[str, Any], is_bounded: bool
) -> None:
    from modeling.models import File
    from tenants.scope import scope

    upload(alice, acme)
    with scope(acme):
        file_id = File.objects.of(acme).get().public_id
    started(api, file_id, privacy=privacy | {"unit": "patient_id"})
    page = alice.get(f"/t/{acme.slug}/privacy/").content.decode()
    assert ("Guarantee" in page) == ("chosen in advance" in page) == is_bounded
    assert "all rows with the same patient_id" in page
