"""The owners' page of the keys of their data: rotation with progress and history, and a key of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from saas.lib.errors import Refusal
from tenants import own_keys, queries, resealing, root_keys, rotation
from tenants.access import MemberRequest, member, signed_in_again
from tenants.audit import Actor

SHOWN = 20
ALL_OBJECTS = "all"


def _password() -> forms.CharField:
    return forms.CharField(
        label=gettext_lazy("Your password"),
        strip=False,
        widget=forms.PasswordInput(attrs={"class": "input", "autocomplete": "current-password"}),
    )


class RotateForm(forms.Form):
    """What to rotate, and the owner's password again."""

    what = forms.ChoiceField(
        label=gettext_lazy("What"),
        choices=[
            ("tenant", gettext_lazy("the tenant key: every other key is wrapped again, in minutes")),
            (
                "data",
                gettext_lazy("the data keys: every object is encrypted again, which reads and writes it all"),
            ),
        ],
        widget=forms.RadioSelect,
        initial="tenant",
    )
    password = _password()


class TakeForm(forms.Form):
    """A key of the tenant's own: where it is, its name there, and the owner's password again."""

    place = forms.ChoiceField(label=gettext_lazy("Where"))
    name = forms.CharField(
        label=gettext_lazy("Key"),
        max_length=200,
        help_text=gettext_lazy("In AWS KMS the whole ARN of the key; in Vault its name."),
        widget=forms.TextInput(attrs={"class": "input", "autocomplete": "off", "spellcheck": "false"}),
    )
    password = _password()

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        place = self.fields["place"]
        assert isinstance(place, forms.ChoiceField)
        place.choices = [(offer.name, offer.label) for offer in own_keys.offers()]


class LeaveForm(forms.Form):
    """The owner's password again."""

    password = _password()


@never_cache
@require_http_methods(["GET", "POST"])
@member("owner")
def encryption(request: MemberRequest) -> HttpResponse:
    """See the keys, their rotations and the own key; start a rotation, take an own key, or go back to ours."""
    made: dict[str, type[forms.Form]] = {"rotate": RotateForm, "take": TakeForm, "leave": LeaveForm}
    asked = request.POST.get("do", "") if request.method == "POST" else ""
    found = {name: form(request.POST if name == asked else None, prefix=name) for name, form in made.items()}
    form = found.get(asked)
    if form is not None and form.is_valid() and signed_in_again(request, form):
        try:
            said = DO[asked](request, form.cleaned_data)
        except Refusal as refusal:
            form.add_error(refusal.param if refusal.param in form.fields else None, str(refusal.message))
        else:
            messages.success(request, said)
            return redirect("tenants:encryption", request.tenant.slug)
    words = queries.key_facts(request.tenant, SHOWN) | {
        "forms": found,
        "offers": own_keys.offers(),
        "reference": root_keys.tenant_reference(request.tenant.pk),
    }
    status = 400 if form is not None and form.errors else 200
    return render(request, "tenants/encryption.html", words, status=status)


def _rotate(request: MemberRequest, given: dict[str, Any]) -> str:
    actor = Actor.from_request(request)
    if given["what"] == "data":
        resealing.start(request.tenant, actor)
        return _("New data keys are being made. Everything stays readable meanwhile.")
    rotation.start(request.tenant, actor)
    return _("A new tenant key wraps from now on; the old one is destroyed once nothing is left under it.")


def _take(request: MemberRequest, given: dict[str, Any]) -> str:
    own_keys.take(request.tenant, Actor.from_request(request), place=given["place"], name=given["name"])
    return _("Your key wrapped and unwrapped a test. Everything is being wrapped by it now.")


def _leave(request: MemberRequest, given: dict[str, Any]) -> str:
    own_keys.leave(request.tenant, Actor.from_request(request))
    return _("Everything is being wrapped by our key again.")


DO: dict[str, Callable[[MemberRequest, dict[str, Any]], str]] = {
    "rotate": _rotate,
    "take": _take,
    "leave": _leave,
}
