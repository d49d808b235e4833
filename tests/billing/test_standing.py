"""A failed payment: 7 days' grace, then read-only, then suspended; nothing is deleted."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from billing import limits, queries
from billing.models import Subscription
from billing.queries import Standing
from tenants.scope import scope


def overdue(tenant: Any, days: float) -> None:
    """Give the tenant a Team plan whose payment failed that long ago."""
    since = timezone.now() - timedelta(days=days)
    Subscription.objects.of(tenant).create(plan="team", status="past_due", past_due_since=since)


@pytest.mark.parametrize(
    ("days", "standing"),
    [
        (0.1, Standing.GRACE),
        (6.9, Standing.GRACE),
        (7.1, Standing.READ_ONLY),
        (20.9, Standing.READ_ONLY),
        (21.1, Standing.SUSPENDED),
    ],
)
def test_it_works(acme: Any, days: float, standing: Standing) -> None:
    with scope(acme):
        overdue(acme, days)
        assert queries.standing_of(acme) is standing
        if standing is Standing.GRACE:
            limits.require_writable(acme)
        else:
            with pytest.raises(limits.LimitReached) as refused:
                limits.require_writable(acme)
            assert refused.value.status == 402
            assert (
                "Nothing was deleted" in refused.value.message
                or "nothing was deleted" in refused.value.message
            )


def test_the_plan_stays_while_payment_is_late(acme: Any) -> None:
    with scope(acme):
        overdue(acme, 30)
        assert queries.plan_of(acme).code == "team"


def test_limits_speak_in_sentences(acme: Any) -> None:
    with scope(acme):
        limits.require(acme, "running_jobs", 1)
        with pytest.raises(limits.LimitReached) as refused:
            limits.require(acme, "running_jobs", 2)
        assert refused.value.status == 402
        assert "1 job at a time" in refused.value.message
        with pytest.raises(limits.LimitReached) as full:
            limits.require(acme, "storage_bytes", 1 << 40)
        assert (full.value.status, full.value.code) == (413, "storage_limit")


def test_free_training_needs_a_confirmed_address(acme: Any, people: Any) -> None:
    from tenants.models import User

    stranger = User.objects.create_user(f"new-{people.tag}@example.test", "x" * 12)
    with scope(acme):
        limits.require_verified_email(acme, people.user("alice"))
        with pytest.raises(limits.LimitReached, match="Confirm your e-mail"):
            limits.require_verified_email(acme, stranger)
