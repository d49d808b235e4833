"""Words of the pages for tasks, methods, people and what a column is used as."""

from __future__ import annotations

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, pgettext_lazy

from modeling.packs import PACKS
from tenants.models import Tenant

TASKS = {
    "classification": gettext_lazy("Classification"),
    "regression": gettext_lazy("Regression"),
    "chat": gettext_lazy("Chat"),
    "recommendation": gettext_lazy("Recommendation"),
}
METHODS = {
    "auto": gettext_lazy("Automatic"),
    "head": gettext_lazy("Private head"),
    "lora": gettext_lazy("LoRA"),
    "full": gettext_lazy("Full fine-tuning"),
    "final_hidden": gettext_lazy("Final-layer adapter"),
    "top_layers": gettext_lazy("Top-layer adapters"),
    "additive": gettext_lazy("Additive model"),
    "network": gettext_lazy("Small network"),
    "ssr": gettext_lazy("Private taste"),
    "popularity": gettext_lazy("Private popularity"),
}
ROLES = {
    "text": pgettext_lazy("column", "the text"),
    "label": pgettext_lazy("column", "the label to learn"),
    "unit": pgettext_lazy("column", "whose record it is"),
    "user": pgettext_lazy("column", "the person"),
    "item": pgettext_lazy("column", "the item"),
    "messages": pgettext_lazy("column", "the conversation"),
    "prompt": pgettext_lazy("column", "what a person asks"),
    "completion": pgettext_lazy("column", "what the model shall answer"),
    "catalogue_id": pgettext_lazy("column", "the item’s id"),
    "catalogue_text": pgettext_lazy("column", "the item’s text"),
    "timestamp": pgettext_lazy("column", "when it happened"),
    "feature": pgettext_lazy("column", "something to learn from"),
    "sensitive": pgettext_lazy("column", "a sensitive attribute, only compared"),
    "leave": pgettext_lazy("column", "left out"),
}
ENTRIES = {
    "reserved": gettext_lazy("reserved"),
    "charged": gettext_lazy("charged"),
    "settled": gettext_lazy("settled"),
    "released": gettext_lazy("released"),
    "failed": gettext_lazy("failed, stays charged"),
    "unbounded": gettext_lazy("privacy off"),
}


def task_words(task: str) -> str:
    """A task in words; empty for a task that is not known yet."""
    return str(TASKS.get(task, ""))


def method_words(method: str) -> str:
    """A training method in words."""
    return str(METHODS.get(method, method))


def role_words(role: str) -> str:
    """What a column is used as, in words."""
    return str(ROLES.get(role, role))


def person(tenant: Tenant) -> str:
    """The noun of the tenant's vertical for one unit of privacy: patient, customer, shopper, person."""
    return _(PACKS[tenant.pack].wording.get("person", "person"))


def people(tenant: Tenant) -> str:
    """The same for many."""
    return _(PACKS[tenant.pack].wording.get("people", "people"))


def unit_words(tenant: Tenant, unit: str) -> str:
    """The unit of privacy as a sentence; unit is a column, or "" when each row is one person."""
    noun = person(tenant)
    if not unit:
        return _("one %(person)s, each row being one %(person)s") % {"person": noun}
    return _("one %(person)s: all rows with the same %(column)s") % {"person": noun, "column": unit}
