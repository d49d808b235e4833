"""A tenant's own key in AWS KMS or Vault: taken after proof, watched every few seconds, obeyed when it refuses."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from django.conf import settings
from django.utils import timezone
from django.utils.translation import gettext as _

from saas.lib import background
from saas.lib.errors import Conflict, Refusal
from tenants import actions, audit, root_keys, rotation, vault_keys
from tenants.audit import Actor
from tenants.models import DataKey, OwnKey, Tenant
from tenants.root_keys import KeyDestroyed, KeyRefused, KeysUnreachable, RootKey
from tenants.scope import scope

SILENCE: Final = timedelta(
    seconds=20
)  # a key service that does not answer for so long counts as one that refuses
ASKED_AT_ONCE: Final = 16
KEY_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
ARN: Final = re.compile(r"arn:(?:aws|aws-cn|aws-us-gov):kms:([a-z0-9-]{4,30}):\d{12}:key/[A-Za-z0-9-]{1,64}")


@dataclass(frozen=True, slots=True)
class Offer:
    """A place where the operator lets tenants keep a key: `name` is aws-kms:REGION or vault:NAME."""

    name: str
    label: str


def offers() -> list[Offer]:
    """What OWN_KEYS allows; no tenant ever names an address."""
    found = []
    for one in settings.OWN_KEYS:
        kind, _colon, rest = one.partition(":")
        if kind == "aws-kms":
            found.append(Offer(one, _("AWS KMS in %(region)s") % {"region": rest}))
        elif kind == "vault":
            name = rest.partition("=")[0]
            found.append(Offer(f"vault:{name}", _("Vault “%(name)s”") % {"name": name}))
    return found


def service(reference: str) -> RootKey:
    """The key behind a reference that was taken: aws-kms:ARN or vault:NAME/KEY.

    Raises KeyRefused once the operator no longer allows its place.
    """
    kind, _colon, rest = reference.partition(":")
    allowed = {one.name for one in offers()}
    if kind == "aws-kms":
        arn = ARN.fullmatch(rest)
        if arn is not None and f"aws-kms:{arn[1]}" in allowed:
            return root_keys.named(reference)
    elif kind == "vault":
        name, _slash, key = rest.partition("/")
        if f"vault:{name}" in allowed and KEY_NAME.fullmatch(key):
            return root_keys.named(reference, transits=_addresses())
    raise KeyRefused(_("This place for keys is not offered here."))


def _addresses() -> dict[str, str]:
    entries = [one.removeprefix("vault:") for one in settings.OWN_KEYS if one.startswith("vault:")]
    return {entry.partition("=")[0]: entry.partition("=")[2].rstrip("/") for entry in entries}


def take(tenant: Tenant, actor: Actor, *, place: str, name: str) -> OwnKey:
    """Wrap the tenant's key by its own from now on: proven first, then all is wrapped anew and the old key destroyed.

    In the tenant's scope. Raises Refusal with what to mend.
    """
    name = name.strip()
    if place not in {one.name for one in offers()}:
        raise Refusal(_("Choose one of the places on offer."), param="place")
    if OwnKey.objects.of(tenant).exclude(state=OwnKey.State.LEFT).exists():
        raise Conflict(
            _("A key of your own is in use. Go back to ours first, then take another."), param="name"
        )
    reference = _reference(place, name)
    key = service(reference)
    try:
        root_keys.prove(key, tenant.pk)
    except (KeyRefused, KeysUnreachable) as refusal:
        raise Refusal(
            _("Your key did not wrap and unwrap a test: %(why)s") % {"why": refusal.message},
            param="name",
            code="own_key_unproven",
        ) from None
    own, _made = OwnKey.objects.of(tenant).update_or_create(
        tenant=tenant,
        root_id=key.id,
        defaults={"reference": reference, "state": OwnKey.State.TAKING, "refused_at": None, "reason": ""},
    )
    audit.record(tenant, actor, "own_key.taken", None, key=key.label)
    rotation.start(tenant, actor, root=key)
    return own


def _reference(place: str, name: str) -> str:
    kind, _colon, where = place.partition(":")
    if kind == "aws-kms":
        found = ARN.fullmatch(name)
        if found is None or found[1] != where:
            text = _("Write the whole ARN of a key in %(region)s: arn:aws:kms:%(region)s:…:key/…")
            raise Refusal(text % {"region": where}, param="name")
        return f"aws-kms:{name}"
    if not KEY_NAME.fullmatch(name):
        raise Refusal(
            _("Write the name of the key as Vault shows it: letters, digits, - and _."), param="name"
        )
    return f"vault:{where}/{name}"


def leave(tenant: Tenant, actor: Actor) -> None:
    """Wrap the tenant's key by ours again. In the tenant's scope. Raises Refusal while its own refuses."""
    own = in_use(tenant)
    if own is None or own.state != OwnKey.State.ACTIVE:
        raise Conflict(_("No key of your own is in use."), code="no_own_key")
    if own.refused_at is not None:
        raise vault_keys.own_key_refused(own.reason)
    audit.record(tenant, actor, "own_key.left", None, key=service(own.reference).label)
    rotation.start(tenant, actor, root=root_keys.installation())


def in_use(tenant: Tenant) -> OwnKey | None:
    """The tenant's own key, if it has one. In the tenant's scope."""
    return OwnKey.objects.of(tenant).exclude(state=OwnKey.State.LEFT).first()


def is_refused(tenant: Tenant) -> bool:
    """Whether the tenant's own key refuses, as far as is known. In the tenant's scope."""
    return (
        OwnKey.objects.of(tenant).exclude(state=OwnKey.State.LEFT).filter(refused_at__isnull=False).exists()
    )


def watch() -> int:
    """Ask every tenant's own key whether it still opens, and tell everybody who changed its mind; returns how many did.

    The services are asked side by side, so that a silent one delays no other. Opens each tenant's scope.
    """
    owns = OwnKey.objects.everywhere().exclude(state=OwnKey.State.LEFT)
    asked = []
    for tenant_id, pk in list(owns.values_list("tenant_id", "pk")):
        with scope(tenant_id):
            own = OwnKey.objects.of(tenant_id).filter(pk=pk).first()
            row = _wrapped_by(own) if own is not None else None
        if own is not None and row is not None:
            asked.append((own, row))
    with ThreadPoolExecutor(ASKED_AT_ONCE, "own-keys") as threads:
        answers = list(threads.map(lambda one: _ask(*one), asked))
    changed = 0
    for (own, _row), answer in zip(asked, answers, strict=True):
        with scope(own.tenant_id):
            changed += _note(own, answer)
    return changed


def check(own: OwnKey) -> bool:
    """Ask one own key now; True when its answer changed. In the tenant's scope."""
    row = _wrapped_by(own)
    return row is not None and _note(own, _ask(own, row))


@dataclass(frozen=True, slots=True)
class _Answer:
    why: str = ""  # "" when it opened
    is_silent: bool = False


def _wrapped_by(own: OwnKey) -> DataKey | None:
    rows = DataKey.objects.of(own.tenant_id).filter(root_id=own.root_id)
    return rows.order_by("-generation").first()


def _ask(own: OwnKey, row: DataKey) -> _Answer:
    """Touches no database: it runs in a thread of its own."""
    try:
        vault_keys.unwrap_by(service(own.reference), row)
    except KeysUnreachable as refusal:
        return _Answer(str(refusal.message), is_silent=True)
    except KeyRefused as refusal:
        return _Answer(str(refusal.message))
    except KeyDestroyed:
        return _Answer(_("It does not open what it wrapped."))
    return _Answer()


def _note(own: OwnKey, answer: _Answer) -> bool:
    """Write down an answer, and act on a change. A service that is silent for a while counts as one that refuses."""
    moment, was_refused = timezone.now(), own.refused_at is not None
    seen = own.checked_at or own.created_at
    is_refused = bool(answer.why) and (was_refused or not answer.is_silent or moment - seen > SILENCE)
    own.reason = answer.why[:300]
    own.refused_at = (own.refused_at or moment) if is_refused else None
    own.checked_at = own.checked_at if answer.why else moment
    own.save(update_fields=["checked_at", "reason", "refused_at"])
    if is_refused:
        background.enqueue("modeling.stop_tenant_jobs", tenant_id=own.tenant_id)
    if is_refused == was_refused:
        return False
    tenant = Tenant.objects.get(pk=own.tenant_id)
    DataKey.objects.of(tenant).filter(root_id=own.root_id).update(is_refused=is_refused)
    vault_keys.forget(tenant.pk)
    change = "own_key.refused" if is_refused else "own_key.restored"
    audit.record(tenant, audit.SYSTEM, change, None, why=own.reason)
    actions.announce_revocation("tenant", tenant, tenant.slug)
    return True
