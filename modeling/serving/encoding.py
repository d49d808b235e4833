"""Classification and embeddings on one encoder: tokenise, queue, one packed batch at a time on the compute thread."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from tokenizers import Tokenizer

from modeling.serving import heads
from modeling.serving.asks import Ask
from modeling.serving.batching import FairQueue, Row
from modeling.serving.bert import Bert
from modeling.serving.counting import BATCH_SECONDS, ROWS, TOKENS, Histogram
from modeling.serving.encoder_choice import AUTOMATIC, NAMES, choose
from modeling.serving.encoder_engines import EncoderEngine, TorchEncoder
from modeling.serving.encoder_sessions import Floats
from modeling.serving.heads import Heads, Pinned
from modeling.serving.store import ArtifactStore, Reference
from modeling.serving.wire import EngineRefusal

log = logging.getLogger("cloister.engine")

MAX_TOKENS = 256  # what all-MiniLM-L6-v2 was trained for; longer texts are cut, as in training
MAX_ROWS = 2048
_INLINE_CHARACTERS = 4_000  # so short that a thread costs more than the tokeniser
WARM_SECONDS = 30.0
DEFAULT_TOP_K = 10
ASSIGNED_FROM = 0.5


class EncoderRunner:
    """One encoder base. Built in a side thread by `load`; everything else runs on the event loop.

    It serves on torch at once; `run` lets `encoder_choice` look for a faster engine meanwhile.
    """

    def __init__(
        self,
        model: Bert,
        tokenizer: Tokenizer,
        store: ArtifactStore,
        side: Executor,
        *,
        wanted: str = "torch",
    ) -> None:
        """`wanted`: one of encoder_choice.NAMES, or AUTOMATIC."""
        self._model = model
        self._tokenizer = tokenizer
        self._side = side
        self._wanted = wanted
        self._encoder: EncoderEngine = TorchEncoder(model)
        self._compute = ThreadPoolExecutor(1, "encoder")
        self.queue: FairQueue[Row] = FairQueue()
        self.heads = Heads(model, store)
        self.batches = self.rows = self.tokens = 0
        self.batch_rows, self.batch_tokens = Histogram(ROWS), Histogram(TOKENS)
        self.batch_seconds = Histogram(BATCH_SECONDS)

    @property
    def engine(self) -> str:
        """The name of what runs the encoder now."""
        return self._encoder.name

    @classmethod
    async def load(cls, folder: Path, store: ArtifactStore, side: Executor) -> EncoderRunner:
        """Read weights and tokenizer in a side thread and warm the kernels up."""
        wanted = os.environ.get("ENCODER_ENGINE", AUTOMATIC)
        if wanted not in (AUTOMATIC, *NAMES):
            allowed = ", ".join((AUTOMATIC, *NAMES))
            raise EngineRefusal("no_base", f"ENCODER_ENGINE is {wanted!r}, allowed are {allowed}.")
        loop = asyncio.get_running_loop()
        model = await loop.run_in_executor(side, read_model, folder)
        tokenizer = await loop.run_in_executor(side, read_tokenizer, folder)
        await loop.run_in_executor(side, model.embed, [[101, 102], [101, 7592, 102]])
        return cls(model, tokenizer, store, side, wanted=wanted)

    async def choose_engine(self) -> None:
        """Compare and measure in a side thread, then serve with what was found; batches go on meanwhile."""
        loop = asyncio.get_running_loop()

        def look() -> EncoderEngine:
            return choose(self._model, self._side, wanted=self._wanted)

        self.serve_with(await loop.run_in_executor(self._side, look))

    def serve_with(self, engine: EncoderEngine) -> None:
        """Encode with this engine from the next batch on."""
        self._encoder = engine
        self.heads.adopt(engine.table_dtype)

    async def run(self) -> None:
        """Batch while busy, for ever: whatever queued during the last batch is the next one."""
        loop = asyncio.get_running_loop()
        choosing = asyncio.create_task(self.choose_engine(), name="choose the encoder's engine")
        choosing.add_done_callback(_note_failure)
        try:
            while True:
                await self.queue.wait()
                rows = self.queue.take(loop.time())
                if not rows:
                    continue
                began = time.perf_counter()
                work = loop.run_in_executor(self._compute, self._forward, rows)
                await asyncio.wait({work})
                self._count(rows, time.perf_counter() - began)
                _deliver(rows, work)
        finally:
            choosing.cancel()

    def _count(self, rows: Sequence[Row], seconds: float) -> None:
        tokens = sum(row.cost for row in rows)
        self.batches += 1
        self.rows += len(rows)
        self.tokens += tokens
        self.batch_rows.observe(len(rows))
        self.batch_tokens.observe(tokens)
        self.batch_seconds.observe(seconds)

    def close(self) -> None:
        """Let the compute thread end."""
        self._compute.shutdown(wait=False, cancel_futures=True)

    def _forward(self, rows: Sequence[Row]) -> list[Floats]:
        """On the compute thread: per row its probabilities, or its embedding when no head was asked for."""
        pins = [cast("Pinned | None", row.lease) for row in rows]
        features = self._features(rows, pins)
        found = heads.probabilities(
            features, [pin if row.wants_head else None for row, pin in zip(rows, pins, strict=True)]
        )
        return [own if own is not None else feature for own, feature in zip(found, features, strict=True)]

    def _features(self, rows: Sequence[Row], pins: Sequence[Pinned | None]) -> Floats:
        """Embeddings [rows, width]: one pass for all rows on the base, one for each version with layers of its own."""
        own = {id(pin.model): pin.model for pin in pins if pin is not None and pin.model is not None}
        if not own:
            return self._encoder.embed([row.tokens for row in rows], heads.mixes(pins))
        features = np.empty((len(rows), self._model.width), dtype=np.float32)
        for model in (None, *own.values()):
            chosen = [index for index, pin in enumerate(pins) if (pin.model if pin else None) is model]
            if chosen:
                encoder = self._encoder if model is None else TorchEncoder(model)
                some = [rows[index].tokens for index in chosen]
                features[chosen] = encoder.embed(some, heads.mixes([pins[index] for index in chosen]))
        return features

    async def warm(self, reference: Reference) -> None:
        """Bring a version into its slots and send one small text through it; raises EngineRefusal."""
        ask = Ask("classify", reference.tenant, {}, asyncio.get_running_loop().time() + WARM_SECONDS)
        async with self.heads.pinned(reference) as pin:
            await self._answers(ask, self._encode(["warm"]), pin, wants_head=True)

    async def classify(self, ask: Ask) -> dict[str, Any]:
        """`inputs`, `top_k` -> results [[label, probability]…] per input, best first, and the tokens read; `assigned`
        per input for a model of several labels, and the `abstain_below` that its calibration suggests.
        """
        reference = ask.reference
        if reference is None:
            raise EngineRefusal("wrong_task", "The base model has no labels: train a classifier first.")
        tokens = await self._tokenize(ask)
        async with self.heads.pinned(reference) as pin:
            answers = await self._answers(ask, tokens, pin, wants_head=True)
            top_k = min(ask.integer("top_k", DEFAULT_TOP_K), len(pin.labels))
            results = _best(answers, pin.labels, top_k)
            extra: dict[str, Any] = {"abstain_below": pin.answering.abstain_below}
            if pin.answering.multi_label:
                extra["assigned"] = [_assigned(answer, pin.labels) for answer in answers]
        return {"results": results, "tokens": sum(map(len, tokens)), **extra}

    async def embed(self, ask: Ask) -> dict[str, Any]:
        """`inputs` -> vectors (float32 little-endian bytes per input), width, and the tokens read."""
        tokens = await self._tokenize(ask)
        reference = ask.reference
        if reference is None:
            answers = await self._answers(ask, tokens, None, wants_head=False)
        else:
            async with self.heads.pinned(reference) as pin:
                answers = await self._answers(ask, tokens, pin, wants_head=False)
        vectors = [answer.astype("<f4", copy=False).tobytes() for answer in answers]
        return {"vectors": vectors, "width": self._model.width, "tokens": sum(map(len, tokens))}

    async def _tokenize(self, ask: Ask) -> list[tuple[int, ...]]:
        texts = ask.texts("inputs")
        if not 0 < len(texts) <= MAX_ROWS:
            raise EngineRefusal("bad_request", f"inputs has {len(texts)} texts, allowed are 1 to {MAX_ROWS}.")
        if sum(map(len, texts)) <= _INLINE_CHARACTERS:
            return self._encode(texts)
        return await asyncio.get_running_loop().run_in_executor(self._side, self._encode, texts)

    def _encode(self, texts: list[str]) -> list[tuple[int, ...]]:
        return [tuple(encoding.ids) for encoding in self._tokenizer.encode_batch_fast(texts)]

    async def _answers(
        self, ask: Ask, tokens: list[tuple[int, ...]], pin: Pinned | None, *, wants_head: bool
    ) -> list[Floats]:
        loop = asyncio.get_running_loop()
        rows = [Row(ids, loop.create_future(), ask.deadline, pin, wants_head) for ids in tokens]
        self.queue.put(ask.tenant, rows)
        if len(rows) == 1:
            return [await rows[0].answer]
        return list(await asyncio.gather(*(row.answer for row in rows)))


def read_model(folder: Path) -> Bert:
    """The encoder's weights: on a GPU where there is one, in bfloat16; else float32."""
    if torch.cuda.is_available():
        return Bert(folder, device="cuda", dtype=torch.bfloat16)
    return Bert(folder)


def read_tokenizer(folder: Path) -> Tokenizer:
    """The encoder's tokenizer, cutting at MAX_TOKENS and never padding."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.no_padding()
    return tokenizer


def _best(answers: Sequence[Floats], labels: Sequence[str], top_k: int) -> list[list[list[Any]]]:
    """The likeliest labels with their probabilities for each answer [K], best first."""
    shares = np.stack(answers)
    order = np.argsort(-shares, axis=1, kind="stable")[:, :top_k]
    found = np.take_along_axis(shares, order, axis=1)
    return [
        [[labels[index], value] for index, value in zip(indices, values, strict=True)]
        for indices, values in zip(order.tolist(), found.tolist(), strict=True)
    ]


def _assigned(probabilities: Floats, labels: Sequence[str]) -> list[str]:
    """The labels that are likelier than not, best first."""
    order = np.argsort(-probabilities, kind="stable").tolist()
    return [labels[index] for index in order if probabilities[index] >= ASSIGNED_FROM]


def _note_failure(choosing: asyncio.Task[None]) -> None:
    """The choice is an improvement: without one torch goes on serving."""
    if not choosing.cancelled() and choosing.exception() is not None:
        log.error("choosing the encoder's engine failed: a bug", exc_info=choosing.exception())


def _deliver(rows: Sequence[Row], work: asyncio.Future[list[Floats]]) -> None:
    """Hand each row its result, or the batch's error to all of them."""
    error = work.exception()
    for index, row in enumerate(rows):
        if row.answer.done():
            continue
        if error is None:
            row.answer.set_result(work.result()[index])
        else:
            row.answer.set_exception(error)
