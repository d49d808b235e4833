"""HTTP to Django, hot /v1 routes to the gateway, WebSockets to Channels; bodies stream, never spill to disk."""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "saas.settings")

import django

django.setup(set_prefix=False)

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter

from modeling.routing import websocket_urlpatterns
from modeling.serving.gateway import PATHS as GATEWAY_PATHS
from modeling.serving.gateway import application as gateway
from saas.streaming import StreamingHandler

pages = StreamingHandler()
websockets = AuthMiddlewareStack(
    URLRouter(websocket_urlpatterns)
)  # consumers check the origin: programs send none
django_protocols = ProtocolTypeRouter({"http": pages, "websocket": websockets})


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Route one connection; the gateway also takes the start and stop of the server."""
    if scope["type"] == "lifespan" or (scope["type"] == "http" and scope["path"] in GATEWAY_PATHS):
        await gateway(scope, receive, send)
    else:
        await django_protocols(scope, receive, send)
