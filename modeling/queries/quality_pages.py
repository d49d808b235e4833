"""A quality report as its page prints it: findings in words, figures, and small pictures as plain rectangles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from modeling.actions import quality
from modeling.models import Dataset, DatasetVersion, QualityReport
from modeling.queries.quality_words import sentence, title
from tenants.models import Tenant

BARS_SHOWN = 20
FINDINGS_SHOWN = 3


@dataclass(frozen=True)
class Finding:
    """One piece of advice."""

    level: str  # bad | warn | note | good
    title: str
    text: str


@dataclass(frozen=True)
class Bar:
    """One bar of a histogram, in percent of the picture; `words` say it."""

    left: str
    width: str
    top: str
    height: str
    words: str


@dataclass(frozen=True)
class Picture:
    """A histogram: its bars, the ends of its axis, and what it says in a sentence."""

    bars: list[Bar]
    first: str
    last: str
    reading: str


@dataclass(frozen=True)
class Line:
    """One horizontal bar of a list: its width in percent of the longest, the number beside it, a second bar."""

    name: str
    width: str
    shown: str
    other_width: str = ""
    other: str = ""
    is_marked: bool = False


@dataclass(frozen=True)
class Summary:
    """What the dataset's page says of a report."""

    report: QualityReport | None
    findings: list[Finding]
    more: int
    is_busy: bool


@dataclass(frozen=True)
class QualityPage:
    """The whole report."""

    report: QualityReport | None
    numbers: dict[str, Any] | None
    is_busy: bool
    findings: list[Finding]
    mean_rows: str
    per_unit: Picture | None
    words: Picture | None
    target: Picture | None
    classes: list[Line]
    classes_more: int
    tenth: str
    missing: list[Line]
    complete_columns: int
    leak: list[Line]
    others: list[Dataset]


def summary(version: DatasetVersion) -> Summary:
    """The gravest findings, for the dataset's page; for members only."""
    report = quality.report_of(version)
    numbers = quality.numbers_of(report) if report else None
    findings = _findings(numbers)
    return Summary(
        report, findings[:FINDINGS_SHOWN], max(0, len(findings) - FINDINGS_SHOWN), _is_busy(report)
    )


def quality_page(tenant: Tenant, dataset: Dataset, version: DatasetVersion) -> QualityPage:
    """The report of a version; for members only."""
    report = quality.report_of(version)
    numbers = quality.numbers_of(report) if report else None
    found = numbers or {}
    lines, more = _classes(found.get("classes"))
    missing = _missing(found)
    return QualityPage(
        report=report,
        numbers=numbers,
        is_busy=_is_busy(report),
        findings=_findings(numbers),
        mean_rows=_mean(found["rows_per_unit"]["mean"]) if numbers else "",
        per_unit=_per_unit(found) if numbers and not dataset.is_catalogue else None,
        words=_words(found.get("text")),
        target=_target(found.get("target")),
        classes=lines,
        classes_more=more,
        tenth=_tenth(found.get("classes")),
        missing=missing,
        complete_columns=len(found.get("columns", [])) - len(missing),
        leak=_leak(found.get("leak")),
        others=_others(tenant, dataset),
    )


def _is_busy(report: QualityReport | None) -> bool:
    return report is not None and report.state in (QualityReport.State.WAITING, QualityReport.State.RUNNING)


def _findings(numbers: Mapping[str, Any] | None) -> list[Finding]:
    return [
        Finding(one["level"], title(one["code"]), sentence(one["code"], one["values"]))
        for one in (numbers or {}).get("advice", [])
    ]


def _others(tenant: Tenant, dataset: Dataset) -> list[Dataset]:
    """Datasets to compare with."""
    rows = Dataset.objects.of(tenant).filter(deleted_at=None, is_catalogue=dataset.is_catalogue)
    return list(rows.exclude(pk=dataset.pk).order_by("-id")[:100])


def _bars(steps: Sequence[Mapping[str, Any]], name: Any) -> list[Bar]:
    """Upright bars over the whole width; `name` says a step in words."""
    most = max((one["count"] for one in steps), default=0)
    wide = 100 / max(1, len(steps))
    found = []
    for at, one in enumerate(steps):
        height = 100 * one["count"] / most if most else 0.0
        height = max(height, 1.5) if one["count"] else 0.0
        found.append(
            Bar(
                left=f"{at * wide + 0.06 * wide:.3f}%",
                width=f"{0.88 * wide:.3f}%",
                top=f"{100 - height:.3f}%",
                height=f"{height:.3f}%",
                words=f"{name(one)}: {one['count']:,}",
            )
        )
    return found


def _step(one: Mapping[str, Any]) -> str:
    """1, 4–5, or 101 and more."""
    if one["high"] is None:
        return _("%(low)s and more") % {"low": f"{one['low']:,}"}
    return f"{one['low']:,}" if one["low"] == one["high"] else f"{one['low']:,}–{one['high']:,}"


def _per_unit(found: Mapping[str, Any]) -> Picture | None:
    spread = found["rows_per_unit"]
    steps = spread["histogram"]
    if not steps:
        return None
    words = {"median": _plain(spread["median"]), "largest": f"{spread['largest']:,.0f}"}
    if spread["largest"] <= 1:
        return Picture([], "", "", _("Everybody has one row."))
    reading = ngettext(
        "Half of the people have only %(median)s row; the most is %(largest)s.",
        "Half of the people have at most %(median)s rows; the most is %(largest)s.",
        round(spread["median"]),
    )
    return Picture(_bars(steps, _step), _step(steps[0]), _step(steps[-1]), reading % words)


def _words(text: Mapping[str, Any] | None) -> Picture | None:
    if not text or not text["words"]["histogram"]:
        return None
    steps, spread = text["words"]["histogram"], text["words"]
    reading = _(
        "Half of the texts have at most %(median)s words, 95 %% at most %(p95)s; the longest has %(largest)s."
    ) % {name: _plain(spread[name]) for name in ("median", "p95", "largest")}
    return Picture(_bars(steps, _step), _step(steps[0]), _step(steps[-1]), reading)


def _target(target: Mapping[str, Any] | None) -> Picture | None:
    if not target:
        return None
    steps = target["histogram"]

    def name(one: Mapping[str, Any]) -> str:
        return f"{one['low']:g}–{one['high']:g}"

    outside = target["outside"]
    reading = (
        ngettext("%(n)s row lies outside the bounds.", "%(n)s rows lie outside the bounds.", outside)
        % {"n": f"{outside:,}"}
        if outside
        else _("All rows lie between the bounds.")
    )
    return Picture(_bars(steps, name), f"{steps[0]['low']:g}", f"{steps[-1]['high']:g}", reading)


def _classes(classes: Mapping[str, Any] | None) -> tuple[list[Line], int]:
    """The largest classes or items as bars, and how many more there are."""
    if not classes:
        return [], 0
    shown = classes["shown"][:BARS_SHOWN]
    total = max(1, classes["rows"])
    lines = [
        Line(
            name=one["name"],
            width=_share_of(one["rows"], classes["largest"]),
            shown=f"{one['rows']:,}",
            other=f"{100 * one['rows'] / total:.1f} %",
        )
        for one in shown
    ]
    return lines, classes["count"] - len(shown)


def _tenth(classes: Mapping[str, Any] | None) -> str:
    """How much the most frequent items have of everything; of labels, nothing."""
    if not classes or classes["of"] != "items":
        return ""
    words = {"share": f"{100 * classes['tenth']:.0f} %"}
    return _("The most frequent tenth of the items has %(share)s of all rows.") % words


def _missing(found: Mapping[str, Any]) -> list[Line]:
    """Columns with missing cells, or cells outside of what was declared."""
    rows = max(1, found.get("rows", 0))
    lines = []
    for one in sorted(found.get("columns", []), key=lambda one: -(one["missing"] + one["placeholders"])):
        empty = one["missing"] + one["placeholders"]
        if empty or one["outside"]:
            outside = f"{100 * one['outside'] / rows:.1f} %" if one["is_declared"] else ""
            lines.append(
                Line(one["name"], _share_of(empty, rows), f"{100 * empty / rows:.1f} %", other=outside)
            )
    return lines


def _leak(leak: Mapping[str, Any] | None) -> list[Line]:
    """Classes whose words stand in texts, beside how often they stand in other classes' texts."""
    lines = [
        Line(
            name=one["label"],
            width=_share_of(one["own"], 1),
            shown=f"{100 * one['own']:.0f} %",
            other_width=_share_of(one["other"], 1),
            other=f"{100 * one['other']:.0f} %",
            is_marked=one["own"] >= max(0.5, 0.1 + 3 * one["other"]),
        )
        for one in (leak or {}).get("classes", [])
        if one["own"] >= 0.005 or one["other"] >= 0.005
    ]
    return sorted(lines, key=lambda line: -float(line.width.rstrip("%")))[:BARS_SHOWN]


def _share_of(value: float, whole: float) -> str:
    return f"{max(0.0, min(100.0, 100 * value / whole)) if whole else 0:.2f}%"


def _plain(value: float) -> str:
    return f"{value:,.0f}"


def _mean(value: float) -> str:
    if round(value, 1) == 1:
        return _("1 row each")
    return _("%(n)s rows each on average") % {"n": f"{value:,.1f}"}
