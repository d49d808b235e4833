"""Turns for heavy work on data: few pieces at a time in all quick workers, and the tenants take turns.

A hint says only that there may be work: who finds a free place does the piece whose turn it is, of whatever kind. The
places are advisory locks of the database session, so that a worker that dies gives its place back at once.
"""

from __future__ import annotations

import time
import uuid
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

from saas.lib.background import enqueue

SMALL_BYTES: Final = 1 << 20  # work on less is done in a moment and needs no turn
HINTS: Final = 4
REST_SECONDS: Final = 10.0  # before a process takes up again what is still waiting after its turn
_CHOOSING, _PLACES, _TENANTS = 0x434C01, 0x434C02, 0x434C03


@dataclass(frozen=True)
class Piece:
    """One thing to do for a tenant."""

    kind: str
    tenant_id: uuid.UUID
    id: uuid.UUID


@dataclass(frozen=True)
class Kind:
    """One kind of heavy work: its task, the task's argument, and what of it waits, with the time since when.

    `run` claims the piece itself, and does nothing when somebody else has it. Without `waiting`, only who asked for a
    piece does it, and asks again.
    """

    task: str
    argument: str
    run: Callable[[Piece], object]
    waiting: Callable[[], Iterable[tuple[uuid.UUID, uuid.UUID, datetime]]] | None = None


_kinds: dict[str, Kind] = {}
_ran_at: dict[Piece, float] = {}


def register(name: str, kind: Kind) -> None:
    """Make a kind known, from the module of its task."""
    _kinds[name] = kind


def take(kind: str, tenant_id: uuid.UUID | str, id_: uuid.UUID | str) -> Piece | None:
    """Do the piece whose turn it is, and send hints for what waits then; None when all places are taken."""
    asked = Piece(kind, uuid.UUID(str(tenant_id)), uuid.UUID(str(id_)))
    with turn(asked) as piece:
        if piece is None:
            return None
        _kinds[piece.kind].run(piece)
    _send_hints()
    return piece


@contextmanager
def turn(asked: Piece) -> Iterator[Piece | None]:
    """A place, and the piece to do there: of the tenant with the fewest at work, the oldest. None: no place is free."""
    with transaction.atomic():  # only choosing is done one after another
        _ask("SELECT pg_advisory_xact_lock(%s, 0)", _CHOOSING)
        places = range(settings.HEAVY_SLOTS)
        place = next((at for at in places if _ask("SELECT pg_try_advisory_lock(%s, %s)", _PLACES, at)), None)
        piece = None if place is None else _first(asked)
        if piece is not None:
            _ask("SELECT pg_advisory_lock_shared(%s, %s)", _TENANTS, _number(piece.tenant_id))
    try:
        yield piece
    finally:
        if piece is not None:
            _ran_at[piece] = time.monotonic()
            _ask("SELECT pg_advisory_unlock_shared(%s, %s)", _TENANTS, _number(piece.tenant_id))
            _ask("SELECT pg_advisory_unlock(%s, %s)", _PLACES, place)


def _ask(query: str, *values: int | None) -> object:
    with connection.cursor() as cursor:
        cursor.execute(query, values)
        return cursor.fetchone()[0]


def _number(tenant_id: uuid.UUID) -> int:
    """A tenant as the 32 bits of a lock; two with the same one only wait for each other a little."""
    return zlib.crc32(tenant_id.bytes) - (1 << 31)


def _first(asked: Piece) -> Piece:
    if _kinds[asked.kind].waiting is None:
        return asked
    waiting = {asked: timezone.now()} | _waiting()
    at_work = _at_work()
    return min(waiting, key=lambda piece: (at_work[_number(piece.tenant_id)], waiting[piece]))


def _waiting() -> dict[Piece, datetime]:
    """What nobody holds, of all tenants, but for what this process has just had."""
    now = time.monotonic()
    for piece in [one for one, at in _ran_at.items() if now - at > REST_SECONDS]:
        del _ran_at[piece]
    found = {
        Piece(name, tenant_id, pk): since
        for name, kind in _kinds.items()
        for tenant_id, pk, since in (kind.waiting() if kind.waiting is not None else ())
    }
    return {piece: since for piece, since in found.items() if piece not in _ran_at}


def _at_work() -> Counter[int]:
    """How many pieces of each tenant are at work."""
    query = (
        "SELECT objid::bigint FROM pg_locks WHERE locktype = 'advisory' AND classid = %s AND granted"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    with connection.cursor() as cursor:
        cursor.execute(query, [_TENANTS])
        return Counter(number - (1 << 32) if number >= 1 << 31 else number for (number,) in cursor.fetchall())


def _send_hints() -> None:
    """For the first pieces of each tenant, oldest first."""
    waiting, before = _waiting(), Counter[uuid.UUID]()
    ranks: dict[Piece, int] = {}
    for piece in sorted(waiting, key=lambda one: waiting[one]):
        ranks[piece] = before[piece.tenant_id]
        before[piece.tenant_id] += 1
    for piece in sorted(waiting, key=lambda one: (ranks[one], waiting[one]))[:HINTS]:
        kind = _kinds[piece.kind]
        enqueue(kind.task, tenant_id=piece.tenant_id, **{kind.argument: piece.id})
