"""How often recommended items were shown and taken: by day, by place in the list, and in all."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, NamedTuple

from django.db.models import Q
from django.utils import timezone

from modeling.models import RecommendedDay
from tenants.models import Tenant

DAYS = 30
Kind = RecommendedDay.Kind
_Z = 1.96  # of a normal distribution, 95 % lie within so many spreads


class Share(NamedTuple):
    """A share of the shown items, and the ends of a 95 % interval around it."""

    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Counts:
    """How often each kind of event happened."""

    of: Counter[str]

    @property
    def shown(self) -> int:
        """Items that were shown, once for each list."""
        return self.of[Kind.SHOWN]

    @property
    def clicks(self) -> int:
        """Items that were clicked."""
        return self.of[Kind.CLICK]

    @property
    def purchases(self) -> int:
        """Items that were purchased."""
        return self.of[Kind.PURCHASE]

    @property
    def clicked(self) -> Share | None:
        """The share of the shown items that were clicked; None where none were shown."""
        return share_of(self.shown, self.clicks)

    @property
    def purchased(self) -> Share | None:
        """The share of the shown items that were purchased; None where none were shown."""
        return share_of(self.shown, self.purchases)

    def body(self) -> dict[str, Any]:
        """Counts by kind, and the share of clicks with its interval."""
        clicked = self.clicked
        return {
            **{str(kind): self.of[kind] for kind in Kind},
            "click_through": clicked and {name: round(value, 6) for name, value in clicked._asdict().items()},
        }


@dataclass(frozen=True)
class Recommended:
    """A model's or an endpoint's events of the last days; places count from 1, and 0 stands behind the fiftieth."""

    total: Counts
    days: dict[date, Counts]
    places: dict[int, Counts]

    @property
    def latest(self) -> list[tuple[date, Counts]]:
        """The days with events, the last one first."""
        return sorted(self.days.items(), reverse=True)

    def body(self, name: str) -> dict[str, Any]:
        """The summary on the wire."""
        return {
            "object": "recommendation_events.summary",
            "model": name,
            "total": self.total.body(),
            "days": [{"day": day.isoformat(), **counts.body()} for day, counts in self.days.items()],
            "positions": [{"position": place, **counts.body()} for place, counts in self.places.items()],
        }


def recommended(tenant: Tenant, name: str, *, days: int = DAYS) -> Recommended:
    """Events of a model, or of an endpoint by its name; call within the tenant's scope."""
    since = timezone.now().date() - timedelta(days=days - 1)
    rows = RecommendedDay.objects.of(tenant).filter(Q(model=name) | Q(endpoint=name), day__gte=since)
    total: Counter[str] = Counter()
    by_day: defaultdict[date, Counter[str]] = defaultdict(Counter)
    by_place: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for row in rows:
        for counter in (total, by_day[row.day], by_place[row.position]):
            counter[row.kind] += row.count
    places = sorted(by_place, key=lambda place: (place == 0, place))
    return Recommended(
        Counts(total),
        {day: Counts(by_day[day]) for day in sorted(by_day)},
        {place: Counts(by_place[place]) for place in places},
    )


def share_of(shown: int, taken: int) -> Share | None:
    """A share with Wilson's interval, which holds for few and for many; None where nothing was shown."""
    if not shown:
        return None
    share = min(taken, shown) / shown
    spread = _Z * _Z / shown
    middle = (share + spread / 2) / (1 + spread)
    half = _Z / (1 + spread) * (share * (1 - share) / shown + spread / (4 * shown)) ** 0.5
    return Share(share, max(0.0, middle - half), min(1.0, middle + half))
