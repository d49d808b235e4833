"""The process's connection pool to Valkey or Redis, for one-use tickets and revocation messages."""

from __future__ import annotations

import functools

import redis
from django.conf import settings


@functools.cache
def client() -> redis.Redis:
    """A client with short timeouts; safe to share between threads, and redis-py opens its own sockets after a fork."""
    return redis.Redis.from_url(settings.REDIS_URL, socket_timeout=2, socket_connect_timeout=2)
