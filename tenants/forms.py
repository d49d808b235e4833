"""Forms of the team, key, audit and settings pages, and of sign-up."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from allauth.account.forms import SignupForm
from allauth.core import context as allauth_context
from django import forms
from django.db import transaction
from django.http import HttpRequest
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from modeling.packs import PACKS
from tenants import actions, keys
from tenants.models import Role, User

INVITE_IN_SESSION = "invite"


def pack_choices() -> list[tuple[str, str]]:
    """The verticals, as (slug, name)."""
    return [(pack.slug, pack.name) for pack in PACKS.values()]


class TenantForm(forms.Form):
    """A new tenant."""

    name = forms.CharField(label=_("Organisation"), max_length=120)
    pack = forms.ChoiceField(label=_("Vertical"), choices=pack_choices)


class SignUpForm(SignupForm):  # type: ignore[misc]
    """Sign-up by e-mail; makes the person's first tenant unless they follow an invitation."""

    name = forms.CharField(label=_("Your name"), max_length=120, required=False)
    tenant_name = forms.CharField(label=_("Organisation"), max_length=120)
    pack = forms.ChoiceField(label=_("Vertical"), choices=pack_choices)
    field_order = ("email", "password1", "name", "tenant_name", "pack")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["email"].label = _("E-mail address")
        self.fields["password1"].help_text = _("At least 10 characters, and not a common password.")
        for name in ("email", "password1"):
            self.fields[name].widget.attrs.pop("placeholder", None)
        self.fields["name"].widget.attrs["autocomplete"] = "name"
        self.fields["tenant_name"].widget.attrs["autocomplete"] = "organization"
        if INVITE_IN_SESSION in allauth_context.request.session:  # they join the tenant that invited them
            del self.fields["tenant_name"], self.fields["pack"]

    def save(self, request: HttpRequest) -> User:
        """Make the person and the tenant that they own, both or neither."""
        with transaction.atomic():
            user: User = super().save(request)
            user.name = self.cleaned_data["name"]
            User.objects.filter(pk=user.pk).update(name=user.name)
            if "tenant_name" in self.cleaned_data:
                actions.create_tenant(user, self.cleaned_data["tenant_name"], self.cleaned_data["pack"])
        return user


class NameForm(forms.Form):
    """The tenant's name."""

    name = forms.CharField(label=_("Name"), max_length=120)


class InviteForm(forms.Form):
    """An invitation."""

    email = forms.EmailField(label=_("E-mail address"))
    role = forms.ChoiceField(label=_("Role"), choices=Role.choices, initial=Role.MEMBER)


class RoleForm(forms.Form):
    """A member's new role."""

    role = forms.ChoiceField(label=_("Role"), choices=Role.choices)


SCOPE_WORDS: dict[str, str | Promise] = {
    "files": _("files: upload, read and delete datasets"),
    "train": _("train: start, watch and stop jobs"),
    "predict": _("predict: call models"),
    "models": _("models: list, download and delete models and endpoints"),
    "privacy": _("privacy: read the ledger"),
    "usage": _("usage: read what was metered"),
    "all": _("all: everything above"),
}


class KeyForm(forms.Form):
    """A new API key."""

    name = forms.CharField(label=_("Name"), max_length=80, help_text=_("Where the key will be used."))
    scopes = forms.MultipleChoiceField(
        label=_("Scopes"),
        choices=[(name, SCOPE_WORDS[name]) for name in keys.SCOPES],
        widget=forms.CheckboxSelectMultiple,
        initial=["predict"],
    )
    days = forms.ChoiceField(
        label=_("Expires"),
        choices=[("90", _("in 90 days")), ("365", _("in one year")), ("", _("never"))],
        required=False,
        initial="365",
    )

    def expires_at(self) -> datetime | None:
        """When the key ends, or None."""
        days = self.cleaned_data["days"]
        return timezone.now() + timedelta(days=int(days)) if days else None


class AuditFilterForm(forms.Form):
    """What the audit page shows."""

    action = forms.CharField(label=_("Change"), max_length=60, required=False)
    actor = forms.CharField(label=_("Who"), max_length=200, required=False)
    since = forms.DateField(label=_("From"), required=False, widget=forms.DateInput(attrs={"type": "date"}))
    until = forms.DateField(label=_("To"), required=False, widget=forms.DateInput(attrs={"type": "date"}))


class ReasonForm(forms.Form):
    """Why an operator suspends or restores a tenant."""

    reason = forms.CharField(label=_("Reason"), max_length=300)
