"""Who belongs where: memberships, the team, keys and audit entries, and the lookups before a tenant is known."""

from __future__ import annotations

import uuid
from typing import Any

from allauth.account.models import EmailAddress
from django.db.models import Case, Q, QuerySet, When
from django.utils import timezone

from tenants.models import (
    ApiKey,
    ApiKeySecret,
    AuditEntry,
    DataKey,
    Invite,
    KeyRotation,
    Member,
    OwnKey,
    Role,
    Tenant,
    User,
)
from tenants.scope import TenantQuerySet, door


def membership(user: User, slug: str) -> Member | None:
    """This person's membership in the tenant of that slug, with tenant and user loaded; None for a stranger."""
    with door("user_id", str(user.pk)):
        rows: TenantQuerySet[Member] = TenantQuerySet(Member).filter(user=user, tenant__slug=slug)
        return rows.select_related("tenant", "user").first()


def memberships(user: User) -> list[Member]:
    """All memberships of a person, with their tenants, by the tenants' names."""
    with door("user_id", str(user.pk)):
        return list(
            TenantQuerySet(Member).filter(user=user).select_related("tenant").order_by("tenant__name", "id")
        )


def tenants_of(user: User) -> list[Tenant]:
    """The tenants that a person may switch to, by name."""
    return [found.tenant for found in memberships(user)]


def secret_by_digest(digest: str) -> tuple[uuid.UUID, uuid.UUID] | None:
    """(tenant id, key id) of the API key with that digest, before any tenant is known."""
    with door("key_hash", digest):
        return TenantQuerySet(ApiKeySecret).filter(digest=digest).values_list("tenant_id", "key_id").first()


def invite_by_hash(token_hash: str) -> Invite | None:
    """The invitation of that token's hash, before its tenant is known."""
    with door("invite_hash", token_hash):
        return TenantQuerySet(Invite).filter(token_hash=token_hash).first()


def tenant_by_id(tenant_id: uuid.UUID) -> Tenant | None:
    """A tenant's row; call inside its scope."""
    return Tenant.objects.filter(pk=tenant_id).first()


def team(tenant: Tenant) -> QuerySet[Member]:
    """Members with their people, owners first, then by e-mail address."""
    rank = Case(*[When(role=role, then=place) for place, role in enumerate(reversed(Role))])
    return Member.objects.of(tenant).select_related("user").order_by(rank, "user__email")


def open_invites(tenant: Tenant) -> QuerySet[Invite]:
    """Invitations that nobody has taken yet, newest first."""
    return Invite.objects.of(tenant).filter(accepted_at=None).order_by("-id")


def api_keys(tenant: Tenant) -> QuerySet[ApiKey]:
    """All keys, also revoked ones, newest first, with `is_expired`."""
    return ApiKey.objects.of(tenant).annotate(is_expired=Q(expires_at__lte=timezone.now())).order_by("-id")


def keys_made_by(tenant: Tenant, user: User) -> QuerySet[ApiKey]:
    """The keys in use that a person made, under any of their addresses."""
    addresses = [user.email, *EmailAddress.objects.filter(user=user).values_list("email", flat=True)]
    mine = ApiKey.objects.of(tenant).filter(created_by__in=addresses, revoked_at=None)
    return mine.select_related("tenant")


def audit_entries(tenant: Tenant, filters: dict[str, Any]) -> QuerySet[AuditEntry]:
    """Entries newest first; filters: action (prefix), actor (part of the words), since and until (dates)."""
    rows = AuditEntry.objects.of(tenant).order_by("-seq")
    if filters.get("action"):
        rows = rows.filter(action__startswith=filters["action"])
    if filters.get("actor"):
        rows = rows.filter(actor__icontains=filters["actor"])
    if filters.get("since"):
        rows = rows.filter(at__date__gte=filters["since"])
    if filters.get("until"):
        rows = rows.filter(at__date__lte=filters["until"])
    return rows


def audit_actions(tenant: Tenant) -> list[str]:
    """The kinds of change this tenant's log knows."""
    return list(AuditEntry.objects.of(tenant).order_by("action").values_list("action", flat=True).distinct())


def refused_own_key(tenant: Tenant) -> OwnKey | None:
    """The tenant's own key while it is not available. In the tenant's scope."""
    using = OwnKey.objects.of(tenant).exclude(state=OwnKey.State.LEFT)
    return using.filter(refused_at__isnull=False).first()


def key_facts(tenant: Tenant, most: int) -> dict[str, Any]:
    """What owners see of their keys: the newest generation, an own key, and the newest rotations. In the scope."""
    rotations = list(KeyRotation.objects.of(tenant).order_by("-id")[:most])
    return {
        "newest": DataKey.objects.of(tenant).defer("wrapped").order_by("-generation").first(),
        "own": OwnKey.objects.of(tenant).exclude(state=OwnKey.State.LEFT).first(),
        "rotations": rotations,
        "running": next((one for one in rotations if one.state == KeyRotation.State.RUNNING), None),
    }
