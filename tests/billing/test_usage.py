"""Usage is counted once, shown, and reported to the meters once."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import ProgrammingError, connection

from billing import actions, queries
from billing.models import Subscription, UsageEvent
from tenants.scope import scope


def test_it_works(acme: Any, api: Any) -> None:
    with scope(acme):
        for request in ("a", "b", "a"):
            actions.record_usage(acme, "predictions", 3, request)
        assert queries.usage_this_month(acme)["predictions"] == 6
    body = api.get("/v1/usage").json()
    assert body["used"]["predictions"] == 6
    assert body["plan"] == "free"


def test_usage_of_another_tenant_does_not_count(acme: Any, globex: Any, globex_api: Any) -> None:
    with scope(acme):
        actions.record_usage(acme, "tokens", 5, "a")
    assert globex_api.get("/v1/usage").json()["used"]["tokens"] == 0


def test_usage_rows_cannot_be_changed_or_deleted(acme: Any) -> None:
    with scope(acme):
        actions.record_usage(acme, "tokens", 5, "a")
    for statement in ("UPDATE billing_usageevent SET quantity = 0", "DELETE FROM billing_usageevent"):
        with (
            pytest.raises(ProgrammingError, match="permission denied"),
            scope(acme),
            connection.cursor() as cursor,
        ):
            cursor.execute(statement)


def test_meters_hear_of_each_row_once(standin: Any, acme: Any) -> None:
    from billing import gateway

    gateway.ensure_catalogue()
    customer = gateway.create_customer(str(acme.pk), "Acme", "a@example.test")
    with scope(acme):
        Subscription.objects.of(acme).create(plan="team", status="active", stripe_customer=customer)
        actions.record_usage(acme, "predictions", 40, "a")
        actions.record_usage(acme, "training_seconds", 12.4, "job")
        actions.record_usage(acme, "stored_byte_hours", 1e6, "hour")
    assert actions.report_usage() == 2
    assert actions.report_usage() == 0
    with scope(acme):
        UsageEvent.objects.of(acme).update(reported_at=None)
    actions.report_usage()
    events = standin.state.all("billing.meter_event")
    assert sorted(event["payload"]["value"] for event in events) == ["12", "40"]


def test_stored_bytes_are_measured_once_an_hour(acme: Any) -> None:
    from tenants import vault

    with scope(acme):
        vault.put(acme, "test", b"x" * 1000)
        stored = actions.stored_bytes(acme)
    assert stored > 1000
    actions.measure_storage()
    actions.measure_storage()
    with scope(acme):
        assert queries.usage_this_month(acme)["stored_byte_hours"] in (stored, 0)
