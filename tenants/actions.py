"""What changes tenants, members, invitations and keys: each action writes its audit entry in the same transaction."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from django.conf import settings
from django.core.mail import send_mail
from django.db import IntegrityError, transaction
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.text import slugify
from django.utils.translation import gettext as _
from redis.exceptions import RedisError

from modeling.packs import PACKS
from saas.lib import background, valkey
from saas.lib.db import base62, uuid7
from saas.lib.errors import Conflict, Forbidden, NotFound, Refusal
from tenants import audit, keys, queries, vault
from tenants.audit import Actor
from tenants.models import ApiKey, ApiKeySecret, Invite, Member, ReservedSlug, Role, Tenant, User
from tenants.scope import scope

logger = logging.getLogger(__name__)
INVITE_DAYS: Final = 7
SLUG_CHARACTERS: Final = 32
REVOCATIONS: Final = "revoke"


def create_tenant(user: User, name: str, pack: str, *, slug: str = "") -> Tenant:
    """A new tenant with its own key, owned by `user`; the slug comes from the name and never changes."""
    if pack not in PACKS:
        raise Refusal(_("Choose one of the verticals on offer."), param="pack")
    name = " ".join(name.split())[:120]
    if not name:
        raise Refusal(_("A tenant needs a name."), param="name")
    base = slug or slugify(name)[:SLUG_CHARACTERS].strip("-") or "tenant"
    endings = [""] if slug else ["", "-2", "-3", *(f"-{base62(4).lower()}" for _attempt in range(3))]
    for ending in endings:
        made = _try_tenant(user, name, pack, base + ending)
        if made is not None:
            return made
    raise Conflict(_("That name is taken. Choose another."), param="name")


def _try_tenant(user: User, name: str, pack: str, slug: str) -> Tenant | None:
    tenant = Tenant(id=uuid7(), slug=slug, name=name, pack=pack)
    with scope(tenant.pk):
        try:
            with transaction.atomic():
                tenant.save(force_insert=True)
                if is_reserved(slug):
                    raise IntegrityError  # looked up after the insert, which waits for an erasure under way
        except IntegrityError:
            return None
        vault.create_tenant_key(tenant)
        owner = Member.objects.of(tenant).create(user=user, role=Role.OWNER)
        actor = Actor("user", str(user.pk), user.email)
        audit.record(tenant, actor, "tenant.created", tenant, pack=pack)
        audit.record(tenant, actor, "member.added", owner, role=owner.role)
    return tenant


def is_reserved(slug: str) -> bool:
    """Whether an erased tenant had this slug."""
    return ReservedSlug.objects.filter(digest=slug_digest(slug)).exists()


def slug_digest(slug: str) -> str:
    """What stays of an erased tenant's slug."""
    return keys.digest(f"slug:{slug}")


def rename_tenant(tenant: Tenant, name: str, *, actor: Actor) -> None:
    """Change the name people see; the slug stays."""
    before, name = tenant.name, " ".join(name.split())[:120]
    if not name:
        raise Refusal(_("A tenant needs a name."), param="name")
    Tenant.objects.filter(pk=tenant.pk).update(name=name)
    tenant.name = name
    audit.record(tenant, actor, "tenant.renamed", tenant, before=before, after=name)


def invite_member(tenant: Tenant, actor: Actor, email: str, role: str) -> tuple[Invite, str]:
    """Invite a person by e-mail; the token goes into the mail and only its hash is kept."""
    email = email.strip().lower()
    if Member.objects.of(tenant).filter(user__email=email).exists():
        raise Conflict(_("This person is a member already."), param="email")
    Invite.objects.of(tenant).filter(email=email, accepted_at=None).delete()
    token = base62(40)
    invite = Invite.objects.of(tenant).create(
        email=email,
        role=Role(role),
        token_hash=_token_hash(token),
        invited_by_id=actor.id if actor.kind == "user" else None,
        expires_at=timezone.now() + timedelta(days=INVITE_DAYS),
    )
    audit.record(tenant, actor, "invite.sent", invite, role=role)
    words = {"tenant": tenant, "role": Role(role).label, "days": INVITE_DAYS, "who": actor.label}
    words["link"] = f"{settings.PUBLIC_URL}/invites/{token}/"
    text = render_to_string("emails/invite.txt", words)
    subject = _("You are invited to %(tenant)s on Cloister") % {"tenant": tenant.name}
    transaction.on_commit(lambda: _mail(subject, text, email))
    return invite, token


def _mail(subject: str, text: str, email: str) -> None:
    try:
        send_mail(subject, text, None, [email])
    except OSError as error:
        logger.warning("invitation not mailed (%s): the owner can invite again", type(error).__name__)


def withdraw_invite(invite: Invite, *, actor: Actor) -> None:
    """Take an open invitation back."""
    audit.record(invite.tenant, actor, "invite.withdrawn", invite)
    Invite.objects.of(invite.tenant_id).filter(pk=invite.pk).delete()


def usable_invite(token: str) -> Invite:
    """The open invitation of a token, with its tenant. Raises NotFound when unknown, used, withdrawn or expired."""
    invite = queries.invite_by_hash(_token_hash(token))
    if invite is None or invite.accepted_at is not None or invite.expires_at <= timezone.now():
        raise NotFound(_("This invitation is unknown, used or expired. Ask for a new one."))
    with scope(invite.tenant_id):
        invite.tenant = Tenant.objects.get(pk=invite.tenant_id)
    return invite


def accept_invite(user: User, token: str) -> Member:
    """Join the inviting tenant. The invitation must be for this person's e-mail address."""
    invite = usable_invite(token)
    if invite.email.lower() != user.email.lower():
        raise Forbidden(
            _("This invitation is for another e-mail address. Sign in with that one."), code="other_address"
        )
    with scope(invite.tenant):
        now = timezone.now()
        taken = Invite.objects.of(invite.tenant).filter(pk=invite.pk, accepted_at=None, expires_at__gt=now)
        if not taken.update(accepted_at=now):
            raise NotFound(_("This invitation is unknown, used or expired. Ask for a new one."))
        found = Member.objects.of(invite.tenant).filter(user=user).first()
        if found is not None:
            return found
        member = Member.objects.of(invite.tenant).create(user=user, role=invite.role)
        actor = Actor("user", str(user.pk), user.email)
        audit.record(invite.tenant, actor, "member.added", member, role=member.role)
    return member


def change_role(member: Member, role: str, *, actor: Actor) -> None:
    """Give a member another role; the last owner stays an owner."""
    before = member.role
    if before == role:
        return
    if before == Role.OWNER:
        _keep_an_owner(member)
    Member.objects.of(member.tenant_id).filter(pk=member.pk).update(role=Role(role))
    member.role = Role(role)
    audit.record(member.tenant, actor, "member.role_changed", member, before=before, after=role)


def remove_member(member: Member, *, actor: Actor) -> None:
    """Take a person out of the tenant, effective with their next request; the last owner stays.

    The API keys that they made end with it: whoever left still knows them.
    """
    if member.role == Role.OWNER:
        _keep_an_owner(member)
    audit.record(member.tenant, actor, "member.removed", member, role=member.role)
    Member.objects.of(member.tenant_id).filter(pk=member.pk).delete()
    announce_revocation("member", member.tenant, str(member.user_id))
    for key in queries.keys_made_by(member.tenant, member.user):
        revoke_key(key, actor=actor)


def _keep_an_owner(member: Member) -> None:
    owners = Member.objects.of(member.tenant_id).filter(role=Role.OWNER).select_for_update()
    if not any(owner.pk != member.pk for owner in owners):
        raise Conflict(
            _("A tenant needs at least one owner. Make someone else an owner first."), code="last_owner"
        )


def issue_key(
    tenant: Tenant, name: str, scopes: Sequence[str], actor: Actor, *, expires_at: datetime | None = None
) -> tuple[ApiKey, str]:
    """A new API key and its secret, which is returned this once and never stored."""
    name = name.strip()
    unknown = sorted(set(scopes) - set(keys.SCOPES))
    if not name or len(name) > 80:
        raise Refusal(_("Give the key a name of at most 80 characters."), param="name")
    if unknown or not scopes:
        raise Refusal(
            _("Choose at least one scope from: %(all)s.") % {"all": ", ".join(keys.SCOPES)}, param="scopes"
        )
    if expires_at is not None and expires_at <= timezone.now():
        raise Refusal(_("The expiry must lie in the future."), param="expires_at")
    secret = keys.make_key()
    key = ApiKey.objects.of(tenant).create(
        name=name,
        scopes=[scope for scope in keys.SCOPES if scope in scopes],
        last4=secret[-4:],
        created_by=actor.label[:200],
        expires_at=expires_at,
    )
    ApiKeySecret.objects.of(tenant).create(key=key, digest=keys.digest(secret))
    audit.record(tenant, actor, "key.issued", key, name=name, scopes=key.scopes)
    return key, secret


def revoke_key(key: ApiKey, *, actor: Actor) -> None:
    """End a key: its digest is deleted, and every process is told. A second call does nothing."""
    now = timezone.now()
    if not ApiKey.objects.of(key.tenant_id).filter(pk=key.pk, revoked_at=None).update(revoked_at=now):
        return
    ApiKeySecret.objects.of(key.tenant_id).filter(key_id=key.pk).delete()
    key.revoked_at = now
    audit.record(key.tenant, actor, "key.revoked", key, name=key.name)
    announce_revocation("key", key.tenant, key.public_id)


def suspend_tenant(tenant: Tenant, *, reason: str, actor: Actor) -> None:
    """Close a tenant's pages, keys and jobs within seconds; its data stays. Opens the tenant's scope."""
    if not reason.strip():
        raise Refusal(_("Say why the tenant is suspended."), param="reason")
    with scope(tenant):
        active = Tenant.objects.filter(pk=tenant.pk, state=Tenant.State.ACTIVE)
        if not active.update(state=Tenant.State.SUSPENDED, suspended_reason=reason[:300]):
            return
        tenant.state, tenant.suspended_reason = Tenant.State.SUSPENDED, reason[:300]
        audit.record(tenant, actor, "tenant.suspended", tenant, reason=reason[:300])
        announce_revocation("tenant", tenant, tenant.slug)
        background.enqueue("modeling.stop_tenant_jobs", tenant_id=tenant.pk)


def restore_tenant(tenant: Tenant, *, reason: str, actor: Actor) -> None:
    """Open a suspended tenant again. Opens the tenant's scope."""
    with scope(tenant):
        suspended = Tenant.objects.filter(pk=tenant.pk, state=Tenant.State.SUSPENDED)
        if not suspended.update(state=Tenant.State.ACTIVE, suspended_reason=""):
            return
        tenant.state, tenant.suspended_reason = Tenant.State.ACTIVE, ""
        audit.record(tenant, actor, "tenant.restored", tenant, reason=reason[:300])
        announce_revocation("tenant", tenant, tenant.slug)


def announce_revocation(kind: str, tenant: Tenant, id: str) -> None:  # noqa: A002
    """Tell every process after commit that what it remembers of a key, tenant, version, endpoint or member is void.

    At most once: whoever caches also looks at the rows again within 5 seconds.
    """
    message = json.dumps({"kind": kind, "tenant": str(tenant.pk), "id": id})
    transaction.on_commit(lambda: _announce(message))


def _announce(message: str) -> None:
    try:
        valkey.client().publish(REVOCATIONS, message)
    except RedisError as error:
        logger.warning("revocation not announced (%s): caches expire by themselves", type(error).__name__)


def _token_hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
