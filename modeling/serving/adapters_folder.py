"""Decrypted adapters for another program: only in a folder that lies in memory, of one user, never left behind."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from modeling.serving.wire import EngineRefusal

_IN_MEMORY = ("tmpfs", "ramfs")
MOUNTS = Path("/proc/self/mounts")


class AdaptersFolder:
    """A subfolder of this process. Those of processes that ended are swept at the first use."""

    def __init__(self, parent: Path) -> None:
        """Raises EngineRefusal `no_base` unless `parent` lies in memory."""
        require_memory(parent)
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (parent / ".lock").open("w") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)  # nobody sweeps a folder that is being made
            _sweep(parent)
            self._folder = Path(tempfile.mkdtemp(prefix="gateway-", dir=parent))
            self._lock = (self._folder / ".lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def write(self, name: str, files: Mapping[str, bytes]) -> Path:
        """The adapter's folder, 0700, its files 0600."""
        folder = self._folder / name
        folder.mkdir(mode=0o700, exist_ok=True)
        for file, content in files.items():
            handle = os.open(folder / file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(handle, "wb") as sink:
                sink.write(content)
        return folder

    def remove(self, name: str) -> None:
        """Delete an adapter's files, if they are there."""
        shutil.rmtree(self._folder / name, ignore_errors=True)

    def close(self) -> None:
        """Delete everything."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._lock.close()


def require_memory(path: Path, *, mounts: Path = MOUNTS) -> None:
    """Raise EngineRefusal `no_base` unless the mount that holds `path` is tmpfs or ramfs."""
    found, kind = Path(), ""
    resolved = path.resolve()
    for line in mounts.read_text().splitlines() if mounts.exists() else ():
        words = line.split()
        point = Path(words[1].encode().decode("unicode_escape"))
        if resolved.is_relative_to(point) and len(point.parts) >= len(found.parts):
            found, kind = point, words[2]
    if kind not in _IN_MEMORY:
        raise EngineRefusal(
            "no_base", "Tuned models are written for another program only onto a folder that lies in memory."
        )


def _sweep(parent: Path) -> None:
    """Delete what processes that were killed left behind: nobody holds the lock of their folder."""
    for folder in parent.glob("gateway-*"):
        try:
            with (folder / ".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue
