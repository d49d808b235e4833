"""Forms of the team, key, audit and settings pages, and of sign-up."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, cast

from allauth.account.forms import SignupForm
from allauth.core import context as allauth_context
from django import forms
from django.db import transaction
from django.http import HttpRequest
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.text import capfirst
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from modeling.packs import PACKS
from tenants import actions, keys
from tenants.models import Role, User

INVITE_IN_SESSION = "invite"
REORDERING = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})


def pack_choices() -> list[tuple[str, str]]:
    """The verticals, as (slug, name)."""
    return [(pack.slug, pack.name) for pack in PACKS.values()]


def role_choices() -> list[tuple[str, str]]:
    """The roles, as (value, word)."""
    return [(value, str(capfirst(word))) for value, word in Role.choices]


class PlainNameField(forms.CharField):
    """A name on one line, without the invisible characters that reorder the text around them (U+202E and its kin)."""

    def to_python(self, value: Any) -> str:
        """The name, cleaned; joiners stay, since scripts and emoji need them."""
        text = unicodedata.normalize("NFC", super().to_python(value) or "")
        return "".join(at for at in text if unicodedata.bidirectional(at) not in REORDERING).strip()


class TenantForm(forms.Form):
    """A new tenant."""

    name = PlainNameField(label=_("Organisation"), max_length=120)
    pack = forms.ChoiceField(label=_("Vertical"), choices=pack_choices)


class SignUpForm(SignupForm):  # type: ignore[misc]
    """Sign-up by e-mail; makes the person's first tenant unless they follow an invitation."""

    name = PlainNameField(label=_("Your name"), max_length=120, required=False)
    tenant_name = PlainNameField(label=_("Organisation"), max_length=120)
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

    name = PlainNameField(label=_("Name"), max_length=120)


class InviteForm(forms.Form):
    """An invitation."""

    email = forms.EmailField(label=_("E-mail address"))
    role = forms.ChoiceField(label=_("Role"), choices=role_choices, initial=Role.MEMBER)


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
    "predictions": _("predictions: read the prediction log, and set its rules"),
    "all": _("all: everything above"),
}


class KeyForm(forms.Form):
    """A new API key."""

    name = PlainNameField(label=_("Name"), max_length=80, help_text=_("Where the key will be used."))
    scopes = forms.MultipleChoiceField(
        label=_("Scopes"),
        widget=forms.CheckboxSelectMultiple,
        initial=["predict"],
    )
    days = forms.ChoiceField(
        label=_("Expires"),
        choices=[("90", _("in 90 days")), ("365", _("in one year")), ("", _("never"))],
        required=False,
        initial="365",
    )

    def __init__(self, *arguments: Any, is_owner: bool, **named: Any) -> None:
        super().__init__(*arguments, **named)
        offered = [name for name in keys.SCOPES if is_owner or name not in keys.OWNERS_SCOPES]
        scopes = cast(forms.MultipleChoiceField, self.fields["scopes"])
        scopes.choices = [(name, SCOPE_WORDS[name]) for name in offered]

    def is_new_name(self, keys_so_far: Iterable[Any]) -> bool:
        """Whether no working key has this name: a page sent twice makes one key. Otherwise the field says so."""
        name = self.cleaned_data["name"]
        taken = any(key.name == name and key.revoked_at is None and not key.is_expired for key in keys_so_far)
        if taken:
            self.add_error(
                "name", _("A working key has this name. Choose another, or revoke that one first.")
            )
        return not taken

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


class TypedSlugForm(forms.Form):
    """The tenant's slug typed, before it is erased; nothing is asked for where `slug` is ""."""

    confirmation = forms.CharField(
        max_length=40,
        widget=forms.TextInput(
            attrs={"class": "input", "autocomplete": "off", "autocapitalize": "off", "spellcheck": "false"}
        ),
    )

    def __init__(self, *arguments: Any, slug: str, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._slug = slug
        self.fields["confirmation"].label = gettext("Type %(slug)s to confirm") % {"slug": slug}
        if not slug:
            del self.fields["confirmation"]

    def clean_confirmation(self) -> str:
        """The slug itself, nothing like it."""
        typed: str = self.cleaned_data["confirmation"]
        if typed != self._slug:
            raise forms.ValidationError(_("This is not the slug of this tenant."), code="not_the_slug")
        return typed


class ErasureReasonForm(TypedSlugForm, ReasonForm):
    """Why an operator has a tenant erased, with its slug typed, or (`slug` is "") keeps it after all."""
