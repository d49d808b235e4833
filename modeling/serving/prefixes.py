"""Keys and values of conversations' opening tokens, kept per tenant so that the next one begins behind them.

A prefix is found by tenant, version and its exact tokens: equal text of another tenant is read anew, so neither an
answer nor its time tells what others ask. Bounded in bytes, half of them for one tenant at most, least recently used
first out; what leaves is zeroed.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

import torch

from modeling.serving.store import CacheKey

PREFIX_BYTES = 128 * 1024 * 1024
LEAST_TOKENS = 16  # fewer are read as fast as they are found
MAX_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class PrefixKey:
    """Whose opening this is: `version` is the tuned model that read it, None for the plain base."""

    tenant: str
    version: CacheKey | None
    tokens: tuple[int, ...]

    def belongs_to(self, tenant: str, version: str | None) -> bool:
        """Whether a purge of `tenant` (or of one version of it) means this entry."""
        if self.version is None:
            return self.tenant == tenant and version is None
        return self.version.belongs_to(tenant, version)


class Prefixes:
    """Used by the compute thread (find, keep) and the event loop (purge): one lock, held for one copy at most."""

    def __init__(self, *, max_bytes: int = PREFIX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[PrefixKey, torch.Tensor] = OrderedDict()
        self._bytes_of: dict[str, int] = {}
        self._lock = threading.Lock()
        self.purges = 0  # what began to be read before the last one is not kept
        self.hits = 0
        self.misses = 0
        self.evictions = 0

    @property
    def size_bytes(self) -> int:
        """Bytes held."""
        return sum(self._bytes_of.values())

    def takes(self, tokens: int, token_bytes: int) -> bool:
        """Whether an opening of so many tokens is worth keeping and fits."""
        return tokens >= LEAST_TOKENS and tokens * token_bytes <= self._max_bytes * MAX_SHARE

    def find(self, key: PrefixKey) -> torch.Tensor | None:
        """A copy of what `keep` was given, or None."""
        with self._lock:
            found = self._entries.get(key)
            if found is None:
                self.misses += 1
                return None
            self._entries.move_to_end(key)
            self.hits += 1
            return found.clone()

    def keep(self, key: PrefixKey, values: torch.Tensor, *, begun_at: int) -> None:
        """Hold `values` from now on, unless there was a purge since `begun_at` (`purges` at that time)."""
        with self._lock:
            if begun_at != self.purges or key in self._entries:
                return
            self._entries[key] = values
            self._bytes_of[key.tenant] = self._bytes_of.get(key.tenant, 0) + values.nbytes
            while self._bytes_of.get(key.tenant, 0) > self._max_bytes * MAX_SHARE:
                self._evict(next(one for one in self._entries if one.tenant == key.tenant))
            while self.size_bytes > self._max_bytes:
                self._evict(next(iter(self._entries)))

    def _evict(self, key: PrefixKey) -> None:
        self._drop(key)
        self.evictions += 1

    def _drop(self, key: PrefixKey) -> None:
        values = self._entries.pop(key)
        left = self._bytes_of.pop(key.tenant) - values.nbytes
        if left:
            self._bytes_of[key.tenant] = left
        with torch.inference_mode():  # where it was made
            values.zero_()

    def purge(self, tenant: str, version: str | None) -> int:
        """Zero and drop a tenant's prefixes, or those one version read; returns how many."""
        with self._lock:
            self.purges += 1
            gone = [key for key in self._entries if key.belongs_to(tenant, version)]
            for key in gone:
                self._drop(key)
            return len(gone)
