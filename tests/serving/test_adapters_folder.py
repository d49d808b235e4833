"""Adapters for another program lie in memory, and nothing of them stays behind."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from modeling.core.export_peft import CONFIG
from modeling.serving.adapters_folder import AdaptersFolder, require_memory
from modeling.serving.wire import EngineRefusal

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs a folder in memory, such as /dev/shm")


@pytest.fixture
def memory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def test_nothing_decrypted_is_written_to_a_disk(tmp_path: Path, memory: Path) -> None:
    require_memory(memory / "below" / "it")
    mounts = tmp_path / "mounts"
    mounts.write_text(
        f"disk / ext4 rw 0 0\nnone {tmp_path}/a\\040b tmpfs rw 0 0\ndisk {tmp_path}/a\\040b/c ext4 rw 0 0\n"
    )
    require_memory(tmp_path / "a b" / "x", mounts=mounts)
    for place in (tmp_path, tmp_path / "a b" / "c" / "x", tmp_path / "a b..", Path("/")):
        with pytest.raises(EngineRefusal):
            require_memory(place, mounts=mounts)
    link = memory / "link"
    link.symlink_to(Path.home())
    with pytest.raises(EngineRefusal):
        AdaptersFolder(link)


def test_what_a_killed_process_left_is_swept(memory: Path) -> None:
    left = AdaptersFolder(memory)
    left.write("name", {CONFIG: b"{}"})
    alive = AdaptersFolder(memory)  # the first one still holds its folder
    assert len(list(memory.glob("gateway-*"))) == 2
    left._lock.close()  # as the kernel does when a process ends
    again = AdaptersFolder(memory)
    assert len(list(memory.glob("gateway-*"))) == 2
    for folder in (alive, again):
        folder.close()
    assert list(memory.glob("gateway-*")) == []
