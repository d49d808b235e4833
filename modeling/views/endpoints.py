"""Pages of endpoints: who answers to a name, split, shadow, rules, and the way back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from modeling.actions import default_rules, endpoints, predictions, warming
from modeling.actions.versions import usable_version
from modeling.endpoint_forms import (
    NewEndpointForm,
    PointForm,
    RulesForm,
    ShadowForm,
    SplitForm,
    checked_rules,
)
from modeling.forms import require_confirmation
from modeling.models import Endpoint, EndpointChange, ModelVersion
from modeling.queries import endpoint_pages
from modeling.queries.pages import older_page
from saas.lib.errors import Refusal
from tenants.access import MemberRequest, has_role, member
from tenants.audit import Actor
from tenants.models import Tenant
from tenants.scope import scope

WHO = ("version", "canary", "shadow")


@require_http_methods(["GET", "POST"])
@member("viewer", scoped=False)
def endpoint_list(request: MemberRequest) -> HttpResponse:
    """The names that programs call; POST makes one."""
    can_edit = has_role(request.member, "member")
    with scope(request.tenant):
        models = endpoint_pages.choices(request.tenant)
    is_made = request.method == "POST" and can_edit
    form = NewEndpointForm(
        request.POST if is_made else None, models=models, initial={"model": request.GET.get("model", "")}
    )
    if is_made and form.is_valid() and _is_free(request.tenant, form):
        name, model = form.cleaned_data["name"], form.cleaned_data["model"]
        return _carry_out(
            request,
            name,
            lambda tenant: usable_version(tenant, model),
            lambda tenant, actor: endpoints.point(tenant, actor, name, usable_version(tenant, model)),
        )
    with scope(request.tenant):
        page = older_page(request, Endpoint.objects.of(request.tenant).select_related(*WHO), cursor="name")
        rules = default_rules.default_rules(request.tenant)
        words: dict[str, Any] = {
            **page.links,
            "endpoints": [endpoint_pages.endpoint_row(one) for one in page.rows],
            "form": form if can_edit and models else None,
            "rules": rules,
            "rules_form": RulesForm(initial=vars(rules)),
            "kept": predictions.kept(request.tenant, None).count(),
            "is_owner": has_role(request.member, "owner"),
            "can_edit": can_edit,
        }
        return render(request, "modeling/endpoint_list.html", words, status=400 if form.errors else 200)


def _is_free(tenant: Tenant, form: NewEndpointForm) -> bool:
    """Whether a new endpoint may have the form's name; otherwise the form says why not."""
    name = form.cleaned_data["name"]
    try:
        endpoints.check_name(name)
    except Refusal as refusal:
        form.add_error("name", refusal.message)
        return False
    with scope(tenant):
        is_taken = Endpoint.objects.of(tenant).filter(name=name).exists()
    if is_taken:
        form.add_error(
            "name", _("You have an endpoint of this name. Another model is put behind it on its page.")
        )
    return not is_taken


@require_GET
@member("viewer")
def endpoint_detail(request: MemberRequest, name: str) -> HttpResponse:
    """One endpoint: who answers, how to call it, split, shadow, rules, history."""
    tenant = request.tenant
    endpoint = endpoints.find(tenant, name)
    changes = EndpointChange.objects.of(tenant).filter(endpoint=endpoint).select_related(*WHO)
    page = older_page(request, changes, cursor="number", order="number")
    task, answering = endpoint.version.task, [endpoint.version_id]
    listening = [endpoint.version_id, endpoint.canary_id] if endpoint.canary_id else answering
    words = {
        **page.links,
        "endpoint": endpoint_pages.endpoint_row(endpoint),
        "history": endpoint_pages.history_rows(endpoint, page.rows),
        "shadow": endpoint_pages.shadow_figures(tenant, endpoint),
        "snippets": endpoint_pages.snippets(tenant, endpoint),
        "point_form": PointForm(models=endpoint_pages.choices(tenant, task=task, but=answering)),
        "split_form": SplitForm(
            models=endpoint_pages.choices(tenant, task=task, but=answering),
            initial={
                "percent": endpoint.canary_percent or 10,
                "model": endpoint.canary.name if endpoint.canary else "",
            },
        ),
        "shadow_form": ShadowForm(models=endpoint_pages.choices(tenant, task=task, but=listening)),
        "rules_form": RulesForm(initial=vars(endpoint)),
        "kept": predictions.kept(tenant, endpoint).count(),
        "rollback": _rollback(tenant, endpoint),
        "can_edit": has_role(request.member, "member"),
        "is_owner": has_role(request.member, "owner"),
    }
    return render(request, "modeling/endpoint_detail.html", words)


def _rollback(tenant: Tenant, endpoint: Endpoint) -> endpoint_pages.Who | None:
    """Where a rollback would lead; None where nothing lies before."""
    try:
        return endpoint_pages.who(endpoints.rollback_goal(tenant, endpoint).version)
    except Refusal:
        return None


def _carry_out(
    request: MemberRequest,
    name: str,
    answering: Callable[[Tenant], ModelVersion | None],
    change: Callable[[Tenant, Actor], Endpoint],
) -> HttpResponse:
    """Warm who will answer, change the endpoint, go to its page; the engine is asked between the transactions."""
    tenant = request.tenant
    with scope(tenant):
        version = answering(tenant)
    if version is not None:
        warming.require_warm(tenant, version)
    with scope(tenant):
        before = Endpoint.objects.of(tenant).filter(name=name).select_related("version").first()
        notes = endpoints.differences(before, version) if before and version else []
        endpoint = change(tenant, Actor.from_request(request))
    messages.success(request, _("Done. %(who)s answers now.") % {"who": _answers(endpoint)})
    for note in notes:
        messages.warning(request, note)
    return redirect("modeling:endpoint_detail", tenant.slug, name)


def _answers(endpoint: Endpoint) -> str:
    title = endpoint_pages.who(endpoint.version).title
    if endpoint.canary is None:
        return title
    canary = {"who": endpoint_pages.who(endpoint.canary).title, "percent": endpoint.canary_percent}
    return title + _(", and %(who)s for %(percent)s %% of the requests,") % canary


@require_POST
@member("member", scoped=False)
def endpoint_point(request: MemberRequest, name: str) -> HttpResponse:
    """Let another model answer everything."""
    model = request.POST.get("model", "")

    def answering(tenant: Tenant) -> ModelVersion:
        version = usable_version(tenant, model)
        endpoints.check_takes(endpoints.find(tenant, name), version)
        return version

    return _carry_out(
        request,
        name,
        answering,
        lambda tenant, actor: endpoints.point(tenant, actor, name, usable_version(tenant, model)),
    )


@require_POST
@member("member", scoped=False)
def endpoint_split(request: MemberRequest, name: str) -> HttpResponse:
    """Let a canary answer a share of the requests; without a model the split ends."""
    model, percent = request.POST.get("model", ""), request.POST.get("percent", "")

    def answering(tenant: Tenant) -> ModelVersion | None:
        found = endpoints.find(tenant, name)
        version = usable_version(tenant, model) if model else None
        if version is not None:
            endpoints.check_takes(found, version)
        return version

    def change(tenant: Tenant, actor: Actor) -> Endpoint:
        canary = usable_version(tenant, model) if model else None
        return endpoints.split(
            tenant, actor, name, canary, int(percent) if percent.isdecimal() and len(percent) < 4 else 0
        )

    return _carry_out(request, name, answering, change)


@require_POST
@member("member", scoped=False)
def endpoint_promote(request: MemberRequest, name: str) -> HttpResponse:
    """Let the canary answer everything."""
    return _carry_out(
        request,
        name,
        lambda tenant: endpoints.promoted(endpoints.find(tenant, name)),
        lambda tenant, actor: endpoints.promote(tenant, actor, name),
    )


@require_POST
@member("member", scoped=False)
def endpoint_rollback(request: MemberRequest, name: str) -> HttpResponse:
    """Back to who answered before, or to the version of a change of the history."""
    text = request.POST.get("change", "")
    number = int(text) if text.isdecimal() and len(text) < 10 else None

    def answering(tenant: Tenant) -> ModelVersion:
        version: ModelVersion = endpoints.rollback_goal(tenant, endpoints.find(tenant, name), number).version
        return version

    return _carry_out(
        request, name, answering, lambda tenant, actor: endpoints.rollback(tenant, actor, name, number)
    )


@require_POST
@member("member")
def endpoint_shadow(request: MemberRequest, name: str) -> HttpResponse:
    """Let a model listen; without one nobody does."""
    tenant, model = request.tenant, request.POST.get("model", "")
    endpoints.find(tenant, name)
    shadow = usable_version(tenant, model) if model else None
    endpoints.set_shadow(tenant, Actor.from_request(request), name, shadow)
    messages.success(
        request, _("The shadow listens from now on.") if shadow else _("No shadow listens any more.")
    )
    return redirect("modeling:endpoint_detail", tenant.slug, name)


@require_POST
@member("owner")
def endpoint_rules(request: MemberRequest, name: str) -> HttpResponse:
    """Change what happens to the texts of requests."""
    endpoints.find(request.tenant, name)
    endpoints.set_rules(request.tenant, Actor.from_request(request), name, **checked_rules(request.POST))
    messages.success(request, _("The rules hold from the next request on."))
    return redirect("modeling:endpoint_detail", request.tenant.slug, name)


@require_POST
@member("member")
def endpoint_delete(request: MemberRequest, name: str) -> HttpResponse:
    """Remove the name after it was typed."""
    endpoint = endpoints.find(request.tenant, name)
    require_confirmation(request, endpoint.name)
    endpoints.delete(request.tenant, Actor.from_request(request), endpoint)
    messages.success(request, _("The endpoint was deleted. Its models stay."))
    return redirect("modeling:endpoints", request.tenant.slug)
