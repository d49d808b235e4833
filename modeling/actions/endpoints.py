"""Endpoints: the names a tenant calls. Pointing one at a version is one row and one line of its history."""

from __future__ import annotations

import re

from django.utils.text import slugify
from django.utils.translation import gettext as _

from modeling.core.bases import BASES
from modeling.models import Endpoint, EndpointChange, Job, ModelVersion
from saas.lib.errors import Conflict, Refusal
from tenants import audit
from tenants.actions import announce_revocation
from tenants.audit import Actor
from tenants.models import Tenant

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
NAME_LENGTH = 63


def check_name(name: str) -> None:
    """Refuse names that a base model or a version could have; raises Refusal."""
    if not NAME.fullmatch(name):
        raise Refusal(
            _("An endpoint's name has 1 to 63 characters out of a-z, 0-9 and hyphen."),
            param="name",
            code="invalid_name",
        )
    if any(name.startswith(base) for base in BASES):
        raise Refusal(_("This name belongs to a base model."), param="name", code="invalid_name")


def default_name(job: Job) -> str:
    """The endpoint of a job's models: its suffix, or its dataset's name."""
    version = job.dataset_version
    name = slugify(job.suffix or (version.dataset.name.rsplit(".", 1)[0] if version else ""))[
        :NAME_LENGTH
    ].strip("-_")
    name = name.replace("_", "-") or "model"
    return f"my-{name}"[:NAME_LENGTH] if any(name.startswith(base) for base in BASES) else name


def point(tenant: Tenant, actor: Actor, name: str, version: ModelVersion) -> Endpoint:
    """Create the endpoint or move it to this version. Raises Refusal for a bad name or a deleted version."""
    check_name(name)
    if version.state != ModelVersion.State.READY:
        raise Conflict(_("This version was deleted."), code="version_deleted")
    endpoints = Endpoint.objects.of(tenant)
    endpoints.bulk_create([Endpoint(tenant=tenant, name=name, version=version)], ignore_conflicts=True)
    endpoint = endpoints.select_for_update().get(name=name)
    endpoints.filter(pk=endpoint.pk).update(version=version)
    endpoint.version = version
    EndpointChange.objects.of(tenant).create(endpoint=endpoint, version=version, actor=actor.label[:200])
    audit.record(tenant, actor, "endpoint.point", endpoint, version=version.name)
    announce_revocation("endpoint", tenant, name)
    return endpoint


def delete(tenant: Tenant, actor: Actor, endpoint: Endpoint) -> None:
    """Remove the name; its versions stay."""
    audit.record(tenant, actor, "endpoint.delete", endpoint)
    EndpointChange.objects.of(tenant).filter(endpoint=endpoint).delete()
    Endpoint.objects.of(tenant).filter(pk=endpoint.pk).delete()
    announce_revocation("endpoint", tenant, endpoint.name)
