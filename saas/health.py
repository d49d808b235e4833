"""/healthz: 200 once pages, API, engine and workers can serve; else 503 with the parts that cannot."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

import redis
from asgiref.sync import sync_to_async
from django.db import Error as DatabaseError
from django.db import connection
from django.http import HttpRequest, JsonResponse

from modeling.serving.addresses import ALL
from modeling.serving.engines import Engines
from saas import liveness
from tenants import root_keys

TIMEOUT_SECONDS = 3.0
Result = TypeVar("Result")


def _database() -> str:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT to_regclass('tenants_tenant') IS NOT NULL")
            row = cursor.fetchone()
    except DatabaseError:
        return "cannot be reached"
    finally:
        connection.close_if_unusable_or_obsolete()
    return "ok" if row and row[0] else "not migrated yet"


def _background() -> dict[str, str]:
    try:
        missing = liveness.missing_kinds()
    except redis.RedisError:
        return {"broker": "cannot be reached"}
    return {"broker": "ok"} | {kind: "not running" if kind in missing else "ok" for kind in liveness.KINDS}


async def _engine() -> str:
    """Whether every base has an engine that takes a connection and greets."""
    engines = Engines.from_settings()
    try:
        missing = await engines.missing(TIMEOUT_SECONDS)
    finally:
        await engines.close()
    named = ", ".join(base for base in missing if base != ALL)
    return "ok" if not missing else f"not running ({named})" if named else "not running"


async def _in_thread(check: Callable[[], Result]) -> Result:
    return await sync_to_async(check, thread_sensitive=False)()


async def healthz(request: HttpRequest) -> JsonResponse:
    """Every part and how it is, as JSON; nothing about tenants."""
    database, background, engine, keys = await asyncio.gather(
        _in_thread(_database), _in_thread(_background), _engine(), _in_thread(root_keys.health)
    )
    parts = {"database": database, **background, "engine": engine, "keys": keys}
    is_well = all(state == "ok" for state in parts.values())
    body = {"status": "ok" if is_well else "unavailable", "parts": parts}
    return JsonResponse(body, status=200 if is_well else 503, headers={"Cache-Control": "no-store"})
