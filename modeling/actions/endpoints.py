"""Endpoints: who answers to a name. Each change is one row and one line of history; the door warms what it moves to."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import Any

from django.db.models import Max
from django.utils.text import slugify
from django.utils.translation import gettext as _

from modeling.actions import predictions
from modeling.core.bases import BASES
from modeling.core.personal_policy import PolicyWrong, checked
from modeling.models import Endpoint, EndpointChange, Job, ModelVersion, PersonalData
from saas.lib.errors import Conflict, NotFound, Refusal
from tenants import audit
from tenants.actions import announce_revocation
from tenants.audit import Actor
from tenants.models import Tenant
from tenants.scope import scope

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
NAME_LENGTH = 63
MOST_DAYS = 365
Kind = EndpointChange.Kind
_MOVES = (Kind.POINT, Kind.PROMOTE, Kind.ROLLBACK)  # after these one version answers everything
_WHO_ANSWERS = ("version", "canary", "shadow")


def check_name(name: str) -> None:
    """Refuse names that a base model or a version could have; raises Refusal."""
    if not NAME.fullmatch(name):
        raise Refusal(
            _("An endpoint's name has 1 to 63 characters out of a-z, 0-9 and hyphen."),
            param="name",
            code="invalid_name",
        )
    if any(name.startswith(base) for base in BASES):
        raise Refusal(
            _("Names that begin like a base model are kept for it. Choose another."),
            param="name",
            code="invalid_name",
        )


def default_name(job: Job) -> str:
    """The endpoint of a job's models: its suffix, or its dataset's name."""
    version = job.dataset_version
    name = slugify(job.suffix or (version.dataset.name.rsplit(".", 1)[0] if version else ""))[
        :NAME_LENGTH
    ].strip("-_")
    name = name.replace("_", "-") or "model"
    return f"my-{name}"[:NAME_LENGTH] if any(name.startswith(base) for base in BASES) else name


def free_name(tenant: Tenant, name: str, task: str) -> str:
    """The name, or with the first number that makes it new or an endpoint of this task."""
    taken = dict(
        Endpoint.objects.of(tenant)
        .filter(name__startswith=name[: NAME_LENGTH - 5])
        .values_list("name", "version__task")
    )
    number, candidate = 1, name
    while taken.get(candidate, task) != task:
        number += 1
        candidate = f"{name[: NAME_LENGTH - 5]}-{number}"
    return candidate


def find(tenant: Tenant, name: str) -> Endpoint:
    """The tenant's endpoint by name, with its versions; raises NotFound."""
    found = Endpoint.objects.of(tenant).filter(name=name).select_related(*_WHO_ANSWERS).first()
    if found is None:
        raise NotFound(_("There is no such endpoint."))
    return found


def check_takes(endpoint: Endpoint, version: ModelVersion) -> None:
    """Refuse a version that is deleted or does something else than the endpoint; raises Conflict."""
    if version.state != ModelVersion.State.READY:
        raise Conflict(_("This version was deleted."), code="version_deleted")
    if version.task != endpoint.version.task:
        raise Conflict(
            _("The endpoint answers %(old)s and this model does %(new)s. Make another endpoint for it.")
            % {"old": endpoint.version.task, "new": version.task},
            code="task_change",
        )


def differences(endpoint: Endpoint, version: ModelVersion) -> list[str]:
    """What callers may notice when `version` answers in place of the present one: labels or columns that differ."""
    now, then = endpoint.version.config, version.config
    found = []
    if sorted(map(str, now.get("labels", []))) != sorted(map(str, then.get("labels", []))):
        found.append(_("Its labels differ from those of the version that answers now."))
    if _columns(now) != _columns(then):
        found.append(_("Its columns differ from those of the version that answers now."))
    return found


def _columns(config: dict[str, Any]) -> list[str]:
    return sorted(str(one.get("name")) for one in config.get("features", []) if isinstance(one, dict))


def point(tenant: Tenant, actor: Actor, name: str, version: ModelVersion) -> Endpoint:
    """Create the endpoint, or let this version answer all of its requests; a split ends, shadow and rules stay.

    Raises Refusal for a bad name, Conflict for a deleted version and for one of another task.
    """
    check_name(name)
    if version.state != ModelVersion.State.READY:
        raise Conflict(_("This version was deleted."), code="version_deleted")
    fresh = Endpoint(tenant=tenant, name=name, version=version)
    Endpoint.objects.of(tenant).bulk_create([fresh], ignore_conflicts=True)
    endpoint = _locked(tenant, name)
    check_takes(endpoint, version)
    _let_answer(endpoint, version)
    return _keep(tenant, actor, endpoint, Kind.POINT, model=version.name)


def split(tenant: Tenant, actor: Actor, name: str, canary: ModelVersion | None, percent: int) -> Endpoint:
    """Let `canary` answer `percent` % (1 to 99) of the requests, at random; None ends the split."""
    endpoint = _locked(tenant, name)
    if canary is None:
        endpoint.canary, endpoint.canary_percent = None, 0
        return _keep(tenant, actor, endpoint, Kind.SPLIT, percent=0)
    if not 1 <= percent <= 99:
        raise Refusal(_("A canary answers 1 to 99 % of the requests."), param="percent", code="invalid_value")
    if canary.pk == endpoint.version_id:
        raise Conflict(_("This version answers already."), code="version_in_use")
    check_takes(endpoint, canary)
    endpoint.canary, endpoint.canary_percent = canary, percent
    if endpoint.shadow_id == canary.pk:
        endpoint.shadow = None
    return _keep(tenant, actor, endpoint, Kind.SPLIT, model=canary.name, percent=percent)


def stop_canary(tenant_id: uuid.UUID, endpoint_id: str, canary_id: str, *, why: str) -> None:
    """End a split whose canary fails, unless it ended already; history names Cloister. Opens the tenant's scope."""
    with scope(tenant_id):
        tenant = Tenant.objects.get(pk=tenant_id)
        found = (
            Endpoint.objects.of(tenant)
            .select_for_update()
            .filter(pk=endpoint_id, canary=uuid.UUID(canary_id))
            .first()
        )
        if found is not None:
            split(tenant, Actor("system", "system", f"Cloister: {why}"), found.name, None, 0)


def set_shadow(tenant: Tenant, actor: Actor, name: str, shadow: ModelVersion | None) -> Endpoint:
    """Let `shadow` be asked the same as whoever answers, unseen and unbilled; None ends it."""
    endpoint = _locked(tenant, name)
    if shadow is not None:
        if shadow.pk in (endpoint.version_id, endpoint.canary_id):
            raise Conflict(_("This version answers already."), code="version_in_use")
        check_takes(endpoint, shadow)
    endpoint.shadow = shadow
    return _keep(tenant, actor, endpoint, Kind.SHADOW, model=shadow.name if shadow else "")


def promote(tenant: Tenant, actor: Actor, name: str) -> Endpoint:
    """Let the canary answer everything. Raises Conflict without a canary."""
    endpoint = _locked(tenant, name)
    canary = promoted(endpoint)
    check_takes(endpoint, canary)
    _let_answer(endpoint, canary)
    return _keep(tenant, actor, endpoint, Kind.PROMOTE, model=canary.name)


def promoted(endpoint: Endpoint) -> ModelVersion:
    """The version that a promotion would let answer; raises Conflict."""
    canary: ModelVersion | None = endpoint.canary
    if canary is None:
        raise Conflict(_("There is no canary to promote."), code="no_canary")
    return canary


def rollback(tenant: Tenant, actor: Actor, name: str, number: int | None = None) -> Endpoint:
    """Go back: end a split if there is one, else to the version before; again goes further back. Rules stay.

    `number` names a change of the history, whose version then answers. Raises Conflict where nothing lies before, or
    where that version was deleted.
    """
    endpoint = _locked(tenant, name)
    goal = rollback_goal(tenant, endpoint, number)
    check_takes(endpoint, goal.version)
    _let_answer(endpoint, goal.version)
    restores = goal.restores or goal.number
    return _keep(
        tenant, actor, endpoint, Kind.ROLLBACK, restores=restores, model=goal.version.name, change=restores
    )


def rollback_goal(tenant: Tenant, endpoint: Endpoint, number: int | None = None) -> EndpointChange:
    """The change that a rollback would return to; raises Conflict, or NotFound for a number without a change."""
    changes = EndpointChange.objects.of(tenant).filter(endpoint=endpoint).select_related("version")
    if number is not None:
        named = changes.filter(number=number).first()
        if named is None:
            raise NotFound(_("The history of this endpoint has no such change."), param="change")
        if named.version_id == endpoint.version_id and endpoint.canary_id is None:
            raise Conflict(_("This version answers already."), code="version_in_use")
        return named
    moves = changes.filter(kind__in=_MOVES).order_by("-number")
    now = moves.first()
    if now is not None and endpoint.canary_id is not None:
        return now  # the version stays: only the canary goes
    usable = moves.filter(number__lt=(now.restores or now.number) if now else 0)
    goal = usable.filter(version__state=ModelVersion.State.READY).exclude(version=endpoint.version_id).first()
    if goal is None:
        raise Conflict(_("There is no earlier version to go back to."), code="no_earlier_version")
    return goal


def set_rules(
    tenant: Tenant,
    actor: Actor,
    name: str,
    *,
    personal_data: str,
    log_days: int,
    personal_kinds: Mapping[str, str] | None = None,
    delete_predictions: bool = False,
) -> Endpoint:
    """Change what happens to the texts of requests. Turning the log off deletes what it holds, at once.

    Raises Conflict unless `delete_predictions` agrees to that where something is kept.
    """
    kinds = check_rules(personal_data, log_days, personal_kinds)
    endpoint = _locked(tenant, name)
    if log_days == 0:
        predictions.delete_kept(tenant, endpoint, agreed=delete_predictions)
    endpoint.personal_data, endpoint.log_days = personal_data, log_days
    if kinds is not None:
        endpoint.personal_kinds = kinds
    said = {"personal_data": personal_data, "personal_kinds": endpoint.personal_kinds, "log_days": log_days}
    return _keep(tenant, actor, endpoint, Kind.RULES, **said)


def check_rules(
    personal_data: str, log_days: int, personal_kinds: Mapping[str, str] | None = None
) -> dict[str, str] | None:
    """Refuse rules that there are not; raises Refusal. Returns the choices by kind as they are kept, if any."""
    if personal_data not in PersonalData.values:
        raise Refusal(
            _("personal_data is one of %(all)s.") % {"all": ", ".join(PersonalData.values)},
            param="personal_data",
            code="invalid_value",
        )
    if not 0 <= log_days <= MOST_DAYS:
        raise Refusal(_("log_days is 0 to 365."), param="log_days", code="invalid_value")
    if personal_kinds is None:
        return None
    try:
        return checked({kind: "report" if one == "note" else one for kind, one in personal_kinds.items()})
    except PolicyWrong as wrong:
        raise Refusal(wrong.message, param="entities", code="invalid_value") from None


def delete(tenant: Tenant, actor: Actor, endpoint: Endpoint) -> None:
    """Remove the name, its history and its prediction log; its versions stay."""
    audit.record(tenant, actor, "endpoint.delete", endpoint)
    Endpoint.objects.of(tenant).select_for_update().get(pk=endpoint.pk)
    predictions.delete_kept(tenant, endpoint, agreed=True)
    EndpointChange.objects.of(tenant).filter(endpoint=endpoint).delete()
    predictions.shadow_days(tenant, endpoint).delete()
    Endpoint.objects.of(tenant).filter(pk=endpoint.pk).delete()
    announce_revocation("endpoint", tenant, endpoint.name)


def _locked(tenant: Tenant, name: str) -> Endpoint:
    """The endpoint, held until the transaction ends: changes come one after another."""
    if not Endpoint.objects.of(tenant).select_for_update().filter(name=name).exists():
        raise NotFound(_("There is no such endpoint."))
    return find(tenant, name)


def _let_answer(endpoint: Endpoint, version: ModelVersion) -> None:
    endpoint.version, endpoint.canary, endpoint.canary_percent = version, None, 0
    if endpoint.shadow_id == version.pk:
        endpoint.shadow = None


def _keep(
    tenant: Tenant, actor: Actor, endpoint: Endpoint, kind: str, *, restores: int | None = None, **said: Any
) -> Endpoint:
    """Write the locked endpoint and its line of history; whoever remembers it is told after the commit."""
    holds = {
        "version": endpoint.version,
        "canary": endpoint.canary,
        "canary_percent": endpoint.canary_percent,
        "shadow": endpoint.shadow,
        "personal_data": endpoint.personal_data,
        "personal_kinds": endpoint.personal_kinds,
        "log_days": endpoint.log_days,
    }
    Endpoint.objects.of(tenant).filter(pk=endpoint.pk).update(**holds)
    changes = EndpointChange.objects.of(tenant).filter(endpoint=endpoint)
    last = changes.aggregate(last=Max("number"))["last"] or 0
    change = EndpointChange(tenant=tenant, endpoint=endpoint, number=last + 1, kind=kind, restores=restores)
    change.actor = actor.label[:200]
    for name, value in holds.items():
        setattr(change, name, value)
    change.save(force_insert=True)
    audit.record(tenant, actor, f"endpoint.{kind}", endpoint, **said)
    announce_revocation("endpoint", tenant, endpoint.name)
    return endpoint
