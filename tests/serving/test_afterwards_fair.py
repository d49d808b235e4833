"""What follows answers is bounded by what really came, and no tenant takes the room of the others."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from modeling.actions import predictions
from modeling.core.personal_data import mask
from modeling.serving import gateway_after
from modeling.serving.addresses import ALL, UnixAddress
from modeling.serving.engines import Engines
from modeling.serving.gateway_metrics import METRICS
from modeling.serving.gateway_shadow import Answered, Shadows
from modeling.serving.targets import Target
from tests.serving.made import EngineProcess, head_parts
from tests.serving.speaking import in_thread, leave_after, lifespan, make_version

pytestmark = [pytest.mark.real_weights]


def answered(tenant: uuid.UUID) -> Answered:
    return Answered(tenant, str(uuid.uuid4()), "classify", {"inputs": ["x"]}, {"results": []}, 0.01)


@pytest.mark.asyncio
async def test_shadows_of_one_tenant_leave_room_for_another(tmp_path: Path) -> None:
    """The engine is away, so that each is asked for as long as the patience lasts."""
    engines = Engines({ALL: (UnixAddress(tmp_path / "away.sock"),)}, patience=30.0)
    shadows, shadow = Shadows(engines), Target("ft:x", "minilm-l6", "classification", str(uuid.uuid4()))
    loud, quiet = uuid.uuid4(), uuid.uuid4()
    for _ in range(8):
        shadows.take(answered(loud), shadow)
    shadows.take(answered(quiet), shadow)
    await asyncio.sleep(0.05)
    taken = shadows.taken()
    await shadows.close()
    await engines.close()
    assert sum(one.dropped for one in taken[loud].values()) == 6
    assert quiet not in taken


@pytest.mark.asyncio
async def test_bodies_without_a_length_count_as_what_they_are(
    api: Any, acme: Any, engine: EngineProcess, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.ENGINE_SOCKET = engine.socket
    monkeypatch.setattr(gateway_after, "MOST_BYTES_WAITING", 200_000)
    version = await in_thread(make_version, acme, *head_parts(5, 1))
    await in_thread(api.post, "/v1/prediction_rules", {"log_days": 1})
    before = METRICS.events["log_dropped"]
    body = {"model": version.name, "inputs": ["fever " * 15_000] * 2}
    async with lifespan():
        sent = await leave_after(api.key, "/v1/classify", body, events=1)
    assert sent[0]["status"] == 200
    assert METRICS.events["log_dropped"] == before + 1, "180 kB are more than half of what may wait"


def test_what_is_too_large_for_the_log_is_not_looked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counted(text: str) -> Any:
        read.append(text)
        return mask(text)

    monkeypatch.setattr(predictions, "mask", counted)

    def kept(*inputs: str) -> bytes:
        now = timezone.now()
        return predictions._content(
            predictions.Entry(None, now, "req_1", "/v1/classify", "m", 1, {"inputs": inputs}, {})
        )

    assert b"[IBAN]" in kept("DE89 3704 0044 0532 0130 00")
    assert len(read) == 1
    assert b"left_out" in kept(*["DE89 3704 0044 0532 0130 00 " * 3_500] * 4)
    assert len(read) == 1
