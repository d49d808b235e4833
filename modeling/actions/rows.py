"""Decrypted rows for the worker: which units train and which are held out, and each task's rows in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from django.utils.translation import gettext as _

from modeling.actions import chat_columns
from modeling.actions.datasets import held_out_key, is_held_out, read_handles, read_rows
from modeling.actions.label_cells import split_cell
from modeling.actions.rows_tables import table_data
from modeling.core.heads import TABULAR
from modeling.core.types import Recipe, TrainingData
from modeling.models import DatasetVersion
from modeling.units import HELD_OUT_SHARE, handle_key, person_handle
from saas.lib.errors import Refusal
from tenants.models import Tenant

_FILTERED = ("category", "number", "list")  # kinds of a catalogue's columns by which a list can be filtered


def count_units(tenant: Tenant, version: DatasetVersion) -> tuple[int, int]:
    """How many units of the version train and how many are held out."""
    return _sides(tenant, set(read_handles(version)))


def count_units_by(tenant: Tenant, version: DatasetVersion, unit_column: str) -> tuple[int, int]:
    """The same, had the version been cut by another column; writes nothing. `""` counts each different row."""
    if unit_column == version.unit_column:
        return count_units(tenant, version)
    if not unit_column:
        held_out = round(version.rows * HELD_OUT_SHARE)
        return version.rows - held_out, held_out
    key = handle_key(tenant)
    values = (row.values.get(unit_column, "") for row in read_rows(version, columns=[unit_column]))
    return _sides(tenant, {person_handle(key, str(value)) for value in values})


def _sides(tenant: Tenant, handles: set[bytes]) -> tuple[int, int]:
    key = held_out_key(tenant)
    held_out = sum(is_held_out(key, handle) for handle in handles)
    return len(handles) - held_out, held_out


@dataclass
class _Units:
    """Numbers units in the order in which they come; rows of one unit are adjacent."""

    key: bytes
    held_out: list[bool] = field(default_factory=list)
    last: bytes = b""

    def number(self, handle: bytes) -> int:
        if handle != self.last or not self.held_out:
            self.last = handle
            self.held_out.append(is_held_out(self.key, handle))
        return len(self.held_out) - 1


def load_training_data(
    tenant: Tenant,
    recipe: Recipe,
    columns: dict[str, str],
    version: DatasetVersion,
    catalogue: DatasetVersion | None,
) -> TrainingData:
    """The rows of a job, decrypted into memory; rows that do not fit the recipe (an undeclared label, an item outside
    the catalogue) are left out."""
    units = _Units(held_out_key(tenant))
    if recipe.base == TABULAR:
        return _table(recipe, columns, version, units)
    if recipe.task == "classification":
        return _classification(recipe, columns, version, units)
    if recipe.task == "chat":
        return _chat(columns, version, units)
    if catalogue is None:
        raise Refusal(
            _("A recommender needs a catalogue."), param="catalogue_file", code="catalogue_required"
        )
    return _recommendation(columns, version, catalogue, units)


def _classification(
    recipe: Recipe, columns: dict[str, str], version: DatasetVersion, units: _Units
) -> TrainingData:
    index = {label: number for number, label in enumerate(recipe.labels)}
    if recipe.multi_label:
        return _several_labels(index, columns, version, units)
    numbers, texts, labels = [], [], []
    for row in read_rows(version, columns=[columns["text"], columns["label"]]):
        unit = units.number(row.handle)
        label = index.get(str(row.values.get(columns["label"], "")))
        if label is not None:
            numbers.append(unit)
            texts.append(str(row.values.get(columns["text"], "")))
            labels.append(label)
    return TrainingData(units=numbers, held_out=units.held_out, texts=texts, labels=labels)


def _table(recipe: Recipe, columns: dict[str, str], version: DatasetVersion, units: _Units) -> TrainingData:
    wanted = [columns["label"], *(one.name for one in (*recipe.features, *recipe.protected))]
    rows = ((units.number(row.handle), row) for row in read_rows(version, columns=wanted))
    return table_data(recipe, columns["label"], rows, units.held_out)


def _several_labels(
    index: dict[str, int], columns: dict[str, str], version: DatasetVersion, units: _Units
) -> TrainingData:
    """Rows of any number of labels; one whose labels are all undeclared is left out, one without any is not."""
    numbers, texts, label_sets = [], [], []
    for row in read_rows(version, columns=[columns["text"], columns["label"]]):
        unit = units.number(row.handle)
        names = split_cell(row.values.get(columns["label"]))
        known = [index[name] for name in names if name in index]
        if known or not names:
            numbers.append(unit)
            texts.append(str(row.values.get(columns["text"], "")))
            label_sets.append(known)
    return TrainingData(units=numbers, held_out=units.held_out, texts=texts, label_sets=label_sets)


def _chat(columns: dict[str, str], version: DatasetVersion, units: _Units) -> TrainingData:
    numbers: list[int] = []
    conversations: list[Any] = []
    wanted = [columns[role] for role in chat_columns.needed(columns)]
    for row in read_rows(version, columns=wanted):
        unit = units.number(row.handle)
        turns = chat_columns.conversation(columns, row.values)
        if turns is not None:
            numbers.append(unit)
            conversations.append(turns)
    return TrainingData(units=numbers, held_out=units.held_out, conversations=conversations)


def _recommendation(
    columns: dict[str, str], version: DatasetVersion, catalogue: DatasetVersion, units: _Units
) -> TrainingData:
    items = catalogue_items(catalogue)
    others = catalogue_columns(catalogue)
    index = {item: number for number, (item, _text) in enumerate(items)}
    histories: list[list[int]] = []
    for row in read_rows(version, columns=[columns["item"]]):
        unit = units.number(row.handle)
        if unit == len(histories):
            histories.append([])
        item = index.get(str(row.values.get(columns["item"], "")))
        if item is not None:
            histories[unit].append(item)
    return TrainingData(
        units=range(len(histories)), held_out=units.held_out, histories=histories, catalogue=items,
        catalogue_columns={name: [cells.get(item) for item, _ in items] for name, cells in others.items()},
    )  # fmt: skip


def catalogue_items(catalogue: DatasetVersion) -> list[tuple[str, str]]:
    """(id, text) of each item of a catalogue, in file order of its rows."""
    columns = catalogue.dataset.columns
    wanted = [columns["catalogue_id"], columns["catalogue_text"]]
    items = {
        str(row.values[wanted[0]]): str(row.values.get(wanted[1], ""))
        for row in read_rows(catalogue, columns=wanted)
    }
    return list(items.items())


def catalogue_columns(catalogue: DatasetVersion) -> dict[str, dict[str, Any]]:
    """The cells of the columns by which lists can be filtered, by column and item id: not the id and not texts."""
    taken = {catalogue.dataset.columns["catalogue_id"], catalogue.dataset.columns["catalogue_text"]}
    names = [
        facts["name"]
        for facts in catalogue.schema.get("columns", [])
        if facts["name"] not in taken and facts["kind"] in _FILTERED
    ]
    found: dict[str, dict[str, Any]] = {name: {} for name in names}
    item = catalogue.dataset.columns["catalogue_id"]
    for row in read_rows(catalogue, columns=[item, *names]) if names else ():
        for name in names:
            found[name][str(row.values[item])] = row.values.get(name)
    return found
