"""The servers under comparison as processes, and what all processes of one have used: found by a mark they inherit."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[3]
PEERS = Path(os.environ.get("PEERS_VENV", ROOT / ".venv-peers")) / "bin"
MARK = "SERVER_MARK"


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """One server: its command, its port, and the processes that carry its mark."""

    name: str
    command: Sequence[str]
    env: Mapping[str, str]
    port: int
    folder: Path
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    used: dict[int, float] = field(default_factory=dict, init=False)  # CPU seconds by process, the dead too

    def start(self) -> None:
        """Start it in a group of its own, its output in a file."""
        log = (self.folder / f"{self.name.replace(' ', '-')}.log").open("wb")
        environment = {**self.env, MARK: self.name}
        self.process = subprocess.Popen(
            self.command, env=environment, stdout=log, stderr=log, cwd=ROOT, start_new_session=True
        )

    def processes(self) -> list[psutil.Process]:
        """All processes whose environment has the mark, and what they started without it."""
        found: dict[int, psutil.Process] = {}
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.name:
                    found |= {one.pid: one for one in (process, *process.children(recursive=True))}
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return list(found.values())

    def cpu_seconds(self) -> float:
        """What they have used so far."""
        for process in self.processes():
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            self.used[process.pid] = times.user + times.system
        return sum(self.used.values())

    def memory(self) -> float:
        """PSS of all of them, MiB."""
        total = 0
        for process in self.processes():
            try:
                total += process.memory_full_info().pss
            except psutil.NoSuchProcess:
                continue
        return total / 2**20

    def stop(self) -> None:
        """End what carries the mark, and nothing else."""
        for how in (signal.SIGTERM, signal.SIGKILL):
            for process in self.processes():
                try:
                    process.send_signal(how)
                except psutil.NoSuchProcess:
                    continue
            until = time.monotonic() + 8
            while self.processes() and time.monotonic() < until:
                time.sleep(0.2)


def peer(name: str, folder: Path, base: Path, head: Path) -> Server:
    """A server of the peers' environment; "packed" in its name gives it the forward pass without padding."""
    port = free_port()
    env = {
        "PATH": f"{PEERS}:{os.environ['PATH']}",
        "HOME": str(folder),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "PEER_BASE": str(base),
        "PEER_HEAD": str(head),
        "PEER_PORT": str(port),
        "PEER_PACKED": "1" if "packed" in name else "0",
        "BENTOML_DO_NOT_TRACK": "True",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": str(folder / "ray"),
    }
    python = str(PEERS / "python")
    commands = {
        "FastAPI": [
            "-m",
            "uvicorn",
            "tests.bench.peers.fastapi_app:app",
            "--port",
            str(port),
            "--no-access-log",
        ],
        "LitServe": ["-m", "tests.bench.peers.litserve_app"],
        "BentoML": ["-m", "bentoml", "serve", "tests.bench.peers.bentoml_app:Peer", "--port", str(port)],
        "Ray Serve": ["-m", "tests.bench.peers.ray_app"],
    }
    return Server(name, [python, *commands[name.removesuffix(" packed")]], env, port, folder)


def ours(name: str, folder: Path, encoder: str) -> Server:
    """Gateway and engine with a database and a Valkey of their own, all started by one process."""
    port = free_port()
    home = folder / name.replace(" ", "-")
    home.mkdir()
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "ENCODER_ENGINE": encoder}
    command = [sys.executable, "-m", "tests.bench.peers.cloister", str(home), str(port)]
    return Server(name, command, env, port, folder)
