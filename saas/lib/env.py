"""Reads the environment: text, integers, flags, paths and database URLs, with clear errors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


class BadSetting(Exception):
    """An environment variable that cannot be used; the message says which and why."""


def text(name: str, default: str = "") -> str:
    """The variable as text; an empty value counts as absent."""
    return os.environ.get(name) or default


def integer(name: str, default: int) -> int:
    """The variable as a whole number; raises BadSetting on anything else."""
    raw = text(name)
    if not raw:
        return default
    try:
        return int(raw)
    except ValueError:
        raise BadSetting(f"{name} must be a whole number, not {raw!r}.") from None


def flag(name: str, *, default: bool = False) -> bool:
    """1/true/yes/on and 0/false/no/off; raises BadSetting on anything else."""
    raw = text(name).lower()
    if not raw:
        return default
    if raw in {"1", "true", "yes", "on"}:
        return True
    if raw in {"0", "false", "no", "off"}:
        return False
    raise BadSetting(f"{name} must be 1 or 0, not {raw!r}.")


def path(name: str, default: Path) -> Path:
    """The variable as an absolute path."""
    return Path(text(name, str(default))).expanduser().resolve()


def database(url: str, **extra: Any) -> dict[str, Any]:
    """A Django DATABASES entry from postgresql://user:password@host:port/name?host=/socket/dir."""
    parts = urlsplit(url)
    if parts.scheme not in {"postgres", "postgresql"}:
        raise BadSetting("The database must be PostgreSQL: row-level security keeps tenants apart.")
    query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    host = query.pop("host", unquote(parts.hostname or ""))
    entry: dict[str, Any] = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.lstrip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": host,
        "PORT": query.pop("port", str(parts.port or "")),
        "OPTIONS": dict(query),
    }
    entry["OPTIONS"].update(extra.pop("OPTIONS", {}))
    return entry | extra
