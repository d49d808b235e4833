"""Writes a version: rows become frames under their units' keys, and the keys, marks and labels are kept beside them."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from operator import add

from django.db import connection

from modeling.core.columns import LABELS_MOST
from modeling.core.segments import FRAME_ROWS_BYTES, FrameWriter, KeyRing, Place
from modeling.core.tables import Row
from modeling.core.tables_fast import Block
from modeling.grouping import Spool, Tape
from modeling.models.datasets import Dataset, DatasetKey, UnitKey, dataset_place
from modeling.row_batches import Batch, BlockBatch
from modeling.row_batches import batches as _batches
from modeling.row_handles import RowHandles
from modeling.rows import key_ring
from modeling.units import HANDLE_BYTES, NOBODY, PersonHandles, RowDigests, RowMarks, handle_key
from tenants import vault
from tenants.models import Tenant

LABEL_CHARACTERS = 200
_ROWS_AT_ONCE = 5_000
_INSERT_KEYS = """
INSERT INTO modeling_unitkey (id, tenant_id, dataset_id, handle, wrapped)
SELECT gen_random_uuid(), %s, %s, made.handle, made.wrapped
FROM unnest(%s::bytea[], %s::bytea[]) AS made (handle, wrapped)
"""


@dataclass(frozen=True)
class Cut:
    """How rows are cut into units: by a column (its place in the row), by row, or not at all for a catalogue."""

    unit_at: int | None
    is_catalogue: bool
    label_at: int | None = None


@dataclass
class Written:
    """What came of the rows: counts, marks, labels (empty when there are too many), and keys to insert."""

    rows: int = 0
    units: int = 0
    lines: int = 0
    rows_without_unit: int = 0
    marks: bytes = b""
    labels: list[str] = field(default_factory=list)
    new_keys: Tape = field(default_factory=Tape)


def fresh_ring(tenant: Tenant, dataset_id: uuid.UUID) -> tuple[KeyRing, bytes]:
    """A key ring under a new dataset key, and that key for `insert_dataset_key`: only there is it wrapped.

    Hours may lie between, in which the tenant's key is rotated.
    """
    key = os.urandom(vault.KEY_BYTES)
    return KeyRing(key, str(dataset_id)), key


def existing_ring(dataset: Dataset) -> tuple[KeyRing, dict[bytes, bytes]]:
    """The dataset's ring and its units' wrapped keys; those of shredded units are empty."""
    rows = UnitKey.objects.of(dataset.tenant_id).filter(dataset=dataset).values_list("handle", "wrapped")
    known = {bytes(handle): bytes(wrapped) for handle, wrapped in rows.iterator(chunk_size=_ROWS_AT_ONCE)}
    return key_ring(dataset.tenant_id, dataset.pk), known


class SegmentWriting:
    """Cuts rows into units and seals them into a vault writer, within bounded memory."""

    def __init__(
        self,
        tenant: Tenant,
        sink: vault.VaultWriter,
        place: Place,
        ring: KeyRing,
        known: dict[bytes, bytes] | None = None,
    ) -> None:
        self._handle_key = handle_key(tenant)
        self._digests = RowDigests(self._handle_key)
        self._frames = FrameWriter(sink, place)
        self._ring = ring
        self._known = known or {}
        self._marks = RowMarks()
        self._labels: set[str] | None = set()
        self.written = Written()

    def write(self, pieces: Iterable[Row | Block | list[Row]], cut: Cut) -> Written:
        """Take all rows, also in blocks; returns what was written. The sink still has to be finished by the caller."""
        batches = self._counted(_batches(pieces), cut)
        if cut.is_catalogue:
            self._write_things(batches)
        elif cut.unit_at is None:
            self._write_each(batches)
        else:
            self._write_grouped(batches, cut.unit_at)
        self._frames.flush()
        self.written.marks = self._marks.packed()
        self.written.labels = sorted(self._labels or ())
        return self.written

    def _counted(self, batches: Iterator[Batch], cut: Cut) -> Iterator[Batch]:
        written = self.written
        for batch in batches:
            written.rows += batch.rows
            written.lines = batch.last_line
            if not cut.is_catalogue:  # what is downloaded and uploaded again is known for the same rows
                self._marks.add_all(batch.masked_digests(self._digests))
            if cut.label_at is not None and self._labels is not None:
                cells = batch.column(cut.label_at)
                for cell in dict.fromkeys(cells) if isinstance(batch, BlockBatch) else cells:
                    for label in cell if isinstance(cell, list) else (cell,):
                        self._note_label(label)
            yield batch

    def _note_label(self, label: object) -> None:
        """Keep a new label, or give up on labels: too many or too long, so this is no label column."""
        text = label if isinstance(label, str) else "" if label is None else str(label)
        if self._labels is None or not text or text in self._labels:
            return
        self._labels.add(text)
        if len(self._labels) > LABELS_MOST or len(text) > LABEL_CHARACTERS:
            self._labels = None

    def _write_things(self, batches: Iterator[Batch]) -> None:
        """A catalogue: one key, frames in file order, nobody's record."""
        key = self._key(NOBODY)
        part: list[bytes] = []
        size = 0
        for packed in (row for batch in batches for row in batch.packed()):
            part.append(packed)
            size += len(packed)
            if size >= FRAME_ROWS_BYTES:
                self._frames.write(NOBODY, key, part)
                part, size = [], 0
        if part:
            self._frames.write(NOBODY, key, part)

    def _write_each(self, batches: Iterator[Batch]) -> None:
        """Each row is one person: a frame and a key for every row, in file order."""
        handles = RowHandles(self._handle_key)
        for handle, packed in handles.pairs(map(self._marked, batches)):
            self._frames.write(handle, self._key(handle), [packed])
            self.written.units += 1

    def _marked(self, batch: Batch) -> tuple[list[bytes], list[bytes]]:
        digests = batch.digests(self._digests)
        self._marks.add_all(digests)
        return digests, batch.packed()

    def _write_grouped(self, batches: Iterator[Batch], unit_at: int) -> None:
        """Rows of one person together: partitioned by handle first, grouped in each partition after."""
        spool = Spool()
        handles = PersonHandles(self._handle_key)
        for batch in batches:
            names = batch.column(unit_at)
            self.written.rows_without_unit += sum(name is None or name == "" for name in names)
            self._marks.add_all(batch.digests(self._digests))
            spool.add_all(map(add, handles.of(names), batch.packed()))
        del handles
        for handle, packed in spool.groups(HANDLE_BYTES):
            self._frames.write(handle, self._key(handle), packed)
            self.written.units += 1

    def _key(self, handle: bytes) -> bytes:
        wrapped = self._known.get(handle)
        if wrapped:
            return self._ring.open(handle, wrapped)
        key, wrapped = self._ring.make(handle)
        if handle in self._known:  # shredded earlier: the key is thrown away, so the rows stay unreadable
            return key
        self.written.new_keys.append((handle, wrapped))
        return key


def insert_dataset_key(dataset: Dataset, key: bytes) -> None:
    """Wrap and keep the key of a new dataset."""
    wrapped = vault.seal_key(dataset.tenant_id, key, place=dataset_place(dataset.pk))
    DatasetKey.objects.of(dataset.tenant_id).create(dataset=dataset, wrapped=wrapped)


def insert_unit_keys(dataset: Dataset, keys: Iterable[tuple[bytes, bytes]]) -> None:
    """Insert unit keys in bulk. COPY is refused under row-level security, so arrays are unnested."""
    pairs = iter(keys)
    with connection.cursor() as cursor:
        while batch := list(islice(pairs, _ROWS_AT_ONCE)):
            handles, wrapped = [handle for handle, _ in batch], [key for _, key in batch]
            cursor.execute(_INSERT_KEYS, [dataset.tenant_id, dataset.pk, handles, wrapped])
