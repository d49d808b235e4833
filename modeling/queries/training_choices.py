"""What the page of a new run offers for the chosen data: methods, levels of epsilon, the unit, the quote in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _

from modeling.models import Dataset, DatasetVersion
from modeling.packs import PACKS
from modeling.queries import words
from tenants.models import Tenant


@dataclass(frozen=True)
class Choice:
    """One radio button: its value, a title and a sentence."""

    value: str
    title: str
    text: str


@dataclass(frozen=True)
class Chosen:
    """What follows from the chosen dataset."""

    task: str
    task_words: str
    task_reason: str
    person: str
    unit_words: str
    unit_fixed: bool
    methods: list[Choice]
    levels: list[Choice]

    @property
    def is_recommendation(self) -> bool:
        """Whether a catalogue is needed."""
        return self.task == "recommendation"


def trainable(tenant: Tenant) -> list[DatasetVersion]:
    """The newest version of each dataset that a run can learn from, the newest first."""
    return _newest(tenant, is_catalogue=False)


def catalogues(tenant: Tenant) -> list[DatasetVersion]:
    """The newest version of each catalogue, the newest first."""
    return _newest(tenant, is_catalogue=True)


def _newest(tenant: Tenant, *, is_catalogue: bool) -> list[DatasetVersion]:
    rows = DatasetVersion.objects.of(tenant).filter(
        dataset__deleted_at=None,
        dataset__is_catalogue=is_catalogue,
        segments__isnull=False,
        file__deleted_at=None,
    )
    newest = {one.dataset_id: one for one in rows.select_related("dataset", "file").order_by("number")}
    return sorted(newest.values(), key=lambda one: one.created_at, reverse=True)


def chosen(tenant: Tenant, dataset: Dataset) -> Chosen:
    """What follows from this dataset."""
    task = dataset.task or PACKS[dataset.pack].default_task
    noun = words.person(tenant)
    return Chosen(
        task=task,
        task_words=words.task_words(task),
        task_reason=_("guessed from the columns") if dataset.task else _("the usual task of your vertical"),
        person=noun,
        unit_words=_("Epsilon holds for %(unit)s.") % {"unit": words.unit_words(tenant, dataset.unit_column)},
        unit_fixed=dataset.unit_fixed,
        methods=methods_of(task),
        levels=_levels(PACKS[dataset.pack].epsilon_ceiling, noun),
    )


def methods_of(task: str) -> list[Choice]:
    """The ways to train a task, the recommended one first."""
    if task == "classification":
        return [
            Choice(
                "auto",
                _("Automatic"),
                _("Picks what was most accurate for this much data: usually the private head."),
            ),
            Choice(
                "head",
                _("Private head"),
                _("The encoder stays as it is; a private layer learns your labels. Minutes."),
            ),
            Choice(
                "lora",
                _("LoRA"),
                _("Small private changes inside the encoder, under Opacus. Slower; for unusual language."),
            ),
        ]
    if task == "recommendation":
        return [
            Choice(
                "auto",
                _("Automatic"),
                _("Private taste where there are enough people for it, otherwise popularity."),
            ),
            Choice(
                "ssr",
                _("Private taste"),
                _("Learns which items go together, on top of the catalogue’s texts."),
            ),
            Choice(
                "popularity",
                _("Private popularity"),
                _("Counts privately; similarity comes from the catalogue. Works with few people."),
            ),
        ]
    return [Choice("auto", _("Private adapter"), _("A small private layer at the end of the chat model."))]


def _levels(ceiling: float, person: str) -> list[Choice]:
    levels = [
        Choice(
            "1",
            _("Strong (epsilon 1)"),
            _("Very little can be inferred about one %(p)s. Needs much data.") % {"p": person},
        ),
        Choice(
            "3",
            _("Balanced (epsilon 3)"),
            _("A good bound at a small cost in accuracy, with a few thousand people or more."),
        ),
        Choice(
            "8",
            _("Accurate (epsilon 8)"),
            _("The usual choice in practice: close to training without privacy."),
        ),
    ]
    return [level for level in levels if float(level.value) <= ceiling]


@dataclass(frozen=True)
class QuotePanel:
    """The quote as the panel prints it; only `refusal` is set when the job could not start."""

    refusal: str = ""
    epsilon: float | None = None
    replace_one: float | None = None
    delta: float | None = None
    unit: str = ""
    used: float = 0.0
    reserve: float = 0.0
    left_after: float = 0.0
    lifetime: float | None = None
    runs_after: int | None = None
    seconds: float | None = None
    price: float | None = None
    quality: str = ""
    quality_words: str = ""
    rows: str = ""
    notes: tuple[str, ...] = ()


def quote_panel(tenant: Tenant, body: Mapping[str, Any]) -> QuotePanel:
    """The quote action's body in words."""
    privacy = body["privacy"]
    units = body["units"]
    noun = words.person(tenant)
    after = privacy.get("budget_after", 0.0)
    fits = privacy.get("fits", True)
    used = privacy.get("budget_used", 0.0)
    quality = _quality(body.get("quality", {}))
    return QuotePanel(
        refusal=""
        if fits
        else _("The privacy budget of these people does not hold this run. Choose a smaller epsilon."),
        epsilon=privacy.get("epsilon"),
        replace_one=privacy.get("epsilon_replace_one"),
        delta=privacy.get("delta"),
        unit=noun,
        used=used,
        reserve=max(0.0, after - used),
        left_after=privacy.get("budget_lifetime", 0.0) - after,
        lifetime=privacy.get("budget_lifetime"),
        runs_after=max(0, privacy["runs_like_this"] - 1) if "runs_like_this" in privacy else None,
        seconds=body.get("seconds"),
        price=body.get("price_cents"),
        quality=quality.get("name", ""),
        quality_words=quality.get("words", ""),
        rows=_("%(train)s people, %(held)s more are held out to measure")
        % {"train": f"{units['training']:,}", "held": f"{units['held_out']:,}"},
        # The core says the expected quality as a note too; the panel has a line for it.
        notes=tuple(
            note for note in body.get("notes", ()) if not (quality and note.startswith("Expected quality"))
        ),
    )


def _quality(quality: Mapping[str, Any]) -> dict[str, str]:
    """The expected band, relative to training without privacy: a name and a sentence, or nothing."""
    if "expected_low" not in quality:
        return {}
    shares = {"low": f"{100 * quality['expected_low']:.0f}", "high": f"{100 * quality['expected_high']:.0f}"}
    words_ = _("%(low)s to %(high)s %% of the accuracy without privacy, give or take 5 points") % shares
    return {"name": _(str(quality.get("expected_quality", "")).capitalize()), "words": words_}
