"""Tuned versions in another program: decrypted into a folder in memory, loaded by vLLM, unloaded and removed."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from modeling.core import export_peft
from modeling.core.types import CoreError
from modeling.serving.adapters_folder import AdaptersFolder
from modeling.serving.openai_backend import elsewhere
from modeling.serving.store import Artifact, Reference, read_artifact
from modeling.serving.wire import EngineRefusal

MOST = 64  # adapters at a time; the least recently used goes


class Adapters:
    """What one server holds for tenants. All calls on one event loop."""

    def __init__(self, http: httpx.AsyncClient, folder: Path, *, base: str) -> None:
        self._http = http
        self._folder = AdaptersFolder(folder)
        self._base = base
        self._loaded: OrderedDict[str, Reference] = OrderedDict()
        self._loading: dict[str, tuple[Reference, asyncio.Task[None]]] = {}

    async def load(self, tenant: str, artifact: Mapping[str, Any]) -> str:
        """The adapter's name once the server has it; raises EngineRefusal, `elsewhere` for what is no plain LoRA."""
        reference = Reference.parse(tenant, artifact)
        name = adapter_name(reference)
        if name in self._loaded:
            self._loaded.move_to_end(name)
            return name
        if name not in self._loading:
            task = asyncio.create_task(self._load(name, reference))
            self._loading[name] = reference, task
            task.add_done_callback(lambda done: self._end_of(name, done))
        await asyncio.shield(self._loading[name][1])
        return name

    def _end_of(self, name: str, task: asyncio.Task[None]) -> None:
        self._loading.pop(name, None)
        if not task.cancelled():
            task.exception()  # its askers are told

    async def _load(self, name: str, reference: Reference) -> None:
        path = await asyncio.to_thread(self._write, name, reference)
        asked = {"lora_name": name, "lora_path": str(path)}
        with ExitStack() as undo:
            undo.callback(self._folder.remove, name)
            response = await self._http.post("load_lora_adapter", json=asked)
            if response.status_code == 400 and "already" in response.text:  # of a gateway before us
                await self._http.post("unload_lora_adapter", json={"lora_name": name})
                response = await self._http.post("load_lora_adapter", json=asked)
            if response.status_code != 200:
                raise EngineRefusal("no_base", "The program that serves the base did not take this model.")
            undo.pop_all()
        self._loaded[name] = reference
        while len(self._loaded) > MOST:
            await self._unload(next(iter(self._loaded)))

    def _write(self, name: str, reference: Reference) -> Path:
        """On a thread: decrypt and export; raises EngineRefusal."""
        try:
            return self._folder.write(name, peft_files(read_artifact(reference), base=self._base))
        except (CoreError, OSError) as error:
            raise EngineRefusal("bad_artifact", "The model could not be handed over.") from error

    def forget(self, name: str) -> None:
        """The server does not know it any more."""
        self._loaded.pop(name, None)
        self._folder.remove(name)

    async def _unload(self, name: str) -> None:
        """Files first; a server that could not be told is told again with the next purge or eviction."""
        self._folder.remove(name)
        try:
            response = await self._http.post("unload_lora_adapter", json={"lora_name": name})
        except httpx.HTTPError as error:
            raise EngineRefusal("unavailable", "The model's server could not be told to forget.") from error
        if response.status_code >= 500:
            raise EngineRefusal("unavailable", "The model's server did not forget.")
        self._loaded.pop(name, None)

    async def purge(self, tenant: str, version: str | None) -> int:
        """Unload a tenant's adapters, or one version's; returns how many. Raises EngineRefusal `unavailable`."""
        under_way = [
            task for one, task in self._loading.values() if one.cache_key.belongs_to(tenant, version)
        ]
        if under_way:
            await asyncio.wait(under_way)  # else they were there when this is over
        gone = [name for name, one in self._loaded.items() if one.cache_key.belongs_to(tenant, version)]
        for name in gone:
            await self._unload(name)
        return len(gone)

    async def close(self) -> None:
        """Unload everything; the folder is removed even where the server no longer answers."""
        for _reference, task in self._loading.values():
            task.cancel()
        try:
            for name in list(self._loaded):
                await self._unload(name)
        except EngineRefusal:
            pass  # a server that is gone holds nothing
        finally:
            self._folder.close()


def adapter_name(reference: Reference) -> str:
    """The same in every gateway, and nobody finds it without the version's data key."""
    digest = hashlib.blake2b(key=reference.key, digest_size=16, person=b"adapter name")
    digest.update(f"{reference.tenant}\n{reference.version}".encode())
    return f"cloister-{digest.hexdigest()}"


def peft_files(artifact: Artifact, *, base: str) -> dict[str, bytes]:
    """PEFT's two files of a chat LoRA; raises EngineRefusal `elsewhere`, `wrong_task`.

    A final-hidden adapter is none. A LoRA that wakes with the answer's opening (`invocation`) would be applied to
    the whole prompt there, and so say something else: it stays with our engine too.
    """
    if artifact.config.get("task") != "chat":
        raise EngineRefusal("wrong_task", "This model is not a chat model.")
    is_lora = bool(artifact.tensors) and all(name.startswith("lora.") for name in artifact.tensors)
    if not is_lora or artifact.config.get("invocation"):
        raise elsewhere()
    return export_peft.lora_files(artifact.tensors, artifact.config, base=base)
