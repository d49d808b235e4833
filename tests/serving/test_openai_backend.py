"""A base served by another program: parts, ends, errors, cancelling, and tuned versions handed over in memory.

The other program is a stand-in here, at the border: a small HTTP server that says what vLLM and llama.cpp say.
The real ones are asked by `make backends`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modeling.core.export_peft import CONFIG, WEIGHTS
from modeling.core.types import Tensors
from modeling.serving.addresses import ALL, OpenAIAddress, UnixAddress
from modeling.serving.engines import Engines
from modeling.serving.openai_backend import OpenAIBackend
from modeling.serving.wire import EngineRefusal, Kind
from tests.serving.made import Artifacts, Made
from tests.serving.test_engines import listening

pytestmark = pytest.mark.asyncio
IN_MEMORY = pytest.mark.skipif(sys.platform != "linux", reason="needs a folder in memory, such as /dev/shm")
QUESTION = [{"role": "user", "content": "Hello?"}]


def chunk(text: str | None = None, *, finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}], **more}


END = [
    chunk(finish="stop"),
    {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}},
]


class Standin:
    """The stand-in: answers each path from `says`, remembers what it was asked, notices who leaves."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.says: Callable[[str, dict[str, Any]], tuple[int, list[Any]]] = lambda path, body: (200, [])
        self.left = asyncio.Event()
        self.url = ""

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                await self._answer(head.decode(), reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.left.set()
        finally:
            writer.close()

    async def _answer(self, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = head.split(" ")[1].removeprefix("/v1/")
        length = next(
            (
                int(line.split(":")[1])
                for line in head.splitlines()
                if line.lower().startswith("content-length")
            ),
            0,
        )
        body = json.loads(await reader.readexactly(length) or b"{}")
        self.asked.append((path, body))
        status, events = self.says(path, body)
        writer.write(f"HTTP/1.1 {status} x\r\nretry-after: 7\r\n".encode())
        if path != "chat/completions" or status != 200:
            said = json.dumps(events).encode()
            writer.write(b"content-length: %d\r\n\r\n%s" % (len(said), said))
            return
        writer.write(b"transfer-encoding: chunked\r\n\r\n")
        for event in events:
            if event is None:  # hangs, until the other side leaves
                await reader.read(1)
                raise ConnectionError
            line = f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n".encode()
            writer.write(b"%x\r\n%s\r\n" % (len(line), line))
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    def names(self, path: str) -> list[str]:
        """What was named in calls of `path`."""
        return [body.get("lora_name") or body["model"] for asked, body in self.asked if asked == path]


@asynccontextmanager
async def standing_in() -> AsyncIterator[Standin]:
    standin = Standin()
    server = await asyncio.start_server(standin.accept, "127.0.0.1", 0)
    standin.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield standin
    finally:
        server.close()


@pytest.fixture
def memory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def served(standin: Standin, own: Path, *, adapters: Path | None = None) -> Engines:
    chat = OpenAIAddress(standin.url, "smol", adapters)
    return Engines({ALL: (UnixAddress(own),), "smollm2-135m": (chat,)}, patience=0.5)


async def talk(engines: Engines, made: Made | None = None, **more: Any) -> list[tuple[Kind, dict[str, Any]]]:
    body: dict[str, Any] = {"base": "smollm2-135m", "messages": QUESTION, "max_tokens": 5, "temperature": 0.0}
    if made is not None:
        body["artifact"] = made.body
    seconds = more.pop("seconds", 10.0)
    tenant = made.tenant if made else "acme"
    return [frame async for frame in engines.stream("chat", tenant=tenant, seconds=seconds, **body, **more)]


async def code_of(engines: Engines, made: Made | None = None, **more: Any) -> str:
    with pytest.raises(EngineRefusal) as refusal:
        await talk(engines, made, **more)
    return refusal.value.code


async def test_parts_and_end(tmp_path: Path) -> None:
    async with standing_in() as standin:
        running = chunk("lo", usage={"prompt_tokens": 9, "completion_tokens": 2})
        standin.says = lambda path, body: (200, [chunk(""), chunk("Hel"), running, *END, "[DONE]"])
        engines = served(standin, tmp_path / "none")
        frames = await talk(engines, stop=("x",), seed=None, logprobs=False)
        assert await engines.missing() == [ALL]
        await engines.close()
    assert frames == [
        (Kind.PART, {"text": "Hel", "tokens": 1, "prompt_tokens": 0}),
        (Kind.PART, {"text": "lo", "tokens": 2, "prompt_tokens": 9}),
        (Kind.DONE, {"finish": "stop", "prompt_tokens": 9, "completion_tokens": 2}),
    ]
    path, asked = standin.asked[0]
    assert path == "chat/completions"
    assert {asked["model"], asked["temperature"], asked["max_tokens"]} == {"smol", 0.0, 5}
    assert (asked["messages"], asked["stop"], asked["cache_prompt"]) == (QUESTION, ["x"], False)
    assert not {"seed", "logprobs"} & set(asked)


async def test_prefixes_are_not_shared_between_tenants(tmp_path: Path) -> None:
    async with standing_in() as standin:
        standin.says = lambda path, body: (200, [chunk("a"), *END])
        engines = served(standin, tmp_path / "none")
        for tenant in ("acme", "acme", "globex"):
            async for _ in engines.stream(
                "chat", tenant=tenant, seconds=5.0, base="smollm2-135m", messages=QUESTION
            ):
                pass
        await engines.close()
    one, again, other = (body["cache_salt"] for _, body in standin.asked)
    assert one == again != other
    assert "acme" not in one


@pytest.mark.parametrize(
    ("status", "text", "code"),
    [
        (400, "exceeds the available context size", "context_length"),
        (400, "no such thing", "unsupported"),
        (401, "", "no_base"),
        (404, "", "no_base"),
        (429, "", "busy"),
        (500, "", "internal"),
        (503, "loading", "unavailable"),
    ],
)
async def test_errors(tmp_path: Path, status: int, text: str, code: str) -> None:
    async with standing_in() as standin:
        standin.says = lambda path, body: (status, [text])
        engines = served(standin, tmp_path / "none")
        with pytest.raises(EngineRefusal) as refusal:
            await talk(engines)
        await engines.close()
    assert refusal.value.code == code
    assert refusal.value.retry_after_seconds == {429: 7.0, 503: 1.0}.get(status, 0.0)
    assert not text or text not in refusal.value.message


async def test_a_stream_that_breaks(tmp_path: Path) -> None:
    async with standing_in() as standin:
        engines = served(standin, tmp_path / "none")
        for events, code in (
            ([chunk("a"), {"error": {"message": "out of memory"}}], "internal"),
            ([chunk("a"), "{broken"], "internal"),
            ([chunk("a")], "unavailable"),  # ends without an end
            ([None], "deadline"),
        ):
            standin.says = lambda path, body, events=events: (200, events)
            assert await code_of(engines, seconds=1.0) == code
        await engines.close()
    assert standin.names("chat/completions") == ["smol"] * 4  # what had begun is not asked again


async def test_who_leaves_is_left(tmp_path: Path) -> None:
    async with standing_in() as standin:
        standin.says = lambda path, body: (200, [chunk("a"), None])
        engines = served(standin, tmp_path / "none")
        frames = engines.stream("chat", tenant="acme", seconds=60.0, base="smollm2-135m", messages=QUESTION)
        assert (await anext(frames))[0] is Kind.PART
        await frames.aclose()
        await asyncio.wait_for(standin.left.wait(), 5)
        await engines.close()


async def test_nobody_there_is_unavailable(tmp_path: Path) -> None:
    engines = Engines({"smollm2-135m": (OpenAIAddress("http://127.0.0.1:1/v1"),)}, patience=0.2)
    assert await code_of(engines) == "unavailable"
    assert await engines.missing() == ["smollm2-135m"]
    await engines.close()


def modes(folder: Path) -> dict[str, int]:
    """Who may do what with a folder and its files; {} when it is gone."""
    found = [folder, *folder.iterdir()] if folder.exists() else []
    return {path.name: path.stat().st_mode & 0o777 for path in found}


def adapters_in(memory: Path) -> list[Path]:
    """Decrypted weights anywhere in the folder."""
    return [*memory.rglob(WEIGHTS), *memory.rglob(CONFIG)]


def chat_lora(
    artifacts: Artifacts, tenant: str = "acme", *, scale: float = 0.05, invocation: list[int] | None = None
) -> Made:
    """A chat LoRA, awake everywhere as PEFT and vLLM know it, or from its invocation on as ours are."""
    chance = np.random.default_rng(0)
    tensors: Tensors = {}
    for layer in range(26, 30):
        for part, wide in (("self_attn.o_proj", 576), ("mlp.down_proj", 1536)):
            name = f"lora.model.layers.{layer}.{part}"
            tensors[f"{name}.A"] = chance.normal(0, scale, (4, wide)).astype(np.float32)
            tensors[f"{name}.B"] = chance.normal(0, scale, (576, 4)).astype(np.float32)
    config = {"task": "chat", "base": "smollm2-135m", "method": "top_layers", "rank": 4, "alpha": 4.0}
    return artifacts.seal(tensors, config | {"invocation": invocation}, tenant=tenant)


@IN_MEMORY
async def test_a_tuned_version_is_handed_over_in_memory(
    tmp_path: Path, memory: Path, artifacts: Artifacts
) -> None:
    one, other = chat_lora(artifacts), chat_lora(artifacts, "globex")
    async with standing_in() as standin:
        standin.says = lambda path, body: (200, [chunk("a"), *END])
        engines = served(standin, tmp_path / "none", adapters=memory)
        for made in (one, one, other):
            assert (await talk(engines, made))[-1][0] is Kind.DONE
        names = standin.names("chat/completions")
        assert names[0] == names[1] != names[2]
        assert standin.names("load_lora_adapter") == [names[0], names[2]]
        folder = Path(next(body["lora_path"] for path, body in standin.asked if path == "load_lora_adapter"))
        assert modes(folder) == {folder.name: 0o700, WEIGHTS: 0o600, CONFIG: 0o600}
        told = one.body["version"]
        with pytest.raises(EngineRefusal):  # our own engine is not there: the purge says so
            await engines.ask("purge", tenant="acme", seconds=5.0, version=told)
        assert standin.names("unload_lora_adapter") == [names[0]]
        assert modes(folder) == {}
        await engines.close()
    assert standin.names("unload_lora_adapter") == [names[0], names[2]]
    assert set(modes(memory)) == {memory.name, ".lock"}


@IN_MEMORY
async def test_a_purge_reaches_what_is_being_loaded_and_what_could_not_be_told(
    tmp_path: Path, memory: Path, artifacts: Artifacts
) -> None:
    fails, is_asked = True, asyncio.Event()

    def says(path: str, body: dict[str, Any]) -> tuple[int, list[Any]]:
        is_asked.set()
        return (500, []) if fails and path == "unload_lora_adapter" else (200, [chunk("a"), *END])

    async with standing_in() as standin:
        standin.says, made = says, chat_lora(artifacts)
        backend = OpenAIBackend(OpenAIAddress(standin.url, "smol", memory))

        async def ask(op: str) -> Any:
            frames = backend.stream(
                op, tenant="acme", seconds=5.0, base="smollm2-135m", artifact=made.body, version=None
            )
            return [body async for _, body in frames][-1]

        loading = asyncio.create_task(ask("warm"))
        await is_asked.wait()  # the server answers, and the answer is on its way
        with pytest.raises(EngineRefusal, match="did not forget"):
            await ask("purge")
        await loading
        fails = False
        assert await ask("purge") == {"purged": 1}
        assert len(standin.names("unload_lora_adapter")) == 2
        assert not adapters_in(memory)
        assert await ask("purge") == {"purged": 0}
        await backend.close()


@IN_MEMORY
async def test_a_server_that_forgot_is_told_again(tmp_path: Path, memory: Path, artifacts: Artifacts) -> None:
    known: set[str] = set()

    def says(path: str, body: dict[str, Any]) -> tuple[int, list[Any]]:
        if path == "load_lora_adapter":
            known.add(body["lora_name"])
        found = path != "chat/completions" or body["model"] in known
        return (200, [chunk("a"), *END]) if found else (404, [])

    async with standing_in() as standin:
        standin.says, made = says, chat_lora(artifacts)
        engines = served(standin, tmp_path / "none", adapters=memory)
        await talk(engines, made)
        known.clear()  # it was restarted
        assert (await talk(engines, made))[-1][0] is Kind.DONE
        assert len(standin.names("load_lora_adapter")) == 2
        await engines.close()


@IN_MEMORY
async def test_what_it_cannot_take_goes_to_our_engine(
    tmp_path: Path, memory: Path, artifacts: Artifacts
) -> None:
    final, waking, plain = artifacts.chat(), chat_lora(artifacts, invocation=[1, 2]), chat_lora(artifacts)
    own = tmp_path / "own"
    async with standing_in() as standin, listening(own, tmp_path):
        with_folder = served(standin, own, adapters=memory)
        without = served(standin, own)
        for engines, made in ((with_folder, final), (with_folder, waking), (without, plain)):
            with pytest.raises(EngineRefusal) as refusal:
                await talk(engines, made)
            assert refusal.value.code == "no_base"
            assert (
                "not installed" in refusal.value.message
            )  # says our engine, which has no weights in this test
        alone = Engines({"smollm2-135m": (OpenAIAddress(standin.url),)}, patience=0.5)
        with pytest.raises(EngineRefusal) as refusal:
            await talk(alone, plain)
        assert (refusal.value.code, "tuned" in refusal.value.message) == ("no_base", True)
        for engines in (with_folder, without, alone):
            await engines.close()
    assert standin.asked == []
