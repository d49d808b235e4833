"""What the page of a new run offers for the chosen data: methods, levels of epsilon, the unit, the quote in words."""

from __future__ import annotations

from dataclasses import dataclass

from django.utils.translation import gettext as _

from modeling.actions.dataset_versions import own_file
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
    is_table: bool = False  # learnt from columns, not from texts

    @property
    def has_sweep(self) -> bool:
        """Whether several settings can be tried in one run."""
        return "head" in {method.value for method in self.methods}

    @property
    def is_classification(self) -> bool:
        """Whether rows are texts with labels, one or several."""
        return self.task == "classification" and not self.is_table

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


def file_id(tenant: Tenant, version: DatasetVersion) -> str:
    """The file by which a job names a version's dataset: the one that the dataset began with."""
    file = own_file(tenant, version.dataset) or version.file
    return file.public_id if file is not None else ""


def chosen(tenant: Tenant, dataset: Dataset, *, table_task: str = "") -> Chosen:
    """What follows from this dataset; `table_task` is what a table's columns are to answer."""
    task = table_task or dataset.task or PACKS[dataset.pack].default_task
    noun = words.person(tenant)
    return Chosen(
        task=task,
        task_words=words.task_words(task),
        task_reason=_("guessed from the columns") if dataset.task else _("the usual task of your vertical"),
        person=noun,
        unit_words=_("Epsilon holds for %(unit)s.") % {"unit": words.unit_words(tenant, dataset.unit_column)},
        unit_fixed=dataset.unit_fixed,
        methods=table_methods() if table_task else methods_of(task),
        levels=_levels(PACKS[dataset.pack].epsilon_ceiling, noun),
        is_table=bool(table_task),
    )


def table_methods() -> list[Choice]:
    """The ways to train on columns, the recommended one first."""
    return [
        Choice(
            "auto",
            _("Additive model"),
            _("Adds up what each column says. The most accurate under privacy for most tables. Seconds."),
        ),
        Choice(
            "network",
            _("Small network"),
            _("Can learn what columns say together. Needs more people to be worth it."),
        ),
    ]


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
            Choice(
                "full",
                _("Full fine-tuning"),
                _(
                    "Every layer of the encoder, by ghost clipping. The slowest; for a GPU and very many people."
                ),
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
