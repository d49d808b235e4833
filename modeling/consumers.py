"""WebSockets: a job's events after the number the client saw last, then live, each once and in order."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import parse_qs

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncJsonWebsocketConsumer

from modeling import looking, watching
from saas.lib.errors import Refusal

UNKNOWN = 4404
LARGEST_SEQ = 2_147_483_647


class JobConsumer(AsyncJsonWebsocketConsumer):  # type: ignore[misc]
    """`/ws/jobs/{id}?after=<seq>`: subscribes first, reads the gap, then passes on, dropping what was already sent.

    The channel layer may lose a message: a later number, or a look every few seconds, brings the gap from the rows.
    """

    watch: watching.Watch | None = None
    last = 0

    async def connect(self) -> None:
        """Let the caller in, or close with 4401, 4403 or 4404."""
        await self.accept()
        query = parse_qs(self.scope.get("query_string", b"").decode("latin-1"))
        after = query.get("after", ["0"])[0]
        self.last = min(int(after[:19]), LARGEST_SEQ) if after.isdecimal() else 0
        try:
            self.watch = await self._let_in(query.get("ticket", [""])[0])
        except Refusal as refusal:
            await self.close(code=4000 + refusal.status)
            return
        if self.watch is None:
            await self.close(code=UNKNOWN)
            return
        self.sending = asyncio.Lock()
        await self.channel_layer.group_add(self.watch.topic, self.channel_name)
        await self._catch_up()
        looking.join(self.watch, self)

    async def _let_in(self, ticket: str) -> watching.Watch | None:
        enter = database_sync_to_async(watching.let_in)
        headers = dict(self.scope["headers"])
        job_id = self.scope["url_route"]["kwargs"]["job_id"]
        user = self.scope.get("user")
        user = user if user is not None and user.is_authenticated else None
        watch: watching.Watch | None = await enter(headers, user, ticket=ticket, job_id=job_id)
        return watch

    async def _catch_up(self) -> None:
        """Send every event after the last one sent, from the rows."""
        assert self.watch is not None
        async with self.sending:
            while True:
                events = await database_sync_to_async(watching.missed)(self.watch, self.last)
                for event in events:
                    await self._send(event)
                if len(events) < watching.PAGE:
                    return

    async def _send(self, event: dict[str, Any]) -> None:
        await self.send_json(event)
        self.last = event["seq"]

    async def live_event(self, message: dict[str, Any]) -> None:
        """One published event: dropped when already sent, passed on when next, otherwise the gap is read."""
        event = message["event"]
        if event["seq"] == self.last + 1 and not self.sending.locked():
            async with self.sending:
                await self._send(event)
        elif event["seq"] > self.last:
            await self._catch_up()

    async def looked(self, *, is_welcome: bool, last_seq: int) -> None:
        """What the look of every few seconds found."""
        if not is_welcome:
            await self.close(code=4401)
        elif last_seq > self.last:
            await self._catch_up()

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        """Clients have nothing to say here."""

    async def disconnect(self, code: int) -> None:
        """Leave the group and stop looking."""
        if self.watch is None:
            return
        looking.leave(self.watch, self)
        await self.channel_layer.group_discard(self.watch.topic, self.channel_name)

    @classmethod
    async def decode_json(cls, text_data: str) -> Any:
        """What a client sends is not read, so it need not be JSON."""
        return None
