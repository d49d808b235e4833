"""The stand-in for Stripe, served over HTTP in a thread, with webhooks collected instead of sent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client

from billing.standin.hooks import event, sign
from billing.standin.server import Server
from billing.standin.state import State


class Collected:
    """Takes the stand-in's events; `deliver` posts them to our webhook, signed as Stripe does."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def send(self, kind: str, subject: dict[str, Any]) -> None:
        """Keep an event."""
        self.events.append(event(kind, subject))

    def deliver(self, order: list[int] | None = None) -> None:
        """Post the kept events, in the given order of indices, repeats allowed."""
        for index in order if order is not None else range(len(self.events)):
            post_event(self.events[index])


def post_event(body: dict[str, Any], secret: str = "whsec_standin") -> Any:
    """One webhook call."""
    import json

    raw = json.dumps(body).encode()
    header = {"stripe-signature": sign(raw, secret)}
    return Client().post("/stripe/webhook", raw, "application/json", headers=header)


@pytest.fixture
def standin(settings: Any) -> Iterator[Server]:
    """A running stand-in that the gateway talks to."""
    from billing import gateway

    server = Server(("127.0.0.1", 0), State(), Collected())  # type: ignore[arg-type]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    settings.STRIPE_API_BASE = server.base
    gateway._client.cache_clear()
    yield server
    server.shutdown()
    server.server_close()
    gateway._client.cache_clear()
