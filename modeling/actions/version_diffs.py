"""Two versions compared within bounded memory: rows and people added, removed, changed; columns; class balance.

Only counts and places are kept. Values are read from the versions themselves when somebody who may looks at them, so
that nothing of an erased person stays here.
"""

from __future__ import annotations

import struct
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from modeling.actions.version_writing import content_key, wrapped_keys
from modeling.core.row_changes import DIGEST_BYTES, RowsHash, pair
from modeling.grouping import PARTITIONS, Spool
from modeling.models import Dataset, DatasetVersion, VersionDiff
from modeling.rows import layout_of, open_rows, shown_cell
from modeling.units import HANDLE_BYTES, NOBODY
from saas.lib.background import enqueue
from saas.lib.errors import NotFound, Refusal
from tenants.models import Tenant
from tenants.scope import scope

AT_ONCE_ROWS: Final = 50_000  # both together: compared while the caller waits
LISTED: Final = 10_000
LABELS_SHOWN: Final = 50
LEASE = timedelta(minutes=10)
KINDS: Final = ("added", "removed", "changed")
_RECORD = struct.Struct(">B16sQ16s")  # side, handle, line, row digest
_ENTRY = struct.Struct(">BQQ16s")  # kind, line in the first, line in the second (0: none), handle


@dataclass(frozen=True)
class Entry:
    """One row that differs: its lines (None where it is not) and whose it is."""

    kind: str
    first: int | None
    second: int | None
    handle: bytes


@dataclass(frozen=True)
class Shown:
    """One row that differs with its values, cut to what a person reads; None: not there, or erased since."""

    kind: str
    first_line: int | None
    second_line: int | None
    before: dict[str, str] | None
    after: dict[str, str] | None


def version_of(tenant: Tenant, dataset: Dataset, number: int) -> DatasetVersion:
    """A version by number; raises NotFound."""
    versions = (
        DatasetVersion.objects.of(tenant).filter(dataset=dataset).select_related("dataset", "file", "parent")
    )
    found = versions.filter(number=number).first()
    if found is None:
        raise NotFound(_("The dataset has no such version."))
    return found


def ask(tenant: Tenant, first: DatasetVersion, second: DatasetVersion) -> VersionDiff:
    """The comparison of two versions of a dataset: worked out now where that is quick, else by a worker.

    Inside the scope. Raises Refusal when the rows of either are gone.
    """
    if first.segments_id is None or second.segments_id is None:
        raise Refusal(_("The rows of one of these versions were deleted."), status=410, code="gone")
    rows = VersionDiff.objects.of(tenant)
    diff, _made = rows.get_or_create(
        first=first, second=second, defaults={"dataset": first.dataset, "tenant": tenant}
    )
    if diff.found is not None:
        return diff
    if first.rows + second.rows <= AT_ONCE_ROWS:
        _save(tenant, diff, compare(tenant, first, second))
        diff.refresh_from_db()
    else:
        enqueue("modeling.compare_versions", tenant_id=tenant.pk, diff_id=diff.pk)
    return diff


def work_out(tenant_id: uuid.UUID | str, diff_id: uuid.UUID | str) -> None:
    """The task's body: nothing happens when it is done, or under somebody's lease."""
    with scope(tenant_id):
        tenant = Tenant.objects.get(pk=tenant_id)
        free = Q(lease_until=None) | Q(lease_until__lt=Now())
        rows = VersionDiff.objects.of(tenant).filter(free, pk=diff_id, found__isnull=True)
        if not rows.update(lease_until=Now() + LEASE):
            return
        diff = (
            VersionDiff.objects.of(tenant).select_related("first__dataset", "second__dataset").get(pk=diff_id)
        )
    made = compare(tenant, diff.first, diff.second)
    with scope(tenant):
        _save(tenant, diff, made)


def _save(tenant: Tenant, diff: VersionDiff, made: Comparing) -> None:
    rows = VersionDiff.objects.of(tenant).filter(pk=diff.pk)
    rows.update(found=made.body(), listing=made.listing(), lease_until=None)
    for version, found in zip((diff.first, diff.second), made.rows_hashes(), strict=True):
        DatasetVersion.objects.of(tenant).filter(pk=version.pk, rows_hash="").update(rows_hash=found)


def forget(tenant: Tenant, dataset: Dataset) -> None:
    """Drop what was worked out of a dataset: somebody was erased. It comes again without them."""
    VersionDiff.objects.of(tenant).filter(dataset=dataset).delete()


def compare(tenant: Tenant, first: DatasetVersion, second: DatasetVersion) -> Comparing:
    """Read both versions once; the records of one of 32 partitions are in memory at a time."""
    made = Comparing(tenant, first, second)
    made.run()
    return made


class Comparing:
    """Counts of a comparison; whole after `run`."""

    def __init__(self, tenant: Tenant, first: DatasetVersion, second: DatasetVersion) -> None:
        self._versions = (first, second)
        names = sorted(set(layout_of(first).columns) & set(layout_of(second).columns))
        key = content_key(tenant)
        self._hashes = tuple(RowsHash(key, layout_of(one).columns) for one in self._versions)
        self._shared = RowsHash(key, names)
        self._names = names
        # People cannot be compared across two cuts, nor in a catalogue: there, equal rows are taken for the same.
        self.has_people = first.unit_column == second.unit_column and not first.dataset.is_catalogue
        self._rows: Counter[str] = Counter()
        self._people: Counter[str] = Counter()
        self._labels: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
        self._entries: list[bytes] = []

    def run(self) -> None:
        """Read, partition by handle, pair."""
        spool = Spool()
        for side in (0, 1):
            for record in self._records(side):
                spool.add(record[1] % PARTITIONS, record)
        for records in spool.partitions():
            people: dict[bytes, tuple[list[Any], list[Any]]] = defaultdict(lambda: ([], []))
            for record in records:
                side, handle, line, digest = _RECORD.unpack(record)
                people[handle][side].append((line, digest))
            for handle, (old, new) in people.items():
                self._person(handle, sorted(old), sorted(new))

    def _records(self, side: int) -> Iterator[bytes]:
        version, whole = self._versions[side], self._hashes[side]
        columns = layout_of(version).columns
        places = [columns.index(name) for name in self._names]
        is_same = list(columns) == sorted(columns) == self._names
        label = version.dataset.columns.get("label", "")
        label_at = columns.index(label) if label in columns and version.labels else None
        for handle, row in open_rows(version):
            digest = whole.add(row.values)
            if not is_same:
                digest = self._shared.digest([row.values[at] for at in places])[:DIGEST_BYTES]
            if label_at is not None:
                cell = row.values[label_at]
                self._labels[side].update(map(str, cell if isinstance(cell, list) else (cell,)))
            yield _RECORD.pack(side, handle if self.has_people else digest, row.line, digest)

    def _person(self, handle: bytes, old: Sequence[Any], new: Sequence[Any]) -> None:
        found = pair([digest for _line, digest in old], [digest for _line, digest in new])
        if not found.differs:
            return
        self._people["changed" if old and new else "added" if new else "removed"] += 1
        whose = handle if self.has_people else NOBODY
        for at in found.added:
            self._note(0, 0, new[at][0], whose)
        for at in found.removed:
            self._note(1, old[at][0], 0, whose)
        for before, after in found.changed:
            self._note(2, old[before][0], new[after][0], whose)

    def _note(self, kind: int, first: int, second: int, handle: bytes) -> None:
        self._rows[KINDS[kind]] += 1
        self._entries.append(_ENTRY.pack(kind, first, second, handle))
        if len(self._entries) >= 2 * LISTED:
            self._trim()

    def _trim(self) -> None:
        """Keep the first by line: what is listed does not depend on the order of partitions."""
        self._entries.sort(key=lambda entry: (entry[9:17] if entry[0] == 0 else entry[1:9], entry))
        del self._entries[LISTED:]

    def listing(self) -> bytes:
        """The first 10,000 differing rows by line, packed."""
        self._trim()
        return b"".join(self._entries)

    def rows_hashes(self) -> tuple[str, str]:
        """Of both versions: reading them all gave it for free."""
        return self._hashes[0].hexdigest(), self._hashes[1].hexdigest()

    def body(self) -> dict[str, Any]:
        """The counts as JSON."""
        first, second = self._versions
        return {
            "rows": {kind: self._rows[kind] for kind in KINDS},
            "people": {kind: self._people[kind] for kind in KINDS} if self.has_people else None,
            "columns": _columns(first, second),
            "classes": self._classes(),
            "listed": min(LISTED, sum(self._rows.values())),
        }

    def _classes(self) -> list[dict[str, Any]]:
        """Rows of each label before and after, the largest first."""
        before, after = self._labels
        names = sorted({*before, *after}, key=lambda name: (-max(before[name], after[name]), name))
        return [
            {"label": name, "before": before[name], "after": after[name]} for name in names[:LABELS_SHOWN]
        ]


def _columns(first: DatasetVersion, second: DatasetVersion) -> dict[str, list[str]]:
    ours, theirs = layout_of(first).columns, layout_of(second).columns
    return {
        "added": [name for name in theirs if name not in ours],
        "removed": [name for name in ours if name not in theirs],
    }


def entries(diff: VersionDiff, kind: str = "") -> list[Entry]:
    """The listed rows by line, of one kind if asked."""
    found = []
    for at, first, second, handle in _ENTRY.iter_unpack(bytes(diff.listing)):
        if not kind or KINDS[at] == kind:
            found.append(Entry(KINDS[at], first or None, second or None, handle))
    return found


def with_values(diff: VersionDiff, some: Sequence[Entry]) -> list[Shown]:
    """These rows with their values, for members and owners only; those of people erased since have none."""
    handles = {entry.handle for entry in some if any(entry.handle)}
    known = wrapped_keys(diff.dataset, handles)
    is_open = [not any(entry.handle) or bool(known.get(entry.handle)) for entry in some]
    live = [entry for entry, is_here in zip(some, is_open, strict=True) if is_here]
    before = _values(diff.first, {entry.first for entry in live if entry.first}, handles)
    after = _values(diff.second, {entry.second for entry in live if entry.second}, handles)
    return [
        Shown(
            entry.kind, entry.first, entry.second, before.get(entry.first or 0), after.get(entry.second or 0)
        )
        for entry, is_here in zip(some, is_open, strict=True)
        if is_here
    ]


def _values(version: DatasetVersion, lines: set[int], handles: set[bytes]) -> dict[int, dict[str, str]]:
    """line -> cells of these lines; frames of other people stay closed."""
    found: dict[int, dict[str, str]] = {}
    if not lines:
        return found
    names = layout_of(version).columns
    for _handle, row in open_rows(version, only=handles or None):
        if row.line in lines:
            found[row.line] = {name: shown_cell(value) for name, value in zip(names, row.values, strict=True)}
            if len(found) == len(lines):
                break
    return found


assert HANDLE_BYTES == DIGEST_BYTES  # one place in a record for either
