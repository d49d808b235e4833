"""Real OpenAI-compatible servers: llama.cpp's, and vLLM with LoRA loading, from the backends' environment.

`make backends` installs them beside ours; without them these tests are skipped with a word.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from modeling.core import bases
from modeling.serving.addresses import ALL, OpenAIAddress, UnixAddress
from modeling.serving.engines import Engines
from modeling.serving.wire import EngineRefusal, Kind
from saas.processes import free_port
from tests.serving.made import MODELS, ROOT, Artifacts
from tests.serving.test_openai_backend import chat_lora, memory, modes

__all__ = ["memory"]
PYTHON = Path(os.environ.get("BACKENDS_VENV", ROOT / ".venv-backends")) / "bin" / "python"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.real_weights,
    pytest.mark.asyncio,
    pytest.mark.skipif(
        not PYTHON.exists(), reason="the other servers are not installed: make install-backends"
    ),
]
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
STORY = [{"role": "user", "content": "Tell me a long story about a lighthouse."}]
LAST_WORDS = 4000  # characters of a log


@contextmanager
def running(command: list[str], port: int, log: Path, **environment: str) -> Iterator[str]:
    """A server that answers, and its URL."""
    given = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | environment
    with log.open("w") as said:
        process = subprocess.Popen(command, env=given, cwd=log.parent, stdout=said, stderr=subprocess.STDOUT)
    try:
        until = time.monotonic() + 240
        while not _answers(port):
            assert process.poll() is None, log.read_text()[-LAST_WORDS:]
            assert time.monotonic() < until, log.read_text()[-LAST_WORDS:]
            time.sleep(0.3)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/v1/models", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    model = bases.package_source(bases.BASES["smollm2-135m"]) / "SmolLM2-135M-Instruct.Q4_1.gguf"
    command = [str(PYTHON), str(ROOT / "tests" / "serving" / "llamacpp_server.py"), str(model), str(port)]
    with running(command, port, tmp_path_factory.mktemp("llama") / "log") as url:
        yield url


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    command = [str(PYTHON), "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(bases.path(MODELS, "smollm2-135m"))]
    command += ["--served-model-name", "smollm2-135m", "--enable-lora", "--max-lora-rank", "16"]
    command += ["--enforce-eager", "--max-model-len", "1024", "--max-num-seqs", "8"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    settings = {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    with running(command, port, tmp_path_factory.mktemp("vllm") / "log", **settings) as url:
        yield url


async def talk(
    engines: Engines, messages: Any = QUESTION, **more: Any
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The parts and the end."""
    body: dict[str, Any] = {"max_tokens": 12, "temperature": 0.0, "base": "smollm2-135m"} | more
    seconds = body.pop("seconds", 60.0)
    frames = [
        frame
        async for frame in engines.stream("chat", tenant="acme", seconds=seconds, messages=messages, **body)
    ]
    assert frames[-1][0] is Kind.DONE
    return [part for kind, part in frames if kind is Kind.PART], frames[-1][1]


async def check_chat(url: str) -> None:
    """Parts with running counts, an end, a stop text, an early leaving, a deadline, a prompt that is too long."""
    engines = Engines({"smollm2-135m": (OpenAIAddress(url),)}, patience=1.0)
    assert await engines.missing() == []
    parts, end = await talk(engines, STORY)
    assert end["finish"] == "length"
    assert end["completion_tokens"] == 12
    assert 30 <= end["prompt_tokens"] <= 60
    assert [part["tokens"] for part in parts] == sorted(part["tokens"] for part in parts)
    assert parts[-1]["tokens"] == 12
    assert parts[-1]["prompt_tokens"] == end["prompt_tokens"]
    text = "".join(part["text"] for part in parts)
    stopped, its_end = await talk(engines, STORY, stop=(text[3:6],))
    assert text[3:6] not in "".join(part["text"] for part in stopped)
    assert its_end["finish"] == "stop"
    likely, _ = await talk(engines, max_tokens=2, logprobs=True, top_logprobs=2)
    assert len(likely[0]["logprobs"][0]["top_logprobs"]) == 2
    for messages, seconds, code in (
        ([{"role": "user", "content": "word " * 5000}], 60.0, "context_length"),
        (STORY, 0.3, "deadline"),
    ):
        with pytest.raises(EngineRefusal) as refusal:
            await talk(engines, messages, seconds=seconds, max_tokens=900)
        assert refusal.value.code == code
    await engines.close()


async def until_idle(url: str, metric: str) -> None:
    """Return once the server says that it computes nothing."""
    async with httpx.AsyncClient() as http:
        for _ in range(100):
            text = (await http.get(url.removesuffix("/v1") + "/metrics")).text
            busy = [float(line.split()[-1]) for line in text.splitlines() if line.startswith(metric)]
            assert busy, text
            if not any(busy):
                return
            await asyncio.sleep(0.1)
    raise AssertionError("it still computes for a client that left")


async def check_leaving(url: str, metric: str) -> None:
    """A client that leaves in the middle stops the other program's work."""
    engines = Engines({"smollm2-135m": (OpenAIAddress(url),)}, patience=1.0)
    frames = engines.stream(
        "chat",
        tenant="acme",
        seconds=60.0,
        base="smollm2-135m",
        messages=STORY,
        max_tokens=900,
        temperature=1.0,
    )
    for _ in range(3):
        assert (await anext(frames))[0] is Kind.PART
    await frames.aclose()
    await until_idle(url, metric)
    await engines.close()


async def test_llama_cpp_chats(llama: str) -> None:
    await check_chat(llama)


async def test_llama_cpp_stops_for_who_leaves(llama: str) -> None:
    await check_leaving(llama, "llamacpp:requests_processing")


async def test_llama_cpp_gets_no_tuned_model(llama: str, artifacts: Artifacts) -> None:
    """Its `lora` field is a trap (an empty list: all adapters summed), so nothing of a tenant is ever loaded there."""
    engines = Engines({"smollm2-135m": (OpenAIAddress(llama),)}, patience=1.0)
    with pytest.raises(EngineRefusal) as refusal:
        await talk(engines, artifact=chat_lora(artifacts).body)
    assert refusal.value.code == "no_base"
    await engines.close()


async def test_vllm_chats(vllm: str) -> None:
    await check_chat(vllm)


async def test_vllm_stops_for_who_leaves(vllm: str) -> None:
    await check_leaving(vllm, "vllm:num_requests_running")


async def test_vllm_speaks_with_a_tenants_adapter(
    vllm: str, memory: Path, artifacts: Artifacts, tmp_path: Path
) -> None:
    made = chat_lora(artifacts, scale=0.4)
    chat = OpenAIAddress(vllm, adapters=memory)
    engines = Engines({"smollm2-135m": (chat,), ALL: (UnixAddress(tmp_path / "none"),)}, patience=0.3)
    plain, _ = await talk(engines)
    tuned, end = await talk(engines, artifact=made.body)
    again, _ = await talk(engines)
    assert [part["text"] for part in plain] == [part["text"] for part in again]
    assert [part["text"] for part in tuned] != [part["text"] for part in plain]
    assert end["completion_tokens"] >= 1
    async with httpx.AsyncClient() as http:
        names = [one["id"] for one in (await http.get(f"{vllm}/models")).json()["data"]]
        assert len(names) == 2
        with pytest.raises(EngineRefusal):  # our own engine is away
            await engines.ask("purge", tenant="acme", seconds=20.0, version=made.body["version"])
        names = [one["id"] for one in (await http.get(f"{vllm}/models")).json()["data"]]
    assert names == ["smollm2-135m"]
    await engines.close()
    assert set(modes(memory)) == {memory.name, ".lock"}
