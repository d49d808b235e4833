"""How allauth fits in: where people land after signing in, and mail that may fail without failing the page."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import urlsplit

from allauth.account.adapter import DefaultAccountAdapter
from allauth.core import context as allauth_context
from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest
from django.urls import reverse
from django.utils.translation import gettext as _

from tenants import demo, queries
from tenants.models import User

logger = logging.getLogger(__name__)


def home_of(user: User) -> str:
    """The page a person lands on: their first tenant, the console for operators, otherwise a new tenant's form."""
    found = queries.tenants_of(user)
    if found:
        return f"/t/{found[0].slug}/"
    return reverse("console:index") if user.is_staff else reverse("tenants:create")


def mail_leaves() -> bool:
    """Whether mail goes anywhere; without EMAIL_HOST it is only printed."""
    return not settings.EMAIL_BACKEND.endswith("console.EmailBackend")


def where_mail_is() -> str:
    """Where to find mail that was only printed; the path is told in the demo alone."""
    if not settings.DEMO:
        return _("No mail server is set up here, so the mail was only written to the server’s log.")
    path = settings.DATA_DIR / "logs" / "web.log"
    return _("No mail server is set up here. The mail, with its link, is in %(path)s.") % {"path": path}


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]
    """E-mail accounts of Cloister."""

    def get_login_redirect_url(self, request: HttpRequest) -> str:
        """The person's home."""
        return home_of(request.user)  # type: ignore[arg-type]

    def get_signup_redirect_url(self, request: HttpRequest) -> str:
        """The person's home."""
        return home_of(request.user)  # type: ignore[arg-type]

    def get_email_confirmation_url(self, request: HttpRequest | None, emailconfirmation: Any) -> str:
        """A link under the public address, never under the Host header of a request."""
        path: str = reverse("account_confirm_email", args=[emailconfirmation.key])
        return f"{settings.PUBLIC_URL}{path}"

    def get_reset_password_from_key_url(self, key: str) -> str:
        """A link under the public address, never under the Host header of a request."""
        path = urlsplit(super().get_reset_password_from_key_url(key)).path
        return f"{settings.PUBLIC_URL}{path}"

    def authenticate(self, request: HttpRequest, **credentials: Any) -> User | None:
        """The person; the demo's people, whose password is printed everywhere, only while the demo is on."""
        found: User | None = super().authenticate(request, **credentials)
        closed = not settings.DEMO and found is not None and found.email in demo.emails()
        return None if closed else found

    def send_mail(self, template_prefix: str, email: str, context: dict[str, Any]) -> None:
        """Send, or log that the mail server could not be reached: every mail can be asked for again."""
        try:
            super().send_mail(template_prefix, email, context)
            if not mail_leaves() and allauth_context.request is not None:
                messages.info(allauth_context.request, where_mail_is())
        except OSError as error:
            logger.warning("mail %s not sent (%s)", template_prefix, type(error).__name__)
