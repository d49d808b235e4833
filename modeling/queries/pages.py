"""Pages of a list, newest first, by cursor: `?after=<public id>` goes on from there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlencode

from django.core.exceptions import ValidationError
from django.db.models import Model, QuerySet
from django.http import HttpRequest

SIZE = 25
Row = TypeVar("Row", bound=Model)


@dataclass(frozen=True)
class OlderPage:
    """The rows of one page, and links for partials/pager.html."""

    rows: list[Any]
    links: dict[str, str] = field(default_factory=dict)


def older_page(
    request: HttpRequest, rows: QuerySet[Row], *, cursor: str = "pk", order: str = "pk"
) -> OlderPage:
    """At most 25 rows ordered by falling `order` (a unique column), after the row whose `cursor` is `?after=`.

    An unknown cursor gives the first page.
    """
    after = request.GET.get("after", "")
    ordered = rows.order_by(f"-{order}")
    anchor = _anchor(ordered, cursor, order, after) if after else None
    if anchor is not None:
        ordered = ordered.filter(**{f"{order}__lt": anchor})
    found = list(ordered[: SIZE + 1])
    more = len(found) > SIZE
    kept = found[:SIZE]
    links = {
        "first_url": request.path if anchor is not None else "",
        "next_url": f"?{urlencode({'after': getattr(kept[-1], cursor)})}" if more else "",
    }
    return OlderPage(kept, links)


def _anchor(rows: QuerySet[Row], cursor: str, order: str, after: str) -> object | None:
    """The `order` value of the row that the cursor names; None for a cursor that nothing has."""
    try:
        return rows.filter(**{cursor: after}).values_list(order, flat=True).first()
    except (ValueError, ValidationError):
        return None
