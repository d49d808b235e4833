"""Cells that hold several labels: a JSON list, or names with | or ; between them."""

from __future__ import annotations

import json
import re

from django.utils.translation import gettext as _

from modeling.actions.datasets import read_rows
from modeling.core.columns import LABELS_MOST
from modeling.models import DatasetVersion
from saas.lib.errors import Refusal

_BETWEEN = re.compile(r"[|;]")


def split_cell(value: object) -> tuple[str, ...]:
    """The different labels of a cell, in order; none for an empty one. Blanks around a name do not count."""
    names = value if isinstance(value, list) else _parts("" if value is None else str(value))
    cleaned = (str(name).strip() for name in names if isinstance(name, str | int | float))
    return tuple(dict.fromkeys(name for name in cleaned if name))


def _parts(text: str) -> list[object]:
    if text.lstrip().startswith("["):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):  # a thousand brackets are no list of labels
            found = None
        if isinstance(found, list):
            return found
    return list(_BETWEEN.split(text))


def distinct_names(version: DatasetVersion, column: str) -> list[str]:
    """The label names in a column's cells, sorted; raises Refusal when there are more than a label set has."""
    found: set[str] = set()
    for row in read_rows(version, columns=[column]):
        found.update(split_cell(row.values.get(column)))
        if len(found) > LABELS_MOST:
            raise Refusal(
                _("The label column has more than %(most)s different labels.") % {"most": LABELS_MOST},
                param="columns.label",
                code="too_many_labels",
            )
    return sorted(found)
