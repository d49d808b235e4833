"""Signs and sends the stand-in's webhooks with Stripe's real scheme."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import secrets
import threading
import time
import urllib.error
import urllib.request
from typing import Any

logger = logging.getLogger(__name__)
TRIES = 5


def sign(payload: bytes, secret: str, *, at: int | None = None) -> str:
    """The Stripe-Signature header: t=<seconds>,v1=<HMAC-SHA256 of "t.payload">."""
    now = int(time.time()) if at is None else at
    digest = hmac.new(secret.encode(), f"{now}.".encode() + payload, hashlib.sha256).hexdigest()
    return f"t={now},v1={digest}"


def event(kind: str, subject: dict[str, Any]) -> dict[str, Any]:
    """An event over an object, in Stripe's shape."""
    return {
        "id": f"evt_{secrets.token_hex(12)}",
        "object": "event",
        "type": kind,
        "created": int(time.time()),
        "livemode": False,
        "pending_webhooks": 1,
        "data": {"object": subject},
    }


class Sender:
    """Delivers events to one address, in the background, a few tries each."""

    def __init__(self, url: str, secret: str) -> None:
        self.url = url
        self.secret = secret

    def send(self, kind: str, subject: dict[str, Any]) -> None:
        """Queue one event."""
        body = json.dumps(event(kind, subject)).encode()
        threading.Thread(target=self._deliver, args=(body,), daemon=True).start()

    def _deliver(self, body: bytes) -> None:
        for attempt in range(TRIES):
            headers = {"Content-Type": "application/json", "Stripe-Signature": sign(body, self.secret)}
            request = urllib.request.Request(self.url, body, headers, method="POST")  # noqa: S310  our own address
            try:
                with urllib.request.urlopen(request, timeout=10):  # noqa: S310
                    return
            except (urllib.error.URLError, OSError) as error:
                logger.warning("webhook try %d failed: %s", attempt + 1, error)
                time.sleep(0.5 * 2**attempt)
