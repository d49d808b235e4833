"""Events posted back with a recommendation's id: counted by model, endpoint, day and place; nobody is in them."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from django.db import connection
from django.utils import timezone
from django.utils.translation import gettext as _

from modeling.models import CountedEvent, Endpoint, ModelVersion
from modeling.serving.recommendation_ids import PLACES, BrokenId, Recommendation, verify, version_of
from modeling.serving.targets import id_key
from saas.lib.db import uuid7
from tenants import vault
from tenants.models import Tenant
from tenants.scope import identity

BELIEVED_DAYS = 30  # after a list was made
_CLOCKS = timedelta(minutes=5)  # by which a caller's clock may differ from ours
Place = tuple[str, str, date, str, int]  # model, endpoint, day, kind, position


@dataclass(frozen=True, slots=True)
class Event:
    """One event as it was sent: `item` "" means every item of the list, which only `shown` may say."""

    recommendation_id: str
    kind: str
    item: str
    event_id: str
    at: datetime | None


@dataclass(frozen=True, slots=True)
class Recorded:
    """How many events were counted, how many had been before, and which were refused: (place, code, sentence)."""

    counted: int
    repeated: int
    refused: Sequence[tuple[int, str, str]]


class _Unusable(Exception):
    """Why one event is not counted."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code, self.sentence = code, sentence


def record(tenant: Tenant, events: Sequence[Event]) -> Recorded:
    """Count events once each, however often they are sent; call within the tenant's scope."""
    reading = _Reading(tenant)
    refused: list[tuple[int, str, str]] = []
    places: dict[bytes, list[Place]] = {}
    usable = 0
    for number, event in enumerate(events):
        try:
            digest, found = reading.places(event)
        except _Unusable as reason:
            refused.append((number, reason.code, reason.sentence))
            continue
        usable += 1
        places.setdefault(digest, found)
    fresh = _first_time(tenant, sorted(places))
    counts = Counter(place for digest in fresh for place in places[digest])
    _add(tenant, counts)
    return Recorded(len(fresh), usable - len(fresh), refused)


class _Reading:
    """What ids say, each model's key asked for once."""

    def __init__(self, tenant: Tenant) -> None:
        self._tenant = tenant
        self._now = timezone.now()
        self._models: dict[str, tuple[str, list[bytes]] | None] = {}
        self._endpoints: dict[str, str] = {}
        self._lists: dict[str, Recommendation] = {}

    def places(self, event: Event) -> tuple[bytes, list[Place]]:
        """The event's digest, and where it counts; raises _Unusable."""
        found = self._list(event.recommendation_id)
        day = self._day(event, found)
        named = (self._name(found.version), self._endpoint(found.endpoint), day, event.kind)
        digest = found.digest(event.kind, event.item, event.event_id)
        if not event.item:
            whole = [(*named, place) for place in range(1, min(found.count, PLACES) + 1)]
            return digest, whole + [(*named, 0)] * max(0, found.count - PLACES)
        try:
            return digest, [(*named, found.position(event.item))]
        except BrokenId as error:
            raise _Unusable("item_not_recommended", _("This item was not in that recommendation.")) from error

    def _list(self, text: str) -> Recommendation:
        if text in self._lists:
            return self._lists[text]
        unknown = _Unusable("unknown_recommendation", _("There is no such recommendation."))
        try:
            known = self._model(version_of(text))
            if known is None:
                raise unknown
            found = self._lists[text] = _verified(text, known[1])
        except BrokenId as error:
            raise unknown from error
        return found

    def _day(self, event: Event, found: Recommendation) -> date:
        made = datetime.fromtimestamp(found.at, UTC)
        if self._now - made > timedelta(days=BELIEVED_DAYS):
            raise _Unusable(
                "recommendation_expired",
                _("The recommendation is older than %(days)d days.") % {"days": BELIEVED_DAYS},
            )
        at = event.at or self._now
        if not made - _CLOCKS <= at <= self._now + _CLOCKS:
            raise _Unusable("invalid_value", _("at must lie between the recommendation and now."))
        return at.astimezone(UTC).date()

    def _model(self, version: str) -> tuple[str, list[bytes]] | None:
        """The name of one of the tenant's models and what seals its ids; None for any other, and for a deleted one."""
        if version not in self._models:
            self._models[version] = _key_of(self._tenant, version)
        return self._models[version]

    def _name(self, version: str) -> str:
        known = self._model(version)
        return known[0] if known else ""

    def _endpoint(self, pk: str) -> str:
        """The endpoint's name today; "" for a model's own name, and for an endpoint that is gone."""
        if pk and pk not in self._endpoints:
            name = Endpoint.objects.of(self._tenant).filter(pk=pk).values_list("name", flat=True).first()
            self._endpoints[pk] = name or ""
        return self._endpoints.get(pk, "")


def _verified(text: str, keys: Sequence[bytes]) -> Recommendation:
    """What an id says, by the first key that sealed it; raises BrokenId."""
    for key in keys[:-1]:
        with suppress(BrokenId):
            return verify(text, key)
    return verify(text, keys[-1])


def _key_of(tenant: Tenant, version: str) -> tuple[str, list[bytes]] | None:
    row = ModelVersion.objects.of(tenant).filter(pk=version).select_related("object").first()
    if row is None or row.object is None or row.state != ModelVersion.State.READY:
        return None
    try:
        return row.name, [id_key(row), vault.data_key(row.object)]  # the latter for ids of former versions
    except vault.KeyDestroyed:
        return None


_FIRST_TIME = """
INSERT INTO modeling_countedevent (id, tenant_id, digest, day)
SELECT id, %s, digest, %s FROM unnest(%s::uuid[], %s::bytea[]) AS given (id, digest)
ON CONFLICT (tenant_id, digest) DO NOTHING RETURNING digest
"""


def _first_time(tenant: Tenant, digests: Sequence[bytes]) -> list[bytes]:
    """Those that were not counted before; what is too old to be repeated is forgotten."""
    today = timezone.now().date()
    old = today - timedelta(days=BELIEVED_DAYS + 2)
    CountedEvent.objects.of(tenant).filter(day__lt=old).delete()
    if not digests:
        return []
    ids: list[uuid.UUID] = [uuid7() for _digest in digests]
    with connection.cursor() as cursor:
        cursor.execute(_FIRST_TIME, [identity(tenant), today, ids, list(digests)])
        return [bytes(digest) for (digest,) in cursor.fetchall()]


_ADD = """
INSERT INTO modeling_recommendedday (id, tenant_id, model, endpoint, day, kind, position, count)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (tenant_id, model, endpoint, day, kind, position)
DO UPDATE SET count = modeling_recommendedday.count + excluded.count
"""


def _add(tenant: Tenant, counts: Mapping[Place, int]) -> None:
    """Add to the day's rows, always in the same order, so that two calls never wait for each other in a ring."""
    with connection.cursor() as cursor:
        cursor.executemany(
            _ADD, [(uuid7(), identity(tenant), *place, counts[place]) for place in sorted(counts)]
        )
