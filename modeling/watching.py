"""Who may watch a job over a WebSocket, and the events they have not seen; each call opens its own scope."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.http.request import validate_host
from django.utils import timezone

from modeling.actions.events import body_of, topic_of
from modeling.models import Job, JobEvent
from saas.lib.errors import Forbidden, Unauthenticated
from tenants import queries
from tenants.access import Caller, authenticate_key, bearer, redeem_ticket
from tenants.models import ApiKey, Tenant, User
from tenants.scope import scope

SCOPE_NAME = "train"
PAGE = 500


@dataclass(frozen=True)
class Watch:
    """A caller let in to one job."""

    tenant_id: uuid.UUID
    job_id: uuid.UUID
    topic: str
    key_id: str  # "" for a person
    user_id: uuid.UUID | None
    slug: str


def check_origin(headers: Mapping[bytes, bytes]) -> None:
    """A browser says where its page came from: only our own hosts may open a socket. Raises Forbidden."""
    origin = headers.get(b"origin", b"").decode("latin-1")
    if not origin:
        return  # not a browser
    try:
        host = urlsplit(origin).hostname or ""
    except ValueError:
        host = ""
    if not validate_host(host, settings.ALLOWED_HOSTS):
        raise Forbidden("This page may not open a WebSocket here.", code="origin_refused")


def let_in(headers: Mapping[bytes, bytes], user: User | None, *, ticket: str, job_id: str) -> Watch | None:
    """The watch of whoever asks by ticket, key or session; None when the job is unknown or a stranger's.

    Raises Unauthenticated without a usable credential, Forbidden from a foreign origin or without the scope.
    """
    check_origin(headers)
    authorization = headers.get(b"authorization", b"").decode("latin-1")
    if ticket or authorization:
        caller = redeem_ticket(ticket) if ticket else authenticate_key(bearer(authorization))
        if not caller.may(SCOPE_NAME):
            raise Forbidden("This API key lacks the scope `train`.", code="missing_scope")
        return _watch(caller.tenant, job_id, caller=caller)
    if user is None or b"origin" not in headers:
        raise Unauthenticated("Bring a ticket, an API key or a session.")
    for tenant in queries.tenants_of(user):
        found = _watch(tenant, job_id, user=user) if tenant.state == Tenant.State.ACTIVE else None
        if found is not None:
            return found
    return None


def _watch(
    tenant: Tenant, job_id: str, *, caller: Caller | None = None, user: User | None = None
) -> Watch | None:
    with scope(tenant):
        job = Job.objects.of(tenant).filter(public_id=job_id).only("pk", "public_id").first()
    if job is None:
        return None
    is_key = caller is not None and caller.kind == "key"
    user_id = user.pk if user else (uuid.UUID(caller.key_id) if caller and not is_key else None)
    key_id = caller.key_id if caller and is_key else ""
    return Watch(tenant.pk, job.pk, topic_of(job.public_id), key_id, user_id, tenant.slug)


def is_still_welcome(watch: Watch) -> bool:
    """Whether key or membership and tenant still stand: asked again every few seconds while the socket is open."""
    if watch.user_id is not None:
        user = User.objects.filter(pk=watch.user_id, is_active=True).first()
        found = queries.membership(user, watch.slug) if user else None
        return found is not None and found.tenant.state == Tenant.State.ACTIVE
    with scope(watch.tenant_id):
        keys = ApiKey.objects.of(watch.tenant_id).filter(public_id=watch.key_id, revoked_at=None)
        key = keys.select_related("tenant").first()
        if key is None or key.tenant.state != Tenant.State.ACTIVE:
            return False
        return key.expires_at is None or key.expires_at > timezone.now()


def look(watch: Watch) -> tuple[bool, int]:
    """Whether the caller is still welcome, and the number of the job's newest event."""
    if not is_still_welcome(watch):
        return False, 0
    with scope(watch.tenant_id):
        last = (
            Job.objects.of(watch.tenant_id).filter(pk=watch.job_id).values_list("last_seq", flat=True).first()
        )
    return True, last or 0


def missed(watch: Watch, after: int) -> list[dict[str, Any]]:
    """Up to PAGE events after that number, oldest first, as clients get them."""
    with scope(watch.tenant_id):
        events = JobEvent.objects.of(watch.tenant_id).filter(job_id=watch.job_id, seq__gt=after)
        return [body_of(event) for event in events.order_by("seq")[:PAGE]]
