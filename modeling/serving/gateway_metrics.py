"""What the gateway counts of its requests, by route, class of model and outcome; never by tenant. Plain counters."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from modeling.core.heads import TABULAR
from modeling.serving.counting import Histogram
from modeling.serving.latency import BOUNDS
from modeling.serving.targets import Target
from tenants.models import Tenant

Key = TypeVar("Key")

ROUTES = {
    "/v1/classify": "classify",
    "/v1/recommend": "recommend",
    "/v1/embeddings": "embeddings",
    "/v1/chat/completions": "chat",
}
OTHER = "other"
GONE = "gone"  # the status class of a request whose client left first
NO_MODEL = "none"  # the model class of a request that never got so far as to name one of its own

# Things that happen beside requests, each a counter of its own.
EVENTS = {
    "idempotent_replays": "Requests answered again from a remembered answer.",
    "texts_screened": "Texts read by the personal-data policy.",
    "texts_masked": "Texts in which personal data was masked before the model saw them.",
    "requests_blocked": "Requests refused by the personal-data policy.",
    "shadow_sent": "Requests that a shadow model also answered.",
    "shadow_dropped": "Requests that a shadow model did not get, since it was behind.",
    "log_dropped": "Predictions that a prediction log did not keep, since it was behind.",
    "served_dropped": "Five-minute counts not kept because too many were waiting for the database.",
}


@dataclass(slots=True)
class Seen:
    """What is noted of one request on its way through the gateway."""

    started: float = field(default_factory=time.perf_counter)
    tenant: Tenant | None = None  # known once its model is
    model: str = ""
    model_class: str = NO_MODEL
    status: int = 0  # 0: nothing was sent
    first_token: float = 0.0  # seconds from the start; 0 where nothing is streamed
    predictions: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    def meets(self, tenant: Tenant, target: Target) -> None:
        """Note who asks and what answers, once both are known."""
        self.tenant, self.model, self.model_class = tenant, target.model, model_class(target)

    @property
    def outcome(self) -> str:
        """2xx, 4xx, 429, 5xx or gone."""
        if not self.status:
            return GONE
        return "429" if self.status == 429 else f"{self.status // 100}xx"

    def bill(self, kind: str, delivered: int, read: int) -> None:
        """Note what was counted as usage: `read` of the tokens came from the client."""
        if kind == "predictions":
            self.predictions += delivered
            self.tokens_in += read
        else:
            self.tokens_in += min(read, delivered)
            self.tokens_out += max(0, delivered - read)


def model_class(target: Target) -> str:
    """base, chat, recommendation, tabular, or how a text classifier was trained: head, lora or full."""
    if not target.version:
        return "base"
    if target.task in ("chat", "recommendation"):
        return target.task
    return "tabular" if target.base == TABULAR else target.method


class GatewayMetrics:
    """Counters of one gateway process. Written on the event loop; a scrape copies them there."""

    def __init__(self) -> None:
        self.requests: dict[tuple[str, str, str], int] = {}
        self.latency: dict[tuple[str, str], Histogram] = {}  # of requests answered with 2xx
        self.first_token: dict[str, Histogram] = {}
        self.tokens: dict[tuple[str, str], int] = {}
        self.predictions: dict[str, int] = {}
        self.events = dict.fromkeys(EVENTS, 0)

    def observe(self, route: str, seen: Seen, seconds: float) -> None:
        """Count one request that has ended."""
        kind, outcome = seen.model_class, seen.outcome
        key = (route, kind, outcome)
        self.requests[key] = self.requests.get(key, 0) + 1
        if outcome == "2xx":
            _of(self.latency, (route, kind)).observe(seconds)
            if seen.first_token:
                _of(self.first_token, kind).observe(seen.first_token)
        if seen.predictions:
            self.predictions[kind] = self.predictions.get(kind, 0) + seen.predictions
        for direction, amount in (("in", seen.tokens_in), ("out", seen.tokens_out)):
            if amount:
                self.tokens[kind, direction] = self.tokens.get((kind, direction), 0) + amount

    def copy(self) -> GatewayMetrics:
        """As it stands, for a reader in another thread."""
        return copy.deepcopy(self)

    def count(self, event: str, amount: int = 1) -> None:
        """Count one of EVENTS; raises KeyError for a name that is not there."""
        self.events[event] += amount


def _of(histograms: dict[Key, Histogram], key: Key) -> Histogram:
    found = histograms.get(key)
    if found is None:
        found = histograms[key] = Histogram(BOUNDS)
    return found


@dataclass(frozen=True)
class State:
    """A copy of what one gateway counts and holds, taken on its event loop."""

    metrics: GatewayMetrics
    usage_waiting: int
    revocation_up: bool
    work: Mapping[str, Mapping[str, int]] = field(
        default_factory=dict
    )  # jobs | batch_files -> state -> how many


METRICS = GatewayMetrics()
count = METRICS.count
