"""Chat on one decoder base: conversations of several tenants advance together, one token each per step."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch

from modeling.serving.asks import Ask
from modeling.serving.batching import FairQueue
from modeling.serving.chatml import ChatTokenizer
from modeling.serving.conversations import Conversation, Part, read_messages, read_sampling
from modeling.serving.counting import BATCH_SECONDS, ROWS, Histogram
from modeling.serving.decoder import Llama
from modeling.serving.json_schema import Constraint, Grammars
from modeling.serving.prefixes import Prefixes, PrefixKey
from modeling.serving.sampling import Sampler, Sampling
from modeling.serving.store import ArtifactStore, Reference
from modeling.serving.text_stream import TextStream
from modeling.serving.tunings import Tuning, Tunings, mixes
from modeling.serving.wire import EngineRefusal

SLOTS = 32
CONTEXT_TOKENS = 2048
PREFILL_TOKENS = 128  # at once, so that a long prompt does not stop the others
PIECES_PER_STEP = 4  # of prompts, while conversations wait for their next token

Send = Callable[[Part], Awaitable[None]]
News = list[tuple[Conversation, str]]


class ChatRunner:
    """One decoder base. The event loop hands conversations over and delivers; one compute thread owns the cache."""

    def __init__(
        self,
        model: Llama,
        tokenizer: ChatTokenizer,
        store: ArtifactStore,
        side: Executor,
        prefixes: Prefixes | None = None,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._side = side
        self._compute = ThreadPoolExecutor(1, "decoder")
        self._grammars = Grammars(tokenizer.folder, model.vocabulary, tokenizer.ends)
        self.tunings = Tunings(model, store)
        self.prefixes = prefixes or Prefixes()
        self.queue: FairQueue[Conversation] = FairQueue(max_waiting_tokens=32_768)
        self._waiting_slot = model.slots - 1  # where a prompt is read, behind all others
        self._active: list[Conversation] = []  # index = slot
        self._filling: Conversation | None = None  # its prompt is being read
        self._pieces = 0  # of prompts since the last step
        self.tokens = 0
        self.unheard = 0  # tokens that nobody waited for any more when they came
        self.batches = 0
        self.rows = 0
        self.batch_rows = Histogram(ROWS)
        self.batch_seconds = Histogram(BATCH_SECONDS)

    @classmethod
    async def load(
        cls, folder: Path, store: ArtifactStore, side: Executor, device: str = "cpu"
    ) -> ChatRunner:
        """Read the weights and the tokenizer in a side thread."""
        loop = asyncio.get_running_loop()
        tokenizer = await loop.run_in_executor(side, ChatTokenizer, folder)
        model = await loop.run_in_executor(side, _read_model, folder, device)
        return cls(model, tokenizer, store, side)

    @property
    def active(self) -> int:
        """Conversations that hold a slot."""
        return len(self._active) + (self._filling is not None)

    async def warm(self, reference: Reference) -> None:
        """Bring a version into its slot, so that its first conversation does not wait for it."""
        async with self.tunings.pinned(reference, None):
            pass

    async def chat(self, ask: Ask, send: Send) -> Part:
        """Send {"text", "tokens" so far, "prompt_tokens"} parts; the end has finish and both counts."""
        sampling = read_sampling(ask, vocabulary=self._model.vocabulary)
        messages = read_messages(ask)
        prompt = await asyncio.get_running_loop().run_in_executor(
            self._side, self._tokenizer.prompt, messages
        )
        room = self._model.context - len(prompt)
        if room < 1:
            raise EngineRefusal(
                "context_length",
                f"The messages have {len(prompt)} tokens; the model reads {self._model.context - 1}.",
            )
        if not 0 < sampling.max_tokens <= room:
            sampling = replace(sampling, max_tokens=room)
        constraint = await self._constraint(ask)
        async with self.tunings.pinned(ask.reference, prompt) as tuning:
            talk = self._conversation(ask, prompt, sampling, tuning)
            talk.constraint = constraint
            self.queue.put(ask.tenant, [talk])
            try:
                while (part := await talk.parts.get()) is not None:
                    await send(part)
                return await talk.answer
            finally:
                talk.answer.cancel()

    async def _constraint(self, ask: Ask) -> Constraint | None:
        wanted = ask.body.get("response_format")
        if wanted is None or wanted == {"type": "text"}:
            return None
        return await self._grammars.constraint(wanted)

    def _conversation(self, ask: Ask, prompt: list[int], sampling: Sampling, tuning: Tuning) -> Conversation:
        answer: asyncio.Future[Part] = asyncio.get_running_loop().create_future()
        text = TextStream(self._tokenizer.tokenizer, sampling.stop)
        talk = Conversation(prompt, sampling, Sampler(sampling), text, tuning, answer, ask.deadline)
        system = self._tokenizer.system_tokens(prompt)
        if self.prefixes.takes(system, self._model.token_bytes):
            version = ask.reference.cache_key if ask.reference is not None else None
            talk.opening = PrefixKey(ask.tenant, version, tuple(prompt[:system]))
            talk.begun_at = self.prefixes.purges
        answer.add_done_callback(lambda _: talk.parts.put_nowait(None))
        return talk

    async def run(self) -> None:
        """Advance all conversations for ever: a piece of a prompt, or one token for each."""
        loop = asyncio.get_running_loop()
        while True:
            if not self.active:
                await self.queue.wait()
            if self._filling is None and len(self._active) < self._waiting_slot:
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
                self.unheard += talk.answer.done()
                talk.deliver(text, self._tokenizer.tokenizer)

    def _fail(self, error: BaseException) -> None:
        """A step broke: every conversation in it ends with the error and the cache starts empty."""
        talks = [*self._active, *([self._filling] if self._filling else [])]
        self._active, self._filling = [], None
        for slot in range(self._model.slots):
            self._model.forget(slot, self._model.context)
        for talk in talks:
            if not talk.answer.done():
                talk.answer.set_exception(error)

    def close(self) -> None:
        """Let the compute thread end."""
        self._compute.shutdown(wait=False, cancel_futures=True)
        self._grammars.close()

    def purge(self, tenant: str, version: str | None) -> int:
        """Empty the adapter slots and prefixes of a tenant or version; returns how many."""
        return self.tunings.purge(tenant, version) + self.prefixes.purge(tenant, version)

    # On the compute thread, while the event loop leaves _active and _filling alone.

    def _advance(self) -> News:
        with torch.inference_mode():
            self._clear()
            if self._filling is not None and (not self._active or self._pieces < PIECES_PER_STEP):
                self._pieces += 1
                return self._fill(self._filling)
            self._pieces = 0
            return self._step() if self._active else []

    def _clear(self) -> None:
        """Zero the slots of conversations that are over or that nobody listens to."""
        for slot in reversed(range(len(self._active))):
            if self._active[slot].is_over:
                self._remove(slot)
        if self._filling is not None and self._filling.answer.done():
            self._model.forget(self._waiting_slot, self._filling.filled)
            self._filling = None

    def _step(self) -> News:
        started, talks = time.perf_counter(), list(self._active)
        self.batches += 1
        self.rows += len(talks)
        self.batch_rows.observe(len(talks))
        mixed = mixes([talk.tuning for talk in talks])
        hidden = self._model.step([talk.last for talk in talks], [talk.filled for talk in talks], mixed)
        for talk in talks:
            talk.filled += 1
        news = self._say(talks, hidden)
        self.batch_seconds.observe(time.perf_counter() - started)
        return news

    def _fill(self, talk: Conversation) -> News:
        if talk.filled == 0 and talk.opening is not None:
            self._reuse(talk, talk.opening)
        stop = min(self._piece_ends(talk))
        is_tuned = talk.filled >= talk.tuning.plain_tokens(len(talk.prompt))
        piece = talk.prompt[talk.filled : stop]
        mixed = mixes([talk.tuning]) if is_tuned else ()
        hidden = self._model.prefill(self._waiting_slot, piece, talk.filled, mixed)
        talk.filled += len(piece)
        if talk.opening is not None and talk.filled == len(talk.opening.tokens):
            found = self._model.copied(self._waiting_slot, talk.filled)
            self.prefixes.keep(talk.opening, found, begun_at=talk.begun_at)
        if talk.filled < len(talk.prompt):
            return []
        self._model.move(self._waiting_slot, len(self._active), talk.filled)
        self._active.append(talk)
        self._filling = None
        return self._say([talk], hidden)

    def _reuse(self, talk: Conversation, opening: PrefixKey) -> None:
        found = self.prefixes.find(opening)
        if found is not None:
            self._model.paste(self._waiting_slot, found)
            talk.filled = len(opening.tokens)

    def _piece_ends(self, talk: Conversation) -> list[int]:
        """Where the next piece may end: at its bound, where the adapter begins, where the opening ends."""
        ends = [len(talk.prompt), talk.filled + PREFILL_TOKENS]
        ends.append(talk.tuning.plain_tokens(len(talk.prompt)))
        if talk.opening is not None:  # read apart also when new: the same sums with and without reuse
            ends.append(len(talk.opening.tokens))
        return [end for end in ends if end > talk.filled]

    def _say(self, talks: list[Conversation], hidden: torch.Tensor) -> News:
        scores = self._model.logits(hidden, self.tunings.final, [talk.tuning.final for talk in talks])
        before = sum(talk.made for talk in talks)
        news = [(talk, talk.say(row, self._tokenizer.ends)) for talk, row in zip(talks, scores, strict=True)]
        self.tokens += sum(talk.made for talk in talks) - before
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


def _read_model(folder: Path, device: str) -> Llama:
    """bfloat16 where the processor multiplies it (1.5 to 2 times the speed of float32), else float32."""
    able = torch.cpu.get_capabilities()
    is_able = device != "cpu" or able.get("avx512_bf16") or able.get("amx_bf16")
    dtype = torch.bfloat16 if is_able else torch.float32
    return Llama(folder, slots=SLOTS + 1, context=CONTEXT_TOKENS, dtype=dtype, device=device)
