"""Mutated files of every format through the limited child: no crash, no hang, nothing read wrongly.

What the child says must be what the reader that goes line by line says here (Parquet: that it says it twice),
and a text file without an error must be written again to the byte. FUZZ files from FUZZ_SEED on; a failure names both.
"""

from __future__ import annotations

import io
import os
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from modeling.core.child import Limits, parse_in_child
from modeling.core.file_errors import FileRefused, Findings, RowError
from modeling.core.tables import Reading, Row, open_table, render
from modeling.core.tables_fast import FastTable
from tests.core.forked_child import ForkServer
from tests.core.mutated_files import mutated
from tests.proofs.record import Proof

FILES = int(os.environ.get("FUZZ", "30"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))
LIMITS = Limits(cpu_seconds=10, wall_seconds=10.0)
SECONDS = 10.0
TOO_MUCH = ("too_much_memory", "too_slow", "broken_parser")  # what a crash, a hang or a bomb ends in
Said = tuple[Any, ...]


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    made = ForkServer()
    yield made
    made.close()


def by_child(server: ForkServer, name: str, content: bytes) -> Said:
    """Layout, rows, errors and tail as the child tells them, or the refusal."""
    try:
        parsed = parse_in_child(io.BytesIO(content), Reading(name), LIMITS, server.start)
        rows = [row for batch in parsed.batches for row in batch]
    except FileRefused as refused:
        return ("refused", refused.error)
    summary = parsed.summary
    assert summary is not None
    return ("read", parsed.layout, rows, summary.errors, summary.errors_by_rule, summary.tail)


def line_by_line(name: str, content: bytes) -> Said:
    """The same from the slow reader in this process."""
    findings = Findings()
    try:
        table: Any = open_table([content], Reading(name), findings)
        table = table._table if isinstance(table, FastTable) else table
        rows = list(table)
    except FileRefused as refused:
        return ("refused", refused.error)
    return ("read", table.layout, rows, findings.kept, dict(findings.by_rule), table.tail)


def rebuilt(said: Said) -> bytes:
    """The file written again."""
    _, layout, rows, _, _, tail = said
    texts = [row.raw if row.raw is not None else render(layout, row.values) for row in rows]
    return "".join([layout.lead, *texts, tail]).encode(layout.encoding)


def judge(server: ForkServer, name: str, content: bytes) -> str:
    """What came of a file: "read", "read with errors" or the rule that refused it. Raises AssertionError."""
    started = time.monotonic()
    said = by_child(server, name, content)
    assert time.monotonic() - started < SECONDS, "too slow"
    is_parquet = content.startswith(b"PAR1")
    expected = by_child(server, name, content) if is_parquet else line_by_line(name, content)
    assert said == expected, "read in another way"
    if said[0] == "refused":
        assert is_parquet or said[1].rule not in TOO_MUCH, said[1].rule
        assert isinstance(said[1], RowError)
        assert said[1].fix
        return str(said[1].rule)
    _, layout, rows, errors, _, _ = said
    assert all(isinstance(row, Row) and len(row.values) == len(layout.columns) for row in rows)
    if not errors and not layout.found.get("packed") and not is_parquet:
        assert rebuilt(said) == content, "not written again to the byte"
    return "read with errors" if errors else "read"


def test_mutated_files(server: ForkServer, proof: Proof) -> None:
    started, came = time.monotonic(), Counter[str]()
    for number in range(FILES):
        name, content = mutated(SEED, number)
        try:
            came[judge(server, name, content)] += 1
        except Exception as error:
            pytest.fail(
                f"FUZZ_SEED={SEED}, file {number} ({name}, {len(content)} bytes): {type(error).__name__}: {error}"[
                    :800
                ]
            )
    assert came["read"] > FILES / 50
    assert came["read with errors"] > FILES / 50
    refused = FILES - came["read"] - came["read with errors"]
    assert refused > FILES / 50
    words = f"{FILES:,} files: {came['read']:,} read, {came['read with errors']:,} with errors, {refused:,} refused by "
    words += f"{len(came) - 2} rules; none crashed, hung, or was read in another way"
    proof.found("mutated files", words, seconds=time.monotonic() - started)


def test_a_child_that_crashes_hangs_or_lies_would_be_noticed(
    server: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control: each kind of failure ends in an AssertionError here, and the parent lives."""
    name, content = "a.csv", b"a,b\n" + b"1,2\n" * 100
    assert judge(server, name, content) == "read"
    with monkeypatch.context() as patch:
        start = server.start

        def dying(settings: dict[str, Any]) -> Any:
            child = start(settings)
            child.kill()
            return child

        patch.setattr(server, "start", dying)
        with pytest.raises(AssertionError, match="another way"):
            judge(server, name, content)
    with monkeypatch.context() as patch:
        patch.setattr("tests.core.test_fuzz.LIMITS", Limits(wall_seconds=0.0))
        with pytest.raises(AssertionError, match="another way"):
            judge(server, name, content)
    with monkeypatch.context() as patch:
        patch.setattr(
            "tests.core.test_fuzz.line_by_line", lambda name, content: ("read", None, [], [], {}, "")
        )
        with pytest.raises(AssertionError, match="another way"):
            judge(server, name, content)
    assert judge(server, name, content) == "read"
