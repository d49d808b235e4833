"""PostgreSQL and Valkey from wheels: start, addresses for the environment, stop. Knows no Django."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from saas.embedded_postgres import ROLES, Postgres, running_urls, start_postgres
from saas.embedded_valkey import Valkey, running_url, start_valkey
from saas.processes import ProcessFailed

__all__ = [
    "ROLES",
    "Embedded",
    "Postgres",
    "ProcessFailed",
    "Valkey",
    "environment",
    "start",
    "start_postgres",
    "start_valkey",
    "temporary",
]

VARIABLES = {"app": "DATABASE_URL", "migrator": "MIGRATOR_DATABASE_URL", "operator": "OPERATOR_DATABASE_URL"}


@dataclass(frozen=True)
class Embedded:
    """Both embedded services of one data directory."""

    data_dir: Path
    postgres: Postgres
    valkey: Valkey

    def environment(self) -> dict[str, str]:
        """DATABASE_URL (role app), MIGRATOR_DATABASE_URL, OPERATOR_DATABASE_URL, REDIS_URL."""
        urls = {variable: self.postgres.url_for(role) for role, variable in VARIABLES.items()}
        return urls | {"REDIS_URL": self.valkey.url_for()}

    def stop(self) -> None:
        """Valkey first, PostgreSQL last."""
        self.valkey.stop()
        self.postgres.stop()


def start(data_dir: Path, *, is_durable: bool = True, may_create_databases: bool = False) -> Embedded:
    """Start both services of `data_dir`; raises ProcessFailed with a sentence."""
    valkey = start_valkey(data_dir)
    try:
        postgres = start_postgres(data_dir, is_durable=is_durable, may_create_databases=may_create_databases)
    except BaseException:
        valkey.stop()
        raise
    return Embedded(data_dir, postgres, valkey)


def environment(data_dir: Path) -> dict[str, str]:
    """The variables of services that run for `data_dir` already (started by `up`); {} when none do."""
    found: dict[str, str] = {}
    urls = running_urls(data_dir)
    if urls is not None:
        found |= {variable: urls[role] for role, variable in VARIABLES.items()}
    redis_url = running_url(data_dir)
    if redis_url is not None:
        found["REDIS_URL"] = redis_url
    return found


@contextmanager
def temporary() -> Iterator[Embedded]:
    """Services of their own in a temporary folder, for one test run: not durable, gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="cloister-"))
    services: Embedded | None = None
    try:
        services = start(folder, is_durable=False, may_create_databases=True)
        yield services
    finally:
        if services is not None:
            services.stop()
        outside = (folder / "services").resolve()
        shutil.rmtree(folder, ignore_errors=True)
        if os.path.lexists(outside):
            shutil.rmtree(outside, ignore_errors=True)
