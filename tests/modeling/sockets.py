"""A WebSocket client for ASGI applications (channels.testing would need a second server installed)."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote, urlsplit

from asgiref.testing import ApplicationCommunicator


class WebSocket(ApplicationCommunicator):
    """One socket, opened with `connect()`."""

    def __init__(
        self, application: Any, url: str, *, headers: list[tuple[bytes, bytes]], user: Any = None
    ) -> None:
        parts = urlsplit(url)
        scope: dict[str, Any] = {
            "type": "websocket",
            "path": unquote(parts.path),
            "query_string": parts.query.encode(),
            "headers": headers,
            "subprotocols": [],
        }
        if user is not None:
            scope["user"] = user
        super().__init__(application, scope)

    async def connect(self) -> None:
        """Shake hands; the application must accept."""
        await self.send_input({"type": "websocket.connect"})
        assert (await self.receive_output(10))["type"] == "websocket.accept"

    async def receive_json(self) -> Any:
        """The next message as JSON."""
        message = await self.receive_output(10)
        assert message["type"] == "websocket.send", message
        return json.loads(message["text"])

    async def close_code(self) -> int:
        """The code with which the application closes next."""
        message = await self.receive_output(10)
        assert message["type"] == "websocket.close", message
        return int(message["code"])

    async def disconnect(self) -> None:
        """Leave, and wait for the application's end."""
        await self.send_input({"type": "websocket.disconnect", "code": 1000})
        await self.wait(10)
