"""Pages of the team, keys and settings of a tenant, and of a person's tenants and invitations."""

from __future__ import annotations

import uuid

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from modeling.packs import PACKS
from tenants import access, accounts, actions, queries
from tenants.access import MemberRequest, member
from tenants.audit import Actor
from tenants.forms import INVITE_IN_SESSION, InviteForm, KeyForm, NameForm, RoleForm, TenantForm
from tenants.models import ApiKey, Member, Role

PAGE = require_http_methods(["GET", "POST"])


def _to(name: str, request: MemberRequest) -> HttpResponseRedirect:
    return redirect(f"tenants:{name}", request.tenant.slug)


@require_GET
@login_required
def tenant_list(request: HttpRequest) -> HttpResponse:
    """The tenants that a person belongs to, with their role in each."""
    found = queries.memberships(request.user)  # type: ignore[arg-type]
    return render(request, "tenants/tenant_list.html", {"memberships": found})


@PAGE
@login_required
def tenant_create(request: HttpRequest) -> HttpResponse:
    """Make another tenant and go to it."""
    form = TenantForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        made = actions.create_tenant(request.user, form.cleaned_data["name"], form.cleaned_data["pack"])  # type: ignore[arg-type]
        return redirect(f"/t/{made.slug}/")
    return render(request, "tenants/tenant_create.html", {"form": form})


@never_cache
@PAGE
def invite(request: HttpRequest, token: str) -> HttpResponse:
    """An invitation: read it, sign in or up, accept it."""
    found = actions.usable_invite(token)
    if not request.user.is_authenticated:
        request.session[INVITE_IN_SESSION] = token
        return render(request, "tenants/invite.html", {"invite": found, "next": request.path})
    request.session.pop(INVITE_IN_SESSION, None)
    if request.method == "POST":
        actions.accept_invite(request.user, token)
        return redirect(f"/t/{found.tenant.slug}/")
    is_theirs = found.email.lower() == request.user.email.lower()
    return render(request, "tenants/invite.html", {"invite": found, "is_theirs": is_theirs})


@PAGE
@member("viewer")
def team(request: MemberRequest) -> HttpResponse:
    """Members and open invitations; owners invite here."""
    is_owner = request.member.role == Role.OWNER
    form = InviteForm(request.POST or None)
    if request.method == "POST":
        access.require_role(request.member, "owner")
        if form.is_valid():
            actor = Actor.from_request(request)
            actions.invite_member(
                request.tenant, actor, form.cleaned_data["email"], form.cleaned_data["role"]
            )
            messages.success(request, _("The invitation is on its way."))
            if not accounts.mail_leaves():
                messages.info(request, accounts.where_mail_is())
            return _to("team", request)
    words = {
        "members": queries.team(request.tenant),
        "invites": queries.open_invites(request.tenant),
        "roles": Role.choices,
        "is_owner": is_owner,
        "form": form,
    }
    return render(request, "tenants/team.html", words)


@require_POST
@member("owner")
def member_role(request: MemberRequest, member_id: uuid.UUID) -> HttpResponse:
    """Give a member another role."""
    form = RoleForm(request.POST)
    found = get_object_or_404(
        Member.objects.of(request.tenant).select_related("user", "tenant"), pk=member_id
    )
    if form.is_valid():
        actions.change_role(found, form.cleaned_data["role"], actor=Actor.from_request(request))
        messages.success(request, _("%(who)s now has another role.") % {"who": found.user.email})
    return _to("team", request)


@require_POST
@member("viewer")
def member_remove(request: MemberRequest, member_id: uuid.UUID) -> HttpResponse:
    """Take a member out (owners), or leave (oneself)."""
    found = get_object_or_404(
        Member.objects.of(request.tenant).select_related("user", "tenant"), pk=member_id
    )
    leaves = found.user_id == request.user.pk
    if not leaves:
        access.require_role(request.member, "owner")
    actions.remove_member(found, actor=Actor.from_request(request))
    if leaves:
        return redirect("tenants:list")
    messages.success(request, _("%(who)s is no longer a member.") % {"who": found.user.email})
    return _to("team", request)


@require_POST
@member("owner")
def invite_withdraw(request: MemberRequest, invite_id: uuid.UUID) -> HttpResponse:
    """Take an open invitation back."""
    open_invites = queries.open_invites(request.tenant).select_related("tenant")
    actions.withdraw_invite(get_object_or_404(open_invites, pk=invite_id), actor=Actor.from_request(request))
    messages.success(request, _("The invitation is withdrawn."))
    return _to("team", request)


@never_cache
@PAGE
@member("viewer")
def keys(request: MemberRequest) -> HttpResponse:
    """API keys; members make them, and see a new secret this once."""
    is_owner = access.has_role(request.member, "owner")
    form = KeyForm(request.POST or None, is_owner=is_owner)
    words = {"form": form, "can_edit": access.has_role(request.member, "member")}
    if request.method == "POST":
        access.require_role(request.member, "member")
        if form.is_valid() and form.is_new_name(queries.api_keys(request.tenant)):
            words["made"], words["secret"] = actions.issue_key(
                request.tenant,
                form.cleaned_data["name"],
                form.cleaned_data["scopes"],
                Actor.from_request(request),
                expires_at=form.expires_at(),
            )
            words["form"] = KeyForm(is_owner=is_owner)
    words["keys"] = queries.api_keys(request.tenant)
    return render(request, "tenants/keys.html", words)


@require_POST
@member("member")
def key_revoke(request: MemberRequest, key_id: str) -> HttpResponse:
    """End a key."""
    key = get_object_or_404(ApiKey.objects.of(request.tenant).select_related("tenant"), public_id=key_id)
    actions.revoke_key(key, actor=Actor.from_request(request))
    messages.success(request, _("The key %(name)s no longer works.") % {"name": key.name})
    return _to("keys", request)


@PAGE
@member("viewer")
def settings(request: MemberRequest) -> HttpResponse:
    """The tenant's name (owners), slug and vertical."""
    form = NameForm(request.POST or None, initial={"name": request.tenant.name})
    if request.method == "POST":
        access.require_role(request.member, "owner")
        if form.is_valid():
            actions.rename_tenant(
                request.tenant, form.cleaned_data["name"], actor=Actor.from_request(request)
            )
            messages.success(request, _("Saved."))
            return _to("settings", request)
    words = {
        "form": form,
        "pack": PACKS[request.tenant.pack],
        "is_owner": access.has_role(request.member, "owner"),
    }
    return render(request, "tenants/settings.html", words)


@require_POST
@member("viewer", scoped=False)
def ticket(request: MemberRequest) -> HttpResponse:
    """A one-use ticket with which a page opens its WebSocket."""
    return JsonResponse(
        {"ticket": access.issue_ticket(request.user, request.tenant), "expires_in": access.TICKET_SECONDS}
    )
