"""The newest head of a hash chain, kept beside the database: a restored backup or a cut tail shows against it."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

from django.conf import settings

GENESIS = "0" * 64


def keep(name: str, seq: int, entry_hash: str) -> None:
    """Write the head of the chain `name`; commits may arrive here out of order, so only forward."""
    file = _file(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT, 0o600), "r+") as kept_file:
        fcntl.flock(kept_file, fcntl.LOCK_EX)
        if json.loads(kept_file.read() or "{}").get("seq", 0) < seq:
            kept_file.seek(0)
            kept_file.truncate()
            kept_file.write(json.dumps({"seq": seq, "hash": entry_hash}))


def kept(name: str) -> tuple[int, str]:
    """(number, hash) of the head last kept; (0, zeros) when there is none."""
    file = _file(name)
    if not file.exists():
        return 0, GENESIS
    with file.open() as kept_file:
        fcntl.flock(kept_file, fcntl.LOCK_SH)
        found = json.loads(kept_file.read() or "{}")
    return int(found.get("seq", 0)), str(found.get("hash", GENESIS))


def _file(name: str) -> Path:
    return Path(settings.DATA_DIR) / "heads" / f"{name}.json"
