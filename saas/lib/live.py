"""Announces events to open WebSockets, after commit; at most once, so listeners also read the rows."""

from __future__ import annotations

import logging
from typing import Any

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.db import transaction
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)


def group_for(kind: str, public_id: str) -> str:
    """The channel group of one object; letters, digits, dots and hyphens only."""
    return f"{kind}.{public_id}"


def publish(topic: str, event: dict[str, Any]) -> None:
    """Send the event to the group once the current transaction commits; a lost link is logged and passed over."""
    transaction.on_commit(lambda: _send(topic, event))


def _send(topic: str, event: dict[str, Any]) -> None:
    layer = get_channel_layer()
    if layer is None:
        return
    try:
        async_to_sync(layer.group_send)(topic, {"type": "live.event", "event": event})
    except (RedisError, OSError) as error:
        logger.warning("live event not sent (%s): clients read the gap", type(error).__name__)
