"""Home, and the page that a signed-out person sees."""

from __future__ import annotations

from django.conf import settings
from django.contrib.auth import login
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_POST

from modeling.packs import PACKS
from modeling.queries import home as pages
from tenants import queries
from tenants.access import MemberRequest, has_role, member
from tenants.demo import DEMO_TENANTS, DemoTenant
from tenants.models import User


@require_GET
def landing(request: HttpRequest) -> HttpResponse:
    """What Cloister is; a signed-in person goes on to a tenant."""
    if request.user.is_authenticated:
        found = queries.tenants_of(request.user)
        return redirect("modeling:home", found[0].slug) if len(found) == 1 else redirect("tenants:list")
    return render(request, "modeling/landing.html", {"demo_sign_ins": _demo_sign_ins()})


def _demo_sign_ins() -> tuple[DemoTenant, ...]:
    """The demo people, while the demo is on."""
    return DEMO_TENANTS if settings.DEMO else ()


@require_POST
def demo_sign_in(request: HttpRequest) -> HttpResponse:
    """Sign in as a demo person at one press; absent unless the demo is on."""
    emails = {one.email: one.slug for one in _demo_sign_ins()}
    email = request.POST.get("email", "")
    if email not in emails:
        raise Http404
    user = User.objects.filter(email=email, is_active=True).first()
    if user is None:
        raise Http404
    login(request, user, backend="django.contrib.auth.backends.ModelBackend")
    return redirect("modeling:home", emails[email])


@require_GET
@member("viewer")
def home(request: MemberRequest) -> HttpResponse:
    """What to do next, recent runs, what is left of the budgets."""
    can_edit = has_role(request.member, "member")
    words = {
        "home": pages.home_page(request.tenant),
        "pack": PACKS[request.tenant.pack],
        "offers": pages.sample_offers(request.tenant) if can_edit else [],
        "can_edit": can_edit,
    }
    return render(request, "modeling/home.html", words)
