"""The quote in words and as a picture: the panel beside a new run, and advice where a run would not be worth it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _

from modeling.queries import words
from modeling.queries.privacy import alert_words
from tenants.models import Tenant

USUAL_MEASURE = "the accuracy without privacy"
BASELINES = ("popularity",)  # measures that a model may pass: their share is not cut at 100 %
LEAST_FLOOR = 0.4  # the picture's left end, lower where a band begins below it


@dataclass(frozen=True)
class Level:
    """One row of the picture: quality and cost at one epsilon. `left` and `width` are SVG percentages."""

    epsilon: float
    is_asked: bool
    left: str = ""
    width: str = ""
    band: str = ""
    name: str = ""
    budget_after: float | None = None
    fits: bool = True

    @property
    def is_worth_it(self) -> bool:
        """Whether a run at this level could be both private and useful."""
        return bool(self.width)


@dataclass(frozen=True)
class Frontier:
    """Expected quality against epsilon; `floor` and `middle` label the picture's left end and its middle."""

    levels: tuple[Level, ...] = ()
    floor: str = ""
    middle: str = ""
    ceiling: str = ""
    measure: str = ""


@dataclass(frozen=True)
class QuotePanel:
    """The quote as the panel prints it. With `refusal` the run cannot start; with `advice` it is not worth it."""

    refusal: str = ""
    advice: str = ""
    epsilon: float | None = None
    replace_one: float | None = None
    delta: float | None = None
    unit: str = ""
    used: float = 0.0
    reserve: float = 0.0
    after: float = 0.0
    left_after: float = 0.0
    lifetime: float | None = None
    runs_after: int | None = None
    seconds: float | None = None
    price: float | None = None
    billed: str = ""
    quality: str = ""
    quality_words: str = ""
    rows: str = ""
    notes: tuple[str, ...] = ()
    sentences: tuple[str, ...] = ()
    alert: str = ""
    frontier: Frontier | None = None

    @property
    def cannot_start(self) -> bool:
        """Whether the button is off."""
        return bool(self.refusal or self.advice)


def quote_panel(tenant: Tenant, body: Mapping[str, Any]) -> QuotePanel:
    """The quote action's body in words."""
    privacy, units = body["privacy"], body["units"]
    used, after = privacy.get("budget_used", 0.0), privacy.get("budget_after", 0.0)
    lifetime = privacy.get("budget_lifetime")
    quality = _quality(body.get("quality", {}))
    return QuotePanel(
        refusal=""
        if privacy.get("fits", True)
        else _("The privacy budget of these people does not hold this run. Choose a smaller epsilon."),
        epsilon=privacy.get("epsilon"),
        replace_one=privacy.get("epsilon_replace_one"),
        delta=privacy.get("delta"),
        unit=words.person(tenant),
        used=used,
        reserve=max(0.0, after - used),
        after=after,
        left_after=(lifetime or 0.0) - after,
        lifetime=lifetime,
        runs_after=max(0, privacy["runs_like_this"] - 1) if "runs_like_this" in privacy else None,
        seconds=body.get("seconds"),
        price=body.get("price_cents"),
        billed=body.get("billed", ""),
        quality=quality.get("name", ""),
        quality_words=quality.get("words", ""),
        rows=_("%(train)s people, %(held)s more are held out to measure")
        % {"train": f"{units['training']:,}", "held": f"{units['held_out']:,}"},
        # The core says the expected quality as a note too; the panel has a line for it.
        notes=tuple(
            note for note in body.get("notes", ()) if not (quality and note.startswith("Expected quality"))
        ),
        sentences=tuple(privacy.get("words", ())),
        alert=alert_words(used, lifetime, planned=after) if lifetime else "",
        frontier=frontier(body.get("frontier", ())),
    )


def advice_panel(tenant: Tenant, advice: Mapping[str, Any]) -> QuotePanel:
    """What to do instead of a run for which the people are too few."""
    return QuotePanel(
        advice=advice["advice"], unit=words.person(tenant), frontier=frontier(advice["frontier"])
    )


def frontier(points: Sequence[Mapping[str, Any]]) -> Frontier | None:
    """The picture; None where nothing could be drawn."""
    bands = [point["quality"] for point in points if "expected_low" in point["quality"]]
    if not bands:
        return None
    lowest = min(band["expected_low"] for band in bands)
    ceiling = max(1.0, *(math.ceil(10 * _high(band)) / 10 for band in bands))
    floor = max(0.0, min(LEAST_FLOOR, math.floor(10 * lowest) / 10))
    return Frontier(
        levels=tuple(_level(point, floor, ceiling) for point in points),
        floor=_percent(floor),
        middle=_percent((ceiling + floor) / 2),
        ceiling=_percent(ceiling),
        measure=_(str(bands[0].get("expected_of", USUAL_MEASURE))),
    )


def _high(quality: Mapping[str, Any]) -> float:
    """The band's upper end, at most 1 where the measure is what can be reached at best."""
    high = float(quality["expected_high"])
    return high if quality.get("expected_of") in BASELINES else min(high, 1.0)


def _level(point: Mapping[str, Any], floor: float, ceiling: float) -> Level:
    quality = point["quality"]
    if "expected_low" not in quality:
        return Level(point["epsilon"], point["asked"])
    low, high = max(quality["expected_low"], floor), _high(quality)
    scale = 100 / (ceiling - floor)
    return Level(
        epsilon=point["epsilon"],
        is_asked=point["asked"],
        left=f"{scale * (low - floor):.2f}%",
        width=f"{max(scale * (high - low), 1.0):.2f}%",
        band=_("%(low)s–%(high)s") % {"low": f"{100 * low:.0f}", "high": _percent(high)},
        name=_(str(quality.get("expected_quality", "")).capitalize()),
        budget_after=point["budget_after"],
        fits=point["fits"],
    )


def _quality(quality: Mapping[str, Any]) -> dict[str, str]:
    """The expected band: a name and a sentence, or nothing."""
    if "expected_low" not in quality:
        return {}
    shares = {
        "low": f"{100 * max(quality['expected_low'], 0.0):.0f}",
        "high": f"{100 * _high(quality):.0f}",
        "measure": _(str(quality.get("expected_of", USUAL_MEASURE))),
    }
    name = _(str(quality.get("expected_quality", "")).capitalize())
    return {"name": name, "words": _("%(low)s to %(high)s %% of %(measure)s") % shares}


def _percent(share: float) -> str:
    return f"{100 * share:.0f}\N{NO-BREAK SPACE}%"
