"""The rows of a dataset's next version: the former one's with a file's rows added, put in place, or taken out.

Whose a row is never changes: a row of the former version keeps its handle and its line, also where its values are
replaced, so that a person keeps key, budget and side of the split. Memory is bounded by one of 32 partitions, and where
each row is one person by 16 bytes of handle a row.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, Final

from django.utils.translation import gettext as _

from modeling.actions.version_writing import Group, Tally, content_key, erased_handles
from modeling.core.row_changes import RowsHash, pair
from modeling.core.segments import FRAME_ROWS_BYTES, pack_row, unpack_rows
from modeling.core.tables import Layout, Row
from modeling.grouping import PARTITIONS, Spool
from modeling.models import Dataset, DatasetVersion
from modeling.rows import cell_text, layout_of, open_rows, rows_in_file_order
from modeling.units import (
    HANDLE_BYTES,
    NOBODY,
    handle_key,
    occurrence_handle,
    person_handle,
    row_digest,
)
from saas.lib.errors import Refusal
from tenants.models import Tenant

Mode = DatasetVersion.Mode
TICK_ROWS: Final = 2_000
_OLD, _NEW = b"\0", b"\1"
_KEPT, _PUT, _ADDED = b"\0", b"\1", b"\2"
_AT = 1 + HANDLE_BYTES  # of the row in a record


class Joining:
    """Rows of one change as groups to seal; `counts` and `tally` are whole once all groups were drawn."""

    def __init__(
        self,
        tenant: Tenant,
        base: DatasetVersion,
        source: DatasetVersion | None,
        *,
        mode: str,
        key_column: str = "",
        tokens: Iterable[bytes] = (),
        tick: Callable[[int], None] = lambda rows: None,
    ) -> None:
        dataset: Dataset = base.dataset
        self._base, self._source, self._mode = base, source, mode
        self._key = handle_key(tenant)
        self._columns = layout_of(base).columns
        self._at = _place(self._columns, dataset.unit_column or key_column)
        self._is_grouped, self._is_catalogue = bool(dataset.unit_column), dataset.is_catalogue
        self._erased = erased_handles(dataset)
        self._tokens = set(tokens)
        self._rows_hash = RowsHash(content_key(tenant), self._columns)
        self._tick, self._done = tick, 0
        self._used: set[bytes] = set()
        self._next: dict[bytes, int] = {}
        self.stay_erased: set[bytes] = set()
        self.counts: Counter[str] = Counter()
        self.tally = Tally(
            tenant,
            self._columns,
            label_at=_place(self._columns, dataset.columns.get("label", "")),
            unit_at=self._at if self._is_grouped else None,
        )
        self.fitting = Fitting(base, source) if source is not None else None

    def groups(self) -> Iterator[Group]:
        """Handles and their packed rows, those of a person together."""
        if self._mode == Mode.REMOVE:
            self._tokens |= self._tokens_of_file()
        if self._is_grouped:
            return self._grouped()
        rows = self._put_in_place() if self._mode == Mode.REPLACE else self._each()
        return _packed_together(rows) if self._is_catalogue else rows

    def token(self, value: Any) -> bytes:
        """What names a person or a row, as 16 bytes: equal for what is written alike."""
        return person_handle(self._key, value)

    def _tokens_of_file(self) -> set[bytes]:
        if self._source is None:
            return set()
        at = layout_of(self._source).columns.index(self._columns[self._at or 0])
        return {self.token(row.values[at]) for _handle, row in self._watched(open_rows(self._source))}

    def _watched(self, rows: Iterable[Any]) -> Iterator[Any]:
        """The same rows, telling the worker every so often how many were read."""
        for row in rows:
            self._done += 1
            if self._done % TICK_ROWS == 0:
                self._tick(self._done)
            yield row

    def _base_rows(self) -> Iterator[tuple[bytes, Row]]:
        """The former version's rows, less those of whom is removed."""
        for handle, row in self._watched(open_rows(self._base)):
            if self._mode == Mode.REMOVE:
                token = handle if self._is_grouped else self.token(row.values[self._at or 0])
                if token in self._tokens:
                    self.counts["rows_removed"] += 1
                    self._used.add(handle)
                    continue
            yield handle, _ended(row)

    def _file_rows(self) -> Iterator[Row]:
        """The file's rows in the order and the form of the former version's columns, after its last line."""
        if self._source is None or self.fitting is None or self._mode == Mode.REMOVE:
            return
        for row in self._watched(self._rows_not_erased(self._source)):
            yield self.fitting.fit(row)

    def _rows_not_erased(self, source: DatasetVersion) -> Iterator[Row]:
        """Where each row is one person on both sides, less those erased here: only its handle tells a masked row."""
        if self._is_grouped or source.unit_column or source.dataset.is_catalogue:
            yield from rows_in_file_order(source)
            return
        for handle, row in open_rows(source):
            if handle in self._erased:
                self.stay_erased.add(handle)
                self._used.add(handle)  # the erased one has come: a twin of it is somebody else
            else:
                yield row

    # --- rows that a column gives to people ---

    def _grouped(self) -> Iterator[Group]:
        spool = Spool()
        for handle, row in self._base_rows():
            spool.add(handle[0] % PARTITIONS, _OLD + handle + pack_row(row.line, row.values, row.raw))
        self.counts["people_removed"], self._used = len(self._used), set()
        for row in self._file_rows():
            handle = self.token(row.values[self._at or 0])
            if handle in self._erased:
                self.stay_erased.add(handle)
                continue
            spool.add(handle[0] % PARTITIONS, _NEW + handle + pack_row(row.line, row.values, row.raw))
        for records in spool.partitions():
            people: dict[bytes, tuple[list[Row], list[Row]]] = defaultdict(lambda: ([], []))
            for record in records:
                people[record[1:_AT]][record[:1] == _NEW].extend(unpack_rows(record[_AT:]))
            for handle, (old, new) in people.items():
                yield handle, [self._count(row) for row in self._person(old, new)]

    def _person(self, old: list[Row], new: list[Row]) -> list[Row]:
        """One person's rows in the next version."""
        if self._mode == Mode.REPLACE and old and new:
            return self._replaced(old, new)
        self.counts["rows_added"] += len(new)
        if new:
            self.counts["people_changed" if old else "people_added"] += 1
        return old + new

    def _replaced(self, old: list[Row], new: list[Row]) -> list[Row]:
        digest = self._rows_hash.digest
        found = pair([digest(row.values) for row in old], [digest(row.values) for row in new])
        self.counts["people_changed"] += found.differs
        self.counts["rows_changed"] += len(found.changed)
        self.counts["rows_removed"] += len(found.removed)
        self.counts["rows_added"] += len(found.added)
        rows = [old[at] for at, _new in found.same] + [new[at] for at in found.added]
        rows += [Row(old[at].line, new[put].values, new[put].raw) for at, put in found.changed]
        return sorted(rows, key=lambda row: row.line)

    # --- rows that are one person each, or things ---

    def _each(self) -> Iterator[Group]:
        for handle, row in self._base_rows():
            self._used.add(handle)
            yield handle, [self._count(row)]
        self.counts["people_removed"] = 0 if self._is_catalogue else self.counts["rows_removed"]
        for row in self._file_rows():
            yield from self._added(row)

    def _added(self, row: Row) -> Iterator[Group]:
        mark = row_digest(self._key, row.values)
        handle = NOBODY if self._is_catalogue else self._fresh(mark)
        if handle is not None:
            self.counts["rows_added"] += 1
            self.counts["people_added"] += not self._is_catalogue
            yield handle, [self._count(row, mark)]

    def _fresh(self, mark: bytes) -> bytes | None:
        """The handle of a new row; None when it can be that of somebody who was erased: erasing wins."""
        occurrence = self._next.get(mark[:HANDLE_BYTES], 0)
        while True:
            handle = occurrence_handle(self._key, mark, occurrence)
            occurrence += 1
            if handle not in self._used:
                break
        self._next[mark[:HANDLE_BYTES]] = occurrence
        self._used.add(handle)
        if handle in self._erased:
            self.stay_erased.add(handle)
            return None
        return handle

    def _put_in_place(self) -> Iterator[Group]:
        """Replace by the key column: rows join by its value, then go back into the order of lines."""
        by_token, by_line = Spool(), Spool()
        for handle, row in self._base_rows():
            self._used.add(handle)
            self._spool_by_token(by_token, _OLD, handle, row)
        for row in self._file_rows():
            self._spool_by_token(by_token, _NEW, NOBODY, row)
        last = self.fitting.last_line if self.fitting is not None else 0
        for records in by_token.partitions():
            for kind, handle, row in self._joined(records):
                place = row.line * PARTITIONS // (last + 1)
                packed = pack_row(row.line, row.values, row.raw)
                by_line.add(place, row.line.to_bytes(8, "big") + kind + handle + packed)
        for records in by_line.partitions():
            records.sort()
            for record in records:
                (row,) = unpack_rows(record[8 + _AT :])
                if record[8:9] == _ADDED:
                    yield from self._added(row)
                else:
                    yield record[9 : 8 + _AT], [self._count(row)]

    def _spool_by_token(self, spool: Spool, side: bytes, handle: bytes, row: Row) -> None:
        value = row.values[self._at or 0]
        if side == _NEW and value in ("", None):
            raise Refusal(
                _("Line %(line)s of the file has no value in the column that names its row.")
                % {"line": row.line - (self.fitting.offset if self.fitting else 0)},
                param="key", code="key_missing",
            )  # fmt: skip
        token = self.token(value)
        spool.add(token[0] % PARTITIONS, side + token + handle + pack_row(row.line, row.values, row.raw))

    def _joined(self, records: list[bytes]) -> Iterator[tuple[bytes, bytes, Row]]:
        """(kind, handle, row) of a partition's records."""
        new: dict[bytes, Row] = {}
        offset = self.fitting.offset if self.fitting else 0
        for record in records:
            if record[:1] == _NEW:
                (row,) = unpack_rows(record[_AT + HANDLE_BYTES :])
                if (twin := new.get(record[1:_AT])) is not None:
                    raise _ambiguous(_("of the file"), twin.line - offset, row.line - offset)
                new[record[1:_AT]] = row
        met: dict[bytes, int] = {}
        for record in records:
            if record[:1] != _OLD:
                continue
            token, handle = record[1:_AT], record[_AT : _AT + HANDLE_BYTES]
            (row,) = unpack_rows(record[_AT + HANDLE_BYTES :])
            put = new.get(token)
            if put is None:
                yield _KEPT, handle, row
                continue
            if token in met:
                raise _ambiguous(_("of the dataset"), met[token], row.line)
            met[token] = row.line
            if self._rows_hash.digest(row.values) == self._rows_hash.digest(put.values):
                yield _KEPT, handle, row
                continue
            self.counts["rows_changed"] += 1
            self.counts["people_changed"] += not self._is_catalogue
            yield _PUT, handle, Row(row.line, put.values, put.raw)
        for token, row in new.items():
            if token not in met:
                yield _ADDED, NOBODY, row

    def _count(self, row: Row, mark: bytes = b"") -> bytes:
        self.tally.add(row.line, row.values, mark)
        return pack_row(row.line, row.values, row.raw)


def _ambiguous(where: str, first: int, second: int) -> Refusal:
    lines = sorted((first, second))
    return Refusal(
        _("Lines %(first)s and %(second)s %(where)s have the same value in the column that names a row.")
        % {"first": lines[0], "second": lines[1], "where": where},
        param="key", code="key_not_unique",
    )  # fmt: skip


def _place(columns: Sequence[str], name: str) -> int | None:
    return columns.index(name) if name in columns else None


def _packed_together(rows: Iterable[Group]) -> Iterator[Group]:
    """Things have no keys of their own: a mebibyte of them shares a frame."""
    part: list[bytes] = []
    size = 0
    for _handle, packed in rows:
        part += packed
        size += sum(map(len, packed))
        if size >= FRAME_ROWS_BYTES:
            yield NOBODY, part
            part, size = [], 0
    if part:
        yield NOBODY, part


class Fitting:
    """Brings a file's rows into the form of a dataset's: order of columns, kind of values, lines after the last."""

    def __init__(self, base: DatasetVersion, source: DatasetVersion) -> None:
        ours, theirs = layout_of(base), layout_of(source)
        self._order = [theirs.columns.index(name) for name in ours.columns if name in theirs.columns]
        self._is_text = ours.format != "jsonl" and theirs.format == "jsonl"
        self._keeps_raw = _style(ours) == _style(theirs)
        self.offset = int(base.schema.get("lines", base.rows)) - theirs.lead.count("\n")
        self.last_line = self.offset + int(source.schema.get("lines", source.rows)) + 1

    def fit(self, row: Row) -> Row:
        """The row as it stands in the next version."""
        values = [row.values[at] for at in self._order]
        if self._is_text:
            values = [cell_text(value) for value in values]
        return _ended(Row(row.line + self.offset, values, row.raw if self._keeps_raw else None))


def _ended(row: Row) -> Row:
    """The row so that another can follow it: a file's last line may lack its end."""
    if row.raw is None or row.raw.endswith(("\n", "\r")):
        return row
    return Row(row.line, row.values)


def _style(layout: Layout) -> dict[str, Any]:
    return {**asdict(layout), "lead": ""}
