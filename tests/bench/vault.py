"""Speed of sealed streams, file to file, against `openssl speed -evp aes-256-gcm` in the same run (CPU time).

Run: python -m tests.bench.vault [MEBIBYTES] [ROUNDS]
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from saas.lib.sealed import Context, SealReader, seal

KEY = bytes(range(32))
CONTEXT = Context("bench", "object", 1)


def openssl_rate() -> float:
    """Bytes a CPU second of AES-256-GCM in 16 KiB blocks, by openssl's own measure."""
    command = ["openssl", "speed", "-evp", "aes-256-gcm", "-bytes", "16384", "-seconds", "1"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"^AES-256-GCM\s+([\d.]+)k", text, re.MULTILINE | re.IGNORECASE)
    if found is None:
        raise SystemExit(f"No rate in openssl's answer:\n{text}")
    return float(found.group(1)) * 1000


def encrypt(plain: Path, sealed: Path) -> None:
    """Seal one file into another."""
    with plain.open("rb", buffering=0) as source, sealed.open("wb", buffering=0) as sink:
        seal(source, sink, key=KEY, context=CONTEXT)


def decrypt(sealed: Path, opened: Path) -> None:
    """Open one sealed file into a plain one."""
    with sealed.open("rb", buffering=0) as source, opened.open("wb", buffering=0) as sink:
        SealReader(source, key=KEY, context=CONTEXT).copy_to(sink)


def rate(work: Callable[[], None], size_bytes: int) -> float:
    """Bytes a CPU second (user and system) of one piece of work."""
    start = time.process_time()
    work()
    return size_bytes / (time.process_time() - start)


def main(mebibytes: int, rounds: int) -> None:
    """Measure in turns and print medians and their ratio to openssl."""
    ours: dict[str, list[float]] = {"encrypt": [], "decrypt": []}
    reference: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        plain, sealed, opened = (Path(folder) / name for name in ("plain", "sealed", "opened"))
        block = os.urandom(1 << 20)
        with plain.open("wb") as sink:
            for _ in range(mebibytes):
                sink.write(block)
        encrypt(plain, sealed)
        decrypt(sealed, opened)
        if opened.read_bytes() != plain.read_bytes():
            raise SystemExit("What came back is not what was sealed.")
        for _ in range(rounds):
            reference.append(openssl_rate())
            ours["encrypt"].append(rate(lambda: encrypt(plain, sealed), mebibytes << 20))
            ours["decrypt"].append(rate(lambda: decrypt(sealed, opened), mebibytes << 20))
    openssl = statistics.median(reference)
    print(f"openssl aes-256-gcm, 16 KiB blocks: {openssl / 1e9:.2f} GB/s (median of {rounds})")
    for name, asked in (("encrypt", 0.25), ("decrypt", 0.40)):
        median = statistics.median(ours[name])
        words = f"{median / 1e9:.2f} GB/s, {median / openssl:.2f} of openssl (asked {asked})"
        print(f"{name}, file to file, {mebibytes} MiB: {words}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 256, int(sys.argv[2]) if len(sys.argv) > 2 else 5)
