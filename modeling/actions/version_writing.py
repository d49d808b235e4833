"""Writes a version whose people are known already: groups of rows under their units' keys, and what they add up to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from modeling.core.columns import LABELS_MOST, measure
from modeling.core.row_changes import RowsHash
from modeling.core.segments import FrameWriter, KeyRing, Place
from modeling.core.tables import SAMPLE_BYTES, SAMPLE_ROWS
from modeling.grouping import Tape
from modeling.models import Dataset, UnitKey
from modeling.rows import within
from modeling.units import RowMarks, handle_key, row_digest
from tenants import vault
from tenants.models import Tenant

LABEL_CHARACTERS = 200
GROUPS_AT_ONCE = 1_000
BYTES_AT_ONCE = 8 << 20
Group = tuple[bytes, list[bytes]]  # a handle and its packed rows


def content_key(tenant: Tenant) -> bytes:
    """The tenant's key of content hashes."""
    return vault.derive(tenant, "content-hash")


class Tally:
    """What the rows of a version add up to: counts, marks, labels, facts about columns, and the hash of the rows."""

    def __init__(
        self, tenant: Tenant, columns: Sequence[str], *, label_at: int | None, unit_at: int | None
    ) -> None:
        self.rows = 0
        self.lines = 0
        self.rows_without_unit = 0
        self._columns = columns
        self._label_at, self._unit_at = label_at, unit_at
        self._hash = RowsHash(content_key(tenant), columns)
        self._marks, self._marks_key = RowMarks(), handle_key(tenant)
        self._labels: set[str] | None = set()
        self._sample: list[Sequence[Any]] = []
        self._sample_size = 0

    def add(self, line: int, values: Sequence[Any], digest: bytes = b"") -> bytes:
        """Count one row in; its 16-byte digest. `digest` is the row's mark where the caller has worked it out."""
        self.rows += 1
        self.lines = max(self.lines, line)
        self._marks.add(digest or row_digest(self._marks_key, values))
        if len(self._sample) < SAMPLE_ROWS and self._sample_size < SAMPLE_BYTES:
            self._sample.append(values)
            self._sample_size += sum(len(value) if isinstance(value, str) else 64 for value in values)
        if self._unit_at is not None and values[self._unit_at] in ("", None):
            self.rows_without_unit += 1
        if self._label_at is not None and self._labels is not None:
            cell = values[self._label_at]
            for label in cell if isinstance(cell, list) else (cell,):
                self._note(label)
        return self._hash.add(values)

    def note_mark(self, digest: bytes) -> None:
        """Keep another mark of a row that was counted: of the same row written in another way."""
        self._marks.add(digest)

    def _note(self, label: Any) -> None:
        text = label if isinstance(label, str) else "" if label is None else str(label)
        if self._labels is None or not text or text in self._labels:
            return
        self._labels.add(text)
        if len(self._labels) > LABELS_MOST or len(text) > LABEL_CHARACTERS:
            self._labels = None

    @property
    def marks(self) -> bytes:
        """See RowMarks."""
        return self._marks.packed()

    @property
    def labels(self) -> list[str]:
        """The different labels, sorted; none when they are too many to be labels."""
        return sorted(self._labels or ())

    @property
    def rows_hash(self) -> str:
        """See RowsHash."""
        return self._hash.hexdigest()

    def facts(self) -> list[dict[str, Any]]:
        """Facts about each column from the first rows that came."""
        return [fact.as_json() for fact in measure(self._columns, self._sample)]


class VersionWriting:
    """Seals groups into a sink under the dataset's keys; people without one get one, in `new_keys`."""

    def __init__(self, dataset: Dataset, sink: vault.VaultWriter, place: Place, ring: KeyRing) -> None:
        self._dataset = dataset
        self._frames = FrameWriter(sink, place)
        self._ring = ring
        self._made: dict[bytes, bytes] = {}
        self.new_keys = Tape()
        self.groups = 0

    def write(self, groups: Iterable[Group]) -> None:
        """Seal all groups in the order of their coming; the sink still has to be finished by the caller."""
        for some in _batches(groups):
            known = wrapped_keys(self._dataset, {handle for handle, _rows in some})
            for handle, rows in some:
                self._frames.write(handle, self._key(handle, known), rows)
                self.groups += 1
        self._frames.flush()

    def _key(self, handle: bytes, known: dict[bytes, bytes]) -> bytes:
        if wrapped := known.get(handle, b""):
            return self._ring.open(handle, wrapped)
        if handle in self._made:  # a catalogue's one key, over several groups
            return self._made[handle]
        key, wrapped = self._ring.make(handle)
        if handle not in known:  # one erased meanwhile has an empty key: this one is thrown away
            self.new_keys.append((handle, wrapped))
            if not any(handle):
                self._made[handle] = key
        return key


def wrapped_keys(dataset: Dataset, handles: Iterable[bytes]) -> dict[bytes, bytes]:
    """handle -> wrapped key of those that the dataset knows; the keys of erased people are empty."""
    with within(dataset.tenant_id):
        rows = UnitKey.objects.of(dataset.tenant_id).filter(dataset=dataset, handle__in=list(handles))
        return {bytes(handle): bytes(wrapped) for handle, wrapped in rows.values_list("handle", "wrapped")}


def erased_handles(dataset: Dataset) -> set[bytes]:
    """The handles of people who were erased from a dataset."""
    with within(dataset.tenant_id):
        rows = UnitKey.objects.of(dataset.tenant_id).filter(dataset=dataset, wrapped=b"")
        return {bytes(handle) for handle in rows.values_list("handle", flat=True).iterator(chunk_size=5_000)}


def _batches(groups: Iterable[Group]) -> Iterator[list[Group]]:
    some: list[Group] = []
    size = 0
    for group in groups:
        some.append(group)
        size += sum(map(len, group[1]))
        if len(some) >= GROUPS_AT_ONCE or size >= BYTES_AT_ONCE:
            yield some
            some, size = [], 0
    if some:
        yield some
