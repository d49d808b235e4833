"""The operators' console: workers, queue, tenants and usage by the operator role, blind to tenant data and keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final
from uuid import UUID

from allauth.mfa.utils import is_mfa_enabled
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.auth.views import redirect_to_login
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import URLPattern, URLResolver, re_path, reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods

from billing.models import Subscription, UsageEvent
from modeling.actions import tenant_erasure
from modeling.models import Job, Worker
from saas import overview
from saas.lib.errors import Refusal
from tenants import actions
from tenants.audit import Actor
from tenants.forms import ErasureReasonForm, ReasonForm
from tenants.models import Member, Tenant, TenantErasure, User
from tenants.scope import OPERATOR, TenantQuerySet

SWITCH: Final = r"^(?P<tenant_id>[0-9a-f-]{36})/(?P<verb>suspend|restore)/$"
LEAVE: Final = r"^(?P<tenant_id>[0-9a-f-]{36})/(?P<verb>erase|keep)/$"
USER_COLUMNS: Final = ("id", "email", "name", "is_staff", "is_active", "date_joined", "last_login")


class Console(admin.AdminSite):
    """The admin site of operators: staff with a second factor, signed in through the same door as everyone."""

    site_title = gettext_lazy("Cloister console")
    site_header = gettext_lazy("Cloister console")
    index_title = gettext_lazy("Now")
    index_template = "console/index.html"
    enable_nav_sidebar = False

    def has_permission(self, request: HttpRequest) -> bool:
        """Active staff; outside of the demo only with a second factor."""
        user = request.user
        if not (user.is_active and user.is_staff):
            return False
        return settings.DEMO or is_mfa_enabled(user)

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """No second password door: to allauth, to the second factor, or nothing here for anyone else."""
        target = request.GET.get("next") or reverse("console:index")
        if not request.user.is_authenticated:
            return redirect_to_login(target)
        if not request.user.is_staff:
            raise Http404
        if not self.has_permission(request):
            messages.warning(request, _("Operators need a second factor. Set one up, then come back."))
            return redirect("mfa_activate_totp")
        return redirect("console:index")

    def password_change(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        """Passwords are changed in the account pages."""
        return redirect("account_change_password")

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        """Workers and their leases, the queue, tenants and this month's usage."""
        return super().index(request, overview.now() | (extra_context or {}))


console = Console(name="console")


if TYPE_CHECKING:
    BaseAdmin = admin.ModelAdmin[Any]
else:
    BaseAdmin = admin.ModelAdmin


class Blind(BaseAdmin):
    """Read-only, through the operator role: what that role may not read, no page can show."""

    actions = None
    columns: ClassVar[tuple[str, ...]] = ()  # loaded columns; () means all
    list_per_page = 50
    show_full_result_count = False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Rows of all tenants on the operator alias."""
        rows: QuerySet[Any] = TenantQuerySet(self.model, using=OPERATOR)
        if self.list_select_related:
            rows = rows.select_related(*self.list_select_related)  # type: ignore[misc]
        if self.columns:
            rows = rows.only(*self.columns)
        ordering = self.get_ordering(request)
        return rows.order_by(*ordering) if ordering else rows

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Nothing is made here."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Nothing is changed here."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Nothing is deleted here."""
        return False

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Every operator sees every page of the console."""
        return True

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Every operator sees every page of the console."""
        return True


@admin.register(Tenant, site=console)
class TenantAdmin(Blind):
    """Tenants, and what an operator may do to one: suspend or restore it, have it erased or kept after all."""

    list_display = ("slug", "name", "pack", "state", "erase_at", "created_at")
    list_filter = ("state", "pack")
    search_fields = ("slug", "name")
    ordering = ("-created_at",)
    fields = ("slug", "name", "pack", "state", "suspended_reason", "erase_at", "created_at")
    change_form_template = "console/tenant.html"

    def get_urls(self) -> list[URLPattern | URLResolver]:  # type: ignore[override]
        """The admin's own pages, one that suspends or restores, and one that erases or keeps."""
        page = require_http_methods(["GET", "POST"])
        switch, leave = (self.admin_site.admin_view(page(view)) for view in (self.switch, self.leave))
        own = [re_path(SWITCH, switch, name="tenant_switch"), re_path(LEAVE, leave, name="tenant_leave")]
        return [*own, *super().get_urls()]

    def switch(self, request: HttpRequest, tenant_id: UUID, verb: str) -> HttpResponse:
        """Suspend or restore a tenant, with a reason that its audit log keeps."""
        verbs = {"suspend": actions.suspend_tenant, "restore": actions.restore_tenant}
        tenant = get_object_or_404(self.get_queryset(request), pk=tenant_id)
        form = ReasonForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            actor = Actor("operator", str(request.user.pk), request.user.email)  # type: ignore[union-attr]
            verbs[verb](tenant, reason=form.cleaned_data["reason"], actor=actor)
            done = (
                _("Suspended: its API and jobs stop within seconds.") if verb == "suspend" else _("Restored.")
            )
            messages.success(request, done)
            return redirect("console:tenants_tenant_change", tenant_id)
        words = self.admin_site.each_context(request) | {"form": form, "tenant": tenant, "verb": verb}
        return render(request, "console/switch.html", words)

    def leave(self, request: HttpRequest, tenant_id: UUID, verb: str) -> HttpResponse:
        """Ask for a tenant's erasure in an owner's name, or withdraw it, with a reason that its audit log keeps."""
        tenant = get_object_or_404(self.get_queryset(request), pk=tenant_id)
        form = ErasureReasonForm(request.POST or None, slug=tenant.slug if verb == "erase" else "")
        if request.method == "POST" and form.is_valid():
            actor = Actor("operator", str(request.user.pk), request.user.email)  # type: ignore[union-attr]
            does = tenant_erasure.request if verb == "erase" else tenant_erasure.withdraw
            try:
                does(tenant, actor, reason=form.cleaned_data["reason"])
            except Refusal as refusal:
                form.add_error(None, str(refusal.message))
            else:
                messages.success(
                    request, _("Asked for; its owners are told.") if verb == "erase" else _("It stays.")
                )
                return redirect("console:tenants_tenant_change", tenant_id)
        words = self.admin_site.each_context(request) | {"form": form, "tenant": tenant, "verb": verb}
        return render(request, "console/leave.html", words)


@admin.register(TenantErasure, site=console)
class TenantErasureAdmin(Blind):
    """Who is to be erased or was, and what does not go through yet; never who asked, nor why."""

    columns = (*TenantErasure.OPERATOR_COLUMNS, "tenant__slug")
    list_display = ("tenant", "state", "by_kind", "due_at", "erased_at", "trouble")
    list_filter = ("state",)
    search_fields = ("tenant__slug",)
    list_select_related = ("tenant",)
    ordering = ("-requested_at",)
    fields = tuple(
        "tenant" if name == "tenant_id" else name for name in TenantErasure.OPERATOR_COLUMNS if name != "id"
    )


@admin.register(User, site=console)
class UserAdmin(Blind):
    """People; never their password hashes."""

    columns = USER_COLUMNS
    list_display = ("email", "name", "is_staff", "is_active", "date_joined", "last_login")
    list_filter = ("is_staff", "is_active")
    search_fields = ("email",)
    ordering = ("-date_joined",)
    fields = ("email", "name", "is_staff", "is_active", "date_joined", "last_login")


@admin.register(Member, site=console)
class MemberAdmin(Blind):
    """Who belongs to which tenant."""

    columns = ("id", "role", "created_at", "user__email", "tenant__slug")
    list_display = ("user", "tenant", "role", "created_at")
    list_filter = ("role",)
    search_fields = ("user__email", "tenant__slug")
    list_select_related = ("user", "tenant")
    ordering = ("-created_at",)
    fields = ("user", "tenant", "role", "created_at")


@admin.register(Worker, site=console)
class WorkerAdmin(Blind):
    """Workers and their heartbeats."""

    list_display = ("name", "kind", "host", "pid", "heartbeat_at", "job_id")
    list_filter = ("kind",)
    ordering = ("name",)
    fields = ("name", "kind", "host", "pid", "heartbeat_at", "job_id")


@admin.register(Job, site=console)
class JobAdmin(Blind):
    """Times and states of jobs, without anything the tenant wrote."""

    columns = (*Job.OPERATOR_COLUMNS, "tenant__slug")
    list_display = ("public_id", "tenant", "task", "method", "state", "worker", "lease_until", "created_at")
    list_filter = ("state", "task")
    search_fields = ("public_id", "tenant__slug")
    list_select_related = ("tenant",)
    ordering = ("-created_at",)
    fields = tuple("tenant" if name == "tenant_id" else name for name in Job.OPERATOR_COLUMNS if name != "id")


@admin.register(Subscription, site=console)
class SubscriptionAdmin(Blind):
    """Plans and what Stripe last said."""

    list_display = ("tenant", "plan", "status", "period_end_at", "past_due_since")
    list_filter = ("plan", "status")
    search_fields = ("tenant__slug", "stripe_customer")
    list_select_related = ("tenant",)
    fields = (
        "tenant",
        "plan",
        "status",
        "stripe_customer",
        "period_end_at",
        "past_due_since",
        "cancel_at_period_end",
    )


@admin.register(UsageEvent, site=console)
class UsageEventAdmin(Blind):
    """What was metered; amounts, never contents."""

    list_display = ("at", "tenant", "kind", "quantity", "reported_at")
    list_filter = ("kind",)
    search_fields = ("tenant__slug", "request_id")
    list_select_related = ("tenant",)
    ordering = ("-at",)
    fields = ("tenant", "kind", "quantity", "request_id", "at", "reported_at")
