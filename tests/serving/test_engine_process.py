"""The engine as a process: one per socket, gone with its parent, clean at SIGTERM, started over a stale socket."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.serving.made import MODELS, ROOT, EngineProcess

pytestmark = pytest.mark.real_weights


def test_start_over_a_stale_socket_and_stop(tmp_path: Path) -> None:
    path = tmp_path / "run" / "engine.sock"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    engine = EngineProcess(path)
    engine.wait_for("minilm-l6")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    second = EngineProcess(path)
    assert second.process.wait(20) == 1  # says that another engine listens
    assert engine.ask("health")["pid"] == engine.process.pid
    assert engine.stop() == 0
    assert not path.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux")
def test_it_dies_with_its_parent(tmp_path: Path) -> None:
    path = tmp_path / "engine.sock"
    script = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-m', 'modeling.serving.engine', '--socket', {str(path)!r},"
        f" '--models', {str(MODELS)!r}])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert parent.stdout is not None
    engine_pid = int(parent.stdout.readline())
    try:
        _until(path.exists, seconds=30)
        parent.send_signal(signal.SIGKILL)
        parent.wait(5)
        _until(lambda: not _alive(engine_pid), seconds=10)
    finally:
        parent.kill()
        parent.stdout.close()
        if _alive(engine_pid):
            os.kill(engine_pid, signal.SIGKILL)


def _alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def _until(is_true: object, *, seconds: float) -> None:
    assert callable(is_true)
    until = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < until, "it took too long"
        time.sleep(0.05)


def test_it_imports_no_django_and_no_database() -> None:
    code = (
        "import sys, modeling.serving.engine as _\n"
        "bad = {'django', 'psycopg', 'celery', 'redis', 'transformers', 'tenants', 'billing'}\n"
        "print(*sorted(bad & set(sys.modules)))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    assert ran.stdout.split() == []
