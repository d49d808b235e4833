"""The prediction log: entries are masked, then sealed under a key of their day; with the key they are gone."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, cast

from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext as _

from modeling.actions import holds
from modeling.core.personal_data import mask
from modeling.models import DefaultRules, Endpoint, Prediction, PredictionKey, ShadowDay
from saas.lib.db import public_id, uuid7
from saas.lib.errors import Conflict
from tenants import audit, vault
from tenants.audit import Actor
from tenants.models import Tenant
from tenants.scope import TenantQuerySet, scope

MOST_BYTES = 256 * 1024
PART = 200  # rows that an export reads at a time
_NOT_KEPT = {"user"}  # whose request it was: nobody needs it to see what a model answers


@dataclass(frozen=True, slots=True)
class Entry:
    """One answered request in clear, on its way into the log; `endpoint` is None for a model's own name."""

    endpoint: uuid.UUID | None
    at: datetime
    request_id: str
    route: str
    model: str
    milliseconds: int
    asked: Mapping[str, Any]
    answer: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Logged:
    """One entry of the log, opened."""

    row: Prediction
    input: Any
    answer: Any

    def body(self) -> dict[str, Any]:
        """The entry on the wire and in exports."""
        return {
            "id": self.row.public_id,
            "object": "prediction",
            "created_at": int(self.row.at.timestamp()),
            "request_id": self.row.request_id,
            "route": self.row.route,
            "model": self.row.model,
            "milliseconds": self.row.milliseconds,
            "input": self.input,
            "answer": self.answer,
        }


def masked(value: Any) -> Any:
    """The same JSON value with the personal data in all of its texts masked, and no user ids."""
    if isinstance(value, str):
        return mask(value)[0]
    if isinstance(value, Mapping):
        return {str(key): masked(one) for key, one in value.items() if key not in _NOT_KEPT}
    if isinstance(value, (list, tuple)):
        return [masked(one) for one in value]
    return value


def write(tenant_id: uuid.UUID, entries: Sequence[Entry]) -> int:
    """Mask, seal and keep what the rules of this moment let keep; returns how many. Opens the tenant's scope."""
    content = [_content(entry) for entry in entries]
    with scope(tenant_id):
        kept = _kept_now(tenant_id, {entry.endpoint for entry in entries})
        keys: dict[tuple[uuid.UUID | None, date], tuple[PredictionKey, bytes]] = {}
        rows = []
        for entry, text in zip(entries, content, strict=True):
            if entry.endpoint not in kept:
                continue
            place = (entry.endpoint, entry.at.date())
            if place not in keys:
                keys[place] = _day_key(tenant_id, *place)
            rows.append(_row(tenant_id, entry, text, *keys[place]))
        for row, number in zip(rows, sorted(uuid7() for _ in rows), strict=True):
            row.pk = number  # in the order in which they were answered
        Prediction.objects.of(tenant_id).bulk_create(rows)
    return len(rows)


def _content(entry: Entry) -> bytes:
    """The entry as it is sealed; one that is too large is not even looked through, which could take a minute."""
    given = {"input": entry.asked, "answer": entry.answer}
    is_large = len(json.dumps(given, ensure_ascii=False)) > MOST_BYTES
    text = "" if is_large else json.dumps(masked(given), ensure_ascii=False)
    if is_large or len(text) > MOST_BYTES:
        left_out = {"left_out": f"larger than {MOST_BYTES >> 10} KiB"}
        text = json.dumps({"input": left_out, "answer": left_out})
    return text.encode()


def _kept_now(tenant_id: uuid.UUID, wanted: set[uuid.UUID | None]) -> set[uuid.UUID | None]:
    """Those whose rules keep a log now; held, so that turning it off comes before or after, never between."""
    is_logging = {"log_days__gt": 0}
    endpoints = Endpoint.objects.of(tenant_id).select_for_update().order_by("pk")
    found: set[uuid.UUID | None] = set(
        endpoints.filter(pk__in=[one for one in wanted if one], **is_logging).values_list("pk", flat=True)
    )
    if None in wanted and DefaultRules.objects.of(tenant_id).select_for_update().filter(**is_logging):
        found.add(None)
    return found


def _day_key(tenant_id: uuid.UUID, endpoint: uuid.UUID | None, day: date) -> tuple[PredictionKey, bytes]:
    keys = PredictionKey.objects.of(tenant_id)
    fresh = PredictionKey(tenant_id=tenant_id, endpoint_id=endpoint, day=day)
    secret = os.urandom(vault.KEY_BYTES)
    fresh.wrapped = vault.seal_key(tenant_id, secret, place=fresh.place)
    keys.bulk_create([fresh], ignore_conflicts=True)
    row = keys.get(endpoint=endpoint, day=day)
    return row, secret if row.pk == fresh.pk else _open_key(row)


def _open_key(row: PredictionKey) -> bytes:
    return vault.open_row(row, place=row.place)


def _place(row: Prediction) -> str:
    return f"cloister/prediction/v1|{row.tenant_id}|{row.key_id}|{row.public_id}"


def _row(tenant_id: uuid.UUID, entry: Entry, content: bytes, key: PredictionKey, secret: bytes) -> Prediction:
    row = Prediction(
        tenant_id=tenant_id,
        key=key,
        public_id=public_id("pred-"),
        at=entry.at,
        request_id=entry.request_id,
        route=entry.route,
        model=entry.model,
        milliseconds=entry.milliseconds,
    )
    row.sealed = vault.wrap(content, key=secret, bound=_place(row))
    return row


def kept(tenant: Tenant, endpoint: Endpoint | None) -> TenantQuerySet[Prediction]:
    """The log of an endpoint, or of the models called by their own name."""
    rows: TenantQuerySet[Prediction] = Prediction.objects.of(tenant).filter(key__endpoint=endpoint)
    return rows.select_related("key")


def opened(rows: Iterable[Prediction]) -> list[Logged]:
    """The entries in clear; in the tenant's scope. Raises vault.KeyDestroyed."""
    secrets: dict[uuid.UUID, bytes] = {}
    found = []
    for row in rows:
        if row.key_id not in secrets:
            secrets[row.key_id] = _open_key(row.key)
        content = json.loads(vault.unwrap(bytes(row.sealed), key=secrets[row.key_id], bound=_place(row)))
        found.append(Logged(row, content["input"], content["answer"]))
    return found


def exported(tenant: Tenant, actor: Actor, endpoint: Endpoint | None) -> Iterator[bytes]:
    """The whole log as JSON lines, newest first; that it was taken out is audited now, in the caller's scope."""
    audit.record(tenant, actor, "predictions.exported", endpoint)
    return (
        json.dumps(one.body(), ensure_ascii=False).encode() + b"\n" for one in _everything(tenant, endpoint)
    )


def _everything(tenant: Tenant, endpoint: Endpoint | None) -> Iterator[Logged]:
    """Opens the tenant's scope for each part, so that no transaction stays open while a client reads."""
    before: uuid.UUID | None = None
    while True:
        with scope(tenant):
            rows = kept(tenant, endpoint).order_by("-pk")
            found = opened(rows.filter(pk__lt=before)[:PART] if before else rows[:PART])
        yield from found
        if len(found) < PART:
            return
        before = found[-1].row.pk


def delete_kept(tenant: Tenant, endpoint: Endpoint | None, *, agreed: bool) -> int:
    """Delete an endpoint's whole log with its keys; returns how many. Raises Conflict where it has some and no yes."""
    rows = Prediction.objects.of(tenant).filter(key__endpoint=endpoint)
    if rows.exists():
        holds.require_nothing_held(tenant)
    if not agreed and rows.exists():
        raise Conflict(
            _(
                "The log holds predictions, and turning it off deletes them. Send delete_predictions to agree."
            ),
            code="predictions_kept",
            param="delete_predictions",
        )
    count = rows.delete()[0]
    PredictionKey.objects.of(tenant).filter(endpoint=endpoint).delete()
    return count


def forget_expired(tenant_id: uuid.UUID) -> int:
    """Delete what is older than its rules allow, and the keys of whole days; returns how many. Opens the scope."""
    now, count = timezone.now(), 0
    with scope(tenant_id):
        if holds.standing(Tenant.objects.get(pk=tenant_id)).filter(file=None, dataset=None).exists():
            return 0  # all of the tenant's data is held
        keys = PredictionKey.objects.of(tenant_id)
        own = DefaultRules.objects.of(tenant_id).values_list("log_days", flat=True).first() or 0
        logs = list(keys.values_list("endpoint", "endpoint__log_days").distinct().order_by())
        for endpoint, days in cast("list[tuple[uuid.UUID | None, int]]", logs):
            oldest = now - timedelta(days=own if endpoint is None else days)
            of = Q(key__endpoint=endpoint) if endpoint else Q(key__endpoint=None)
            count += Prediction.objects.of(tenant_id).filter(of, at__lt=oldest).delete()[0]
            keys.filter(endpoint=endpoint, day__lt=oldest.date()).delete()
    return count


def shadow_days(tenant: Tenant, endpoint: Endpoint) -> TenantQuerySet[ShadowDay]:
    """What shadows of this endpoint did, by day."""
    rows: TenantQuerySet[ShadowDay] = ShadowDay.objects.of(tenant).filter(endpoint=endpoint)
    return rows
