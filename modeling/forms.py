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
    sweep = forms.FloatField(
        label=gettext_lazy("Runs on average"), required=False, min_value=5, max_value=50,
        help_text=gettext_lazy(
            "Draws settings around the usual ones and keeps the best; epsilon covers the choice. 5 to 50, empty for one"
            " run. How many run stays secret, so it takes longer."
        ),
        widget=forms.NumberInput(attrs={"class": "input--short", "step": "1"}),
    )  # fmt: skip
    multi_label = forms.BooleanField(
        label=gettext_lazy("A row can have several labels"), required=False,
        help_text=gettext_lazy("Their cells hold names with | or ; between them, or a JSON list."),
    )  # fmt: skip
    audit = forms.BooleanField(
        label=gettext_lazy("Plant canaries"), required=False,
        help_text=gettext_lazy(
            "Made-up people join the training by coin flips, and the card says how well they can be told from outside."
            " Costs no privacy and a little accuracy; needs 1,000 people."
        ),
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
            multi_label=self.cleaned_data.get("multi_label", False),
            suffix=self.cleaned_data.get("suffix", ""),
            privacy=PrivacySpec(epsilon=self.wanted_epsilon()),
            sweep_runs=self.cleaned_data.get("sweep") or 0.0,
            audit=self.cleaned_data.get("audit", False),
        )


class BudgetForm(forms.Form):
    """Another lifetime budget: the number, why, and the owner's password again."""

    epsilon = forms.FloatField(
        label=gettext_lazy("New lifetime epsilon"),
        min_value=0.01,
        max_value=1000,
        widget=forms.NumberInput(attrs={"class": "input--short", "step": "any"}),
    )
    reason = forms.CharField(
        label=gettext_lazy("Reason"),
        max_length=500,
        help_text=gettext_lazy("Kept in the audit log, and shown on every card of these people’s models."),
        widget=forms.TextInput(attrs={"class": "input"}),
    )
    password = forms.CharField(
        label=gettext_lazy("Your password"),
        strip=False,
        widget=forms.PasswordInput(attrs={"class": "input", "autocomplete": "current-password"}),
    )
