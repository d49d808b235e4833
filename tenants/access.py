"""Who is asking: members of a tenant on pages, API keys on /v1, one-use tickets on WebSockets."""

from __future__ import annotations

import functools
import hashlib
import json
import secrets
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, Final, Protocol

from allauth.core import ratelimit
from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.contrib.auth.views import redirect_to_login
from django.db.models import Q
from django.forms import Form
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import SimpleTemplateResponse
from django.utils import timezone
from django.utils.module_loading import import_string
from django.utils.translation import gettext as _
from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import BaseThrottle
from rest_framework.views import APIView

from saas.lib import valkey
from saas.lib.errors import Forbidden, Unauthenticated
from tenants import keys, queries
from tenants.audit import Actor
from tenants.models import ApiKey, Member, Role, Tenant, User
from tenants.scope import scope

RANK: Final = {Role.VIEWER: 0, Role.MEMBER: 1, Role.OWNER: 2}
TICKET_SECONDS: Final = 30
LAST_USED_EVERY: Final = timedelta(minutes=1)


@dataclass(frozen=True)
class Caller:
    """Someone let in for one tenant: an API key, or a person who brought a ticket from a page."""

    tenant: Tenant
    key_id: str  # the key's public id; for a person, the person's id
    scopes: frozenset[str]
    kind: str  # key | user
    label: str

    @property
    def actor(self) -> Actor:
        """Who the audit log names."""
        return Actor(self.kind, self.key_id, self.label)

    def may(self, name: str) -> bool:
        """Whether the scope `name` (or `all`) is among this caller's."""
        return "all" in self.scopes or name in self.scopes


class MemberRequest(HttpRequest):
    """A page request after @member: who, and in which tenant."""

    user: User
    tenant: Tenant
    member: Member


class View(Protocol):
    """A page's view; its request is a MemberRequest."""

    def __call__(self, request: Any, *args: Any, **kwargs: Any) -> HttpResponse: ...


def member(role: str = "viewer", *, scoped: bool = True) -> Callable[[View], Callable[..., HttpResponse]]:
    """Let members of at least this role in at /t/<slug>/…; everyone else signed in gets 404.

    The view runs (and its template renders) inside the tenant's scope, which is one transaction: a Refusal undoes
    everything. `scoped=False` is for views that stream and open their own scope.
    """

    def decorate(view: View) -> Callable[..., HttpResponse]:
        @functools.wraps(view)
        def enter(request: Any, slug: str, *args: Any, **kwargs: Any) -> HttpResponse:
            if not request.user.is_authenticated:
                return redirect_to_login(request.get_full_path())
            found = queries.membership(request.user, slug)
            if found is None:
                raise Http404
            request.tenant, request.member = found.tenant, found
            refuse_suspended(found.tenant)
            require_role(found, role)
            if not scoped:
                return view(request, *args, **kwargs)
            with scope(found.tenant):
                response = view(request, *args, **kwargs)
                return response.render() if isinstance(response, SimpleTemplateResponse) else response

        return enter

    return decorate


def has_role(who: Member, role: str) -> bool:
    """Whether a member has at least this role."""
    return RANK[Role(who.role)] >= RANK[Role(role)]


def require_role(who: Member, role: str) -> None:
    """Raise Forbidden unless the member has at least this role."""
    if not has_role(who, role):
        raise Forbidden(_("Your role in this tenant does not allow this. Ask an owner."), code="role_too_low")


def signed_in_again(request: MemberRequest, form: Form) -> bool:
    """Whether the form's password is this person's, tried as seldom as when signing in; else the field says so."""
    if not ratelimit.consume(request, action="reauthenticate", user=request.user):
        form.add_error("password", _("Too many tries. Wait a few minutes."))
    elif not request.user.check_password(form.cleaned_data["password"]):
        form.add_error("password", _("This is not your password."))
    return not form.errors


def refuse_suspended(tenant: Tenant) -> None:
    """Raise Forbidden when the tenant is suspended or being erased."""
    if tenant.state == Tenant.State.ERASED:
        raise Forbidden(_("This tenant is being deleted, and its data with it."), code="tenant_erased")
    if tenant.state != Tenant.State.ACTIVE:
        raise Forbidden(
            _("This tenant is suspended. Its data is kept; write to support to have it restored."),
            code="tenant_suspended",
        )


def _unknown_key() -> Unauthenticated:
    """The one answer for a key that is absent, malformed, unknown, expired or revoked."""
    return Unauthenticated(
        "Incorrect API key provided. Send a valid key as `Authorization: Bearer <key>`.",
        headers={"WWW-Authenticate": "Bearer"},
    )


def authenticate_key(raw: str) -> Caller:
    """The caller behind an API key. Raises Unauthenticated (401, one body), or Forbidden (403) when suspended.

    The checksum comes before the database; revocation, expiry and suspension are read from their rows each time.
    """
    if not keys.is_well_formed(raw):
        raise _unknown_key()
    found = queries.secret_by_digest(keys.digest(raw))
    if found is None:
        raise _unknown_key()
    tenant_id, key_id = found
    with scope(tenant_id):
        return _caller(tenant_id, Q(pk=key_id))


def _caller(tenant_id: uuid.UUID, which: Q) -> Caller:
    """The caller of a usable key; inside the tenant's scope."""
    now = timezone.now()
    key = ApiKey.objects.of(tenant_id).filter(which, revoked_at=None).select_related("tenant").first()
    if key is None or (key.expires_at is not None and key.expires_at <= now):
        raise _unknown_key()
    refuse_suspended(key.tenant)
    stale = now - LAST_USED_EVERY
    if key.last_used_at is None or key.last_used_at < stale:
        unused = Q(last_used_at=None) | Q(last_used_at__lt=stale)
        ApiKey.objects.of(tenant_id).filter(unused, pk=key.pk).update(last_used_at=now)
    return Caller(key.tenant, key.public_id, frozenset(key.scopes), "key", f"{key.name} (…{key.last4})")


def bearer(header: str) -> str:
    """The key in an Authorization header; "" when there is none."""
    kind, _space, raw = header.partition(" ")
    return raw.strip() if kind.lower() == "bearer" else ""


class ApiRequest(Request):
    """A /v1 request after KeyAuthentication."""

    auth: Caller


class KeyAuthentication(BaseAuthentication):
    """DRF: `Authorization: Bearer <key>` gives `request.auth`, a Caller."""

    def authenticate(self, request: Request) -> tuple[AnonymousUser, Caller]:
        """Raise Unauthenticated without a usable key: nothing under /v1 is open by accident."""
        return AnonymousUser(), authenticate_key(bearer(request.headers.get("Authorization", "")))

    def authenticate_header(self, request: Request) -> str:
        """The challenge of a 401."""
        return "Bearer"


class HasScope(BasePermission):
    """DRF permission: `permission_classes = [HasScope("files")]`; "" asks for a key of any scope."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self) -> HasScope:
        """DRF makes an instance of each entry; this one is an instance already."""
        return self

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Raise Forbidden when the key lacks the scope."""
        caller = request.auth
        if not isinstance(caller, Caller):
            raise _unknown_key()
        if self.name and not caller.may(self.name):
            raise Forbidden(f"This API key lacks the scope `{self.name}`.", code="missing_scope")
        return True


class TenantAPIView(APIView):
    """Base of every /v1 view: a key with `scope_name`, and the handler inside its tenant's scope.

    Views that stream or train set `scoped = False` and open their own scope.
    """

    authentication_classes = (KeyAuthentication,)
    scope_name: ClassVar[str] = ""
    scoped: ClassVar[bool] = True

    def get_permissions(self) -> list[Any]:
        """The key's scope, then whatever the view adds."""
        return [HasScope(self.scope_name), *super().get_permissions()]

    def get_throttles(self) -> list[BaseThrottle]:
        """The tenant's requests a minute, as its plan says."""
        return [import_string(settings.V1_THROTTLE)()]

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Authenticate, check the scope, and wrap this request's handler in the tenant's transaction."""
        super().initial(request, *args, **kwargs)
        name = (request.method or "").lower()
        handler = getattr(self, name, None)
        if self.scoped and handler is not None and name in self.http_method_names:
            caller: Caller = request.auth  # type: ignore[assignment]
            setattr(self, name, functools.partial(self._run, handler, caller.tenant))

    def _run(self, handler: Callable[..., Response], tenant: Tenant, *args: Any, **kwargs: Any) -> Response:
        with scope(tenant):
            return handler(*args, **kwargs)


def _ticket_key(ticket: str) -> str:
    return f"cloister:ticket:{hashlib.sha256(ticket.encode()).hexdigest()}"


def issue_ticket(who: Caller | User, tenant: Tenant) -> str:
    """A one-use ticket for a WebSocket, good for 30 seconds. The caller has already been let in to this tenant."""
    ticket = secrets.token_urlsafe(32)
    holder = (
        {"key": who.key_id} if isinstance(who, Caller) and who.kind == "key" else {"user": _person_id(who)}
    )
    content = json.dumps({"tenant": str(tenant.pk), "slug": tenant.slug} | holder)
    valkey.client().set(_ticket_key(ticket), content, ex=TICKET_SECONDS)
    return ticket


def _person_id(who: Caller | User) -> str:
    return who.key_id if isinstance(who, Caller) else str(who.pk)


def redeem_ticket(ticket: str) -> Caller:
    """The caller who asked for the ticket, if key, membership and tenant still stand.

    Raises Unauthenticated and Forbidden.
    A ticket opens WebSockets, which only read: a person's ticket carries every scope.
    """
    content = valkey.client().getdel(_ticket_key(ticket))
    if content is None:
        raise Unauthenticated("This ticket is unknown, used or older than 30 seconds.", code="invalid_ticket")
    kept = json.loads(content)
    tenant_id = uuid.UUID(kept["tenant"])
    if "key" in kept:
        with scope(tenant_id):
            return _caller(tenant_id, Q(public_id=kept["key"]))
    user = User.objects.filter(pk=kept["user"], is_active=True).first()
    found = queries.membership(user, kept["slug"]) if user else None
    if user is None or found is None:
        raise Unauthenticated("This ticket's person is no longer a member.", code="invalid_ticket")
    refuse_suspended(found.tenant)
    return Caller(found.tenant, str(user.pk), frozenset({"all"}), "user", user.email)
