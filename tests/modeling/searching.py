"""Searches everything the product could have written for a marker: folders, its database, files without a name."""

from __future__ import annotations

import os
import stat
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from django.conf import settings
from django.db import connection

BLOCK_BYTES = 1 << 20
EVERY_SECONDS = 0.5


def services_folder() -> Path:
    """The folder of this run's own PostgreSQL and Valkey: a server process works in its data directory."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone()
    return Path(f"/proc/{pid}/cwd").resolve().parent


def files_on_disk(services: Path, more: Iterable[Path] = ()) -> Iterator[Path]:
    """Everything the product could have written: data, objects, its own database and Valkey, temporary files."""
    for folder in (Path(settings.DATA_DIR), services, Path("/dev/shm"), *more):
        for path, _, names in os.walk(folder):
            yield from (Path(path) / name for name in names)
    for folder in (Path(tempfile.gettempdir()), Path("/var/tmp")):
        yield from (path for path in folder.iterdir() if not path.is_dir())


def open_files(pids: Iterable[int]) -> Iterator[Path]:
    """Files, with or without a name, that these processes and what they started still hold."""
    for pid in pids:
        try:
            process = psutil.Process(pid)
            family = [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
        for one in family:
            try:
                yield from Path(f"/proc/{one.pid}/fd").iterdir()
            except OSError:
                continue


def holds(path: Path, marker: bytes) -> bool:
    """Whether a file holds the marker; read in blocks, so that whoever writes meanwhile is not held up."""
    before = b""
    with path.open("rb", buffering=0) as source:
        while block := source.read(BLOCK_BYTES):
            if marker in before + block:
                return True
            before = block[-len(marker) :]
    return False


class Search:
    """Looks for one marker in what changed since it was made; `looked` counts files, `hits` names places."""

    def __init__(self, marker: bytes, *, pids: Iterable[int] = (), more: Iterable[Path] = ()) -> None:
        self.marker, self.since = marker, time.time()
        self.pids, self.more = {os.getpid(), *pids}, list(more)
        self.services = services_folder()
        self.looked, self.rounds = 0, 0
        self.hits: set[str] = set()
        self._clean: set[tuple[int, int, int, int]] = set()  # files that had not changed since they were read

    def now(self) -> list[str]:
        """One search of everything; the places of this round."""
        found = []
        for path in (*files_on_disk(self.services, self.more), *open_files(self.pids)):
            self.looked += 1
            if self._holds(path):
                found.append(str(path))
        self.rounds += 1
        self.hits.update(found)
        return found

    def _holds(self, path: Path) -> bool:
        try:
            file = path.stat()
            if not stat.S_ISREG(file.st_mode) or file.st_mtime < self.since - 1:
                return False
            state = (file.st_dev, file.st_ino, file.st_mtime_ns, file.st_size)
            if state in self._clean:
                return False
            if holds(path, self.marker):
                return True
        except OSError:
            return False  # gone meanwhile
        if time.time() - file.st_mtime > 1:  # a clock may tick slower than a file changes
            self._clean.add(state)
        return False

    def settled(self) -> list[str]:
        """One search after PostgreSQL had a moment to write its log."""
        time.sleep(1)
        return self.now()

    @contextmanager
    def meanwhile(self) -> Iterator[None]:
        """Searches again and again while the body runs."""
        stop = threading.Event()

        def look() -> None:
            while not stop.wait(EVERY_SECONDS):
                self.now()

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
