"""What one engine has done and holds, as plain numbers for a scrape: queues, batches, caches, by base; no tenant's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from modeling.serving.bank import SlotBank
from modeling.serving.encoding import EncoderRunner

if TYPE_CHECKING:
    from modeling.serving.chatting import ChatRunner
    from modeling.serving.runners import Runners

HISTOGRAMS = ("batch_rows", "batch_seconds")
COUNTERS = ("batches", "rows", "tokens")


class _Cache(Protocol):
    """What counts its lookups."""

    hits: int
    misses: int
    evictions: int


def snapshot(runners: Runners) -> dict[str, Any]:
    """The body of the answer to `stats`: the process, its store, and for each base that is loaded what it counts."""
    health, store = runners.health(), runners.store
    return {
        "pid": health["pid"],
        "uptime_seconds": health["uptime_seconds"],
        "states": health["bases"],
        "store_bytes": store.size_bytes,
        "store": {"hits": store.hits, "misses": store.loads, "evictions": store.evictions},
        "bases": {base: _runner(runner) for base, runner in runners.ready().items()},
    }


def _runner(runner: EncoderRunner | ChatRunner) -> dict[str, Any]:
    """Counters and histograms of one base; `engine` is what computes it."""
    found: dict[str, Any] = {
        "queue_rows": len(runner.queue),
        "queue_tokens": runner.queue.waiting_tokens,
        **{name: getattr(runner, name) for name in COUNTERS},
        **{name: getattr(runner, name).body() for name in HISTOGRAMS},
    }
    if isinstance(runner, EncoderRunner):
        found |= {"kind": "encoder", "engine": runner.engine, "batch_tokens": runner.batch_tokens.body()}
        return found | _slots(runner.heads.banks)
    found |= {"kind": "chat", "engine": "torch", "active": runner.active, "unheard": runner.unheard}
    found |= {"prefix_bytes": runner.prefixes.size_bytes, "prefixes": _counts([runner.prefixes])}
    return found | _slots(runner.tunings.banks)


def _slots(banks: Sequence[SlotBank]) -> dict[str, Any]:
    """All banks of a base as one cache."""
    return {"slots_used": sum(bank.used for bank in banks), "slots": _counts(banks)}


def _counts(caches: Sequence[_Cache]) -> dict[str, int]:
    return {
        "hits": sum(one.hits for one in caches),
        "misses": sum(one.misses for one in caches),
        "evictions": sum(one.evictions for one in caches),
    }
