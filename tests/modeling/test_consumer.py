"""/ws/jobs/{id}: the gap, then live, each event once and in order; strangers are shown out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.routing import URLRouter

from modeling import looking
from modeling.actions import events
from modeling.actions.telling import Told
from modeling.models import Job, JobEvent
from modeling.routing import websocket_urlpatterns
from saas.lib import live
from tenants import actions
from tenants.access import authenticate_key, issue_ticket
from tenants.audit import SYSTEM
from tenants.models import ApiKey, Member, Tenant
from tenants.scope import scope
from tests.modeling.clinic import row_of, started
from tests.modeling.sockets import WebSocket

pytestmark = pytest.mark.asyncio
router = URLRouter(websocket_urlpatterns)
Announce = Callable[[int], Awaitable[None]]


@pytest.fixture
def job(api: Any, acme: Tenant, words_file: str) -> Job:
    return row_of(acme, started(api, words_file)["id"])


@pytest.fixture
def announce(acme: Tenant, job: Job) -> Announce:
    def write(number: int) -> None:
        for index in range(number):
            with scope(acme):
                events.announce(job, JobEvent.Kind.METRICS, f"Step {index}.", data=Told({"step": index}))

    return sync_to_async(write, thread_sensitive=False)


def socket(path: str, *, key: str = "", origin: str = "", user: Any = None) -> WebSocket:
    headers = [(b"authorization", f"Bearer {key}".encode())] if key else []
    headers += [(b"origin", origin.encode())] if origin else []
    return WebSocket(router, path, headers=headers, user=user)


async def opened(communicator: WebSocket) -> WebSocket:
    await communicator.connect()
    return communicator


async def close_code(communicator: WebSocket) -> int:
    await communicator.connect()
    return await communicator.close_code()


async def seqs(communicator: WebSocket, number: int) -> list[int]:
    return [(await communicator.receive_json())["seq"] for _index in range(number)]


async def test_the_gap_then_live_each_once_in_order(api: Any, job: Job, announce: Announce) -> None:
    await announce(10)
    ws = await opened(socket(f"/ws/jobs/{job.public_id}", key=api.key))
    first = await ws.receive_json()
    assert set(first) == {"seq", "at", "type", "data"}
    assert first["seq"] == 1
    await announce(10)
    assert await seqs(ws, job.last_seq + 19) == list(range(2, job.last_seq + 21))
    assert await ws.receive_nothing(timeout=0.3)
    await ws.disconnect()


async def test_a_client_that_comes_back_gets_exactly_what_it_missed(
    api: Any, job: Job, announce: Announce
) -> None:
    await announce(5)
    ws = await opened(socket(f"/ws/jobs/{job.public_id}?after=4", key=api.key))
    assert await seqs(ws, job.last_seq + 1) == list(range(5, job.last_seq + 6))
    assert await ws.receive_nothing(timeout=0.3)
    await ws.disconnect()


async def test_events_while_it_connects_are_neither_lost_nor_doubled(
    api: Any, job: Job, announce: Announce
) -> None:
    writing = asyncio.create_task(announce(60))
    sockets = []
    for _index in range(5):
        sockets.append(await opened(socket(f"/ws/jobs/{job.public_id}", key=api.key)))
        await asyncio.sleep(0.05)
    await writing
    for ws in sockets:
        assert await seqs(ws, job.last_seq + 60) == list(range(1, job.last_seq + 61))
        assert await ws.receive_nothing(timeout=0.1)
        await ws.disconnect()


async def test_a_message_that_the_layer_lost_comes_from_the_rows(
    api: Any, job: Job, announce: Announce, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "LOOK_SECONDS", 0.3)
    ws = await opened(socket(f"/ws/jobs/{job.public_id}?after={job.last_seq}", key=api.key))
    assert await ws.receive_nothing(timeout=0.2)
    with monkeypatch.context() as silent:
        silent.setattr(live, "_send", lambda topic, event: None)
        await announce(3)
    assert await seqs(ws, 3) == [job.last_seq + 1, job.last_seq + 2, job.last_seq + 3]
    await ws.disconnect()


async def test_unknown_and_foreign_jobs_close_with_4404(globex_api: Any, api: Any, job: Job) -> None:
    assert await close_code(socket("/ws/jobs/ftjob-" + "0" * 24, key=api.key)) == 4404
    assert await close_code(socket(f"/ws/jobs/{job.public_id}", key=globex_api.key)) == 4404


async def test_nobody_and_bad_keys_close_with_4401(job: Job) -> None:
    assert await close_code(socket(f"/ws/jobs/{job.public_id}")) == 4401
    assert await close_code(socket(f"/ws/jobs/{job.public_id}", key="ck_live_nonsense")) == 4401


async def test_a_key_without_the_scope_closes_with_4403(people: Any, acme: Tenant, job: Job) -> None:
    key = await sync_to_async(people.key)(acme, "predict")
    assert await close_code(socket(f"/ws/jobs/{job.public_id}", key=key)) == 4403


async def test_a_ticket_opens_once(api: Any, acme: Tenant, job: Job) -> None:
    caller = await sync_to_async(authenticate_key)(api.key)
    ticket = await sync_to_async(issue_ticket)(caller, acme)
    ws = await opened(socket(f"/ws/jobs/{job.public_id}?ticket={ticket}"))
    assert await seqs(ws, 1) == [1]
    await ws.disconnect()
    assert await close_code(socket(f"/ws/jobs/{job.public_id}?ticket={ticket}")) == 4401


async def test_a_session_needs_our_own_origin_and_a_membership(people: Any, acme: Tenant, job: Job) -> None:
    path = f"/ws/jobs/{job.public_id}"
    bob = await sync_to_async(people.user)("bob")
    stranger = await sync_to_async(people.user)("mallory")
    ws = await opened(socket(path, user=bob, origin="http://testserver"))
    assert await seqs(ws, 1) == [1]
    await ws.disconnect()
    assert await close_code(socket(path, user=bob, origin="https://evil.example")) == 4403
    assert await close_code(socket(path, user=bob)) == 4401
    assert await close_code(socket(path, user=stranger, origin="http://testserver")) == 4404


async def test_a_number_without_end_is_a_number(api: Any, job: Job) -> None:
    communicator = await opened(socket(f"/ws/jobs/{job.public_id}?after={'9' * 5000}", key=api.key))
    assert await communicator.receive_nothing(timeout=0.2)  # open, with nothing to catch up on
    await communicator.disconnect()


async def test_a_revoked_key_is_shown_out(
    api: Any, acme: Tenant, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "LOOK_SECONDS", 0.2)
    ws = await opened(socket(f"/ws/jobs/{job.public_id}?after=99", key=api.key))
    assert await ws.receive_nothing(timeout=0.5)

    def revoke() -> None:
        with scope(acme):
            for key in ApiKey.objects.of(acme):
                actions.revoke_key(key, actor=SYSTEM)
            Member.objects.of(acme).count()

    await sync_to_async(revoke)()
    assert await ws.close_code() == 4401
