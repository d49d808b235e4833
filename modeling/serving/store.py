"""The RAM tier: decrypted artefacts by tenant and version, read once however many ask, bounded in bytes."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from modeling.core import artifacts
from modeling.core.types import CoreError, Tensors
from modeling.serving.wire import EngineRefusal
from saas.lib.object_store import StoreUnavailable, open_location
from saas.lib.sealed import Context, SealBroken, SealReader

MAX_ARTIFACT_BYTES = 512 * 1024 * 1024
_OBJECT_BYTES = 150  # a text, its places in a list and in a dict, and its number


@dataclass(frozen=True, slots=True)
class Reference:
    """Where a version's ciphertext lies and what opens it. The data key lives as long as the request.

    `path` is a file, or s3://bucket/prefix/key in the bucket that this process was given (OBJECT_STORE).
    """

    tenant: str
    version: str
    path: str
    key: bytes = field(repr=False)
    context: tuple[str, str, int]

    @property
    def cache_key(self) -> CacheKey:
        """Identity in caches: another path, key or context never finds what this one opened."""
        digest = hashlib.sha256(self.key)
        for part in (self.path, *map(str, self.context)):
            encoded = part.encode()
            digest.update(len(encoded).to_bytes(4, "big") + encoded)
        return CacheKey(self.tenant, self.version, digest.digest())

    @classmethod
    def parse(cls, tenant: str, body: Mapping[str, Any]) -> Reference:
        """From a frame's body; raises EngineRefusal `bad_request`."""
        context = body.get("context")
        version, path, key = body.get("version"), body.get("path"), body.get("key")
        if not (isinstance(version, str) and isinstance(path, str) and isinstance(key, bytes)):
            raise EngineRefusal("bad_request", "An artefact needs version, path and key.")
        if not isinstance(context, list) or len(context) != 3 or not isinstance(context[2], int):
            raise EngineRefusal("bad_request", "An artefact needs its context of tenant, object and version.")
        if context[0] != tenant:
            raise EngineRefusal("bad_artifact", "The model does not belong to this tenant.")
        return cls(tenant, version, path, key, (str(context[0]), str(context[1]), context[2]))


@dataclass(frozen=True, slots=True)
class CacheKey:
    """Tenant and version in the clear (for purge), the rest as a digest."""

    tenant: str
    version: str
    fingerprint: bytes

    def belongs_to(self, tenant: str, version: str | None) -> bool:
        """Whether a purge of `tenant` (or of one version of it) means this entry."""
        return self.tenant == tenant and version in (None, self.version)


@dataclass(slots=True, eq=False)
class Artifact:
    """A decrypted, digest-checked artefact. `extras` holds what a runner derives from it once, see `grow`."""

    key: CacheKey
    tensors: Tensors
    config: dict[str, Any]
    size_bytes: int
    extras: dict[str, Any] = field(default_factory=dict)


def read_artifact(reference: Reference) -> Artifact:
    """Decrypt and parse one artefact; raises EngineRefusal `bad_artifact` for anything that does not verify.

    `unavailable` where the object store does not answer: that passes.
    """
    context = Context(*reference.context)
    try:
        with closing(open_location(reference.path)) as source:
            reader = SealReader(source, key=reference.key, context=context)
            if reader.size > MAX_ARTIFACT_BYTES:
                raise EngineRefusal("bad_artifact", "The model is too large to serve.")
            plain = reader.readall()
        tensors, config = artifacts.load(plain)
    except StoreUnavailable as error:
        words = "The model's stored form cannot be reached just now. Try again shortly."
        raise EngineRefusal("unavailable", words, retry_after_seconds=1.0) from error
    except (OSError, SealBroken, ValueError, CoreError) as error:
        raise EngineRefusal("bad_artifact", "The model's stored form could not be opened.") from error
    return Artifact(reference.cache_key, tensors, config, _held_bytes(tensors, config))


def _held_bytes(tensors: Tensors, config: Mapping[str, Any]) -> int:
    """What an artefact takes in memory: its arrays, and the objects that its config became.

    Names such as a catalogue's item ids weigh more than their letters, and are looked up by number too.
    """
    count, letters = 0, 0
    left: list[Any] = [config]
    while left:
        one = left.pop()
        if isinstance(one, Mapping):
            left += [*one.keys(), *one.values()]
        elif isinstance(one, list):
            left += one
        else:
            count += 1
            letters += len(one) if isinstance(one, str) else 0
    return sum(int(value.nbytes) for value in tensors.values()) + count * _OBJECT_BYTES + letters


class ArtifactStore:
    """LRU of artefacts with single-flight loads in side threads. All methods run on the event loop."""

    def __init__(
        self,
        loaders: Executor,
        *,
        max_bytes: int = 256 * 1024 * 1024,
        read: Callable[[Reference], Artifact] = read_artifact,
    ) -> None:
        self._loaders = loaders
        self._max_bytes = max_bytes
        self._read = read
        self._entries: OrderedDict[CacheKey, Artifact] = OrderedDict()
        self._loading: dict[CacheKey, asyncio.Future[Artifact]] = {}
        self._size_bytes = 0
        self.loads = 0
        self.hits = 0
        self.evictions = 0

    @property
    def size_bytes(self) -> int:
        """Bytes held."""
        return self._size_bytes

    async def get(self, reference: Reference) -> Artifact:
        """The artefact, from RAM or read once; a purge during the read means the result is used by nobody later."""
        key = reference.cache_key
        entry = self._entries.get(key)
        if entry is not None:
            self.hits += 1
            self._entries.move_to_end(key)
            return entry
        loading = self._loading.get(key)
        if loading is None:
            loading = self._start(key, reference)
        return await asyncio.shield(loading)

    def _start(self, key: CacheKey, reference: Reference) -> asyncio.Future[Artifact]:
        self.loads += 1
        loop = asyncio.get_running_loop()
        loading = loop.run_in_executor(self._loaders, self._read, reference)
        self._loading[key] = loading
        loading.add_done_callback(lambda done: self._finish(key, done))
        return loading

    def _finish(self, key: CacheKey, loading: asyncio.Future[Artifact]) -> None:
        wanted = self._loading.get(key) is loading
        if wanted:
            del self._loading[key]
        if loading.cancelled() or loading.exception() is not None or not wanted:
            return
        entry = loading.result()
        self._entries[key] = entry
        self._size_bytes += entry.size_bytes
        self._trim()

    def grow(self, artifact: Artifact, count: int) -> None:
        """Count bytes that a runner derived from an artefact and keeps in its extras."""
        artifact.size_bytes += count
        if self._entries.get(artifact.key) is artifact:
            self._size_bytes += count
            self._trim()

    def _trim(self) -> None:
        while self._size_bytes > self._max_bytes and len(self._entries) > 1:
            _, oldest = self._entries.popitem(last=False)
            self.evictions += 1
            self._size_bytes -= oldest.size_bytes

    def purge(self, tenant: str, version: str | None) -> int:
        """Forget a tenant's artefacts, or one version's; returns how many. Loads under way are not kept."""
        gone = [key for key in self._entries if key.belongs_to(tenant, version)]
        for key in gone:
            self._size_bytes -= self._entries.pop(key).size_bytes
        for key in [key for key in self._loading if key.belongs_to(tenant, version)]:
            del self._loading[key]
        return len(gone)
