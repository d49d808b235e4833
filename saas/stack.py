"""The processes that make up a running Cloister: their commands, environments, order and deadlines."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from modeling.serving.addresses import ALL, SPLIT_BASES, Places, UnixAddress, split_socket
from saas.supervisor import Child

CONNECTIONS = ("DATABASE_URL", "MIGRATOR_DATABASE_URL", "OPERATOR_DATABASE_URL", "REDIS_URL")
SECRETS = ("SECRET_KEY", "KEY_PEPPER", "STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRET", "EMAIL_HOST_PASSWORD")
METRICS_DISTANCE = 1464
QUICK_PROCESSES = 3
ROLES = ("web", "engine", "train", "quick", "timetable")
MIGRATE = ("migrate", "--database", "migrator", "--no-input", "--skip-checks")
ENGINE_STEADY_SECONDS = 3.0  # it listens after about one: what lived longer has served, and is back at once
# Ranks: the timetable stops first, then the workers, the web, the engine.
TIMETABLE, WORKERS, WEB, ENGINE, STANDIN = 4, 3, 2, 1, 0


@dataclass(frozen=True)
class Stack:
    """Builds the children; `connections` are the addresses of the services, ours or given."""

    base_dir: Path
    data_dir: Path
    models_dir: Path
    engine_socket: Path
    places: Places
    host: str
    port: int
    connections: Mapping[str, str]

    def environment(self, *allowed: str, threads: int = 1) -> dict[str, str]:
        """The caller's environment with only the named connections, and the thread counts set."""
        kept = {name: value for name, value in os.environ.items() if name not in CONNECTIONS}
        kept |= {name: self.connections[name] for name in allowed if name in self.connections}
        defaults = {
            "OMP_NUM_THREADS": str(threads),
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            "MALLOC_ARENA_MAX": "2",
            "PYTHONUNBUFFERED": "1",
            "DJANGO_SETTINGS_MODULE": "saas.settings",
        }
        return defaults | kept

    def _child(
        self, name: str, rank: int, command: list[str], env: Mapping[str, str], **more: float
    ) -> Child:
        log_file = self.data_dir / "logs" / f"{name.replace(' ', '-')}.log"
        child = Child(name, [sys.executable, *command], env, log_file, rank)
        child.stop_seconds = more.get("stop_seconds", child.stop_seconds)
        child.steady_seconds = more.get("steady_seconds", child.steady_seconds)
        return child

    def command(self, name: str, *words: str, connections: tuple[str, ...]) -> Child:
        """A management command that runs to its end."""
        env = self.environment(*connections)
        return self._child(name, WORKERS, ["manage.py", *words], env)

    def migrate(self) -> Child:
        """All migrations, as their owner; a lost last commit would only be migrated again."""
        child = self.command("migrate", *MIGRATE, connections=CONNECTIONS)
        child.env = {**child.env, "PGOPTIONS": "-c synchronous_commit=off"}
        return child

    def web(self) -> Child:
        """Pages, API, WebSockets and gateway in one uvicorn."""
        command = ["-m", "uvicorn", "saas.asgi:application", "--host", self.host, "--port", str(self.port)]
        command += ["--no-access-log", "--no-server-header", "--timeout-graceful-shutdown", "2"]
        command += ["--ws", "websockets-sansio", "--proxy-headers", "--backlog", "2048"]
        env = {"METRICS_PORT": str(self.metrics_port())}
        env |= self.environment("DATABASE_URL", "OPERATOR_DATABASE_URL", "REDIS_URL")
        return self._child("web", WEB, command, env, stop_seconds=5.0)

    def metrics_port(self) -> int:
        """Where metrics are unless METRICS_PORT says otherwise: 9464 beside 8000; 0 (none) where that is no port."""
        beside = self.port + METRICS_DISTANCE
        return beside if beside < 65536 else 0

    def engines(self) -> list[Child]:
        """The engines of this machine: one for all bases, or one each; none where ENGINES names others for all."""
        sockets = {
            address.path: "" if base == ALL else base
            for base, addresses in sorted(self.places.items())
            for address in addresses
            if isinstance(address, UnixAddress)
        }
        own = {split_socket(self.engine_socket, base) for base in SPLIT_BASES} | {self.engine_socket}
        return [self.engine(path, base) for path, base in sorted(sockets.items()) if path in own]

    def engine(self, socket: Path | None = None, bases: str = "", *, listen: Sequence[str] = ()) -> Child:
        """A model process, of the named bases or of all: no database, no broker, no secret."""
        threads = max(1, (os.cpu_count() or 2) // 2)
        command = ["-m", "modeling.serving.engine", "--socket", str(socket or self.engine_socket)]
        command += ["--models", str(self.models_dir), "--threads", str(threads), *listen]
        command += ["--bases", bases] if bases else []
        env = self.environment(threads=threads)
        env = {name: value for name, value in env.items() if name not in SECRETS}
        name = f"engine {bases}" if bases else "engine"
        return self._child(name, ENGINE, command, env, stop_seconds=3.0, steady_seconds=ENGINE_STEADY_SECONDS)

    def train(self) -> Child:
        """The training worker: it holds the app role only."""
        env = self.environment("DATABASE_URL", "REDIS_URL", threads=os.cpu_count() or 1)
        command = _worker("train", processes=1)
        return self._child("training worker", WORKERS, command, env, stop_seconds=30.0)

    def quick(self) -> Child:
        """Inspection, webhooks, metering, sweeping; one process more than heavy work may take (HEAVY_SLOTS)."""
        env = self.environment("DATABASE_URL", "OPERATOR_DATABASE_URL", "REDIS_URL")
        command = _worker("quick", processes=QUICK_PROCESSES)
        return self._child("quick worker", WORKERS, command, env, stop_seconds=5.0)

    def standin(self, port: int, secret: str) -> Child:
        """The stand-in for Stripe, where no Stripe key is set."""
        command = ["-m", "billing.standin", "--port", str(port), "--secret", secret]
        command += ["--hook", f"http://127.0.0.1:{self.port}/stripe/webhook"]
        command += ["--file", str(self.data_dir / "stripe-standin.json")]
        return self._child("Stripe stand-in", STANDIN, command, self.environment(), stop_seconds=2.0)

    def timetable(self) -> Child:
        """Celery's beat: it only sends names."""
        schedule = self.data_dir / "run" / "timetable"
        command = ["-m", "celery", "-A", "saas.celery", "beat", "--loglevel", "WARNING", "--pidfile", ""]
        command += ["--schedule", str(schedule)]
        child = self._child("timetable", TIMETABLE, command, self.environment("DATABASE_URL", "REDIS_URL"))
        child.stop_signal = signal.SIGTERM
        return child


def _worker(queue: str, *, processes: int) -> list[str]:
    command = ["-m", "celery", "-A", "saas.celery", "worker", "--queues", queue, "--pool", "prefork"]
    command += ["--concurrency", str(processes), "--hostname", f"{queue}@%h", "--loglevel", "INFO"]
    return [*command, "--without-gossip", "--without-mingle", "--without-heartbeat"]
