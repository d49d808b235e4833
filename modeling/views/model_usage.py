"""The page of one model's latency and usage."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_GET

from billing.queries import plan_of
from modeling.models import ModelVersion
from modeling.queries import model_pages, served
from modeling.queries.table_examples import features_of
from modeling.serving import latency
from tenants.access import MemberRequest, member

PERIODS = {
    "1h": (timedelta(hours=1), gettext_lazy("Last hour")),
    "24h": (timedelta(hours=24), gettext_lazy("Last 24 hours")),
    "30d": (timedelta(days=30), gettext_lazy("Last 30 days")),
}
STEP_WORDS = {
    served.STEP: gettext_lazy("in five minutes"),
    served.HOUR: gettext_lazy("in an hour"),
    served.DAY: gettext_lazy("in a day"),
}


@require_GET
@member("viewer")
def model_usage(request: MemberRequest, short_id: str) -> HttpResponse:
    """Requests, errors, latency, tokens, predictions and cost of one model in the last hour, day or 30 days."""
    version = get_object_or_404(ModelVersion.objects.of(request.tenant), short_id=short_id)
    chosen = request.GET.get("period", "")
    chosen = chosen if chosen in PERIODS else "24h"
    now = timezone.now()
    found = served.usage(request.tenant, version.name, now - PERIODS[chosen][0], now)
    plan = plan_of(request.tenant)
    words: dict[str, Any] = {
        "model": model_pages.model_rows(request.tenant, [version])[0],
        "periods": [(name, words, name == chosen) for name, (_length, words) in PERIODS.items()],
        "period_words": PERIODS[chosen][1],
        "total": found.total,
        "latencies": latencies(found.total),
        "first_token": latency.quantile(found.total.first_token, 0.5),
        "charts": charts(found),
        "steps": [(one, one.quantiles()) for one in reversed(found.steps) if one.requests],
        "plan": plan,
        "cost": served.cost_this_month(request.tenant, version.name, plan),
    }
    if not found.total.requests:
        items, features = model_pages.known_items(version), features_of(version)
        sample = model_pages.sample_body(request.tenant, version.task, items, features)
        words["snippets"] = model_pages.snippets(version.name, version.task, sample)
    return render(request, "modeling/model_usage.html", words)


def latencies(total: served.Served) -> list[tuple[str, float | None, str]]:
    """(name, seconds, the bucket in words) for the median, p95 and p99."""
    named = ((_("Median"), 0.5), (_("p95"), 0.95), (_("p99"), 0.99))
    return [
        (name, latency.quantile(total.latency, share), _bucket_words(latency.bucket(total.latency, share)))
        for name, share in named
    ]


def _bucket_words(bucket: tuple[float, float | None] | None) -> str:
    if bucket is None:
        return ""
    low, high = bucket
    if high is None:
        return _("longer than %(low)s ms") % {"low": _words_ms(low)}
    return _("between %(low)s and %(high)s ms") % {"low": _words_ms(low), "high": _words_ms(high)}


def _words_ms(seconds: float) -> str:
    """Milliseconds of a bound without a mantissa: 2.5, 10,000."""
    return f"{round(1000 * seconds, 1):,.12g}"


def charts(found: served.Usage) -> dict[str, Any]:
    """Rows of (time, requests, errors) and (time, p95, median in ms), with the last step with requests in words."""
    step = str(STEP_WORDS[found.step])
    requests = [[one.at, one.requests, one.errors] for one in found.steps]
    speeds = []
    for one in found.steps:
        share = one.quantiles()
        speeds.append([one.at, _ms(share["p95"]), _ms(share["p50"])])
    most = max((one.requests for one in found.steps), default=0)
    return {
        "requests": requests,
        "requests_columns": [_("Time"), _("Requests"), _("Refused or failed")],
        "requests_reading": _("Most: %(n)s %(step)s.") % {"n": f"{most:,}", "step": step},
        "requests_words": _("{x}: {y} %(step)s, {error} of them refused or failed") % {"step": step},
        "speeds": speeds,
        "speeds_columns": [_("Time"), _("p95, ms"), _("Median, ms")],
        "speeds_reading": _("Estimated within the bounds of a histogram; only answered requests count."),
        "speeds_words": _("{x}: 95 % of answers within {y} ms, half within {error} ms"),
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else 1000 * seconds
