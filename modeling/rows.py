"""Reads versions: frames are opened unit by unit under their keys, and a file's content is written again from them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from modeling.core.segments import Frame, FrameReader, KeyRing, Place, pack_row, read_frames, unpack_rows
from modeling.core.tables import Layout, Row, render
from modeling.grouping import PARTITIONS, Spool
from modeling.models.datasets import DatasetKey, DatasetVersion, UnitKey, dataset_place
from saas.lib.errors import Refusal
from tenants import vault
from tenants.models import VaultObject
from tenants.scope import current, scope

FRAMES_AT_ONCE = 1_000
FRAMES_BYTES = 16 << 20
_TEXT_AT_ONCE = 1 << 18
CELL_CHARACTERS = 200  # of a cell on a page


@dataclass(frozen=True, slots=True)
class UnitRow:
    """One row and whose it is; `number` is its line in the file. Values are texts, lists where the file had lists."""

    handle: bytes
    number: int
    values: dict[str, Any]


def within(tenant_id: uuid.UUID) -> AbstractContextManager[None]:
    """The tenant's scope: the one already open, or a short one of its own."""
    return nullcontext() if current() == tenant_id else scope(tenant_id)


def key_ring(tenant_id: uuid.UUID, dataset_id: uuid.UUID) -> KeyRing:
    """The ring of a dataset's unit keys. Raises vault.KeyDestroyed after the dataset was shredded."""
    with within(tenant_id):
        row = DatasetKey.objects.of(tenant_id).filter(dataset_id=dataset_id).first()
        if row is None:
            raise vault.KeyDestroyed("This dataset's key was destroyed.")
        key = vault.open_row(row, place=dataset_place(dataset_id))
    return KeyRing(key, str(dataset_id))


def place_of(version: DatasetVersion) -> Place:
    """What a version's frames are bound to."""
    return Place(str(version.tenant_id), str(version.dataset_id), version.number)


def layout_of(version: DatasetVersion) -> Layout:
    """How the version's file was written."""
    return Layout.from_json(version.schema["layout"])


def read_rows(version: DatasetVersion, *, columns: Sequence[str] | None = None) -> Iterator[UnitRow]:
    """Decrypted rows, those of one unit adjacent; `columns` limits the values (None: all). Shredded units are absent.

    No transaction stays open between rows. Raises Refusal when the version's segments are gone.
    """
    names = layout_of(version).columns
    wanted = [(name, at) for at, name in enumerate(names) if columns is None or name in columns]
    for handle, row in open_rows(version):
        yield UnitRow(handle, row.line, {name: _plain(row.values[at]) for name, at in wanted})


def open_rows(
    version: DatasetVersion, *, only: Collection[bytes] | None = None
) -> Iterator[tuple[bytes, Row]]:
    """(handle, row) as they stand in the segments; with `only`, the frames of everybody else stay closed."""
    with within(version.tenant_id):
        segments = _segments(version)
        ring = key_ring(version.tenant_id, version.dataset_id)
        source = vault.open(segments)
    reader = FrameReader(place_of(version))
    with closing(source):
        frames = read_frames(cast(BinaryIO, _Buffered(source)))
        if only is not None:
            frames = (frame for frame in frames if frame.handle in only)
        for batch in _at_once(frames):
            keys = _unit_keys(version, batch)
            handle, key = b"", b""
            for frame in batch:
                if frame.handle not in keys:
                    continue
                if frame.handle != handle:
                    handle, key = frame.handle, ring.open(frame.handle, keys[frame.handle])
                for row in reader.open(frame, key):
                    yield handle, row


def read_handles(version: DatasetVersion) -> Iterator[bytes]:
    """The handle of each unit that can still be read, once, in the order of `read_rows`, without opening a frame."""
    with within(version.tenant_id):
        source = vault.open(_segments(version))
    last = b""
    with closing(source):
        frames = read_frames(cast(BinaryIO, _Buffered(source)))
        for batch in _at_once(frames):
            keys = _unit_keys(version, batch)
            for frame in batch:
                if frame.handle != last and frame.handle in keys:
                    last = frame.handle
                    yield last


def count_frames(version: DatasetVersion, handle: bytes) -> int:
    """How many sealed frames a version holds of one unit, readable or not; no frame is opened."""
    with within(version.tenant_id):
        source = vault.open(_segments(version))
    with closing(source):
        frames = read_frames(cast(BinaryIO, _Buffered(source)))
        return sum(1 for frame in frames if frame.handle == handle)


def rebuild_content(version: DatasetVersion) -> Iterator[bytes]:
    """The file's bytes written again from its rows, in file order; rows that were refused or shredded are absent."""
    layout = layout_of(version)
    texts, size = [layout.lead], 0
    for row in rows_in_file_order(version):
        text = row.raw if row.raw is not None else render(layout, row.values)
        texts.append(text)
        size += len(text)
        if size >= _TEXT_AT_ONCE:
            yield "".join(texts).encode(layout.encoding)
            texts, size = [], 0
    texts.append(version.schema.get("tail", ""))
    yield "".join(texts).encode(layout.encoding)


def rows_in_file_order(version: DatasetVersion) -> Iterator[Row]:
    """Rows by line number, within bounded memory."""
    if not version.schema.get("is_grouped", False):
        for _, row in open_rows(version):
            yield row
        return
    lines = int(version.schema["lines"]) + 1
    spool = Spool()
    for _, row in open_rows(version):
        packed = pack_row(row.line, row.values, row.raw)
        spool.add(row.line * PARTITIONS // lines, row.line.to_bytes(8, "big") + packed)
    for records in spool.partitions():
        records.sort()
        for record in records:
            yield from unpack_rows(record[8:])


def _at_once(frames: Iterator[Frame]) -> Iterator[list[Frame]]:
    """Frames whose keys are looked up together: many small ones, few large ones."""
    batch, size = [], 0
    for frame in frames:
        batch.append(frame)
        size += len(frame.sealed)
        if len(batch) >= FRAMES_AT_ONCE or size >= FRAMES_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _segments(version: DatasetVersion) -> VaultObject:
    if version.segments_id is None:
        raise Refusal("The rows of this version were deleted.", status=410, code="gone")
    return VaultObject.objects.of(version.tenant_id).get(pk=version.segments_id)


def _unit_keys(version: DatasetVersion, frames: Sequence[Frame]) -> dict[bytes, bytes]:
    """handle -> wrapped key of these frames' units; shredded ones are absent."""
    handles = list({frame.handle for frame in frames})
    with within(version.tenant_id):
        rows = UnitKey.objects.of(version.tenant_id).filter(dataset_id=version.dataset_id, handle__in=handles)
        found = rows.values_list("handle", "wrapped")
        return {bytes(handle): bytes(wrapped) for handle, wrapped in found if wrapped}


def cell_text(value: Any) -> str:
    """A cell as text: what is no text as JSON, nothing as ""."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def shown_cell(value: Any) -> str:
    """A cell as pages show it to members: as text, a long one cut."""
    text = cell_text(value)
    return text if len(text) <= CELL_CHARACTERS else text[:CELL_CHARACTERS] + "…"


def _plain(value: Any) -> Any:
    return value if isinstance(value, list) else cell_text(value)


class _Buffered:
    """Small reads from a sealed stream without a pass through Python's io layers for each."""

    def __init__(self, source: Any) -> None:
        self._source = source
        self._block = b""
        self._at = 0

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes unless the stream ends."""
        end = self._at + size
        if end > len(self._block):
            more = self._source.read(max(size, 1 << 20)) or b""
            self._block, self._at, end = self._block[self._at :] + more, 0, size
        data = self._block[self._at : end]
        self._at += len(data)
        return data
