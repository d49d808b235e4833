"""Rows of a Parquet file, batch by batch within bounded memory; its metadata is never believed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from modeling.core.child_ranges import RangedFile
from modeling.core.file_errors import FileRefused, Findings, RowError, RowRefused, refuse
from modeling.core.parquet_cells import Bad, converter, element_paths
from modeling.core.tables import Layout, Reading, Row
from modeling.core.tables_csv import check_name
from modeling.core.tables_jsonl import MESSAGES, check_messages
from modeling.core.unpacking import RATIO, RATIO_FROM_BYTES

_BATCH_BYTES = 4 << 20
_ROWS_AT_ONCE = (16, 2_048)
_BUFFERS_BYTES = 32 << 20
_THRIFT_BYTES, _THRIFT_ITEMS = 32 << 20, 1_000_000
_CELL_BYTES = 8  # what a number, a date or nothing counts for, beside its column's name


class ParquetTable:
    """The rows of a Parquet file. They are written again as JSON lines, which keep numbers, lists and nothing apart."""

    def __init__(self, source: RangedFile, reading: Reading, findings: Findings) -> None:
        self._source = source
        self._budget = reading.budget
        self._findings = findings
        self._decoded = 0
        self.tail = ""
        if reading.format not in ("", "parquet"):
            raise refuse("format", "This is a Parquet file: leave the format to be found, or choose Parquet.")
        self._count = 0
        with _Damage(self):
            columns = self._open()
        self.layout = Layout(
            format="jsonl",
            encoding="utf-8",
            newline="\n",
            columns=columns,
            found={"packed": "parquet", "format": "beginning", "encoding": "declared"},
        )

    def _open(self) -> tuple[str, ...]:
        """Read the schema, then open again with strings as dictionaries, so that repeated ones cost nothing."""
        limits = {
            "pre_buffer": False,
            "memory_map": False,
            "thrift_string_size_limit": _THRIFT_BYTES,
            "thrift_container_size_limit": _THRIFT_ITEMS,
            "page_checksum_verification": True,
        }
        first = pq.ParquetFile(self._source, **limits)
        schema, metadata = first.schema_arrow, first.metadata
        if len(schema) > self._budget.columns:
            fix = f"A table may have {self._budget.columns:,} columns."
            raise refuse("too_many_columns", fix, column=self._budget.columns + 1)
        seen: set[str] = set()
        for at, name in enumerate(schema.names, start=1):
            check_name(name, at, 0, seen)
        if not seen:
            raise refuse("column_name", "The file has no columns.")
        self._cells = [
            converter(field.type, at, is_chat=field.name == MESSAGES)
            for at, field in enumerate(schema, start=1)
        ]
        self._rows_said = metadata.num_rows
        said = sum(metadata.row_group(at).total_byte_size for at in range(metadata.num_row_groups))
        a_row = max(8 * len(schema), said // max(1, self._rows_said))
        self._rows_at_once = min(max(_BATCH_BYTES // a_row, _ROWS_AT_ONCE[0]), _ROWS_AT_ONCE[1])
        buffer = min(max(_BUFFERS_BYTES // len(schema), 1 << 12), 1 << 18)
        self._source.seek(0)
        self._file = pq.ParquetFile(
            self._source, buffer_size=buffer, read_dictionary=element_paths(schema), **limits
        )
        self._row_bytes = sum(len(name) + _CELL_BYTES for name in schema.names)
        self._messages = schema.names.index(MESSAGES) if MESSAGES in schema.names else -1
        return tuple(name.strip() for name in schema.names)

    def __iter__(self) -> Iterator[Row]:
        with _Damage(self):
            for batch in self._file.iter_batches(batch_size=self._rows_at_once, use_threads=False):
                columns = [cells(array) for cells, array in zip(self._cells, batch.columns, strict=True)]
                for at in range(batch.num_rows):
                    values = [column[at] for column in columns]
                    self._count += 1
                    if self._is_good(values):
                        yield Row(self._count, values)
        if self._count != self._rows_said:
            raise refuse("parquet", "This Parquet file is damaged: it says it has another number of rows.")

    def _is_good(self, values: list[Any]) -> bool:
        size = 0
        for at, value in enumerate(values, start=1):
            if isinstance(value, str):
                size += len(value)
                if "\0" in value:
                    return self._leave(at, "nul", "Remove the NUL characters.")
            elif isinstance(value, Bad):
                return self._leave(at, value.rule, value.fix)
            elif isinstance(value, list):
                size += sum(len(one) if isinstance(one, str) else 16 for one in value)
                bad = next((one for one in value if isinstance(one, Bad)), None)
                if bad is not None:
                    return self._leave(at, bad.rule, bad.fix)
                if any(isinstance(one, str) and "\0" in one for one in value):
                    return self._leave(at, "nul", "Remove the NUL characters.")
        self._spend(size)
        if self._messages >= 0:
            try:
                check_messages(values[self._messages])
            except RowRefused as bad_chat:
                return self._leave(self._messages + 1, bad_chat.rule, bad_chat.fix)
        return True

    def _leave(self, column: int, rule: str, fix: str) -> bool:
        self._spend(0)
        self._findings.add(RowError(self._count, column, rule, fix))
        return False

    def _spend(self, size: int) -> None:
        """Count what was decoded, as it is written again; what the metadata says of it is worth nothing."""
        self._decoded += size + self._row_bytes
        if size > self._budget.row_bytes:
            fix = f"Keep each row under {self._budget.row_bytes:,} characters."
            raise refuse("row_too_long", fix, line=self._count)
        if self._decoded > self._budget.decoded_bytes:
            raise refuse(
                "file_too_large", f"Split the file: one may hold {self._budget.decoded_bytes:,} bytes."
            )
        if self._decoded > RATIO_FROM_BYTES and self._decoded > RATIO * self._source.touched:
            fix = f"This file unpacks to more than {RATIO} times its size. Upload it as CSV or JSONL."
            raise refuse("archive_bomb", fix, line=self._count)

    @property
    def refused(self) -> FileRefused | None:
        """What the source refused to fetch."""
        return self._source.refused

    @property
    def count(self) -> int:
        """Rows so far."""
        return self._count


class _Damage:
    """What pyarrow says about a broken file may quote it: only that it is broken, and after which row, is passed on."""

    def __init__(self, table: ParquetTable) -> None:
        self._table = table

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, FileRefused | GeneratorExit | MemoryError):
            return
        if self._table.refused is not None:
            raise self._table.refused from None
        if isinstance(error, pa.ArrowException | OSError | ValueError | OverflowError | TypeError | KeyError):
            fix = "This Parquet file is damaged, cut short or packed in a rare way. Write it again and upload it."
            raise refuse("parquet", fix, line=self._table.count) from None
