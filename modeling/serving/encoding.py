"""Classification and embeddings on one encoder: tokenise, queue, one packed batch at a time on the compute thread."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import torch
from tokenizers import Tokenizer

from modeling.serving import heads
from modeling.serving.asks import Ask
from modeling.serving.batching import FairQueue, Row
from modeling.serving.bert import Bert
from modeling.serving.heads import Heads, Pinned
from modeling.serving.store import ArtifactStore
from modeling.serving.wire import EngineRefusal

MAX_TOKENS = 256  # what all-MiniLM-L6-v2 was trained for; longer texts are cut, as in training
MAX_ROWS = 2048
_INLINE_CHARACTERS = 4_000  # so short that a thread costs more than the tokeniser
DEFAULT_TOP_K = 10
ASSIGNED_FROM = 0.5


class EncoderRunner:
    """One encoder base. Built on the compute thread by `load`; everything else runs on the event loop."""

    def __init__(self, model: Bert, tokenizer: Tokenizer, store: ArtifactStore, side: Executor) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._side = side
        self._compute = ThreadPoolExecutor(1, "encoder")
        self.queue: FairQueue[Row] = FairQueue()
        self.heads = Heads(model, store)
        self.batches = 0
        self.rows = 0

    @classmethod
    async def load(cls, folder: Path, store: ArtifactStore, side: Executor) -> EncoderRunner:
        """Read weights and tokenizer in a side thread and warm the kernels up."""
        loop = asyncio.get_running_loop()
        model = await loop.run_in_executor(side, Bert, folder)
        tokenizer = await loop.run_in_executor(side, read_tokenizer, folder)
        await loop.run_in_executor(side, model.embed, [[101, 102], [101, 7592, 102]])
        return cls(model, tokenizer, store, side)

    async def run(self) -> None:
        """Batch while busy, for ever: whatever queued during the last batch is the next one."""
        loop = asyncio.get_running_loop()
        while True:
            await self.queue.wait()
            rows = self.queue.take(loop.time())
            if not rows:
                continue
            work = loop.run_in_executor(self._compute, self._forward, rows)
            await asyncio.wait({work})
            self.batches += 1
            self.rows += len(rows)
            _deliver(rows, work)

    def close(self) -> None:
        """Let the compute thread end."""
        self._compute.shutdown(wait=False, cancel_futures=True)

    def _forward(self, rows: Sequence[Row]) -> list[torch.Tensor]:
        """On the compute thread: per row its probabilities, or its embedding when no head was asked for."""
        with torch.inference_mode():
            return self._scored(rows)

    def _scored(self, rows: Sequence[Row]) -> list[torch.Tensor]:
        pins = [cast("Pinned | None", row.lease) for row in rows]
        features = self._features(rows, pins)
        scored = heads.logits(
            features, [pin if row.wants_head else None for row, pin in zip(rows, pins, strict=True)]
        )
        out = []
        for feature, score, pin in zip(features, scored, pins, strict=True):
            out.append(feature if score is None or pin is None else pin.answering.probabilities(score))
        return out

    def _features(self, rows: Sequence[Row], pins: Sequence[Pinned | None]) -> torch.Tensor:
        """Embeddings [rows, width]: one pass for all rows on the base, one for each version with layers of its own."""
        models = {id(model): model for model in (_model_of(pin, self._model) for pin in pins)}
        if len(models) == 1:
            return next(iter(models.values())).embed([row.tokens for row in rows], heads.mixes(pins))
        features = torch.empty(len(rows), self._model.width)
        for model in models.values():
            chosen = [index for index, pin in enumerate(pins) if _model_of(pin, self._model) is model]
            mixes = heads.mixes([pins[index] for index in chosen])
            features[chosen] = model.embed([rows[index].tokens for index in chosen], mixes)
        return features

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
            results = [_best(answer, pin.labels, top_k) for answer in answers]
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
        vectors = [answer.numpy().astype("<f4").tobytes() for answer in answers]
        return {"vectors": vectors, "width": self._model.width, "tokens": sum(map(len, tokens))}

    async def _tokenize(self, ask: Ask) -> list[tuple[int, ...]]:
        texts = ask.texts("inputs")
        if not 0 < len(texts) <= MAX_ROWS:
            raise EngineRefusal("bad_request", f"inputs has {len(texts)} texts, allowed are 1 to {MAX_ROWS}.")
        if sum(map(len, texts)) <= _INLINE_CHARACTERS:
            return self._encode(texts)
        return await asyncio.get_running_loop().run_in_executor(self._side, self._encode, texts)

    def _encode(self, texts: list[str]) -> list[tuple[int, ...]]:
        return [tuple(encoding.ids) for encoding in self._tokenizer.encode_batch(texts)]

    async def _answers(
        self, ask: Ask, tokens: list[tuple[int, ...]], pin: Pinned | None, *, wants_head: bool
    ) -> list[torch.Tensor]:
        loop = asyncio.get_running_loop()
        rows = [Row(ids, loop.create_future(), ask.deadline, pin, wants_head) for ids in tokens]
        self.queue.put(ask.tenant, rows)
        return await asyncio.gather(*(row.answer for row in rows))


def _model_of(pin: Pinned | None, base: Bert) -> Bert:
    return base if pin is None or pin.model is None else pin.model


def read_tokenizer(folder: Path) -> Tokenizer:
    """The encoder's tokenizer, cutting at MAX_TOKENS and never padding."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.no_padding()
    return tokenizer


def _best(probabilities: torch.Tensor, labels: Sequence[str], top_k: int) -> list[list[Any]]:
    values, indices = probabilities.topk(top_k)
    return [[labels[index], value] for index, value in zip(indices.tolist(), values.tolist(), strict=True)]


def _assigned(probabilities: torch.Tensor, labels: Sequence[str]) -> list[str]:
    """The labels that are likelier than not, best first."""
    order = probabilities.argsort(descending=True).tolist()
    return [labels[index] for index in order if probabilities[index] >= ASSIGNED_FROM]


def _deliver(rows: Sequence[Row], work: asyncio.Future[list[torch.Tensor]]) -> None:
    """Hand each row its result, or the batch's error to all of them."""
    error = work.exception()
    for index, row in enumerate(rows):
        if row.answer.done():
            continue
        if error is None:
            row.answer.set_result(work.result()[index])
        else:
            row.answer.set_exception(error)
