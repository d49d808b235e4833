"""Watches canaries: one that fails clearly more often than the version beside it is taken out, and history says why."""

from __future__ import annotations

import time
import uuid
from collections import deque
from dataclasses import dataclass, field

from modeling.serving.gateway_metrics import Seen
from modeling.serving.targets import Route, Target

REMEMBERED = 50  # newest answers of each side
FEWEST, FEWEST_FAILED = 10, 5
WORST_SHARE = 0.2
TIMES_WORSE = 3
MOST_OPEN = 10_000  # requests whose status is not known yet: of more, some count on neither side
_GIVEN_UP_SECONDS = 300.0  # an answer that has not begun by then counts on neither side


@dataclass(frozen=True, slots=True)
class Verdict:
    """A canary to be taken out."""

    tenant: uuid.UUID
    endpoint: str
    canary: str
    failed: int
    of: int


@dataclass(slots=True)
class Pair:
    """Newest outcomes of a canary and of the version beside it; True for an error of ours."""

    canary: deque[bool] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    version: deque[bool] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    @property
    def is_worse(self) -> bool:
        """At least 10 answers and 5 errors of the canary: 20 % of them, and three times the version's share."""
        failed, answers = sum(self.canary), len(self.canary)
        if answers < FEWEST or failed < FEWEST_FAILED or failed < WORST_SHARE * answers:
            return False
        beside = sum(self.version) / len(self.version) if self.version else 0.0
        return failed / answers >= TIMES_WORSE * beside


@dataclass(frozen=True, slots=True)
class _Watched:
    seen: Seen
    key: tuple[uuid.UUID, str, str]
    is_canary: bool


class Canaries:
    """Outcomes of this process's requests to endpoints that are split, forgotten with the split."""

    def __init__(self) -> None:
        self._open: list[_Watched] = []
        self._pairs: dict[tuple[uuid.UUID, str, str], Pair] = {}

    def watch(self, seen: Seen, tenant: uuid.UUID, route: Route, target: Target) -> None:
        """Note a request to a split endpoint; its status is read once it was sent."""
        if route.canary is not None and len(self._open) < MOST_OPEN:
            key = (tenant, route.endpoint, route.canary.version)
            self._open.append(_Watched(seen, key, target is route.canary))

    def judged(self) -> list[Verdict]:
        """Count what was answered since the last time; canaries that are clearly worse, each once."""
        oldest = time.perf_counter() - _GIVEN_UP_SECONDS
        waiting = [one for one in self._open if not one.seen.status and one.seen.started > oldest]
        answered = [one for one in self._open if one.seen.status]
        self._open = waiting
        for one in answered:
            pair = self._pairs.setdefault(one.key, Pair())
            (pair.canary if one.is_canary else pair.version).append(one.seen.status >= 500)
        worse = [(key, pair) for key, pair in self._pairs.items() if pair.is_worse]
        for key, _pair in worse:
            del self._pairs[key]
        if len(self._pairs) > 1000:
            self._pairs.clear()
        return [Verdict(*key, sum(pair.canary), len(pair.canary)) for key, pair in worse]
