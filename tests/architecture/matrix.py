"""The tenant matrix: walks every route as one tenant with another tenant's ids, under four oracles."""

from __future__ import annotations

import re
import secrets
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from django.db import connections, transaction
from django.test import Client
from django.urls import URLPattern, URLResolver

METHODS = ("get", "post", "put", "patch", "delete")
NOISE = re.compile(r'value="[A-Za-z0-9]{64}"|csrfmiddlewaretoken|req_[0-9a-f]{24}|"took_ms": \d+')


@dataclass(frozen=True)
class Route:
    """One URL pattern: its path with {names}, and the names."""

    path: str
    params: tuple[str, ...]


@dataclass
class World:
    """Tenant A's clients, tenant B's ids by parameter name, and B's canary, which no id contains."""

    a: Any
    b: Any
    browser: Client
    key: str
    ids: dict[str, str]
    canary: str
    b_rows: set[str] = field(default_factory=set)

    def strange(self, name: str) -> str:
        """An id of the same shape as B's that does not exist."""
        real = self.ids[name]
        if re.fullmatch(r"[0-9a-f-]{36}", real):
            return str(uuid.UUID(bytes=secrets.token_bytes(16), version=4))
        fresh = "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz0123456789") for _ in real)
        kept = max(real.rfind("-"), real.rfind("_"), real.rfind(":")) + 1
        return real[:kept] + fresh[kept:] if kept < len(real) - 3 else fresh


def routes(patterns: list[Any], prefix: str = "") -> Iterator[Route]:
    """Every route of a URLconf, nested ones included."""
    for pattern in patterns:
        text = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from routes(pattern.url_patterns, text)
        elif isinstance(pattern, URLPattern):
            names = re.findall(r"<(?:\w+:)?(\w+)>", text)
            yield Route("/" + re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", text), tuple(names))


def tenant_tables() -> list[str]:
    """All tables with a tenant_id column."""
    with connections["migrator"].cursor() as cursor:
        cursor.execute(
            "SELECT table_name FROM information_schema.columns "
            "WHERE column_name = 'tenant_id' AND table_schema = current_schema() ORDER BY 1"
        )
        return [name for (name,) in cursor.fetchall()]


def rows_as_text(tenant: Any) -> dict[str, list[str]]:
    """Every row of a tenant in every table, as text; read as the owner inside that tenant's setting."""
    found = {}
    with transaction.atomic(using="migrator"), connections["migrator"].cursor() as cursor:
        cursor.execute("SELECT set_config('app.tenant_id', %s, true)", [str(tenant.pk)])
        for table in tenant_tables():
            cursor.execute(f'SELECT t::text FROM "{table}" t ORDER BY 1')
            found[table] = [text for (text,) in cursor.fetchall()]
    return found


def row_ids(tenant: Any) -> set[str]:
    """The uuids of all rows of a tenant."""
    with transaction.atomic(using="migrator"), connections["migrator"].cursor() as cursor:
        cursor.execute("SELECT set_config('app.tenant_id', %s, true)", [str(tenant.pk)])
        found = set()
        for table in tenant_tables():
            cursor.execute(f'SELECT id::text FROM "{table}"')
            found |= {text for (text,) in cursor.fetchall()}
    return found


def ask(world: World, method: str, path: str, body: dict[str, Any]) -> tuple[int, str]:
    """One request as A: with the key under /v1, with the signed-in browser elsewhere. Status, and headers with body."""
    options: dict[str, Any] = {}
    if path.startswith("/v1/"):
        client = Client(raise_request_exception=False)
        options["headers"] = {"authorization": f"Bearer {world.key}"}
        if method != "get":
            options |= {"data": body, "content_type": "application/json"}
    else:
        client = world.browser
        client.raise_request_exception = False
        if method == "post":
            options["data"] = body
    response = getattr(client, method)(path, **options)
    raw = b"".join(response.streaming_content) if response.streaming else response.content
    headers = "\n".join(
        f"{name}: {value}"
        for name, value in sorted(response.items())
        if not name.lower().startswith(("x-request-id", "x-ratelimit-"))
    )
    return response.status_code, headers + "\n" + raw.decode(errors="replace")


def cases(world: World, route: Route) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """(with B's ids, with strange ids) for the path: a stranger's whole tenant, and a stranger's id inside A's own."""
    names = route.params
    missing = [name for name in names if name not in world.ids]
    assert not missing, f"{route.path}: no source of ids is declared for {missing}"
    if "slug" in names:
        yield {n: world.ids[n] for n in names}, {n: world.strange(n) for n in names}
        if len(names) == 1:
            return
    own = {"slug": world.a.slug}
    yield (
        {n: own.get(n, world.ids[n]) for n in names},
        {n: own.get(n) or world.strange(n) for n in names},
    )


def same(world: World, text: str, used: dict[str, str]) -> str:
    """A response with its own ids and tokens taken out, for comparison."""
    for value in sorted(used.values(), key=len, reverse=True):
        if value != world.a.slug:
            text = text.replace(value, "ID")
    return re.sub(r"Content-Length: \d+|ETag: \S+", "", NOISE.sub("", text))


Bodies = dict[str, Callable[[dict[str, str]], dict[str, Any]]]


def examine(world: World, route: Route, bodies: Bodies) -> list[str]:
    """What leaks on one route, in words; empty when it is clean."""
    found: list[str] = []
    before = rows_as_text(world.b)
    make = bodies.get(route.path, lambda ids: {})
    for real, strange in cases(world, route):
        body_strange = {name: world.strange(name) for name in world.ids}
        for method in METHODS:
            status, text = ask(world, method, route.path.format(**real), make(world.ids))
            other_status, other = ask(world, method, route.path.format(**strange), make(body_strange))
            if world.canary in text:
                found.append(f"{method} {route.path}: B's canary in the response")
            took_id = bool(route.params) or route.path in bodies
            differs = status != other_status or same(world, text, world.ids | real) != same(
                world, other, body_strange | strange
            )
            if took_id and differs:
                found.append(f"{method} {route.path}: {status} for B's id, {other_status} for a strange one")
            if status >= 500:
                found.append(f"{method} {route.path}: server error {status}")
    if rows_as_text(world.b) != before:
        found.append(f"{route.path}: B's rows changed")
    mine = "\n".join(text for rows in rows_as_text(world.a).values() for text in rows)
    found += [f"{route.path}: a row of A names B's row {one}" for one in world.b_rows if one in mine]
    return found
