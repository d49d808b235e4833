"""Keeps a set of child processes running: starts, restarts with backoff, stops in order with deadlines."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from saas.processes import ProcessFailed, signal_group, spawn, tail

BACKOFF_SECONDS = (0.3, 0.6, 1.2, 2.4, 5.0, 10.0, 30.0)
STEADY_SECONDS = 60.0  # a child that lived this long starts again after the shortest wait
LOG_BYTES = 10_000_000


class EmbeddedService(Protocol):
    """What the supervisor asks of an embedded PostgreSQL or Valkey."""

    def is_alive(self) -> bool: ...
    def stop(self) -> bool: ...


@dataclass
class Child:
    """One program to keep running. Children that share a `rank` stop together; higher ranks stop first."""

    name: str
    command: Sequence[str | Path]
    env: Mapping[str, str]
    log_file: Path
    rank: int
    stop_signal: int = signal.SIGTERM
    stop_seconds: float = 5.0
    steady_seconds: float = STEADY_SECONDS
    niceness: int = 0
    is_lasting: bool = True  # False: it is meant to end
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    deaths: int = 0
    start_again_at: float | None = None

    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None


@dataclass
class Service:
    """An embedded service, and how to start it anew (on its old port, so that addresses stay)."""

    name: str
    running: EmbeddedService
    restart: Callable[[], EmbeddedService]


@dataclass
class Supervisor:
    """Owns children and services. Use it from the main thread only (the death signal is tied to it)."""

    cwd: Path
    say: Callable[[str], None]
    children: list[Child] = field(default_factory=list)
    services: list[Service] = field(default_factory=list)  # in order of starting
    is_stopping: bool = False

    def start(self, child: Child) -> None:
        """Start a child and keep it running from now on."""
        self.children.append(child)
        _roll(child.log_file)
        self._launch(child)

    def _launch(self, child: Child) -> None:
        with child.log_file.open("ab") as log:
            child.process = spawn(
                child.command, log=log, env=child.env, cwd=self.cwd, niceness=child.niceness
            )
        child.started_at = time.monotonic()
        child.start_again_at = None

    def begin(self, child: Child) -> None:
        """Start a child that is meant to end by itself; stop() ends it if it still runs."""
        child.is_lasting = False
        self.start(child)

    def once(self, child: Child) -> None:
        """Run a child to its end; raises ProcessFailed with the end of its log when it fails."""
        _roll(child.log_file)
        self._launch(child)
        assert child.process is not None
        try:
            while child.process.poll() is None and not self.is_stopping:
                time.sleep(0.02)
        finally:
            if child.process.poll() is None:
                signal_group(child.process.pid, signal.SIGKILL)
                child.process.wait()
        if child.process.returncode != 0 and not self.is_stopping:
            raise ProcessFailed(
                f"{child.name} failed; the end of {child.log_file} says:\n{tail(child.log_file, 25)}"
            )

    def look_after(self) -> None:
        """One round: notice the dead, start again those whose wait is over."""
        for service in self.services:
            if not service.running.is_alive():
                self.say(f"{service.name} ended unexpectedly: starting it again.")
                service.running.stop()
                service.running = service.restart()
        now = time.monotonic()
        for child in self.children:
            if child.is_alive() or not child.is_lasting:
                continue
            if child.start_again_at is None:
                self._note_death(child, now)
            elif now >= child.start_again_at:
                self._launch(child)

    def _note_death(self, child: Child, now: float) -> None:
        assert child.process is not None
        if now - child.started_at > child.steady_seconds:
            child.deaths = 0
        wait = BACKOFF_SECONDS[min(child.deaths, len(BACKOFF_SECONDS) - 1)]
        child.deaths += 1
        child.start_again_at = now + wait
        signal_group(child.process.pid, signal.SIGKILL)  # what a dead worker's children still hold
        self.say(
            f"{child.name} ended ({_ending(child.process.returncode)}): starting it again in {wait:g} s. "
            f"Log: {child.log_file}"
        )

    def stop(self) -> None:
        """Stop the children rank by rank, then the services, last started first; nothing is left afterwards."""
        self.is_stopping = True
        for rank in sorted({child.rank for child in self.children}, reverse=True):
            self._stop_together([child for child in self.children if child.rank == rank and child.process])
        for service in reversed(self.services):
            service.running.stop()
        self.children.clear()
        self.services.clear()

    def _stop_together(self, group: Sequence[Child]) -> None:
        for child in group:
            if child.is_alive() and child.process:
                child.process.send_signal(child.stop_signal)
        begun = time.monotonic()
        for child in group:
            assert child.process is not None
            try:
                child.process.wait(timeout=max(0.0, begun + child.stop_seconds - time.monotonic()))
            except subprocess.TimeoutExpired:
                self.say(f"{child.name} did not stop within {child.stop_seconds:g} s: ended.")
            signal_group(child.process.pid, signal.SIGKILL)
            child.process.wait()

    def kill(self) -> None:
        """The second Ctrl-C: end every child now; the services still stop properly."""
        for child in self.children:
            if child.process:
                signal_group(child.process.pid, signal.SIGKILL)


def _ending(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"


def _roll(log_file: Path) -> None:
    """Keep one older log of at most the bound."""
    if log_file.exists() and log_file.stat().st_size > LOG_BYTES:
        log_file.replace(log_file.with_suffix(".log.1"))
