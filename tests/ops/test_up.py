"""`manage.py up`: stopping in order, restarts, kill -9, a port in use, an ordinary user. Minutes: `make slow`."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from saas.processes import free_port, port_is_free, wait_until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent.parent
NAMES = {"web", "engine", "training worker", "quick worker", "timetable"}


class Stack:
    """One `up` in a data folder of its own."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.port = free_port()
        dropped = ("CLOISTER_", "DATABASE_URL", "MIGRATOR_", "OPERATOR_", "REDIS_", "SECRET_", "KEY_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
        self.environment = kept | {"DATA_DIR": str(folder), "PORT": str(self.port)} | environment
        self.output = folder.with_name(f"{folder.name}.out")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Run `manage.py up --no-demo`, output into a file."""
        with self.output.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "up", "--no-demo", *words],
                cwd=ROOT, env=self.environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip
        return self.process

    def wait_until_well(self, seconds: float = 120.0) -> float:
        """Seconds until /healthz says 200; fails with the output when it never does."""
        begun = time.monotonic()
        assert wait_until(lambda: self.health()[0] == 200, seconds=seconds, pause=0.1), self.said()
        return time.monotonic() - begun

    def health(self) -> tuple[int, dict[str, str]]:
        """Status and parts of /healthz; 0 when nobody answers."""
        asked = http.client.HTTPConnection("localhost", self.port, timeout=5)
        try:
            asked.request("GET", "/healthz")
            answer = asked.getresponse()
            return answer.status, json.loads(answer.read())["parts"]
        except (OSError, http.client.HTTPException, ValueError):
            return 0, {}
        finally:
            asked.close()

    def said(self) -> str:
        return self.output.read_text()

    def family(self) -> list[psutil.Process]:
        """The process and everything below it."""
        assert self.process is not None
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]


def still_running(family: list[psutil.Process]) -> list[str]:
    """The command lines of those that live; the dead but unreaped do not count."""
    alive = []
    for member in family:
        with suppress(psutil.NoSuchProcess):  # also a zombie, and one that dies while it is looked at
            if member.is_running() and member.status() != psutil.STATUS_ZOMBIE:
                alive.append(" ".join(member.cmdline())[:120])
    return alive


@pytest.fixture
def stack() -> Iterator[Stack]:
    """A stack in a folder with a space in its name; nothing of it is left afterwards."""
    made = Path(tempfile.mkdtemp(prefix="cloister-up-"))
    made.chmod(0o755)
    running = Stack(made / "my data")
    yield running
    if running.process is not None and running.process.poll() is None:
        family = running.family()
        running.process.kill()
        running.process.wait()
        psutil.wait_procs(family, timeout=10)
    shutil.rmtree(made)


def test_it_works_restarts_the_dead_and_stops_in_order(stack: Stack) -> None:
    process = stack.start()
    stack.wait_until_well()
    assert wait_until(lambda: f"http://localhost:{stack.port}" in stack.said(), seconds=10)
    family = stack.family()

    engine = next(member for member in family if "modeling.serving.engine" in " ".join(member.cmdline()))
    engine.kill()
    assert wait_until(lambda: "engine ended (signal SIGKILL)" in stack.said(), seconds=60), stack.said()
    assert wait_until(lambda: stack.health()[0] == 200, seconds=120), stack.said()

    family = stack.family()
    commands = {member.pid: " ".join(member.cmdline()) for member in family}
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    ended_at: dict[int, float] = {}
    while process.poll() is None and time.monotonic() - begun < 120:
        for member in family:
            if member.pid not in ended_at and not still_running([member]):
                ended_at[member.pid] = time.monotonic()
        time.sleep(0.01)
    assert process.returncode == 0, stack.said()
    assert still_running(family) == []
    assert "did not stop" not in stack.said()

    order = [
        "saas.celery beat",
        "saas.celery worker",
        "uvicorn",
        "modeling.serving.engine",
        "valkey-server",
        "bin/postgres",
    ]
    ends = [[ended_at[pid] for pid, line in commands.items() if word in line] for word in order]
    assert all(ends), commands
    for earlier, later in itertools.pairwise(ends):
        assert max(earlier) <= min(later) + 0.02


def test_nothing_outlives_a_killed_parent_and_the_next_start_works(stack: Stack) -> None:
    process = stack.start()
    stack.wait_until_well()
    family = stack.family()
    assert len(family) > len(NAMES)
    process.kill()
    process.wait()
    assert wait_until(lambda: still_running(family) == [], seconds=30), still_running(family)
    assert port_is_free(stack.port)
    again = stack.start()
    stack.wait_until_well()
    again.send_signal(signal.SIGINT)
    assert again.wait(timeout=60) == 0


def test_it_ends_with_its_parent_when_asked_to(stack: Stack) -> None:
    words = [sys.executable, "manage.py", "up", "--no-demo", "--end-with-parent"]
    code = f"import subprocess; subprocess.run({words!r})"
    make = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=stack.environment, stdout=subprocess.DEVNULL
    )
    stack.wait_until_well()
    family = psutil.Process(make.pid).children(recursive=True)
    make.kill()
    make.wait()
    assert wait_until(lambda: still_running(family) == [], seconds=30), still_running(family)


def test_a_kill_during_the_first_start_does_no_harm(stack: Stack) -> None:
    for seconds in (0.9, 1.6, 3.0):
        process = stack.start()
        time.sleep(seconds)
        family = stack.family()
        process.kill()
        process.wait()
        assert wait_until(lambda family=family: still_running(family) == [], seconds=30)
    last = stack.start()
    stack.wait_until_well()
    last.send_signal(signal.SIGTERM)
    assert last.wait(timeout=20) == 0


def test_a_port_in_use_and_a_second_start_get_a_sentence(stack: Stack) -> None:
    first = stack.start()
    stack.wait_until_well()
    assert stack.start().wait(timeout=30) == 1
    assert f"Port {stack.port} is in use" in stack.said()
    assert f"make run PORT={stack.port + 1}" in stack.said()
    stack.environment["PORT"] = str(free_port())
    assert stack.start().wait(timeout=30) == 1
    assert "Cloister already runs in" in stack.said()
    assert "Traceback" not in stack.said()
    stack.process = first


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_an_ordinary_user_can_run_it(stack: Stack) -> None:
    try:
        subprocess.run([sys.executable, "-c", ""], user=65534, group=65534, extra_groups=[], check=True)
    except PermissionError:
        pytest.skip("this Python lies in a folder that other users cannot enter")
    stack.folder.mkdir()
    os.chown(stack.folder, 65534, 65534)
    stack.environment["HOME"] = str(stack.folder)
    with stack.output.open("ab") as out:
        stack.process = subprocess.Popen(
            [sys.executable, "-B", "manage.py", "up", "--no-demo"],
            cwd=ROOT, env=stack.environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            user=65534, group=65534, extra_groups=[],
        )  # fmt: skip
    stack.wait_until_well()
    assert {member.uids().real for member in stack.family()} == {65534}
    stack.process.send_signal(signal.SIGINT)
    assert stack.process.wait(timeout=20) == 0
