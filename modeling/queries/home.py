"""What Home shows: the next step, recent runs, budgets; and the one-press trainings on sample data."""

from __future__ import annotations

from dataclasses import dataclass

from django.urls import reverse
from django.utils.translation import gettext as _

from modeling.models import Dataset, DatasetVersion, File, ModelVersion
from modeling.packs import PACKS, Sample
from modeling.queries import job_pages
from modeling.queries.job_pages import JobPage
from modeling.queries.ledger_pages import AccountCard, account_cards
from tenants.models import ApiKey, Tenant

RECENT = 5


@dataclass(frozen=True)
class Step:
    """One of the three steps from nothing to a model in use."""

    title: str
    text: str
    action: str
    url: str
    is_done: bool
    is_next: bool = False
    open_to_viewers: bool = False


@dataclass(frozen=True)
class HomePage:
    """Everything on Home. `next_step` is None once all steps are done."""

    steps: list[Step]
    next_step: Step | None
    has_data: bool
    jobs: list[JobPage]
    accounts: list[AccountCard]


@dataclass(frozen=True)
class Offer:
    """A one-press training on a sample, or the sample itself while it is not in the tenant's data."""

    title: str
    text: str
    sample: str
    method: str
    is_loaded: bool


def home_page(tenant: Tenant) -> HomePage:
    """Home of a tenant."""
    has_data = (
        Dataset.objects.of(tenant).filter(deleted_at=None, is_catalogue=False).exclude(task="").exists()
    )
    jobs = list(job_pages.jobs_of(tenant).order_by("-created_at")[:RECENT])
    has_model = ModelVersion.objects.of(tenant).filter(state=ModelVersion.State.READY).exists()
    has_key = ApiKey.objects.of(tenant).filter(revoked_at=None).exists()
    steps = _steps(
        tenant,
        has_data=has_data,
        has_open=any(not job.is_ended for job in jobs),
        has_model=has_model,
        has_key=has_key,
    )
    return HomePage(
        steps=steps,
        next_step=next((step for step in steps if step.is_next), None),
        has_data=has_data,
        jobs=job_pages.job_rows(tenant, jobs),
        accounts=account_cards(tenant),
    )


def _steps(tenant: Tenant, *, has_data: bool, has_open: bool, has_model: bool, has_key: bool) -> list[Step]:
    slug = [tenant.slug]
    waits = has_open and not has_model
    steps = [
        Step(
            _("Bring data"),
            _("Upload a CSV, JSONL or Parquet file of records. Each row is checked, and the columns are guessed."),
            _("Upload data"), reverse("modeling:data_upload", args=slug), has_data,
        ),
        Step(
            _("Train a private model"),
            _("A run is under way; its page shows how far it is.") if waits
            else _("Choose how much the model may reveal about one person, see what that costs, and start."),
            _("See the runs") if waits else _("New training run"),
            reverse("modeling:training" if waits else "modeling:training_new", args=slug),
            has_model, open_to_viewers=waits,
        ),
        Step(
            _("Use it"),
            _("Try the model in the playground, then make an API key and call it from your systems."),
            _("Make an API key"), reverse("tenants:keys", args=slug), has_model and has_key,
        ),
    ]  # fmt: skip
    first = next((index for index, step in enumerate(steps) if not step.is_done), None)
    return [Step(**{**vars(step), "is_next": index == first}) for index, step in enumerate(steps)]


def sample_offers(tenant: Tenant) -> list[Offer]:
    """One-press trainings of the tenant's vertical."""
    loaded = loaded_samples(tenant)
    offers: list[Offer] = []
    for sample in PACKS[tenant.pack].samples:
        is_ready = sample.slug in loaded and (not sample.catalogue or sample.catalogue in loaded)
        methods = _methods(sample) if is_ready else _methods(sample)[:1]
        for method, text in methods:
            title = (
                _("%(title)s, with LoRA") % {"title": _(sample.title)}
                if method == "lora"
                else _(sample.title)
            )
            offers.append(Offer(title, f"{text} {_(sample.about)}", sample.slug, method, is_ready))
    return offers


def _methods(sample: Sample) -> list[tuple[str, str]]:
    if sample.task == "classification" and "text" not in sample.columns:
        return [("additive", _("A private additive model on declared columns: seconds."))]
    if sample.task == "classification":
        return [
            (
                "head",
                _("A private head on frozen embeddings: minutes, and the best choice for this much data."),
            ),
            ("lora", _("LoRA inside the encoder, under Opacus: slower, trains more of the model.")),
        ]
    if sample.task == "chat":
        return [("final_hidden", _("A private adapter on the last layer of a small chat model."))]
    if sample.task == "recommendation":
        return [("ssr", _("Private taste from who used which item, on top of the catalogue’s texts."))]
    return []


def loaded_samples(tenant: Tenant) -> dict[str, File]:
    """The tenant's usable files that are samples of its pack, by the sample's slug, the newest of each."""
    names = {sample.filename: sample.slug for sample in PACKS[tenant.pack].samples}
    versions = DatasetVersion.objects.of(tenant).filter(
        file__name__in=names, file__deleted_at=None, dataset__deleted_at=None, segments__isnull=False
    )
    files = [version.file for version in versions.select_related("file").order_by("pk") if version.file]
    return {names[file.name]: file for file in files}
