"""Chat on one decoder base: conversations of several tenants advance together, one token each per step."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from modeling.serving.asks import Ask
from modeling.serving.batching import FairQueue
from modeling.serving.chatml import ChatTokenizer
from modeling.serving.decoder import Llama
from modeling.serving.sampling import Sampler, Sampling, TextStream
from modeling.serving.store import ArtifactStore
from modeling.serving.tunings import Tuning, Tunings, mixes
from modeling.serving.wire import EngineRefusal

SLOTS = 16
CONTEXT_TOKENS = 2048
PREFILL_TOKENS = 128  # at once, so that a long prompt does not stop the others
_ROLES = ("system", "user", "assistant")

Part = dict[str, Any]
Send = Callable[[Part], Awaitable[None]]


@dataclass(slots=True, eq=False)
class Conversation:
    """One answer under way. `answer` resolves to its end, or is cancelled when nobody listens any more."""

    prompt: list[int]
    sampling: Sampling
    sampler: Sampler
    text: TextStream
    tuning: Tuning
    answer: asyncio.Future[Part]
    deadline: float
    parts: asyncio.Queue[Part | None] = field(default_factory=asyncio.Queue)
    filled: int = 0  # tokens in the cache
    made: int = 0  # tokens sampled, the end token not counted
    last: int = 0
    finish: str = ""  # "" while it runs; then "stop" or "length"

    @property
    def cost(self) -> int:
        """Tokens to read before the first one comes."""
        return len(self.prompt)


class ChatRunner:
    """One decoder base. The event loop hands conversations over and delivers; one compute thread owns the cache."""

    def __init__(self, model: Llama, tokenizer: ChatTokenizer, store: ArtifactStore, side: Executor) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._side = side
        self._compute = ThreadPoolExecutor(1, "decoder")
        self.tunings = Tunings(model, store)
        self.queue: FairQueue[Conversation] = FairQueue(max_waiting_tokens=32_768)
        self._active: list[Conversation] = []  # index = slot
        self._filling: Conversation | None = None  # its prompt is being read, in the slot behind all others
        self.tokens = 0

    @classmethod
    async def load(cls, folder: Path, store: ArtifactStore, side: Executor) -> ChatRunner:
        """Read the weights and the tokenizer in a side thread."""
        loop = asyncio.get_running_loop()
        tokenizer = await loop.run_in_executor(side, ChatTokenizer, folder)
        model = await loop.run_in_executor(side, _read_model, folder)
        return cls(model, tokenizer, store, side)

    @property
    def active(self) -> int:
        """Conversations that hold a slot."""
        return len(self._active) + (self._filling is not None)

    async def chat(self, ask: Ask, send: Send) -> Part:
        """Send {"text", "tokens" so far, "prompt_tokens"} parts; the end has finish and both counts."""
        sampling = _sampling(ask)
        prompt = await asyncio.get_running_loop().run_in_executor(self._side, self._prompt, ask)
        room = self._model.context - len(prompt)
        if room < 1:
            raise EngineRefusal(
                "context_length",
                f"The messages have {len(prompt)} tokens; the model reads {self._model.context - 1}.",
            )
        if not 0 < sampling.max_tokens <= room:
            sampling = Sampling(room, sampling.temperature, sampling.top_p, sampling.stop, sampling.seed)
        async with self.tunings.pinned(ask.reference, prompt) as tuning:
            talk = self._conversation(ask, prompt, sampling, tuning)
            self.queue.put(ask.tenant, [talk])
            try:
                while (part := await talk.parts.get()) is not None:
                    await send(part)
                return await talk.answer
            finally:
                talk.answer.cancel()

    def _conversation(self, ask: Ask, prompt: list[int], sampling: Sampling, tuning: Tuning) -> Conversation:
        answer: asyncio.Future[Part] = asyncio.get_running_loop().create_future()
        text = TextStream(self._tokenizer.tokenizer, sampling.stop)
        talk = Conversation(prompt, sampling, Sampler(sampling), text, tuning, answer, ask.deadline)
        answer.add_done_callback(lambda _: talk.parts.put_nowait(None))
        return talk

    def _prompt(self, ask: Ask) -> list[int]:
        messages = ask.body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise EngineRefusal("bad_request", "messages is not a list with at least one message.")
        for message in messages:
            if not isinstance(message, dict) or message.get("role") not in _ROLES:
                raise EngineRefusal("bad_request", "a message has no role of system, user or assistant.")
            if not isinstance(message.get("content"), str):
                raise EngineRefusal("bad_request", "a message's content is not a string.")
        return self._tokenizer.prompt(messages)

    async def run(self) -> None:
        """Advance all conversations for ever: admit, read a piece of a prompt, one token each."""
        loop = asyncio.get_running_loop()
        while True:
            if not self.active:
                await self.queue.wait()
            if self._filling is None and len(self._active) < SLOTS:
                self._filling = self.queue.take_one(loop.time())
            if not self.active:
                continue
            work = loop.run_in_executor(self._compute, self._advance)
            await asyncio.wait({work})
            error = work.exception()
            if error is not None:
                self._fail(error)
                continue
            for talk, text in work.result():
                _deliver(talk, text)

    def _fail(self, error: BaseException) -> None:
        """A step broke: every conversation in it ends with the error and the cache starts empty."""
        talks = [*self._active, *([self._filling] if self._filling else [])]
        self._active, self._filling = [], None
        for slot in range(SLOTS + 1):
            self._model.forget(slot, self._model.context)
        for talk in talks:
            if not talk.answer.done():
                talk.answer.set_exception(error)

    def close(self) -> None:
        """Let the compute thread end."""
        self._compute.shutdown(wait=False, cancel_futures=True)

    def purge(self, tenant: str, version: str | None) -> int:
        """Empty the adapter slots of a tenant or version; returns how many."""
        return self.tunings.purge(tenant, version)

    # On the compute thread, while the event loop leaves _active and _filling alone.

    def _advance(self) -> list[tuple[Conversation, str]]:
        with torch.inference_mode():
            return self._step()

    def _step(self) -> list[tuple[Conversation, str]]:
        for slot in reversed(range(len(self._active))):
            if self._active[slot].answer.done() or self._active[slot].finish:
                self._remove(slot)
        news: list[tuple[Conversation, str]] = []
        if self._active:
            talks = list(self._active)
            mixed = mixes([talk.tuning for talk in talks])
            hidden = self._model.step([talk.last for talk in talks], [talk.filled for talk in talks], mixed)
            for talk in talks:
                talk.filled += 1
            news += self._sample(talks, hidden)
        if self._filling is not None:
            news += self._fill(self._filling)
        return news

    def _fill(self, talk: Conversation) -> list[tuple[Conversation, str]]:
        if talk.answer.done():
            self._model.forget(SLOTS, talk.filled)
            self._filling = None
            return []
        stop = talk.filled + PREFILL_TOKENS
        plain = talk.tuning.plain_tokens(len(talk.prompt))
        is_tuned = talk.filled >= plain
        piece = talk.prompt[talk.filled : stop if is_tuned else min(stop, plain)]
        hidden = self._model.prefill(SLOTS, piece, talk.filled, mixes([talk.tuning]) if is_tuned else ())
        talk.filled += len(piece)
        if talk.filled < len(talk.prompt):
            return []
        self._model.move(SLOTS, len(self._active), talk.filled)
        self._active.append(talk)
        self._filling = None
        return self._sample([talk], hidden)

    def _sample(self, talks: list[Conversation], hidden: torch.Tensor) -> list[tuple[Conversation, str]]:
        scores = self._model.logits(hidden, self.tunings.final, [talk.tuning.final for talk in talks])
        news = []
        for talk, row in zip(talks, scores, strict=True):
            talk.last = talk.sampler.pick(row)
            if talk.last in self._tokenizer.ends:
                talk.finish = "stop"
                news.append((talk, talk.text.finish()))
                continue
            talk.made += 1
            self.tokens += 1
            text = talk.text.feed(talk.last)
            if talk.text.stopped:
                talk.finish = "stop"
            elif talk.made >= talk.sampling.max_tokens:
                talk.finish = "length"
                text += talk.text.finish()
            news.append((talk, text))
        return news

    def _remove(self, slot: int) -> None:
        last = len(self._active) - 1
        if slot == last:
            self._model.forget(slot, self._active[slot].filled)
        else:
            longest = max(self._active[slot].filled, self._active[last].filled)
            self._model.move(last, slot, longest)
            self._active[slot] = self._active[last]
        self._active.pop()


def _read_model(folder: Path) -> Llama:
    """bfloat16 where the processor multiplies it (1.5 to 2 times the speed of float32), else float32."""
    able = torch.cpu.get_capabilities()
    dtype = torch.bfloat16 if able.get("avx512_bf16") or able.get("amx_bf16") else torch.float32
    return Llama(folder, slots=SLOTS + 1, context=CONTEXT_TOKENS, dtype=dtype)


def _sampling(ask: Ask) -> Sampling:
    temperature, top_p = ask.number("temperature", 1.0), ask.number("top_p", 1.0)
    if not (0.0 <= temperature <= 2.0 and 0.0 < top_p <= 1.0):
        raise EngineRefusal("bad_request", "temperature must lie in 0 to 2 and top_p above 0, up to 1.")
    seed = None if ask.body.get("seed") is None else ask.integer("seed", 0)
    stop = tuple(text for text in ask.texts("stop") if text)
    return Sampling(ask.integer("max_tokens", 0), temperature, top_p, stop, seed)


def _deliver(talk: Conversation, text: str) -> None:
    """Queue what is new for the asker, and the end when it has come."""
    if talk.answer.done():
        return
    if text:
        part = {"text": text, "tokens": talk.made, "prompt_tokens": len(talk.prompt)}
        talk.parts.put_nowait(part)
    if talk.finish:
        usage = {"prompt_tokens": len(talk.prompt), "completion_tokens": talk.made}
        talk.answer.set_result({"finish": talk.finish, **usage})
