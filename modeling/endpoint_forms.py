"""Forms of endpoints: who answers, who only listens, and what happens to the texts of requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django import forms
from django.http import QueryDict
from django.utils.translation import gettext_lazy

from modeling.models import PersonalData
from saas.lib.errors import Refusal

Choices = Sequence[tuple[str, str]]


class _ModelForm(forms.Form):
    """A form with one of the tenant's models in it; `models` are (name, words)."""

    model = forms.ChoiceField(label=gettext_lazy("Model"))

    def __init__(self, *arguments: Any, models: Choices, **options: Any) -> None:
        super().__init__(*arguments, **options)
        field = self.fields["model"]
        assert isinstance(field, forms.ChoiceField)
        field.choices = list(models)


class NewEndpointForm(_ModelForm):
    """A name and the model that answers to it."""

    name = forms.RegexField(
        r"^[a-z0-9][a-z0-9-]{0,62}$",
        label=gettext_lazy("Name"),
        help_text=gettext_lazy(
            "Programs call this name: a-z, 0-9 and hyphen. It stays when the model changes."
        ),
        error_messages={"invalid": gettext_lazy("Write 1 to 63 characters out of a-z, 0-9 and hyphen.")},
        widget=forms.TextInput(attrs={"autocapitalize": "off", "spellcheck": "false"}),
    )
    field_order = ("name", "model")


class PointForm(_ModelForm):
    """The model that answers from now on."""


class SplitForm(_ModelForm):
    """The canary and its share."""

    percent = forms.IntegerField(
        label=gettext_lazy("Percent of the requests"),
        min_value=1,
        max_value=99,
        initial=10,
        widget=forms.NumberInput(attrs={"class": "input--short"}),
    )


class ShadowForm(_ModelForm):
    """The model that listens."""


class RulesForm(forms.Form):
    """What happens to the texts of requests; turning the log off takes a yes where it holds something."""

    personal_data = forms.ChoiceField(
        label=gettext_lazy("Personal data in texts"),
        choices=PersonalData.choices,
        help_text=gettext_lazy(
            "Addresses of mail, phone numbers, card and record numbers, found by their shape, before the model sees"
            " the text. People's names are not found."
        ),
    )
    log_days = forms.IntegerField(
        label=gettext_lazy("Days in the prediction log"),
        min_value=0,
        max_value=365,
        widget=forms.NumberInput(attrs={"class": "input--short"}),
        help_text=gettext_lazy(
            "0 keeps nothing of a request or an answer. From 1 on, inputs and answers are kept that long, with"
            " personal data masked and sealed under your key. Back to 0 deletes them at once."
        ),
    )
    delete_predictions = forms.BooleanField(
        label=gettext_lazy("Delete what the log holds, if it is turned off"), required=False
    )


def checked_rules(sent: QueryDict) -> dict[str, Any]:
    """The rules of a posted form; raises Refusal with its first complaint."""
    form = RulesForm(sent)
    if not form.is_valid():
        name, errors = next(iter(form.errors.items()))
        raise Refusal(str(errors[0]), param=str(name), code="invalid_value")
    return form.cleaned_data
