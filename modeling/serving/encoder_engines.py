"""Engines of the encoder behind one protocol: torch, the reference, and one graph on a library made for processors."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from typing import Protocol

import numpy as np
import torch
from torch.nn import functional

from modeling.serving.bank import PLAIN, Mix, SlotBank
from modeling.serving.bert import Bert
from modeling.serving.encoder_graph import encoder_graph
from modeling.serving.encoder_plan import Call, Integers, plan
from modeling.serving.encoder_sessions import Backend, Floats, Session

log = logging.getLogger("cloister.engine")

_APART = np.float32(-1e9)  # what attention sees of another row


class EncoderEngine(Protocol):
    """Runs the encoder. `table_dtype` is what its adapter banks should hold."""

    name: str
    table_dtype: torch.dtype

    def embed(self, rows: Sequence[Sequence[int]], mixes: Sequence[Mix] = ()) -> Floats:
        """Token ids per row -> unit-norm embeddings [n, width]."""


class TorchEncoder:
    """The packed forward pass in torch: what the others are compared with, and what serves when none agrees."""

    name = "torch"
    table_dtype = torch.float32

    def __init__(self, model: Bert) -> None:
        self._model = model

    def embed(self, rows: Sequence[Sequence[int]], mixes: Sequence[Mix] = ()) -> Floats:
        """See EncoderEngine."""
        with torch.inference_mode():
            found: Floats = self._model.embed(rows, mixes).numpy()
        return found


class GraphEncoder:
    """The encoder as a graph on a backend. Rows that it has no graph for yet go through torch.

    One graph serves rows without adapters. A second one serves all ranks and tenants: banks are its inputs. It adapts
    the modules that some tenant has adapted so far; when one comes with a new module, `compiling` builds the next.
    """

    def __init__(self, model: Bert, backend: Backend, compiling: Executor) -> None:
        self.name = backend.name
        self.table_dtype = torch.bfloat16 if backend.half else torch.float32
        self._model = model
        self._backend = backend
        self._compiling = compiling
        self._plain = self._compile(frozenset())
        self._adapted: tuple[frozenset[str], Session] | None = None
        self._bound: SlotBank | None = None
        self._coming: Future[tuple[frozenset[str], Session]] | None = None
        self._failed = False

    def _compile(self, modules: frozenset[str]) -> Session:
        graph = encoder_graph(
            self._model.arrays(), self._model.sizes, adapted=sorted(modules), half_tables=self._backend.half
        )
        return self._backend.session(graph.SerializeToString())

    def adapt(self, modules: frozenset[str]) -> None:
        """Have a graph for these modules before anybody asks; raises RuntimeError when the backend cannot."""
        self._adapted, self._bound = (modules, self._compile(modules)), None

    def embed(self, rows: Sequence[Sequence[int]], mixes: Sequence[Mix] = ()) -> Floats:
        """See EncoderEngine."""
        out = np.empty((len(rows), self._model.width), dtype=np.float32)
        for mix, chosen in _by_bank(len(rows), mixes):
            some = [rows[index] for index in chosen]
            own = None if mix is None else Mix(mix.bank, mix.slots[chosen])
            found = self._fast(some, own)
            if found is None:
                with torch.inference_mode():
                    found = self._model.embed(some, [] if own is None else [own]).numpy()
            out[chosen] = found
        return out

    def _fast(self, rows: Sequence[Sequence[int]], mix: Mix | None) -> Floats | None:
        """Through the graph; None where there is none or it fails."""
        try:
            if mix is None:
                return self._run(self._plain, rows, [PLAIN] * len(rows), rank=0)
            session = self._session_for(mix.bank)
            if session is None:
                return None
            return self._run(session, rows, mix.slots.tolist(), rank=mix.bank.rank)
        except RuntimeError:
            log.exception("%s failed on a batch, which torch takes over", self.name)
            return None

    def _session_for(self, bank: SlotBank) -> Session | None:
        """The adapting graph with this bank as its input; None while there is no graph for what the bank holds."""
        if bank.dtype != self.table_dtype:
            return None
        self._look_for_the_next()
        wanted = frozenset(name[:-2] for name, holders in bank.holders.items() if holders)
        modules, session = self._adapted or (frozenset(), None)
        if session is None or not wanted <= modules:
            if self._coming is None and not self._failed:
                more = wanted | modules
                self._coming = self._compiling.submit(lambda: (more, self._compile(more)))
            return None
        if self._bound is not bank:
            session.bind(
                {f"{name}.{part}": bank.tables[f"{name}.{part}"] for name in modules for part in "AB"}
            )
            self._bound = bank
        return session

    def _look_for_the_next(self) -> None:
        """Take over the graph for more modules once it is there."""
        if self._coming is None or not self._coming.done():
            return
        coming, self._coming = self._coming, None
        error = coming.exception()
        if error is None:
            self._adapted, self._bound = coming.result(), None
        else:
            self._failed = True
            log.error("%s has no graph for more adapters: they stay on torch", self.name, exc_info=error)

    def _run(
        self, session: Session, rows: Sequence[Sequence[int]], slots: Sequence[int], *, rank: int
    ) -> Floats:
        out = np.empty((len(rows), self._model.width), dtype=np.float32)
        lengths = [len(row) for row in rows]
        with torch.inference_mode():
            for call in plan(lengths, slots, rank):
                out[call.rows] = self._call(session, call, rows, rank=rank)
        return out

    def _call(self, session: Session, call: Call, rows: Sequence[Sequence[int]], *, rank: int) -> Floats:
        tokens, places, owners = _laid_out(call, [rows[index] for index in call.rows.tolist()])
        hidden = self._model.start(torch.from_numpy(tokens), torch.from_numpy(places))
        shape = (call.bins, call.length)
        grouped = owners.reshape(shape)
        same = grouped[:, None, :, None] == grouped[:, None, None, :]
        feeds = {
            "hidden": hidden.view(*shape, -1).numpy(),
            "bias": np.where(same, np.float32(0), _APART),
        }
        if rank:
            own = np.append(call.parts, -1)[owners].reshape(*shape, 1) == np.arange(call.slots.shape[1])
            feeds["slots"] = call.slots.astype(np.int32)
            feeds["mine"] = np.repeat(own, rank, axis=2).astype(np.float32)
        found = torch.from_numpy(session.run(feeds).reshape(len(tokens), -1))
        pooled = torch.zeros(
            len(call.rows) + 1, found.shape[1]
        )  # the last one gathers what belongs to nobody
        pooled.index_add_(0, torch.from_numpy(owners), found)
        normal: Floats = functional.normalize(pooled[:-1], dim=1).numpy()
        return normal


def _by_bank(count: int, mixes: Sequence[Mix]) -> Iterator[tuple[Mix | None, Integers]]:
    """Rows [n] by the bank that adapts them, None for those without; a row has at most one."""
    plain = np.ones(count, dtype=bool)
    for mix in mixes:
        chosen = mix.slots.numpy() != PLAIN
        if chosen.any():
            plain &= ~chosen
            yield mix, np.flatnonzero(chosen)
    if plain.any():
        yield None, np.flatnonzero(plain)


def _laid_out(call: Call, rows: Sequence[Sequence[int]]) -> tuple[Integers, Integers, Integers]:
    """Token, position in its row and row of every place [bins * length]; empty places belong to row `len(rows)`."""
    size = call.bins * call.length
    tokens, places = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64)
    owners = np.full(size, len(rows), dtype=np.int64)
    lengths = np.array([len(row) for row in rows])
    total = int(lengths.sum())
    within = np.arange(total) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    at = np.repeat(call.starts, lengths) + within
    tokens[at] = np.fromiter(itertools.chain.from_iterable(rows), np.int64, total)
    places[at] = within
    owners[at] = np.repeat(np.arange(len(rows)), lengths)
    return tokens, places, owners
