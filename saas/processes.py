"""Child processes that never outlive their parent: start, drop privileges, stop with a deadline."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

PR_SET_PDEATHSIG = 1
FIRST_PORT, LAST_PORT = 20_000, 32_767  # the kernel hands out ephemeral ports from 32768 on

_prctl: Callable[..., int] | None = (
    ctypes.CDLL(None, use_errno=True).prctl if sys.platform == "linux" else None
)


class ProcessFailed(RuntimeError):
    """A child could not start or stop; the message is a sentence for the person at the terminal."""


@dataclass(frozen=True)
class Account:
    """The operating-system user that a child runs as."""

    uid: int
    gid: int
    name: str


def die_with_parent(death_signal: int, parent: int) -> None:
    """Ask the kernel (Linux only) to signal this process when the thread that made it ends.

    `parent` is the maker's process id: when it is gone already, this process ends at once.
    """
    if _prctl is None:
        return
    _prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
    if os.getppid() != parent:  # the parent died between fork and prctl
        os._exit(1)


def spawn(
    command: Sequence[str | Path],
    *,
    log: IO[bytes] | int,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    account: Account | None = None,
    death_signal: int = signal.SIGKILL,
    stdin: int = subprocess.DEVNULL,
    niceness: int = 0,
) -> subprocess.Popen[bytes]:
    """Start `command` in its own process group, output into `log`.

    Call it from a thread that lives as long as the children: Linux ties the death signal to the thread.
    """
    parent = os.getpid()

    def before_exec() -> None:
        die_with_parent(death_signal, parent)
        if niceness:
            os.nice(niceness)

    # The kernel clears the death signal when the user changes, and Popen changes it before preexec_fn runs.
    return subprocess.Popen(
        [str(part) for part in command],
        stdin=stdin,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=dict(env) if env is not None else None,
        cwd=cwd,
        process_group=0,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
        umask=0o077 if account else -1,
        preexec_fn=before_exec,  # noqa: PLW1509 (one system call, no lock)
    )


def group_is_alive(group: int) -> bool:
    """Whether any process of the process group `group` still runs (the dead but unreaped count too)."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def signal_group(group: int, number: int) -> None:
    """Send a signal to every process of a group; nothing happens when the group is gone."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return


def stop(
    process: subprocess.Popen[bytes], *, steps: Sequence[tuple[int, float]], whole_group: bool = False
) -> bool:
    """Send each (signal, seconds to wait) in turn until the child ends; then SIGKILL its whole group.

    Returns whether it ended by itself, without the final SIGKILL.
    """
    ended = False
    for number, seconds in steps:
        if process.poll() is not None:
            ended = True
            break
        if whole_group:
            signal_group(process.pid, number)
        else:
            process.send_signal(number)
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            continue
        ended = True
        break
    signal_group(process.pid, signal.SIGKILL)
    process.wait()
    return ended


def wait_until(condition: Callable[[], bool], *, seconds: float, pause: float = 0.02) -> bool:
    """Poll `condition` until it holds or `seconds` are over; returns whether it held."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen on host:port right now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port(first: int | None = None) -> int:
    """`first` when it is free, else a random free loopback port below the ephemeral range."""
    if first is not None and port_is_free(first):
        return first
    for port in random.sample(range(FIRST_PORT, LAST_PORT), 200):
        if port_is_free(port):
            return port
    raise ProcessFailed("No free port between 20000 and 32767 on 127.0.0.1.")


def tail(path: Path, lines: int = 12) -> str:
    """The last lines of a log file, for an error message."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 8192))
        text = file.read().decode(errors="replace")
    return "\n".join(text.splitlines()[-lines:])
