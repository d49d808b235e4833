"""Speed of sealed streams, file to file, against `openssl speed -evp aes-256-gcm` in the same run (CPU time).

Every file is written anew, in the page cache and without fsync; removing the former one is not measured. For
information: a plain copy of the file by the same calls, and sealed streams through S3's protocol to moto on this
machine, in another process.

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
from typing import BinaryIO, cast

from saas.lib.object_store import ObjectStore, store_at
from saas.lib.sealed import CHUNK_BYTES, Context, SealReader, SealWriter, seal

KEY = bytes(range(32))
CONTEXT = Context("bench", "object", 1)
ASKED = {"encrypt": 0.40, "decrypt": 0.60}
S3_MEBIBYTES = 64


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
    with plain.open("rb", buffering=0) as source, sealed.open("xb", buffering=0) as sink:
        seal(source, sink, key=KEY, context=CONTEXT)


def decrypt(sealed: Path, opened: Path) -> None:
    """Open one sealed file into a plain one."""
    with sealed.open("rb", buffering=0) as source, opened.open("xb", buffering=0) as sink:
        SealReader(source, key=KEY, context=CONTEXT).copy_to(sink)


def copy(plain: Path, copied: Path) -> None:
    """What reading and writing alone cost."""
    block = memoryview(bytearray(CHUNK_BYTES))
    with plain.open("rb", buffering=0) as source, copied.open("xb", buffering=0) as sink:
        while got := source.readinto(block):
            sink.write(block[:got])


def rate(work: Callable[[Path, Path], None], source: Path, target: Path) -> float:
    """Bytes of plaintext a CPU second (user and system) of one piece of work into a new file."""
    target.unlink(missing_ok=True)
    start = time.process_time()
    work(source, target)
    return source.stat().st_size / (time.process_time() - start)


def through_s3(mebibytes: int) -> tuple[float, float]:
    """Bytes a second of the clock, sealed into and read from a bucket of moto's server in its own process."""
    from tests import s3

    code = "from moto.server import main; main(['-H', '127.0.0.1', '-p', '0'])"
    server = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        found = next(m for line in server.stderr if (m := re.search(r"http://127\.0\.0\.1:\d+", line)))
        s3.endpoint = lambda: found[0]
        return _timed(store_at(s3.bucket()), mebibytes)
    finally:
        server.kill()


def _timed(store: ObjectStore, mebibytes: int) -> tuple[float, float]:
    block, size = os.urandom(1 << 20), mebibytes << 20
    sink = store.create("bench/object/1")
    start = time.perf_counter()
    writer = SealWriter(cast(BinaryIO, sink), key=KEY, context=CONTEXT)
    for _ in range(mebibytes):
        writer.write(block)
    writer.close()
    sink.finish()
    written = time.perf_counter()
    with SealReader(store.open("bench/object/1"), key=KEY, context=CONTEXT) as reader:
        while reader.readinto(bytearray(1 << 20)):
            pass
    return size / (written - start), size / (time.perf_counter() - written)


def main(mebibytes: int, rounds: int) -> None:
    """Measure in turns and print medians and their ratio to openssl."""
    works: dict[str, list[float]] = {"encrypt": [], "decrypt": [], "plain copy": []}
    reference: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        plain, sealed, opened = (Path(folder) / name for name in ("plain", "sealed", "opened"))
        block = os.urandom(1 << 20)
        with plain.open("wb") as file:
            for _ in range(mebibytes):
                file.write(block)
        encrypt(plain, sealed)
        decrypt(sealed, opened)
        if opened.read_bytes() != plain.read_bytes():
            raise SystemExit("What came back is not what was sealed.")
        for _ in range(rounds):
            reference.append(openssl_rate())
            works["encrypt"].append(rate(encrypt, plain, sealed))
            works["decrypt"].append(rate(decrypt, sealed, opened))
            works["plain copy"].append(rate(copy, plain, opened))
    openssl = statistics.median(reference)
    print(f"{mebibytes} MiB, median of {rounds} rounds      GB/s   of openssl   asked")
    print(f"{'openssl aes-256-gcm, 16 KiB blocks':<36}{openssl / 1e9:>6.2f}")
    for name, found in works.items():
        median = statistics.median(found)
        asked = f"{ASKED[name]:>8.2f}" if name in ASKED else ""
        print(f"{name + ', file to file':<36}{median / 1e9:>6.2f}{median / openssl:>13.2f}{asked}")
    up, down = through_s3(S3_MEBIBYTES)
    print(
        f"sealed through S3 to moto, {S3_MEBIBYTES} MiB, by the clock: {up / 1e6:.0f} MB/s in, {down / 1e6:.0f} out"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 256, int(sys.argv[2]) if len(sys.argv) > 2 else 5)
