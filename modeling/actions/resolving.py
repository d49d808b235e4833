"""From a job's spec to its plan: what was left out is guessed, what cannot be private or useful is refused."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from django.utils.translation import gettext as _

from modeling.actions import chat_columns
from modeling.actions.dataset_versions import home_of
from modeling.actions.datasets import distinct_labels, resegment
from modeling.actions.declared_columns import label_names, labelled_column
from modeling.actions.label_cells import distinct_names
from modeling.actions.privacy import Cost, cost_of
from modeling.actions.resolving_tables import LONGEST_NAME, Table, is_table, table_of
from modeling.actions.rows import count_units
from modeling.actions.specs import JobSpec
from modeling.core import planning
from modeling.core.bases import BASES
from modeling.core.heads import TABULAR
from modeling.core.types import CoreError, Plan, Recipe, Shape
from modeling.models import Dataset, DatasetVersion, File
from modeling.packs import PACKS
from modeling.packs.base import ROLES
from saas.lib import env
from saas.lib.errors import NotFound, Refusal
from tenants.models import Tenant

BASE_OF = {
    "classification": "minilm-l6",
    "regression": TABULAR,
    "recommendation": "minilm-l6",
    "chat": "smollm2-135m",
}
NEEDED = {"classification": ("text", "label"), "recommendation": ("user", "item"), "chat": ("messages",)}
OF_A_TABLE = ("label", "unit")  # roles that matter to a model on columns
SUFFIX = re.compile(r"[a-z0-9-]{0,18}")
METHOD = re.compile(r"[a-z_]{1,20}")
USUAL_EPSILON = 8.0
FEWEST_LABELS = 2
DEVICE = env.text("TRAINING_DEVICE", "cpu")


@dataclass(frozen=True)
class Resolved:
    """Everything a job row needs, worked out before any lock."""

    version: DatasetVersion
    catalogue: DatasetVersion | None
    columns: dict[str, str]
    plan: Plan
    cost: Cost


def find_file(tenant: Tenant, public_id: str, *, param: str) -> File:
    """The tenant's file by public id; raises NotFound, or Refusal when it was refused itself."""
    found = File.objects.of(tenant).filter(public_id=public_id, deleted_at=None).first()
    if found is None:
        raise NotFound(_("There is no such file."), param=param)
    if found.status == File.Status.ERROR:
        raise Refusal(
            _("This file could not be read: %(why)s") % {"why": found.status_details},
            code="invalid_file",
            param=param,
        )
    return found


def check_spec(tenant: Tenant, spec: JobSpec) -> None:
    """What can be checked before the file is known; raises Refusal."""
    if not SUFFIX.fullmatch(spec.suffix):
        raise Refusal(
            _("A suffix has at most 18 characters out of a-z, 0-9 and hyphen."),
            param="suffix",
            code="invalid_suffix",
        )
    if not METHOD.fullmatch(spec.method):
        raise Refusal(
            _("method is a name such as auto, head or lora."), param="method", code="unknown_method"
        )
    if not set(spec.columns) <= set(ROLES):
        raise Refusal(
            _("columns names these roles only: %(roles)s.") % {"roles": ", ".join(ROLES)},
            param="columns", code="unknown_role",
        )  # fmt: skip
    if spec.task and spec.task not in BASE_OF:
        raise Refusal(
            _("task is classification, regression, recommendation or chat."),
            param="task", code="invalid_task",
        )  # fmt: skip
    if spec.model and spec.model not in BASES:
        raise Refusal(
            _("There is no base model of this name; choose one of %(names)s.") % {"names": ", ".join(BASES)},
            param="model", code="model_not_found", status=404,
        )  # fmt: skip
    if spec.privacy.mode not in ("on", "off"):
        raise Refusal(_("privacy.mode is on or off."), param="privacy.mode")
    if spec.privacy.mode == "off" and len(spec.privacy.reason.strip()) < FEWEST_LABELS:
        raise Refusal(
            _("Training without privacy needs a reason; it is shown on the model's card."),
            param="privacy.reason", code="reason_required",
        )  # fmt: skip


@dataclass(frozen=True)
class Guessed:
    """A spec with everything that was left out filled in from the files."""

    version: DatasetVersion
    catalogue: DatasetVersion | None
    task: str
    columns: dict[str, str]
    unit: str
    labels: tuple[str, ...]
    table: Table | None = None  # a model on columns


def resolve(tenant: Tenant, spec: JobSpec, file: File, catalogue_file: File | None) -> Resolved:
    """The plan for this spec on these processed files; cuts the dataset by another unit if asked. Raises Refusal."""
    guessed = guess(tenant, spec, file, catalogue_file)
    version = guessed.version
    if guessed.unit != version.unit_column:
        version = resegment(version, guessed.unit)
    return plan_for(spec, replace(guessed, version=version), count_units(tenant, version))


def guess(tenant: Tenant, spec: JobSpec, file: File, catalogue_file: File | None) -> Guessed:
    """Task, columns, unit and labels; writes nothing. Raises Refusal for what cannot be."""
    version = _version_of(tenant, file, param="training_file", number=spec.dataset_version)
    dataset = version.dataset
    if dataset.is_catalogue:
        raise Refusal(
            _("A catalogue holds things, not people's records: upload training data with purpose fine-tune."),
            param="training_file", code="invalid_file",
        )  # fmt: skip
    if is_table(spec, version):
        return _guess_table(spec, version)
    if spec.protected:
        raise Refusal(
            _("Protected attributes are compared for models on columns only."), param="protected",
            code="protected_not_offered",
        )  # fmt: skip
    task = _task(spec, dataset)
    columns = _columns(spec, version, task)
    return Guessed(
        version=version,
        catalogue=_catalogue(tenant, catalogue_file, task),
        task=task,
        columns=columns,
        unit=_unit(spec, version, columns, task),
        labels=_labels(spec, version, columns) if task == "classification" else (),
    )


def _guess_table(spec: JobSpec, version: DatasetVersion) -> Guessed:
    """The same for a model on columns: a regression has no labels, a classification no target."""
    task = spec.task or ("regression" if version.dataset.task == "regression" else "classification")
    if task not in BASES[TABULAR].tasks:
        raise Refusal(
            _("The model %(model)s does not do %(task)s.") % {"model": TABULAR, "task": task},
            param="model", code="model_task_mismatch",
        )  # fmt: skip
    found = _columns(spec, version, task, needed=("label",))
    columns = {role: found[role] for role in OF_A_TABLE if role in found}
    unit = _unit(spec, version, columns, task)
    table = table_of(replace(spec, task=task), version, columns, unit)
    labels = _labels(spec, version, columns) if task == "classification" else ()
    return Guessed(version, None, task, columns, unit, labels, table)


def plan_for(spec: JobSpec, guessed: Guessed, units: tuple[int, int]) -> Resolved:
    """The plan for (training, held-out) units; raises Refusal where it cannot be private or useful."""
    catalogue = guessed.catalogue
    shape = Shape(
        train_units=units[0],
        held_out_units=units[1],
        rows=guessed.version.rows,
        classes=len(guessed.labels),
        items=catalogue.rows if catalogue else 0,
    )
    plan = _plan(_recipe(spec, guessed), shape)
    return Resolved(guessed.version, catalogue, guessed.columns, plan, cost_of(plan))


def _version_of(tenant: Tenant, file: File, *, param: str, number: int | None = None) -> DatasetVersion:
    """The newest version, or the one named, of the dataset that holds the file's rows."""
    versions = (
        DatasetVersion.objects.of(tenant).filter(dataset=home_of(tenant, file)).select_related("dataset")
    )
    if number is not None and not (versions := versions.filter(number=number)).exists():
        raise NotFound(_("The dataset has no such version."), param="dataset_version")
    found = versions.order_by("-number").first()
    if found is None or found.segments_id is None:
        raise Refusal(_("This file has no rows that can be used."), param=param, code="invalid_file")
    return found


def _task(spec: JobSpec, dataset: Dataset) -> str:
    base = BASES.get(spec.model)
    fitting = [task for task in BASE_OF if base is None or task in base.tasks]
    task = spec.task or (dataset.task if dataset.task in fitting else "") or PACKS[dataset.pack].default_task
    if task not in fitting:
        raise Refusal(
            _("The model %(model)s does not do %(task)s.") % {"model": spec.model, "task": task},
            param="model", code="model_task_mismatch",
        )  # fmt: skip
    return task


def _known(version: DatasetVersion) -> list[str]:
    """The names of a version's columns."""
    return [column["name"] for column in version.schema.get("columns", [])]


def _columns(
    spec: JobSpec, version: DatasetVersion, task: str, *, needed: tuple[str, ...] | None = None
) -> dict[str, str]:
    """The guessed columns, overridden by the caller's; each must exist."""
    known = _known(version)
    columns = {role: name for role, name in {**version.dataset.columns, **spec.columns}.items() if name}
    columns.pop("timestamp", None)  # kept with the data; no training orders rows by time
    for role, name in spec.columns.items():
        if name and name not in known:
            raise Refusal(
                _("The file has no column named as the %(role)s column.") % {"role": role},
                param=f"columns.{role}", code="column_not_found",
            )  # fmt: skip
    if task == "chat":
        columns = chat_columns.preferred(columns, spec.columns)
    if needed is None:
        needed = chat_columns.needed(columns) if task == "chat" else NEEDED[task]
    for role in needed:
        if role not in columns:
            raise Refusal(
                _("Name the %(role)s column: it could not be guessed from the file.") % {"role": role},
                param=f"columns.{role}", code="column_required",
            )  # fmt: skip
    if task == "chat":
        kinds = {column["name"]: column.get("kind", "") for column in version.schema.get("columns", [])}
        chat_columns.check(columns, kinds)
    return columns


def _unit(spec: JobSpec, version: DatasetVersion, columns: dict[str, str], task: str) -> str:
    """The column that says whose record a row is; fixed for good by the first private job."""
    dataset = version.dataset
    asked = spec.privacy.unit if spec.privacy.unit is not None else spec.columns.get("unit")
    if asked is None:
        asked = (
            columns["user"] if task == "recommendation" and not dataset.unit_fixed else dataset.unit_column
        )
    if asked and asked != dataset.unit_column and asked not in _known(version):
        raise Refusal(
            _("The file has no column named as the %(role)s column.") % {"role": "unit"},
            param="privacy.unit", code="column_not_found",
        )  # fmt: skip
    if dataset.unit_fixed and asked != dataset.unit_column:
        raise Refusal(
            _("Whose record a row is was fixed by this dataset's first private job, and cannot change."),
            param="privacy.unit", code="unit_fixed", status=409,
        )  # fmt: skip
    if task == "recommendation" and asked != columns["user"]:
        raise Refusal(
            _("A recommender protects the person in the user column; name it as the unit."),
            param="privacy.unit",
        )
    return asked


def _catalogue(tenant: Tenant, file: File | None, task: str) -> DatasetVersion | None:
    if task != "recommendation":
        return None
    if file is None:
        raise Refusal(
            _("A recommender needs a catalogue: upload the list of items with purpose user_data."),
            param="catalogue_file", code="catalogue_required",
        )  # fmt: skip
    version = _version_of(tenant, file, param="catalogue_file")
    if not version.dataset.is_catalogue:
        raise Refusal(
            _("These are people's records, not a list of items: upload the catalogue with purpose user_data."),
            param="catalogue_file", code="invalid_file",
        )  # fmt: skip
    return version


def _labels(spec: JobSpec, version: DatasetVersion, columns: dict[str, str]) -> tuple[str, ...]:
    """The class names: given, or those in the file, which the tenant thereby declares public."""
    labels = spec.labels or tuple(_found_labels(spec, version, columns["label"]))
    if len(set(labels)) != len(labels) or len(labels) < FEWEST_LABELS:
        raise Refusal(
            _("A classifier needs at least two different labels."), param="labels", code="invalid_labels"
        )
    if any(len(label) > LONGEST_NAME for label in labels):
        raise Refusal(
            _("A label has more than 200 characters: is this the column of labels?"),
            param="columns.label", code="invalid_labels",
        )  # fmt: skip
    return tuple(labels)


def _found_labels(spec: JobSpec, version: DatasetVersion, column: str) -> list[str]:
    if spec.multi_label:
        return distinct_names(version, column)
    if declared := label_names(version.dataset, column):
        return list(declared)
    if column == labelled_column(version) and version.labels:
        return list(version.labels)
    return distinct_labels(version, column)


def _recipe(spec: JobSpec, guessed: Guessed) -> Recipe:
    dataset = guessed.version.dataset
    ceiling = PACKS[dataset.pack].epsilon_ceiling
    epsilon: float | None = (
        spec.privacy.epsilon if spec.privacy.epsilon is not None else min(USUAL_EPSILON, ceiling)
    )
    if spec.privacy.mode == "off":
        epsilon = None
    elif epsilon is not None and epsilon > ceiling and not spec.privacy.allow_large_epsilon:
        raise Refusal(
            _("%(pack)s data train at an epsilon of at most %(ceiling)g; an owner can allow more for one job.")
            % {"pack": PACKS[dataset.pack].name, "ceiling": ceiling},
            param="privacy.epsilon", code="epsilon_ceiling", status=402,
        )  # fmt: skip
    table = guessed.table
    return Recipe(
        task=guessed.task,
        base=TABULAR if table else spec.model or BASE_OF[guessed.task],
        method=spec.method,
        labels=guessed.labels,
        epsilon=epsilon,
        delta=spec.privacy.delta,
        unit=guessed.unit,
        max_steps=spec.max_steps,
        privacy_off_reason=spec.privacy.reason.strip() if epsilon is None else "",
        large_epsilon_allowed=spec.privacy.allow_large_epsilon,
        multi_label=spec.multi_label,
        features=table.features if table else (),
        target=table.target if table else None,
        protected=table.protected if table else (),
        sweep_runs=spec.sweep_runs,
        audit=spec.audit,
    )


def _plan(recipe: Recipe, shape: Shape) -> Plan:
    try:
        return planning.plan(recipe, shape, DEVICE)
    except CoreError as error:
        raise Refusal(error.message, code=error.code, param=_PARAMS.get(error.code)) from None


_PARAMS: dict[str, Any] = {
    "epsilon_too_large": "privacy.epsilon",
    "invalid_epsilon": "privacy.epsilon",
    "invalid_delta": "privacy.delta",
    "invalid_max_steps": "max_steps",
    "unknown_method": "method",
    "audit_not_offered": "audit",
    "features_required": "features",
    "invalid_features": "features",
    "too_many_features": "features",
    "protected_feature": "protected",
    "invalid_protected": "protected",
    "target_required": "target",
    "no_sweep": "sweep",
    "invalid_sweep": "sweep.runs",
}
