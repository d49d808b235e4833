"""Idempotency-Key: the answer to a POST is kept in the same transaction as its effect, and given again."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.db import connection
from django.utils import timezone
from django.utils.translation import gettext as _

from modeling.models import RememberedAnswer
from saas.lib.errors import Conflict, Refusal
from tenants import vault
from tenants.models import Tenant

LONGEST_KEY = 255
KEPT = timedelta(hours=24)

Answer = tuple[int, dict[str, Any]]


def once(tenant: Tenant, key: str, path: str, body: Any, effect: Callable[[], Answer]) -> Answer:
    """Run `effect` once per (tenant, path, key); a repeat gets the stored answer. Inside the tenant's scope.

    Raises Conflict (409) while the first is still running, and Refusal (422) for another body under the same key.
    """
    if not key:
        return effect()
    if len(key) > LONGEST_KEY:
        raise Refusal(_("An Idempotency-Key has at most 255 characters."), param="Idempotency-Key")
    _lock(tenant, path, key)
    sent = json.dumps(body, sort_keys=True, default=str).encode()
    digest = hmac.digest(vault.derive(tenant, "remembered-body"), sent, "sha256").hex()  # it may name people
    rows = RememberedAnswer.objects.of(tenant)
    rows.filter(path=path, key=key, created_at__lt=timezone.now() - KEPT).delete()
    found = rows.filter(path=path, key=key).first()
    if found is None:
        status, response = effect()
        rows.create(path=path, key=key, body_digest=digest, status=status, response=response)
        return status, response
    if found.body_digest != digest:
        raise Refusal(
            _("This Idempotency-Key was used with another body. Send a new key."),
            status=422,
            code="idempotency_key_reused",
        )
    return found.status, found.response


def is_known(tenant: Tenant, key: str, path: str) -> bool:
    """Whether `once` would give a stored answer: for what comes before an effect and needs no repeating."""
    young = timezone.now() - KEPT
    rows = RememberedAnswer.objects.of(tenant).filter(path=path, key=key, created_at__gte=young)
    return bool(key) and rows.exists()


def _lock(tenant: Tenant, path: str, key: str) -> None:
    """Hold the key until the transaction ends; somebody else holding it means that the first is still running."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 0))", [f"once:{tenant.pk}:{path}:{key}"]
        )
        (is_mine,) = cursor.fetchone()
    if not is_mine:
        raise Conflict(
            _("A request with this Idempotency-Key is still running."), code="idempotency_in_progress",
            headers={"Retry-After": "1"},
        )  # fmt: skip
