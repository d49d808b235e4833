"""Writes what a proof found into the dated table of README.md beside this file: one row a proof, the newest only."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

TABLE = Path(__file__).with_name("README.md")
HEAD = """# Proofs

Written by the make targets themselves (`make kills WRITE=1` and so on): run one again and its row is replaced.

| proof | found | date | seconds | command | machine |
|---|---|---|---|---|---|
"""


@dataclass
class Proof:
    """One proof's row: printed always, written into the table when asked for."""

    command: str
    is_written: bool

    def found(self, proof: str, found: str, *, seconds: float) -> None:
        """Say what was found; the proof has passed when this is called."""
        print(f"\n{proof}: {found} ({seconds:.0f} s)")
        if self.is_written:
            write(proof, found, seconds=seconds, command=self.command)


def write(proof: str, found: str, *, seconds: float, command: str, table: Path = TABLE) -> None:
    """Replace or add the proof's row."""
    today = datetime.now(UTC).date().isoformat()
    cells = [proof, found, today, f"{seconds:.0f}", f"`{command}`", _machine()]
    row = "| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |"
    lines = (table.read_text() if table.exists() else HEAD).splitlines()
    kept = [line for line in lines if not line.startswith(f"| {proof} |")]
    at = max(index for index, line in enumerate(kept) if line.startswith("|")) + 1
    table.write_text("\n".join([*kept[:at], row, *kept[at:]]).rstrip() + "\n")


def _machine() -> str:
    """Cores and interpreter, without any name of the machine."""
    version = re.sub(r"\.\d+$", "", platform.python_version())
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {version}"
