"""A URLconf of planted leaks, each a mistake somebody could make; the matrix must catch every one."""

from __future__ import annotations

from typing import Any

from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.urls import path
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt

from billing.actions import record_usage
from modeling.models import Endpoint, File, Job
from tenants.access import authenticate_key, bearer
from tenants.models import ApiKey, AuditEntry, Member, Tenant
from tenants.scope import TenantQuerySet, scope


def caller(request: HttpRequest) -> Tenant:
    """The tenant of the caller's key."""
    return authenticate_key(bearer(request.headers.get("Authorization", ""))).tenant


def owner_of_job(job_id: str) -> Job:
    """A job of whichever tenant, found through the operator's eyes."""
    found = (
        TenantQuerySet(Job, using="operator")
        .only("id", "tenant_id", "public_id")
        .filter(public_id=job_id)
        .first()
    )
    if found is None:
        raise Http404
    return found


def any_tenant(slug: str) -> Tenant:
    """A tenant by slug, whoever asks."""
    found = Tenant.objects.using("operator").filter(slug=slug).first()
    if found is None:
        raise Http404
    return found


def job_of_anyone(request: HttpRequest, job_id: str) -> HttpResponse:
    """Forgets the tenant: answers with the file's name."""
    job = owner_of_job(job_id)
    with scope(job.tenant_id):
        return JsonResponse(
            {"file": Job.objects.of(job.tenant_id).select_related("file").get(pk=job.pk).file.name}
        )


def forbidden_instead_of_missing(request: HttpRequest, job_id: str) -> HttpResponse:
    """Says 403 for what exists and 404 for what does not."""
    job = owner_of_job(job_id)
    return HttpResponse(status=403 if job.tenant_id != caller(request).pk else 200)


def exists(request: HttpRequest, job_id: str) -> HttpResponse:
    """Answers whether an id is taken, by anyone."""
    return JsonResponse(
        {"exists": TenantQuerySet(Job, using="operator").only("id").filter(public_id=job_id).exists()}
    )


def empty_instead_of_missing(request: HttpRequest, job_id: str) -> HttpResponse:
    """200 with an empty list for a stranger's job, 404 for none."""
    owner_of_job(job_id)
    return JsonResponse({"data": []})


def tenant_by_slug(request: HttpRequest, slug: str) -> HttpResponse:
    """A page that trusts the slug in its address."""
    return HttpResponse(f"<h1>{any_tenant(slug).name}</h1>")


def members_by_slug(request: HttpRequest, slug: str) -> HttpResponse:
    """A team list without a membership check."""
    tenant = any_tenant(slug)
    with scope(tenant):
        rows = Member.objects.of(tenant).select_related("user")
        return JsonResponse({"team": [row.user.email for row in rows]})


def audit_of_slug(request: HttpRequest, slug: str) -> HttpResponse:
    """An export that opens the scope of whatever is asked for."""
    tenant = any_tenant(slug)
    with scope(tenant):
        return HttpResponse("\n".join(str(row.details) for row in AuditEntry.objects.of(tenant)))


@csrf_exempt
def revoke_anyones_key(request: HttpRequest, slug: str, key_id: str) -> HttpResponse:
    """A change in the tenant of the address."""
    tenant = any_tenant(slug)
    if request.method == "POST":
        with scope(tenant):
            ApiKey.objects.of(tenant).filter(public_id=key_id).update(revoked_at=timezone.now())
    raise Http404


@csrf_exempt
def rename_anyones_file(request: HttpRequest, job_id: str) -> HttpResponse:
    """A silent write behind a 404."""
    found = owner_of_job(job_id)
    if request.method == "POST":
        with scope(found.tenant_id):
            File.objects.of(found.tenant_id).update(name="renamed")
    raise Http404


@csrf_exempt
def delete_anyones_endpoint(request: HttpRequest, job_id: str) -> HttpResponse:
    """A delete that looks up the owner from the id."""
    found = owner_of_job(job_id)
    if request.method == "DELETE":
        with scope(found.tenant_id):
            Endpoint.objects.of(found.tenant_id).delete()
    raise Http404


@csrf_exempt
def link_to_anyone(request: HttpRequest, job_id: str) -> HttpResponse:
    """Writes a row of the caller's that names a stranger's row."""
    found = owner_of_job(job_id)
    tenant = caller(request)
    if request.method == "POST":
        with scope(tenant):
            record_usage(tenant, "tokens", 1, str(found.pk))
    raise Http404


def name_in_header(request: HttpRequest, job_id: str) -> HttpResponse:
    """The leak is in a header."""
    job = owner_of_job(job_id)
    with scope(job.tenant_id):
        name = Job.objects.of(job.tenant_id).select_related("file").get(pk=job.pk).file.name
    return HttpResponse(headers={"Content-Disposition": f'attachment; filename="{name}"'})


def name_in_redirect(request: HttpRequest, slug: str) -> HttpResponse:
    """The leak is in where it leads."""
    return HttpResponseRedirect(f"/search?q={any_tenant(slug).name}")


def everything(request: HttpRequest) -> HttpResponse:
    """A list that takes no id and shows all tenants."""
    return JsonResponse({"tenants": list(Tenant.objects.using("operator").values_list("name", flat=True))})


PLANTED: list[tuple[str, Any]] = [
    ("v1/leak/job/<str:job_id>", job_of_anyone),
    ("v1/leak/forbidden/<str:job_id>", forbidden_instead_of_missing),
    ("v1/leak/exists/<str:job_id>", exists),
    ("v1/leak/empty/<str:job_id>", empty_instead_of_missing),
    ("v1/leak/rename/<str:job_id>", rename_anyones_file),
    ("v1/leak/endpoint/<str:job_id>", delete_anyones_endpoint),
    ("v1/leak/link/<str:job_id>", link_to_anyone),
    ("v1/leak/header/<str:job_id>", name_in_header),
    ("v1/leak/everything", everything),
    ("t/<slug:slug>/leak/name/", tenant_by_slug),
    ("t/<slug:slug>/leak/team/", members_by_slug),
    ("t/<slug:slug>/leak/audit/", audit_of_slug),
    ("t/<slug:slug>/leak/keys/<str:key_id>/", revoke_anyones_key),
    ("t/<slug:slug>/leak/redirect/", name_in_redirect),
]
urlpatterns = [path(pattern, view) for pattern, view in PLANTED]
