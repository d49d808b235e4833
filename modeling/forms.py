"""Forms of the product's pages: a new training run, typed confirmations."""

from __future__ import annotations

from typing import Any

from django import forms
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from modeling.actions.specs import JobSpec, PrivacySpec
from saas.lib.errors import Refusal

LEVELS = ("1", "3", "8")
OWN = "own"


def require_confirmation(request: HttpRequest, word: str) -> None:
    """Raise Refusal unless the form's `confirmation` is exactly the word."""
    if request.POST.get("confirmation", "").strip() != word:
        raise Refusal(
            _("What was typed is not “%(word)s”, so nothing was deleted.") % {"word": word},
            code="not_confirmed",
            param="confirmation",
        )


class TrainingForm(forms.Form):
    """A new run. The view fills in the choices; `level` is a usual epsilon or "own", then `epsilon` counts."""

    dataset = forms.ChoiceField(label=gettext_lazy("Data"))
    catalogue = forms.ChoiceField(label=gettext_lazy("Catalogue of items"), required=False)
    method = forms.ChoiceField(required=False)
    level = forms.ChoiceField(required=False)
    epsilon = forms.FloatField(
        label=gettext_lazy("Epsilon"), required=False, min_value=0.01, max_value=100,
        widget=forms.NumberInput(attrs={"class": "input--short", "step": "any", "aria-label": gettext_lazy("Epsilon")}),
        error_messages={"invalid": gettext_lazy("Write a number such as 2.5.")},
    )  # fmt: skip
    suffix = forms.RegexField(
        regex=r"^[a-z0-9-]{0,18}$", label=gettext_lazy("Name (optional)"), required=False, max_length=18,
        help_text=gettext_lazy("Becomes part of the model’s name. Up to 18 small letters, digits or hyphens."),
        error_messages={"invalid": gettext_lazy("Use up to 18 small letters, digits or hyphens.")},
    )  # fmt: skip

    def __init__(
        self,
        data: Any,
        *,
        datasets: list[tuple[str, str]],
        catalogues: list[tuple[str, str]],
        methods: list[str],
    ) -> None:
        super().__init__(data)
        self.datasets = datasets
        self._choices("dataset", datasets)
        self._choices("catalogue", catalogues)
        self._choices("method", [("", ""), *((one, one) for one in methods)])
        self._choices("level", [("", ""), *((one, one) for one in (*LEVELS, OWN))])

    def _choices(self, name: str, choices: list[tuple[str, str]]) -> None:
        field = self.fields[name]
        assert isinstance(field, forms.ChoiceField)
        field.choices = choices

    def clean(self) -> dict[str, Any]:
        """An own epsilon must be written when it is chosen."""
        cleaned = super().clean() or {}
        if cleaned.get("level") == OWN and cleaned.get("epsilon") is None and "epsilon" not in self.errors:
            self.add_error("epsilon", _("Write the epsilon."))
        return cleaned

    def wanted_epsilon(self) -> float | None:
        """The epsilon asked for; None leaves it to the vertical."""
        level = self.cleaned_data.get("level", "")
        if level == OWN:
            return self.cleaned_data.get("epsilon")
        return float(level) if level else None

    def spec(self, *, training_file: str, catalogue_file: str) -> JobSpec:
        """The job asked for, on these files."""
        return JobSpec(
            training_file=training_file,
            catalogue_file=catalogue_file,
            method=self.cleaned_data.get("method") or "auto",
            suffix=self.cleaned_data.get("suffix", ""),
            privacy=PrivacySpec(epsilon=self.wanted_epsilon()),
        )
