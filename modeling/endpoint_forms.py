"""Forms of endpoints: who answers, who only listens, and what happens to the texts of requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django import forms
from django.http import QueryDict
from django.template.loader import render_to_string
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy

from modeling.core.personal_data import ALL_KINDS, ASKED_FOR
from modeling.models import PersonalData
from modeling.queries import personal_pages
from saas.lib.errors import Refusal

Choices = Sequence[tuple[str, str]]
_KIND_RULES = {
    "off": PersonalData.OFF.label,
    "report": PersonalData.NOTE.label,
    "mask": PersonalData.MASK.label,
    "block": PersonalData.BLOCK.label,
}


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


class KindsWidget(forms.Widget):
    """A select for each kind."""

    def render(self, name: str, value: Any, attrs: Any = None, renderer: Any = None) -> SafeString:
        """The kinds in words, each with what is chosen."""
        chosen = value if isinstance(value, dict) else {}
        context = {
            "name": name,
            "kinds": [
                (kind, words[0], chosen.get(kind, ""), kind in ASKED_FOR)
                for kind, words in personal_pages.KINDS.items()
            ],
            "rules": list(_KIND_RULES.items()),
        }
        return render_to_string("modeling/kind_choices.html", context)

    def value_from_datadict(self, data: Any, files: Any, name: str) -> dict[str, str] | None:
        """{kind: rule} of what was chosen; None for a form without these fields, which changes nothing."""
        sent = {kind: data.get(f"{name}.{kind}") for kind in ALL_KINDS}
        if all(value is None for value in sent.values()):
            return None
        return {kind: value for kind, value in sent.items() if value}


class KindsField(forms.Field):
    """What is done with single kinds; None when the form did not have it."""

    widget = KindsWidget
    empty_values = [None, ""]

    def validate(self, value: Any) -> None:
        """Raises ValidationError for a rule that there is not."""
        if value and not set(value.values()) <= set(_KIND_RULES):
            raise forms.ValidationError(gettext_lazy("Choose one of the rules for each kind."))


class RulesForm(forms.Form):
    """What happens to the texts of requests; turning the log off takes a yes where it holds something."""

    personal_data = forms.ChoiceField(
        label=gettext_lazy("Personal data in texts"),
        choices=PersonalData.choices,
        help_text=gettext_lazy(
            "Addresses of mail, phone numbers, card and record numbers, found by their shape, before the model sees"
            " the text. Names of people and plain dates are looked for only where they are chosen below."
        ),
    )
    personal_kinds = KindsField(
        label=gettext_lazy("Single kinds"),
        required=False,
        help_text=gettext_lazy("What is chosen here goes before the rule above, for that kind."),
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
