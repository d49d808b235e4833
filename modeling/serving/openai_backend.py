"""Chat through another program that speaks OpenAI's API (vLLM, llama.cpp, SGLang), with the engine's own calls.

Such a program is the operator's, close to the engine: prompts go to it as plain text, so it stands in the same
trusted network. Tuned versions go there as vLLM's LoRA adapters where the address names a folder in memory; what
cannot go there is refused as `elsewhere`, and an engine of ours takes it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import httpx

from modeling.serving.addresses import OpenAIAddress
from modeling.serving.client import Broken, gone
from modeling.serving.wire import EngineRefusal, Kind

if TYPE_CHECKING:
    from modeling.serving.openai_adapters import Adapters

CONNECT_SECONDS = 3.0
_SALT = secrets.token_bytes(16)
_PASSED = ("temperature", "top_p", "seed", "frequency_penalty", "presence_penalty")
_PASSED_IF_SET = ("max_tokens", "stop", "logit_bias", "logprobs", "top_logprobs", "response_format")
Frames = AsyncGenerator[tuple[Kind, dict[str, Any]], None]


def elsewhere() -> EngineRefusal:
    """The refusal that sends a tuned version to an engine of ours."""
    return EngineRefusal("elsewhere", "This tuned model is not served by the program that serves its base.")


class OpenAIBackend:
    """One server. The base it serves is the address's `model`, or goes by our own name."""

    def __init__(self, address: OpenAIAddress) -> None:
        self._address = address
        key = address.key_file.read_text().strip() if address.key_file else ""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=16)
        self._http = httpx.AsyncClient(
            base_url=address.url,
            headers={"authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),  # deadlines are kept below
            limits=limits,
            trust_env=False,
        )
        self._adapters: Adapters | None = None

    async def stream(self, op: str, *, tenant: str, seconds: float, **body: Any) -> Frames:
        """Yields (PART, body)… then (DONE, body); raises EngineRefusal. Closing it early closes the connection."""
        if op == "chat":
            async with aclosing(self._chat(tenant, seconds, body)) as frames:
                async for frame in frames:
                    yield frame
        elif op == "purge":
            yield Kind.DONE, {"purged": await self._purge(tenant, body.get("version"), seconds)}
        elif op == "warm":
            async with asyncio.timeout(seconds):
                await self._model(tenant, body)
            yield Kind.DONE, {}
        elif op in ("health", "stats"):
            yield Kind.DONE, {}  # its operator reads its own metrics
        else:
            raise EngineRefusal("wrong_task", "This model cannot do that.")

    async def _purge(self, tenant: str, version: str | None, seconds: float) -> int:
        try:
            async with asyncio.timeout(seconds):
                return 0 if self._adapters is None else await self._adapters.purge(tenant, version)
        except TimeoutError as error:
            raise gone() from error

    async def greet(self, seconds: float) -> bool:
        """Whether it lists its models."""
        try:
            return (await self._http.get("models", timeout=seconds)).status_code < 400
        except httpx.HTTPError:
            return False

    async def close(self) -> None:
        """Unload what was loaded for tenants and close the connections."""
        if self._adapters is not None:
            await self._adapters.close()
        await self._http.aclose()

    async def _model(self, tenant: str, body: Mapping[str, Any]) -> str:
        """What the request names as its model; raises EngineRefusal `elsewhere`."""
        artifact = body.get("artifact")
        if artifact is None:
            return self._address.model or str(body.get("base"))
        if self._address.adapters is None:
            raise elsewhere()
        if self._adapters is None:
            # numpy comes with it: only a gateway that serves tuned models this way pays for that
            from modeling.serving.openai_adapters import Adapters

            self._adapters = Adapters(self._http, self._address.adapters, base=str(body.get("base")))
        return await self._adapters.load(tenant, artifact)

    async def _chat(self, tenant: str, seconds: float, body: Mapping[str, Any]) -> Frames:
        until = asyncio.get_running_loop().time() + seconds
        try:
            async with asyncio.timeout_at(until):
                model = await self._model(tenant, body)
            frames = self._answer(model, tenant, body)
            async with aclosing(frames):
                while True:
                    async with asyncio.timeout_at(until):
                        frame = await anext(frames, None)
                    if frame is None:
                        return
                    yield frame
        except TimeoutError as error:
            raise EngineRefusal("deadline", "The request's time ran out.") from error
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise gone() from error
        except httpx.HTTPError as error:
            raise Broken from error

    async def _answer(self, model: str, tenant: str, body: Mapping[str, Any]) -> Frames:
        asked = request(model, tenant, body)
        async with self._http.stream("POST", "chat/completions", json=asked) as response:
            if response.status_code != 200:
                await response.aread()
                if response.status_code == 404 and self._adapters is not None:
                    self._adapters.forget(model)  # it was restarted: the next request loads it again
                    raise gone()
                raise refusal_of(response)
            answer = Answer()
            async with aclosing(_events(response)) as events:
                async for event in events:
                    if (part := answer.take(event)) is not None:
                        yield Kind.PART, part
            yield Kind.DONE, answer.end()


def request(model: str, tenant: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON that is posted. Prefix caches are kept apart by tenant: how fast an answer comes tells nothing."""
    asked: dict[str, Any] = {
        "model": model,
        "messages": list(body.get("messages", ())),
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        "cache_salt": hashlib.blake2b(tenant.encode(), key=_SALT, digest_size=16).hexdigest(),  # vLLM
        "cache_prompt": False,  # llama.cpp, which has no salt
        "timings_per_token": True,  # llama.cpp's running counts
    }
    asked |= {name: body[name] for name in _PASSED if body.get(name) is not None}
    return asked | {name: body[name] for name in _PASSED_IF_SET if body.get(name)}


class Answer:
    """What the chunks have said so far."""

    def __init__(self) -> None:
        self._pieces = 0
        self._prompt_tokens = 0
        self._tokens = 0
        self._finish = ""

    def take(self, event: Mapping[str, Any]) -> dict[str, Any] | None:
        """A chunk's part, if it has text; raises EngineRefusal on an error in the stream."""
        if "error" in event:
            raise EngineRefusal("internal", "The model's server failed.")
        self._count(event)
        choice = next(iter(event.get("choices") or ()), None)
        if choice is None:
            return None
        self._finish = choice.get("finish_reason") or self._finish
        text = (choice.get("delta") or {}).get("content")
        if not text:
            return None
        self._pieces += 1
        part = {"text": text, "tokens": max(self._tokens, self._pieces), "prompt_tokens": self._prompt_tokens}
        likely = (choice.get("logprobs") or {}).get("content")
        return part | ({"logprobs": [_told(one) for one in likely]} if likely else {})

    def _count(self, event: Mapping[str, Any]) -> None:
        usage, timings = event.get("usage") or {}, event.get("timings") or {}
        read = int(timings.get("prompt_n") or 0) + int(timings.get("cache_n") or 0)
        self._prompt_tokens = int(usage.get("prompt_tokens") or read or self._prompt_tokens)
        self._tokens = int(usage.get("completion_tokens") or timings.get("predicted_n") or self._tokens)

    def end(self) -> dict[str, Any]:
        """The end; raises EngineRefusal `unavailable` when the stream ended without one."""
        if not self._finish:
            raise gone()
        tokens = self._tokens or self._pieces
        return {"finish": self._finish, "prompt_tokens": self._prompt_tokens, "completion_tokens": tokens}


def _told(one: Mapping[str, Any]) -> dict[str, Any]:
    """A token's logprob without what a server adds to OpenAI's fields."""
    found = {name: one.get(name) for name in ("token", "bytes", "logprob")}
    if "top_logprobs" in one:
        found["top_logprobs"] = [_told(other) for other in one["top_logprobs"]]
    return found


async def _events(response: httpx.Response) -> AsyncGenerator[dict[str, Any], None]:
    """The JSON of each server-sent event up to [DONE]."""
    async for line in response.aiter_lines():
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        try:
            event = json.loads(data)
        except json.JSONDecodeError as error:
            raise EngineRefusal("internal", "The model's server sent what is not JSON.") from error
        yield event if isinstance(event, dict) else {}


def refusal_of(response: httpx.Response) -> EngineRefusal:
    """The engine's code for an HTTP error; its text is not passed on, it may hold what was asked."""
    status, text = response.status_code, response.text.lower()
    if status == 400 and ("context" in text or "maximum model length" in text):
        return EngineRefusal("context_length", "The messages are longer than the model reads.")
    if status in (400, 422):
        return EngineRefusal(
            "unsupported", "The program that serves this model does not take such a request."
        )
    if status in (401, 403, 404):
        return EngineRefusal("no_base", "The program that serves this model does not have it, or not for us.")
    if status == 429:
        wait = response.headers.get("retry-after", "")
        return EngineRefusal(
            "busy",
            "The model is busy. Try again shortly.",
            retry_after_seconds=float(wait) if wait.isdecimal() else 1.0,
        )
    if status in (502, 503, 504):
        return gone()
    return EngineRefusal("internal", "The model's server failed.")
