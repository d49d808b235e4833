"""What the pages of endpoints show: who answers, how far a shadow agrees, and the history of what answered when."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Sum
from django.utils import timezone
from django.utils.translation import gettext as _

from modeling.actions.predictions import Logged, shadow_days
from modeling.models import Endpoint, EndpointChange, ModelVersion
from modeling.models.endpoints import Ruled
from modeling.queries import model_pages, words
from modeling.queries.table_examples import features_of
from modeling.serving.latency import added, quantile
from tenants.models import Tenant

SHADOW_DAYS = 7
PREVIEW = 160  # characters of an input in the list of a log


@dataclass(frozen=True)
class Who:
    """A version as these pages name it."""

    name: str
    title: str
    short_id: str
    is_deleted: bool


@dataclass(frozen=True)
class EndpointRow:
    """One endpoint in the list and in its header."""

    name: str
    task_words: str
    version: Who
    version_percent: int
    canary: Who | None
    canary_percent: int
    shadow: Who | None
    rules: str
    log_days: int
    created_at: datetime


@dataclass(frozen=True)
class HistoryRow:
    """One change, and whether its version may answer again."""

    number: int
    words: str
    version: Who
    canary: Who | None
    canary_percent: int
    shadow: Who | None
    rules: str
    log_days: int
    restores: int | None
    actor: str
    at: datetime
    can_return: bool


@dataclass(frozen=True)
class ShadowFigures:
    """The last days of a shadow: counts, the share that agrees (None: nothing to compare), medians in milliseconds."""

    requests: int
    agreement: float | None
    failed: int
    dropped: int
    served_ms: float | None
    shadow_ms: float | None


@dataclass(frozen=True)
class LoggedRow:
    """One entry of the log as the page prints it."""

    public_id: str
    at: datetime
    model: str
    route: str
    milliseconds: int
    preview: str
    input: str
    answer: str


def _rules(row: Ruled) -> str:
    """What happens to personal data, in words."""
    words = str(row.get_personal_data_display())
    return _("%(rule)s; some kinds otherwise") % {"rule": words} if row.personal_kinds else words


def who(version: ModelVersion) -> Who:
    """A version by its suffix or task, and its short id."""
    parts = version.name.split(":")
    suffix = parts[3] if len(parts) > 4 else ""
    title = f"{suffix or words.task_words(version.task)} · {version.short_id}"
    return Who(version.name, title, version.short_id, version.state != ModelVersion.State.READY)


def endpoint_row(endpoint: Endpoint) -> EndpointRow:
    """An endpoint with its versions read."""
    return EndpointRow(
        name=endpoint.name,
        task_words=words.task_words(endpoint.version.task),
        version=who(endpoint.version),
        version_percent=100 - endpoint.canary_percent,
        canary=who(endpoint.canary) if endpoint.canary else None,
        canary_percent=endpoint.canary_percent,
        shadow=who(endpoint.shadow) if endpoint.shadow else None,
        rules=_rules(endpoint),
        log_days=endpoint.log_days,
        created_at=endpoint.created_at,
    )


def history_rows(endpoint: Endpoint, changes: Sequence[EndpointChange]) -> list[HistoryRow]:
    """Changes with their versions read, newest first."""
    return [
        HistoryRow(
            number=one.number,
            words=str(one.get_kind_display()) if one.number > 1 else _("made"),
            version=who(one.version),
            canary=who(one.canary) if one.canary else None,
            canary_percent=one.canary_percent,
            shadow=who(one.shadow) if one.shadow else None,
            rules=_rules(one),
            log_days=one.log_days,
            restores=one.restores,
            actor=one.actor,
            at=one.at,
            can_return=one.version.state == ModelVersion.State.READY
            and one.version_id != endpoint.version_id
            and one.version.task == endpoint.version.task,
        )
        for one in changes
    ]


def shadow_figures(tenant: Tenant, endpoint: Endpoint) -> ShadowFigures | None:
    """The last seven days of the shadow that listens now; None without one."""
    if endpoint.shadow is None:
        return None
    first = (timezone.now() - timedelta(days=SHADOW_DAYS - 1)).date()
    days = shadow_days(tenant, endpoint).filter(shadow=endpoint.shadow, day__gte=first)
    names = ("requests", "compared", "agreed", "failed", "dropped")
    total = {name: value or 0 for name, value in days.aggregate(**{n: Sum(n) for n in names}).items()}
    rows = list(days)
    return ShadowFigures(
        requests=total["requests"],
        agreement=total["agreed"] / total["compared"] if total["compared"] else None,
        failed=total["failed"],
        dropped=total["dropped"],
        served_ms=_median([row.served_latency for row in rows]),
        shadow_ms=_median([row.shadow_latency for row in rows]),
    )


def _median(counts: list[list[int]]) -> float | None:
    found = quantile(added(counts), 0.5)
    return None if found is None else 1000 * found


def choices(tenant: Tenant, *, task: str = "", but: Sequence[uuid.UUID] = ()) -> list[tuple[str, str]]:
    """(name, words) of the models that could answer, the newest first; of all tasks, or of one."""
    ready = ModelVersion.objects.of(tenant).filter(state=ModelVersion.State.READY).exclude(pk__in=but)
    found = ready.filter(task=task) if task else ready
    return [(one.name, _choice_words(one, task)) for one in found.order_by("-pk")[:100]]


def _choice_words(version: ModelVersion, task: str) -> str:
    """The version's title, with its task where models of all tasks stand side by side."""
    title, kind = who(version).title, words.task_words(version.task)
    return title if task or title.startswith(kind) else f"{kind}: {title}"


def snippets(tenant: Tenant, endpoint: Endpoint) -> list[tuple[str, str]]:
    """Calls of the endpoint by its name."""
    version = endpoint.version
    items, features = model_pages.known_items(version), features_of(version)
    sample = model_pages.sample_body(tenant, version.task, items, features)
    return model_pages.snippets(endpoint.name, version.task, sample)


def logged_rows(found: Sequence[Logged]) -> list[LoggedRow]:
    """Entries of the log with their input in short."""
    return [
        LoggedRow(
            one.row.public_id, one.row.at, one.row.model, one.row.route, one.row.milliseconds,
            _preview(one.input), _pretty(one.input), _pretty(one.answer),
        )
        for one in found
    ]  # fmt: skip


def _pretty(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1)


def _preview(value: Any) -> str:
    """What was asked, in one line: the last turn of a chat, the first of several inputs."""
    asked = value if isinstance(value, dict) else {}
    turns = asked.get("messages") or [{}]
    first = (asked.get("inputs") or asked.get("rows") or [""])[0] or turns[-1].get("content") or asked
    text = first if isinstance(first, str) else json.dumps(first, ensure_ascii=False)
    return text if len(text) <= PREVIEW else f"{text[: PREVIEW - 1]}…"
