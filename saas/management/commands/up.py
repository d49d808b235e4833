"""Starts everything in one terminal: services, migrations, web, engine, workers, timetable; Ctrl-C stops it all."""

from __future__ import annotations

import http.client
import json
import os
import signal
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import psycopg
from django.conf import settings
from django.core.management.base import BaseCommand

from modeling.serving.addresses import settings_places
from saas import embedded
from saas.database_role import require_bound_role
from saas.embedded_home import Lock, open_home
from saas.embedded_postgres import start_postgres
from saas.embedded_valkey import start_valkey
from saas.lib import env
from saas.migrations_state import pending
from saas.processes import ProcessFailed, die_with_parent, free_port, port_is_free, tail
from saas.stack import CONNECTIONS, ROLES, Stack
from saas.supervisor import Child, Service, Supervisor
from tenants import tombstones
from tenants.demo import sign_ins

REPLAYING = ("web", "quick")  # the roles that start only when nothing destroyed is back
SERVING = ("DATABASE_URL", "OPERATOR_DATABASE_URL")
READY_SECONDS = 120.0
HOPELESS_DEATHS = 3  # of one child, before the first page
EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 (compared, not bound)
STANDIN_PORT = 12111  # of the Stripe stand-in, when it is free


class Command(BaseCommand):
    """`manage.py up`: the whole product on one machine."""

    help = "Start everything; PORT, HOST, DATA_DIR, DATABASE_URL and REDIS_URL override the defaults."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--end-with-parent", action="store_true", help="stop when the calling process ends (used by make)"
        )
        parser.add_argument(
            "--only", choices=ROLES, help="become this one process, with everything given by the environment"
        )
        parser.add_argument("--no-demo", action="store_true", help="do not seed the demo tenants")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["end_with_parent"]:
            die_with_parent(signal.SIGTERM, os.getppid())
        try:
            if options["only"]:
                become(options["only"])
            Run(self._say, has_demo=settings.DEMO and not options["no_demo"]).go()
        except ProcessFailed as failure:
            self.stderr.write(f"\n{failure}")
            sys.exit(1)

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()


def become(role: str) -> NoReturn:
    """Turn this process into one of the stack's, in a container of its own."""
    given = {name: os.environ[name] for name in CONNECTIONS if name in os.environ}
    stack = _stack(env.text("HOST", "127.0.0.1"), env.integer("PORT", 8000), given)
    child: Child = _engine(stack) if role == "engine" else getattr(stack, role)()
    for name in SERVING:
        if name in child.env:
            require_bound_role(name, child.env[name])
    operator = child.env.get("OPERATOR_DATABASE_URL", "")
    if role in REPLAYING and operator and _unreplayed(operator):
        tombstones.replay()
    os.chdir(settings.BASE_DIR)
    os.execve(child.command[0], [str(part) for part in child.command], dict(child.env))  # noqa: S606 (our own command)


def _unreplayed(url: str) -> int:
    """How many tombstones the database of the operator's role does not know: more than none after a restore."""
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        return len(tombstones.unreplayed(cursor))


def _stack(host: str, port: int, connections: Mapping[str, str]) -> Stack:
    return Stack(
        settings.BASE_DIR,
        settings.DATA_DIR,
        settings.MODELS_DIR,
        settings.ENGINE_SOCKET,
        settings_places(settings.ENGINES, settings.ENGINE_SOCKET, settings.ENGINE_SPLIT),
        host,
        port,
        connections,
    )


def _engine(stack: Stack) -> Child:
    """An engine in a container of its own: of ENGINE_BASES alone, and at ENGINE_LISTEN for other hosts too."""
    listen: list[str] = []
    if address := env.text("ENGINE_LISTEN"):
        given = {
            "--cert": settings.ENGINE_TLS_CERT,
            "--key": settings.ENGINE_TLS_KEY,
            "--ca": settings.ENGINE_TLS_CA,
        }
        listen = [
            "--listen",
            address,
            *(word for name, path in given.items() if path for word in (name, str(path))),
        ]
    return stack.engine(None, env.text("ENGINE_BASES"), listen=listen)


class Run:
    """One run of the whole stack, from the first check to the last child's end."""

    def __init__(self, say: Callable[[str], None], *, has_demo: bool) -> None:
        self.say = say
        self.has_demo = has_demo
        self.data_dir: Path = settings.DATA_DIR
        self.host = env.text("HOST", "127.0.0.1")
        self.port = env.integer("PORT", 8000)
        self.begun = time.monotonic()
        self.supervisor = Supervisor(cwd=settings.BASE_DIR, say=say)
        self.seeding: Child | None = None

    def go(self) -> None:
        """Start, watch until told to stop, stop."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        self._check_port()
        lock = Lock(open_home(self.data_dir), "up")
        try:
            self._start()
            self._watch()
        finally:
            self._stop()
            lock.release()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.supervisor.is_stopping:
            self.supervisor.kill()
        self.supervisor.is_stopping = True

    def _check_port(self) -> None:
        if not 0 < self.port < 65536:
            raise ProcessFailed(f"PORT must be between 1 and 65535, not {self.port}.")
        if not port_is_free(self.port, self.host):
            raise ProcessFailed(
                f"Port {self.port} is in use, or may not be used by this user. Stop the program that has it, "
                f"or choose another port: make run PORT={self.port + 1}"
            )

    def _step(self, text: str) -> None:
        self.say(f"  {time.monotonic() - self.begun:5.1f} s  {text}")

    def _start(self) -> None:
        self.say(f"Cloister {settings.VERSION} · data in {self.data_dir}")
        connections = self._connections()
        stack = _stack(self.host, self.port, connections)
        (self.data_dir / "run" / "address").write_text(f"http://localhost:{self.port}\n")
        for engine in stack.engines():
            self.supervisor.start(engine)
        waiting = pending(connections["MIGRATOR_DATABASE_URL"])
        if waiting:
            self.supervisor.once(stack.migrate())
            self._step(f"{waiting} migrations applied")
        self._destroy_again(stack, connections["OPERATOR_DATABASE_URL"])
        for name in SERVING:
            require_bound_role(name, connections[name])
        for child in (*self._standin(stack), stack.web(), stack.train(), stack.quick(), stack.timetable()):
            if not self.supervisor.is_stopping:
                self.supervisor.start(child)
        self._wait_until_well()
        if self.has_demo and not self.supervisor.is_stopping:
            self._seed(stack)
        if not self.supervisor.is_stopping:
            self._announce()

    def _destroy_again(self, stack: Stack, url: str) -> None:
        """Replay the tombstones that the database lacks; nobody is served before that is done."""
        if not (count := _unreplayed(url)):
            return
        self.supervisor.once(stack.command("restore check", "restore_check", connections=CONNECTIONS))
        if _unreplayed(url):
            raise ProcessFailed("What was destroyed is back after a restore: run manage.py restore_check.")
        self._step(f"{count} things destroyed again that a restored backup had brought back")

    def _connections(self) -> dict[str, str]:
        """The given addresses, or those of embedded services started here; children inherit the marks."""
        given = {name: os.environ[name] for name in ("DATABASE_URL", "REDIS_URL") if os.environ.get(name)}
        found = dict(given)
        if "REDIS_URL" not in given:
            valkey = start_valkey(self.data_dir)
            port = valkey.port
            self.supervisor.services.append(
                Service("Valkey", valkey, lambda: start_valkey(self.data_dir, port=port))
            )
            found["REDIS_URL"] = valkey.url_for()
        if "DATABASE_URL" in given:
            for name in ("MIGRATOR_DATABASE_URL", "OPERATOR_DATABASE_URL"):
                if not os.environ.get(name):
                    raise ProcessFailed(
                        f"DATABASE_URL is given without {name}: Cloister needs the addresses of its three roles "
                        "(app, migrator, operator); the README says how to make them."
                    )
                found[name] = os.environ[name]
        else:
            found |= self._embedded_postgres()
        os.environ["CLOISTER_EMBEDDED"] = "0" if "DATABASE_URL" in given else "1"
        self._step("database and broker ready")
        return found

    def _embedded_postgres(self) -> dict[str, str]:
        if not (self.data_dir / "services" / "pg").exists():
            self._step("making the database (first start)")
        postgres = start_postgres(self.data_dir)
        port = postgres.port
        # PostgreSQL stops last: it goes to the front of the list.
        self.supervisor.services.insert(
            0, Service("PostgreSQL", postgres, lambda: start_postgres(self.data_dir, port=port))
        )
        return {variable: postgres.url_for(role) for role, variable in embedded.VARIABLES.items()}

    def _standin(self, stack: Stack) -> list[Child]:
        if not settings.STRIPE_IS_STANDIN or os.environ.get("STRIPE_API_BASE"):
            return []
        port = free_port(STANDIN_PORT)
        os.environ["STRIPE_API_BASE"] = f"http://127.0.0.1:{port}"
        return [stack.standin(port, settings.STRIPE_WEBHOOK_SECRET)]

    def _wait_until_well(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        said: set[str] = set()
        while not self.supervisor.is_stopping:
            self.supervisor.look_after()
            self._give_up_on_the_hopeless()
            parts = self._parts()
            for name in sorted(name for name, state in parts.items() if state == "ok" and name not in said):
                said.add(name)
                if name not in ("database", "broker"):
                    self._step(f"{name} ready")
            if parts and all(state == "ok" for state in parts.values()):
                return
            if time.monotonic() > deadline:
                missing = (
                    ", ".join(f"{name} {state}" for name, state in parts.items() if state != "ok") or "web"
                )
                raise ProcessFailed(
                    f"Not ready after {READY_SECONDS:.0f} s: {missing}. Logs: {self.data_dir / 'logs'}"
                )
            time.sleep(0.2)

    def _give_up_on_the_hopeless(self) -> None:
        for child in self.supervisor.children:
            if child.deaths > HOPELESS_DEATHS:
                end = tail(child.log_file, 20)
                raise ProcessFailed(f"{child.name} does not start; the end of {child.log_file} says:\n{end}")

    def _parts(self) -> dict[str, str]:
        host = "127.0.0.1" if self.host in EVERY_ADDRESS else self.host
        asked = http.client.HTTPConnection(host, self.port, timeout=5)
        try:
            asked.request("GET", "/healthz", headers={"Host": "localhost"})
            parts: dict[str, str] = json.loads(asked.getresponse().read())["parts"]
        except (OSError, http.client.HTTPException):
            return {}
        except (ValueError, KeyError):
            return {"web": "answers without a health report"}
        finally:
            asked.close()
        return parts

    def _seed(self, stack: Stack) -> None:
        names = ("DATABASE_URL", "OPERATOR_DATABASE_URL", "REDIS_URL")
        self.seeding = stack.command("demo data", "seed_demo", connections=names)
        self.seeding.niceness = 5
        self.supervisor.begin(self.seeding)

    def _announce(self) -> None:
        self._step("ready")
        self.say(f"\n  Cloister runs at http://localhost:{self.port}\n")
        if self.has_demo:
            for line in _sign_ins():
                self.say(line)
        self.say(f"  Ctrl-C stops everything. Logs: {self.data_dir / 'logs'}\n")

    def _watch(self) -> None:
        while not self.supervisor.is_stopping:
            self.supervisor.look_after()
            self._look_at_seeding()
            time.sleep(0.2)

    def _look_at_seeding(self) -> None:
        if self.seeding is None or self.seeding.process is None or self.seeding.process.poll() is None:
            return
        if self.seeding.process.returncode == 0:
            self._step("demo data is in place")
        else:
            self.say(f"The demo data could not be made; see {self.seeding.log_file}")
        self.seeding = None

    def _stop(self) -> None:
        begun = time.monotonic()
        self.say("\nStopping …")
        self.supervisor.stop()
        (self.data_dir / "run" / "address").unlink(missing_ok=True)
        self.say(f"Stopped in {time.monotonic() - begun:.1f} s.")


def _sign_ins() -> list[str]:
    rows = sign_ins()
    width = max(len(email) for email, _, _ in rows)
    lines = [f"    {email:<{width}}  {password}  {what}" for email, password, what in rows]
    return ["  Demo sign-ins (the sample data arrives in the background):", *lines, ""]
