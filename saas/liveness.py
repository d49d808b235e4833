"""Background processes say in Valkey that they live; /healthz reads it."""

from __future__ import annotations

import logging
import os
import threading

import redis

from saas.lib.valkey import client

logger = logging.getLogger(__name__)

KINDS = ("train", "quick", "timetable")
BEAT_SECONDS = 2.0
EXPIRY_SECONDS = 9
_stopped = threading.Event()


def _key(kind: str) -> str:
    return f"cloister-alive:{kind}"


def announce(kind: str) -> None:
    """Keep saying from a thread that a process of this kind lives, until withdraw() or the process ends."""
    _stopped.clear()
    threading.Thread(target=_say, args=(kind,), name="liveness", daemon=True).start()


def _say(kind: str) -> None:
    while True:
        try:
            client().set(_key(kind), os.getpid(), ex=EXPIRY_SECONDS)
        except redis.RedisError as error:
            logger.warning("liveness not announced: %s", type(error).__name__)
        if _stopped.wait(BEAT_SECONDS):
            return


def withdraw(kind: str) -> None:
    """Say that the process is going, so that /healthz does not wait for the expiry."""
    _stopped.set()
    try:
        client().delete(_key(kind))
    except redis.RedisError as error:
        logger.warning("liveness not withdrawn: %s", type(error).__name__)


def missing_kinds() -> list[str]:
    """The kinds of background process of which none lives; raises redis.RedisError without a broker."""
    values = client().mget([_key(kind) for kind in KINDS])
    return [kind for kind, value in zip(KINDS, values, strict=True) if value is None]
