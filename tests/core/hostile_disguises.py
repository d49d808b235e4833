"""Files that are something else than their name says, and files that are two things at once."""

from __future__ import annotations

import io
import pickle
import random
import tarfile
import zipfile

from tests.core.hostile_files import CANARY, add, given

NOISE = random.Random(3).randbytes(100_000)
TEXT = f"a,b\n1,{CANARY}\n".encode()
MAGIC: dict[str, bytes] = {
    "Arrow": b"ARROW1\0\0" + NOISE,
    "ORC": b"ORC" + NOISE,
    "Avro": b"Obj\x01" + NOISE,
    "old Excel": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + NOISE,
    "PDF": b"%PDF-1.7\n" + TEXT,
    "bzip2": b"BZh91AY&SY" + NOISE,
    "xz": b"\xfd7zXZ\x00" + NOISE,
    "Zstandard": b"\x28\xb5\x2f\xfd" + NOISE,
    "LZ4": b"\x04\x22\x4d\x18" + NOISE,
    "7z": b"7z\xbc\xaf\x27\x1c" + NOISE,
    "RAR": b"Rar!\x1a\x07\x00" + NOISE,
    "PNG": b"\x89PNG\r\n\x1a\n" + NOISE,
    "JPEG": b"\xff\xd8\xff\xe0" + NOISE,
    "GIF": b"GIF89a" + TEXT,
    "ELF": b"\x7fELF\x02" + NOISE,
    "Windows program": b"MZ\x90\x00" + NOISE,
    "Java class": b"\xca\xfe\xba\xbe" + NOISE,
    "WebAssembly": b"\x00asm\x01" + NOISE,
    "SQLite": b"SQLite format 3\x00" + NOISE,
    "HDF5": b"\x89HDF\r\n\x1a\n" + NOISE,
    "NumPy": b"\x93NUMPY\x01\x00" + NOISE,
    "R data": b"RDX3\n" + NOISE,
    "web page": b"<!DOCTYPE html><html>" + TEXT,
    "XML": b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "b">]>' + TEXT,
    "RTF": b"{\\rtf1 " + TEXT,
    "encrypted Parquet": b"PARE" + NOISE,
    "part of a zip": b"PK\x07\x08" + NOISE,
}


class Runs:
    """A pickle that would run a program if it were ever opened."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.system, (f"touch /tmp/{CANARY}",)


def fill() -> None:
    """Put all of them into the corpus."""
    for name in ("x.csv", "x.jsonl"):
        for what, content in MAGIC.items():
            add(f"disguise: {what} as {name}", given(content), "not_text", name=name)
        for protocol in (2, 3, 4, 5):
            content = pickle.dumps(Runs(), protocol)
            add(f"disguise: pickle protocol {protocol} as {name}", given(content), "not_text", name=name)
        content = pickle.dumps({CANARY: [1, 2]}, 0)
        add(f"disguise: pickle protocol 0 as {name}", given(content), "not_text", name=name)
        add(f"disguise: tar as {name}", _tar, "not_text", name=name)
    add("disguise: pickle protocol 1", given(pickle.dumps({CANARY: list(range(9))}, 1)), "nul")
    add("disguise: noise", given(b"a" + NOISE), "encoding")
    add("disguise: noise after a header", given(b"a,b\n1,2\n" + NOISE), "encoding")
    add("disguise: noise far away", given(b"a,b\n" + b"1,2\n" * 50_000 + NOISE), "encoding")
    add("disguise: a zip behind a CSV", given(TEXT * 9 + _zip()), "encoding")
    add("disguise: a PNG behind a CSV", given(TEXT * 9 + MAGIC["PNG"]), "encoding")
    add(
        "disguise: CSV as x.parquet",
        given(TEXT * 3 + CANARY.encode() + b"\n"),
        "ragged",
        row=True,
        name="x.parquet",
    )
    add(
        "disguise: CSV as x.gz",
        given(TEXT * 3 + CANARY.encode() + b"\n"),
        "ragged",
        row=True,
        name="x.csv.gz",
    )
    add("disguise: a header PAR1", given(b"PAR1,b\n1,2\n3,4\n5\n"), "ragged", row=True)
    add("disguise: a header PK", given(b"PK,b\n1,2\n3,4\n5\n"), "ragged", row=True)


def _tar() -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        info = tarfile.TarInfo("../../x.csv")
        info.size = len(TEXT)
        archive.addfile(info, io.BytesIO(TEXT))
    return sink.getvalue()


def _zip() -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.csv", NOISE)
    return sink.getvalue()
